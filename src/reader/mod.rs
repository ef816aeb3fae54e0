//! What pricing needs to know of a request's body: facts, never the text.
//!
//! Knows JSON and nothing of routes, prices or payments.

mod facts;

pub use facts::{BodyFacts, Facts, Why};
