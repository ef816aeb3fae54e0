//! `0x`-prefixed hexadecimal, as x402 payloads carry addresses, nonces and signatures.

use std::fmt;

/// Why a string is not the hexadecimal value that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HexError {
    /// It does not start with `0x` (`0X` is not accepted).
    Prefix,
    /// It has another number of digits than this, counted without the prefix.
    Length {
        /// The number of digits that was expected.
        expected: usize,
    },
    /// Something after the prefix is not a hexadecimal digit.
    Digit,
}

impl fmt::Display for HexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => f.write_str("expected a 0x prefix"),
            Self::Length { expected } => {
                write!(f, "expected {expected} hexadecimal digits after 0x")
            }
            Self::Digit => f.write_str("not a hexadecimal digit"),
        }
    }
}

impl std::error::Error for HexError {}

/// Reads `0x` and exactly `2 * N` digits, in any case.
pub(super) fn decode<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let digits = text.strip_prefix("0x").ok_or(HexError::Prefix)?;
    let expected = N.saturating_mul(2);
    if digits.len() != expected {
        return Err(HexError::Length { expected });
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| HexError::Digit)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tells_what_is_wrong() {
        assert_eq!(decode::<2>("0xaBcD"), Ok([0xab, 0xcd]));
        assert_eq!(decode::<2>("abcd"), Err(HexError::Prefix));
        assert_eq!(decode::<2>("0Xabcd"), Err(HexError::Prefix));
        assert_eq!(decode::<2>(""), Err(HexError::Prefix));
        assert_eq!(decode::<2>("0xabc"), Err(HexError::Length { expected: 4 }));
        assert_eq!(decode::<2>("0xabcde"), Err(HexError::Length { expected: 4 }));
        assert_eq!(decode::<2>("0xabcg"), Err(HexError::Digit));
        assert_eq!(decode::<2>("0xéé"), Err(HexError::Digit));
        assert_eq!(decode::<2>("0x+1-1"), Err(HexError::Digit));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*", tail in "\\PC{0,8}") {
            let _ = decode::<4>(&text);
            let _ = decode::<4>(&format!("0x{tail}"));
        }

        #[test]
        fn reads_back_what_was_written(bytes: [u8; 32]) {
            prop_assert_eq!(decode::<32>(&format!("0x{}", hex::encode(bytes))), Ok(bytes));
            prop_assert_eq!(decode::<32>(&format!("0x{}", hex::encode_upper(bytes))), Ok(bytes));
        }
    }
}
