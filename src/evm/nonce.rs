//! The 32 bytes that make an authorization unique.

use super::U256;
use super::hexadecimal::{self, HexError};
use std::fmt;
use std::str::FromStr;

/// The nonce of an authorization: random bytes in EIP-3009, a counter in EIP-2612, any number in Permit2.
///
/// Parses from `0x` and 64 digits in any case, and displays as such in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 32]);

impl Nonce {
    /// A nonce given as a number (Permit2, EIP-2612, and short decimal nonces of plain headers): padded on the left.
    pub const fn from_u256(number: U256) -> Self {
        Self(*number.as_bytes())
    }

    /// The nonce read as a number, most significant byte first: the inverse of [`Nonce::from_u256`].
    pub const fn to_u256(self) -> U256 {
        U256(self.0)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Nonce {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        hexadecimal::decode(text).map(Self)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pads_numbers_on_the_left() {
        let text = format!("0x{}7b", "0".repeat(62));
        assert_eq!(Nonce::from_u256(U256::from(123_u128)).to_string(), text);
        assert_eq!(text.parse(), Ok(Nonce::from_u256(U256::from(123_u128))));
        assert_eq!("0x7b".parse::<Nonce>(), Err(HexError::Length { expected: 64 }));
    }

    proptest! {
        #[test]
        fn reads_back_what_it_writes(bytes: [u8; 32], noise in ".{0,80}") {
            prop_assert_eq!(Nonce(bytes).to_string().parse(), Ok(Nonce(bytes)));
            prop_assert_eq!(Nonce::from_u256(Nonce(bytes).to_u256()), Nonce(bytes));
            let _ = noise.parse::<Nonce>();
        }
    }
}
