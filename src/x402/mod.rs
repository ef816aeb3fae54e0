//! The wire: x402 v1 and v2 types, header dialects, challenges, receipts, and the facilitator's API.
//!
//! Knows formats, not policy: what a payment is worth here is for `pricing` and `precheck` to say.

mod dialect;
pub mod facilitator;
pub mod json;
mod network;
mod payment;
mod refusal;
mod requirements;
mod resource;

pub use network::{Network, UnknownNetwork};
pub use payment::{Dialect, MAX_PAYMENT_HEADER, Payload, Payment, PaymentError, PlainTerms, decode};
pub use refusal::{Refusal, Row};
pub use requirements::{Facts, Payable, RequirementV1, RequirementV2, Resource};
pub use resource::{resource_url, same_resource};
