//! Counts of tokens.

/// Tokens of one answer, as the backend counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All input, what was read from or written to a cache included.
    pub input: u64,
    /// Input that was read from a cache; at most `input`.
    pub cached_input: u64,
    /// All output, reasoning included.
    pub output: u64,
    /// Output that was reasoning; at most `output`.
    pub reasoning: u64,
}
