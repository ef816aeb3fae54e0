//! The facilitator's API: what it is sent, and what its answers mean.
//!
//! Knows no clusters, no timeouts and no retries: bytes in, meaning out.
//! Source: x402 specification, "Facilitator interface"; the reasons come from the published packages.

mod answers;
mod body;
mod reasons;
mod supported;

pub use answers::{MAX_ANSWER, Settle, Settled, Verify, parse_settle, parse_verify};
pub use body::{BodyError, Speaks, verify_or_settle_body};
pub use reasons::{Meaning, classify};
pub use supported::{Kind, Supported, SupportedError};
