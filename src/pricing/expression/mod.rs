//! Conditions on a request, in a subset of CEL.
//!
//! Parsed and checked when the configuration is read, so that evaluating is total: it ends within a bounded number of steps, never
//! panics, and what cannot be computed (a field that is missing or of another type, an overflow) is [`Outcome::Undecided`].
//! Source: CEL language definition (`google/cel-spec`, `doc/langdef.md`); what is left out is in docs/PRICING.md.

mod checker;
mod evaluator;
mod lexer;
mod number;
mod parser;
mod scope;
mod syntax;
#[cfg(test)]
mod tests;

pub use scope::Scope;
pub use syntax::ExpressionError;

use crate::evm::keccak256;
use crate::reader::Outcome;
use syntax::{Kind, Node, Variable};

/// A condition that parsed and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    root: Node,
    uses_body: bool,
    fingerprint: u64,
}

impl Expression {
    /// Parses and checks a condition.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and at which column.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let root = parser::parse(text)?;
        checker::check(&root)?;
        let hash = keccak256(text.as_bytes());
        Ok(Self {
            uses_body: uses_body(&root),
            root,
            fingerprint: hash.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes)),
        })
    }

    /// Whether the outcome depends on the body.
    pub fn uses_body(&self) -> bool {
        self.uses_body
    }

    /// What tells conditions apart between the reader and the gate: the first bytes of the text's hash.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Decides the condition for a request.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Outcome {
        match evaluator::boolean(&self.root, scope) {
            Ok(true) => Outcome::True,
            Ok(false) => Outcome::False,
            Err(evaluator::Undecided) => Outcome::Undecided,
        }
    }
}

fn uses_body(node: &Node) -> bool {
    const OF_BODY: [Variable; 4] = [
        Variable::Body,
        Variable::QueryLength,
        Variable::RequiresBrowser,
        Variable::RequestSize,
    ];
    let here = matches!(&node.kind, Kind::Variable(variable) if OF_BODY.contains(variable));
    here || node.children().into_iter().any(uses_body)
}
