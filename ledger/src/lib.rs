//! The parts of x402-ledger, the service that is to sell prepaid credits, which settle top-ups: what is offered, who settles it, and how it
//! is credited once. What keeps the books and listens is still to come: docs/LEDGER.md says what the filter will ask of it.

pub mod api;
pub mod payments;
pub mod store;
