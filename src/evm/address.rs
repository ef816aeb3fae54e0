//! Accounts and contracts, compared by value, and the contracts that x402 fixes.

use super::hexadecimal::{self, HexError};
use super::keccak256;
use std::fmt;
use std::str::FromStr;

/// Uniswap's Permit2, at the same address on every chain.
pub const PERMIT2: Address = Address([
    0x00, 0x00, 0x00, 0x00, 0x00, 0x22, 0xd4, 0x73, 0x03, 0x0f, 0x11, 0x6d, 0xde, 0xe9, 0xf6, 0xb4, 0x3a, 0xc7, 0x8b, 0xa3,
]);

/// The spender of Permit2 payments of scheme `exact` (x402 specification, `scheme_exact_evm`).
pub const EXACT_PERMIT2_PROXY: Address = Address([
    0x40, 0x20, 0x85, 0xc2, 0x48, 0xee, 0xa2, 0x7d, 0x92, 0xe8, 0xb3, 0x0b, 0x2c, 0x58, 0xed, 0x07, 0xf9, 0xe2, 0x00, 0x01,
]);

/// The spender of Permit2 payments of scheme `upto` (x402 specification, `scheme_upto_evm`).
pub const UPTO_PERMIT2_PROXY: Address = Address([
    0x40, 0x20, 0xa4, 0xf3, 0xb7, 0xb9, 0x0c, 0xca, 0x42, 0x3b, 0x9f, 0xab, 0xcc, 0x0c, 0xe5, 0x7c, 0x6c, 0x24, 0x00, 0x02,
]);

/// An Ethereum address: the last 20 bytes of the hash of a public key, or a contract's.
///
/// Parses from `0x` and 40 digits in any case (the checksum is not enforced: clients send all of lower, upper and
/// mixed case), and displays with the EIP-55 checksum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 20]);

impl Address {
    /// The 20 bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The address as one ABI word: 12 zero bytes, then the address.
    pub(super) fn to_word(self) -> [u8; 32] {
        let mut word = [0; 32];
        for (to, from) in word.iter_mut().skip(12).zip(self.0) {
            *to = from;
        }
        word
    }

    /// The last 20 bytes of a word, whatever the first 12 are.
    pub(super) fn from_word(word: [u8; 32]) -> Self {
        let mut bytes = [0; 20];
        for (to, from) in bytes.iter_mut().zip(word.into_iter().skip(12)) {
            *to = from;
        }
        Self(bytes)
    }
}

impl FromStr for Address {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        hexadecimal::decode(text).map(Self)
    }
}

impl fmt::Display for Address {
    /// EIP-55: a digit is upper case where the same digit of the hash of the lower-case text is 8 or more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = *b"0x0000000000000000000000000000000000000000";
        let digits = text.split_at_mut(2).1;
        // Cannot fail: there is room for twenty bytes.
        let _ = hex::encode_to_slice(self.0, digits);
        let hash = keccak256(digits);
        let weights = hash.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
        for (digit, weight) in digits.iter_mut().zip(weights) {
            if weight >= 8 {
                digit.make_ascii_uppercase();
            }
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn displays_the_examples_of_eip_55() {
        for text in [
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
            "0x52908400098527886E0F7030069857D2E4169EE7",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(text.to_lowercase().parse(), Ok(address));
            assert_eq!(text.to_uppercase().replace("0X", "0x").parse(), Ok(address));
        }
    }

    #[test]
    fn names_the_contracts_of_the_specification() {
        assert_eq!(PERMIT2.to_string(), "0x000000000022D473030F116dDEE9F6B43aC78BA3");
        assert_eq!(EXACT_PERMIT2_PROXY.to_string(), "0x402085c248EeA27D92E8b30b2C58ed07f9E20001");
        assert_eq!(UPTO_PERMIT2_PROXY.to_string(), "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");
    }

    proptest! {
        #[test]
        fn agrees_with_alloy(bytes: [u8; 20]) {
            let text = Address(bytes).to_string();
            prop_assert_eq!(&text, &alloy_primitives::Address::from(bytes).to_checksum(None));
            prop_assert_eq!(text.parse(), Ok(Address(bytes)));
            prop_assert_eq!(Address::from_word(Address(bytes).to_word()), Address(bytes));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,64}") {
            let _ = text.parse::<Address>();
        }
    }
}
