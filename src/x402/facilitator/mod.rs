//! The facilitator's API: what it is sent, and what its answers mean.
//!
//! Knows no clusters, no timeouts and no retries: bytes in, meaning out.
//! Source: x402 specification, "Facilitator interface"; the reasons come from the published packages.

mod answers;
mod body;
mod reasons;
mod settle;
mod supported;
mod verify;

pub use answers::{MAX_ANSWER, is_answer};
pub use body::{BodyError, Speaks, verify_or_settle_body};
pub use reasons::{Meaning, classify};
pub use settle::{Settle, Settled, parse_settle};
pub use supported::{Kind, Supported, SupportedError};
pub use verify::{Verify, parse_verify};
