//! The facilitator's API: what it is sent, and what its answers mean.
//!
//! Knows no clusters, no timeouts and no retries: bytes in, meaning out.
//! Source: x402 specification, "Facilitator interface"; the reasons come from the published packages.

mod answers;

pub use answers::{Settle, Settled, Verify};
