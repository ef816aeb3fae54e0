//! x402-ledger: the companion service that sells prepaid credits.

pub mod api;
pub mod payments;
