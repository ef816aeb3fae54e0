//! What pricing needs to know of a request's body: facts, never the text; and what has to be changed in it.
//!
//! Knows JSON and nothing of routes, prices or payments.

mod external;
mod facts;
mod handover;
mod input;
mod read;
mod rewrite;
mod spelling;
mod tokens;
mod top_level;
mod unpriced;

pub use facts::{Api, BodyFacts, Facts, MAX_MODEL_BYTES, MAX_OUTCOMES, Outcome, Rewrite, TokenFacts, Why};
pub use handover::{decode, encode};
pub use input::{query_length, url_query_length};
pub use read::{read_body, read_document};
pub use rewrite::rewrite;
pub use tokens::{api_of, read_tokens};
pub use unpriced::Unpriced;
