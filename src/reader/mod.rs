//! What pricing needs to know of a request's body: facts, never the text.
//!
//! Knows JSON and nothing of routes, prices or payments.

mod document;
mod facts;
mod handover;
mod read;
mod top_level;

pub use document::Json;
pub use facts::{Api, BodyFacts, Facts, MAX_MODEL_BYTES, MAX_OUTCOMES, Outcome, Rewrite, TokenFacts, Why};
pub use handover::{decode, encode};
pub use read::read_body;
