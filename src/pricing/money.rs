//! Money: decimal strings and whole numbers of an asset's smallest unit. Nothing here is floating point.

use core::fmt;

use super::offer::Atomic;

/// Longest decimal that is read, in bytes.
const LONGEST: usize = 64;

/// An amount of a currency, or a factor, exact and not negative: `mantissa` divided by ten to the power of `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    mantissa: u128,
    scale: u32,
}

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoneyError {
    /// Not of the form `1`, `0.01` or `$0.01`.
    NotDecimal,
    /// Nothing: that is what `price: free` is for.
    Zero,
    /// More than 128 bits can hold.
    TooLarge,
    /// More decimal places than can be computed with.
    TooFine,
}

impl fmt::Display for MoneyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotDecimal => "a decimal amount such as \"$0.01\"",
            Self::Zero => "an amount above zero (for no charge: price: free)",
            Self::TooLarge => "a smaller amount",
            Self::TooFine => "an amount with fewer decimal places",
        })
    }
}

impl Decimal {
    /// Nothing.
    pub(crate) const ZERO: Self = Self { mantissa: 0, scale: 0 };

    /// Reads `1`, `0.01` or, where `dollars`, also `$0.01`; above zero. No sign, no exponent, a digit on both sides of the point.
    pub fn parse(text: &str, dollars: bool) -> Result<Self, MoneyError> {
        Self::parse_from_zero(text, dollars).and_then(|amount| if amount.is_zero() { Err(MoneyError::Zero) } else { Ok(amount) })
    }

    /// The same, where zero is an amount too: a part of a price may cost nothing.
    pub fn parse_from_zero(text: &str, dollars: bool) -> Result<Self, MoneyError> {
        let digits = if dollars { text.strip_prefix('$').unwrap_or(text) } else { text };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(MoneyError::NotDecimal),
            Some(parts) => parts,
            None => (digits, ""),
        };
        let all_digits = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits || text.len() > LONGEST {
            return Err(MoneyError::NotDecimal);
        }
        let fraction = fraction.trim_end_matches('0');
        let mut mantissa: u128 = 0;
        for digit in whole.chars().chain(fraction.chars()).filter_map(|c| c.to_digit(10)) {
            mantissa = mantissa
                .checked_mul(10)
                .and_then(|m| m.checked_add(u128::from(digit)))
                .ok_or(MoneyError::TooLarge)?;
        }
        let scale = u32::try_from(fraction.len()).map_err(|_| MoneyError::TooLarge)?;
        Ok(Self { mantissa, scale })
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    pub(crate) fn mantissa(&self) -> u128 {
        self.mantissa
    }

    pub(crate) fn scale(&self) -> u32 {
        self.scale
    }

    /// The amount in an asset's smallest unit, rounded up.
    pub fn to_atomic(self, decimals: u8) -> Result<Atomic, MoneyError> {
        let decimals = u32::from(decimals);
        let power = |exponent: u32| 10u128.checked_pow(exponent);
        if let Some(missing) = decimals.checked_sub(self.scale) {
            let units = power(missing).and_then(|factor| self.mantissa.checked_mul(factor));
            return units.map(Atomic).ok_or(MoneyError::TooLarge);
        }
        // Above ten to the power of 38 a divisor is larger than any mantissa: one unit.
        let divisor = power(self.scale.saturating_sub(decimals));
        Ok(Atomic(
            divisor.map_or(u128::from(!self.is_zero()), |divisor| self.mantissa.div_ceil(divisor)),
        ))
    }
}

impl Atomic {
    /// The amount as a decimal string without needless zeros: `0.01` for 10000 units of an asset with 6 decimals.
    pub fn to_decimal(self, decimals: u8) -> String {
        let mut digits = self.0.to_string();
        let places = usize::from(decimals);
        if places == 0 {
            return digits;
        }
        if digits.len() <= places {
            let missing = places.saturating_sub(digits.len()).saturating_add(1);
            digits.insert_str(0, &"0".repeat(missing));
        }
        digits.insert(digits.len().saturating_sub(places), '.');
        digits.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "bounded by the generators")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn atomic(text: &str, decimals: u8) -> Result<u128, MoneyError> {
        Decimal::parse(text, true)?.to_atomic(decimals).map(|atomic| atomic.0)
    }

    #[test]
    fn amounts_are_exact_and_rounded_up() {
        for (text, decimals, units) in [
            ("$0.01", 6, 10_000),
            ("0.01", 6, 10_000),
            ("1", 6, 1_000_000),
            ("$1.50", 2, 150),
            ("0.0000025", 6, 3),
            ("0.000000000000000001", 18, 1),
            ("0.0000001", 6, 1),
            ("0.1", 0, 1),
            ("1.1", 0, 2),
            ("007", 0, 7),
            ("0.00000000000000000000000000000000000000000000000001", 6, 1),
            ("1.0000000000000000000000000000000000000000000000000", 6, 1_000_000),
        ] {
            assert_eq!(atomic(text, decimals), Ok(units), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "", "$", "-1", "+1", "1e3", ".5", "1.", "1,5", "$ 1", "0x1", "1.2.3", " 1", "€1", "$$1", "١",
        ] {
            assert_eq!(atomic(text, 6), Err(MoneyError::NotDecimal), "{text}");
        }
        assert_eq!(Decimal::parse("$1", false), Err(MoneyError::NotDecimal));
        assert_eq!(atomic("0.00", 6), Err(MoneyError::Zero));
        assert_eq!(atomic("340282366920938463463374607431768211456", 0), Err(MoneyError::TooLarge));
        assert_eq!(atomic("1000", 36), Err(MoneyError::TooLarge));
    }

    #[test]
    fn amounts_are_shown_plainly() {
        for (units, decimals, text) in [
            (10_000, 6, "0.01"),
            (1_000_000, 6, "1"),
            (1, 18, "0.000000000000000001"),
            (0, 6, "0"),
            (120, 0, "120"),
            (1_234_567, 6, "1.234567"),
        ] {
            assert_eq!(Atomic(units).to_decimal(decimals), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(units in 1u128.., decimals in 0u8..=36) {
            let shown = Atomic(units).to_decimal(decimals);
            prop_assert_eq!(Decimal::parse(&shown, false).unwrap().to_atomic(decimals), Ok(Atomic(units)));
        }

        #[test]
        fn rounding_up_is_by_less_than_one_unit(mantissa in 1u64.., scale in 1usize..12, decimals in 0u8..8) {
            let digits = format!("{mantissa:0>13}");
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let units = atomic(&format!("{whole}.{fraction}"), decimals).unwrap();
            let exact = u128::from(mantissa) * 10u128.pow(u32::from(decimals));
            let divisor = 10u128.pow(u32::try_from(scale).unwrap());
            prop_assert!(units * divisor >= exact && (units - 1) * divisor < exact);
        }
    }
}
