//! Unsigned 256-bit numbers: kept, compared and written, never calculated with.

use std::fmt;
use std::str::FromStr;

/// Decimal digits of the largest number, 2^256 - 1.
const MAX_DIGITS: usize = 78;
/// Decimal digits taken at a time: the most that a `u64` holds.
const CHUNK_DIGITS: usize = 19;
/// 10 to the power of [`CHUNK_DIGITS`].
const CHUNK: u128 = 10_000_000_000_000_000_000;

/// An unsigned number below 2^256, most significant byte first. Orders by value.
///
/// x402 writes such numbers as decimal strings: amounts in the smallest unit, times in seconds since 1970.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct U256(pub [u8; 32]);

/// Why a string is not a decimal number below 2^256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecimalError {
    /// Nothing at all.
    Empty,
    /// Something that is not a decimal digit; signs, spaces, `0x` and separators are not accepted.
    Digit,
    /// More than 78 digits, leading zeros included.
    TooLong,
    /// The number is 2^256 or more.
    Overflow,
}

impl fmt::Display for DecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "expected a decimal number, found nothing",
            Self::Digit => "expected decimal digits only",
            Self::TooLong => "expected at most 78 decimal digits",
            Self::Overflow => "expected a number below 2^256",
        })
    }
}

impl std::error::Error for DecimalError {}

impl U256 {
    /// Zero.
    pub const ZERO: Self = Self([0; 32]);
    /// 2^256 - 1, which tokens read as "unlimited".
    pub const MAX: Self = Self([0xff; 32]);

    /// Reads decimal digits; leading zeros are allowed, signs are not.
    pub fn from_dec_str(text: &str) -> Result<Self, DecimalError> {
        if text.is_empty() {
            return Err(DecimalError::Empty);
        }
        if text.len() > MAX_DIGITS {
            return Err(DecimalError::TooLong);
        }
        let mut limbs = [0_u64; 4]; // least significant first
        for chunk in text.as_bytes().chunks(CHUNK_DIGITS) {
            let mut scale = 1_u64;
            let mut value = 0_u64;
            for byte in chunk {
                if !byte.is_ascii_digit() {
                    return Err(DecimalError::Digit);
                }
                // Cannot wrap: 10^19 fits.
                scale = scale.wrapping_mul(10);
                value = value.wrapping_mul(10).wrapping_add(u64::from(byte.wrapping_sub(b'0')));
            }
            let mut carry = u128::from(value);
            for limb in &mut limbs {
                // Cannot wrap: (2^64 - 1)^2 + (2^64 - 1) < 2^128.
                carry = u128::from(*limb).wrapping_mul(u128::from(scale)).wrapping_add(carry);
                *limb = carry as u64;
                carry >>= 64;
            }
            if carry != 0 {
                return Err(DecimalError::Overflow);
            }
        }
        let [a, b, c, d] = limbs;
        let (low, high) = (u128::from(b) << 64 | u128::from(a), u128::from(d) << 64 | u128::from(c));
        Ok(Self::from_halves(high, low))
    }

    /// The number as `u128`, or `None` if it does not fit.
    pub fn to_u128(self) -> Option<u128> {
        match self.halves() {
            (0, low) => Some(low),
            _ => None,
        }
    }

    /// The number as `u64`, or `None` if it does not fit: times and counters.
    pub fn to_u64(self) -> Option<u64> {
        self.to_u128().and_then(|number| number.try_into().ok())
    }

    /// The 32 bytes, most significant first: also its ABI word.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn from_halves(high: u128, low: u128) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(high.to_be_bytes().into_iter().chain(low.to_be_bytes())) {
            *to = from;
        }
        Self(bytes)
    }

    fn halves(self) -> (u128, u128) {
        let (mut high, mut low) = ([0; 16], [0; 16]);
        for (to, from) in high.iter_mut().chain(&mut low).zip(self.0) {
            *to = from;
        }
        (u128::from_be_bytes(high), u128::from_be_bytes(low))
    }
}

impl From<u128> for U256 {
    fn from(number: u128) -> Self {
        Self::from_halves(0, number)
    }
}

impl From<u64> for U256 {
    fn from(number: u64) -> Self {
        u128::from(number).into()
    }
}

impl FromStr for U256 {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        Self::from_dec_str(text)
    }
}

impl fmt::Display for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = self.halves();
        // Most significant first: dividing goes from there.
        let mut limbs = [(high >> 64) as u64, high as u64, (low >> 64) as u64, low as u64];
        let mut text = String::new();
        while limbs.iter().any(|limb| *limb != 0) {
            let mut rest = 0_u128;
            for limb in &mut limbs {
                let dividend = rest << 64 | u128::from(*limb);
                *limb = dividend.wrapping_div(CHUNK) as u64; // fits, as rest < CHUNK
                rest = dividend.wrapping_rem(CHUNK);
            }
            text = format!("{rest:019}{text}");
        }
        let text = text.trim_start_matches('0');
        f.pad_integral(true, "", if text.is_empty() { "0" } else { text })
    }
}

impl fmt::Debug for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";

    #[test]
    fn reads_the_edges() {
        assert_eq!(U256::from_dec_str("0"), Ok(U256::ZERO));
        assert_eq!(U256::from_dec_str("0001000"), Ok(U256::from(1000_u64)));
        assert_eq!(U256::from_dec_str(&"0".repeat(78)), Ok(U256::ZERO));
        assert_eq!(U256::from_dec_str(&"0".repeat(79)), Err(DecimalError::TooLong));
        assert_eq!(U256::from_dec_str(MAX), Ok(U256::MAX));
        assert_eq!(U256::MAX.to_string(), MAX);
        assert_eq!(U256::ZERO.to_string(), "0");
        for over in [MAX.replace("9935", "9936"), "9".repeat(78)] {
            assert_eq!(U256::from_dec_str(&over), Err(DecimalError::Overflow));
        }
    }

    #[test]
    fn refuses_what_is_not_plain_decimal() {
        assert_eq!(U256::from_dec_str(""), Err(DecimalError::Empty));
        for text in ["+1", "-1", " 1", "1 ", "1_000", "1.0", "0x10", "1e3", "١", "\0"] {
            assert_eq!(U256::from_dec_str(text), Err(DecimalError::Digit), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_alloy(bytes: [u8; 32], zeros in 0_usize..32, other: [u8; 32]) {
            let mut bytes = bytes;
            bytes[..zeros].fill(0);
            let theirs = alloy_primitives::U256::from_be_bytes(bytes);
            let ours = U256(bytes);
            prop_assert_eq!(ours.to_string(), theirs.to_string());
            prop_assert_eq!(U256::from_dec_str(&theirs.to_string()), Ok(ours));
            prop_assert_eq!(ours.to_u128(), u128::try_from(theirs).ok());
            prop_assert_eq!(ours.to_u64(), u64::try_from(theirs).ok());
            prop_assert_eq!(ours.cmp(&U256(other)), theirs.cmp(&alloy_primitives::U256::from_be_bytes(other)));
        }

        #[test]
        fn agrees_with_alloy_on_digits(text in "[0-9]{1,78}") {
            prop_assert_eq!(
                U256::from_dec_str(&text).ok().map(|number| number.0),
                alloy_primitives::U256::from_str_radix(&text, 10).ok().map(|number| number.to_be_bytes()),
            );
        }

        #[test]
        fn keeps_u128(number: u128) {
            prop_assert_eq!(U256::from(number).to_u128(), Some(number));
            prop_assert_eq!(U256::from(number).to_string(), number.to_string());
        }

        #[test]
        fn parsing_never_panics(text in ".{0,100}") {
            let _ = text.parse::<U256>();
        }
    }
}
