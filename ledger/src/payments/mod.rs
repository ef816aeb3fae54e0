//! Payments: what a top-up may cost, who is asked to settle it, and how it is credited exactly once.
//!
//! Knows x402 and facilitators; what is remembered is behind [`books::Books`].

pub mod books;
pub mod challenge;
pub mod cipher;
pub mod claims;
pub mod facilitator;
mod inference;
pub mod offers;
pub mod sweeper;
pub mod topup;
