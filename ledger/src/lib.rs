//! x402-ledger: sells prepaid credits to whoever has an API key, for x402-envoy's filter. See docs/CREDITS.md and docs/LEDGER.md.

pub mod api;
pub mod cli;
pub mod metrics;
pub mod payments;
pub mod reconcile;
pub mod resolve;
pub mod serve;
pub mod settings;
pub mod store;
