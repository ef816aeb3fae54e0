//! Numbers of conditions: exact decimals, whatever JSON wrote them as.

use core::cmp::Ordering;

use crate::doubles;

/// Most decimal places that are kept.
const MAX_PLACES: u32 = 18;

/// `mantissa` divided by ten to the power of `places`; no zero at the end, so that equal numbers are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    mantissa: i128,
    places: u32,
}

impl Number {
    fn new(mut mantissa: i128, mut places: u32) -> Option<Self> {
        while places > 0 && mantissa.checked_rem(10) == Some(0) {
            mantissa = mantissa.checked_div(10)?;
            places = places.checked_sub(1)?;
        }
        (places <= MAX_PLACES).then_some(Self { mantissa, places })
    }

    /// A whole number.
    pub(super) fn whole(number: u64) -> Self {
        Self {
            mantissa: i128::from(number),
            places: 0,
        }
    }

    /// Reads `12`, `-1`, `0.25`; also what `f64` displays, which is the shortest text that reads back the same.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mut mantissa = 0i128;
        for digit in whole.chars().chain(fraction.trim_end_matches('0').chars()) {
            mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit.to_digit(10)?))?;
        }
        let places = u32::try_from(fraction.trim_end_matches('0').len()).ok()?;
        let well_formed = !whole.is_empty() && (!digits.contains('.') || !fraction.is_empty());
        Self::new(if negative { mantissa.checked_neg()? } else { mantissa }, places).filter(|_| well_formed)
    }

    /// A double as the decimal that it is written as; `None` if that is out of range.
    pub(super) fn from_double(number: f64) -> Option<Self> {
        doubles::written(number).and_then(|text| Self::parse(&text))
    }

    /// Both over the finer of the two divisors.
    fn aligned(self, other: Self) -> Option<(i128, i128, u32)> {
        let places = self.places.max(other.places);
        let scaled = |number: Self| {
            let factor = 10i128.checked_pow(places.checked_sub(number.places)?)?;
            number.mantissa.checked_mul(factor)
        };
        Some((scaled(self)?, scaled(other)?, places))
    }

    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        self.aligned(other).map(|(a, b, _)| a.cmp(&b))
    }

    pub(super) fn add(self, other: Self) -> Option<Self> {
        let (a, b, places) = self.aligned(other)?;
        Self::new(a.checked_add(b)?, places)
    }

    pub(super) fn subtract(self, other: Self) -> Option<Self> {
        self.add(other.negate()?)
    }

    pub(super) fn multiply(self, other: Self) -> Option<Self> {
        Self::new(self.mantissa.checked_mul(other.mantissa)?, self.places.checked_add(other.places)?)
    }

    /// Of whole numbers, towards zero.
    pub(super) fn divide(self, other: Self) -> Option<Self> {
        Self::new(self.as_whole()?.checked_div(other.as_whole()?)?, 0)
    }

    /// What is left of whole numbers; with the sign of the first.
    pub(super) fn remainder(self, other: Self) -> Option<Self> {
        Self::new(self.as_whole()?.checked_rem(other.as_whole()?)?, 0)
    }

    pub(super) fn negate(self) -> Option<Self> {
        Self::new(self.mantissa.checked_neg()?, self.places)
    }

    fn as_whole(self) -> Option<i128> {
        (self.places == 0).then_some(self.mantissa)
    }

    /// As a position in a list.
    pub(super) fn index(self) -> Option<usize> {
        self.as_whole().and_then(|whole| usize::try_from(whole).ok())
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "bounded by the generators")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(number("0.1").add(number("0.2")), Some(number("0.3")));
        assert_eq!(number("1.50"), number("1.5"));
        assert_eq!(number("2.0"), Number::whole(2));
        assert_eq!(number("1.5").multiply(number("4")), Some(number("6")));
        assert_eq!(number("-7").divide(number("2")), Some(number("-3")));
        assert_eq!(number("-7").remainder(number("2")), Some(number("-1")));
        assert_eq!(number("1").subtract(number("1.25")), Some(number("-0.25")));
        assert_eq!(number("2.50").compare(number("2.5")), Some(Ordering::Equal));
        assert_eq!(Number::from_double(0.1), Some(number("0.1")));
        assert_eq!(Number::from_double(4096.0), Some(number("4096")));
    }

    #[test]
    fn what_cannot_be_computed_is_nothing() {
        assert_eq!(number("1").divide(number("0")), None);
        assert_eq!(number("1").remainder(number("0")), None);
        assert_eq!(number("1.5").divide(number("2")), None);
        assert_eq!(number("0.000000001").multiply(number("0.0000000001")), None);
        for text in ["", "-", ".", "1.", ".5", "1e3", "+1", "1..2", "--1", "é"] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
        assert_eq!(Number::from_double(1e300), None);
        assert_eq!(Number::from_double(f64::NAN), None);
    }

    proptest! {
        #[test]
        fn doubles_never_panic(bits in any::<u64>()) {
            let _ = Number::from_double(f64::from_bits(bits));
        }

        #[test]
        fn whole_numbers_compute_as_integers_do(a in any::<i64>(), b in any::<i64>()) {
            let (x, y) = (number(&a.to_string()), number(&b.to_string()));
            prop_assert_eq!(x.compare(y), Some(a.cmp(&b)));
            prop_assert_eq!(x.multiply(y), Number::new(i128::from(a) * i128::from(b), 0));
            prop_assert_eq!(x.divide(y), i128::from(a).checked_div(i128::from(b)).and_then(|n| Number::new(n, 0)));
        }
    }
}
