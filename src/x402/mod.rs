//! The wire: x402 v1 and v2 types, header dialects, challenges, receipts, and the facilitator's API.
//!
//! Knows formats, not policy: what a payment is worth here is for `pricing` and `precheck` to say.

mod network;
mod refusal;

pub use network::{Network, UnknownNetwork};
pub use refusal::{Refusal, Row};
