//! The wire: x402 v1 and v2 types, header dialects, challenges, receipts, and the facilitator's API.
//!
//! Knows formats, not policy: what a payment is worth here is for `pricing` and `precheck` to say.

pub mod base58;
mod challenge;
mod clean;
mod dialect;
pub mod facilitator;
mod json;
mod matching;
mod network;
mod payment;
mod receipt;
#[cfg(test)]
mod recorded;
mod refusal;
mod requirements;
mod resource;
pub mod solana;

pub use challenge::{Answer, BodyStyle, Challenge, HEADER_BUDGET, Hints};
pub use clean::{MAX_CLEAN, clean};
pub use matching::{fits, matches};
pub use network::{Network, UnknownNetwork};
pub use payment::{Dialect, MAX_PAYMENT_HEADER, Payload, Payment, PaymentError, PlainTerms, decode};
pub use receipt::Receipt;
pub use refusal::{Refusal, Row};
pub use requirements::{Facts, Payable, RequirementV1, RequirementV2, Resource};
pub use resource::{resource_url, same_resource};

/// Base64 as all headers are written: standard alphabet, with padding.
fn base64_encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
