//! Tokens guessed from bytes, for what the backend did not count.

/// The fewest bytes that a token stands for: tokenizers work on bytes, and every token is of at least one.
pub const BYTES_PER_TOKEN_LEAST: u64 = 1;

/// The bytes that a token stands for on average, in English and in code. Other scripts have fewer tokens to a byte
/// of UTF-8 than this says, or about as many.
pub const BYTES_PER_TOKEN_USUAL: u64 = 4;

/// Tokens that a text of so many bytes cannot exceed.
///
/// With the size of a request's body it also covers what a chat template adds: the JSON around a message is longer.
pub fn tokens_upper(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN_LEAST)
}

/// Tokens that a text of so many bytes has, roughly, rounded up: at least one unless it is empty.
pub fn tokens_estimate(text_bytes: u64) -> u64 {
    text_bytes.div_ceil(BYTES_PER_TOKEN_USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_tokens_rounded_up() {
        assert_eq!([0, 1, 4, 5, u64::MAX].map(tokens_estimate), [0, 1, 1, 2, 1 << 62]);
        assert_eq!([0, 1, u64::MAX].map(tokens_upper), [0, 1, u64::MAX]);
    }
}
