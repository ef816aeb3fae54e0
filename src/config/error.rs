//! What is wrong with a configuration, told so that it can be found and mended.

use core::fmt;

/// One mistake in a configuration.
///
/// Displayed as `routes[2].price.per_request: found "0.01x", expected a decimal amount such as "$0.01"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where: `routes[2].price.per_request`; empty for the document itself.
    pub path: String,
    /// The value as JSON, shortened; `a secret` in place of a secret one, `nothing` where a required field is missing.
    pub found: String,
    /// What would have been right.
    pub expected: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "(configuration)" } else { &self.path };
        write!(f, "{path}: found {}, expected {}", self.found, self.expected)
    }
}

impl core::error::Error for ConfigError {}
