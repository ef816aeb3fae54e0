//! Rates: what one of something costs, as an exact fraction of an asset's smallest unit. Rounding is up, once, at the end.

use super::money::{Decimal, MoneyError};
use super::offer::Atomic;

/// Several amounts of one currency, as fractions with one divisor: `numerator / divisor` smallest units of an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates<const N: usize> {
    pub(crate) numerators: [u128; N],
    /// A power of ten, at least 1.
    pub(crate) divisor: u128,
}

impl<const N: usize> Rates<N> {
    /// Brings amounts to a common divisor, for an asset of so many decimals.
    pub(crate) fn new(amounts: [Decimal; N], decimals: u8) -> Result<Self, MoneyError> {
        let decimals = u32::from(decimals);
        let finest = amounts.iter().map(Decimal::scale).max().unwrap_or(0);
        let places = finest.saturating_sub(decimals);
        let divisor = 10u128.checked_pow(places).ok_or(MoneyError::TooFine)?;
        let mut numerators = [0; N];
        for (numerator, amount) in numerators.iter_mut().zip(&amounts) {
            let missing = decimals.saturating_add(places).saturating_sub(amount.scale());
            let factor = 10u128.checked_pow(missing).ok_or(MoneyError::TooLarge)?;
            *numerator = amount.mantissa().checked_mul(factor).ok_or(MoneyError::TooLarge)?;
        }
        Ok(Self { numerators, divisor })
    }

    /// What so many of each cost together, rounded up; `None` if 128 bits cannot hold it.
    pub(crate) fn cost(&self, counts: [u64; N]) -> Option<Atomic> {
        let mut sum = 0u128;
        for (numerator, count) in self.numerators.iter().zip(counts) {
            sum = sum.checked_add(numerator.checked_mul(u128::from(count))?)?;
        }
        Some(Atomic(sum.div_ceil(self.divisor)))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "bounded by the generators")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rates<const N: usize>(amounts: [&str; N], decimals: u8) -> Result<Rates<N>, MoneyError> {
        Rates::new(amounts.map(|text| Decimal::parse_from_zero(text, true).unwrap()), decimals)
    }

    #[test]
    fn a_sum_is_rounded_once() {
        // 3 × 2.5 + 1 × 10 = 17.5 millionths: 18. Rounded one by one it would be 19 and more.
        let rates = rates(["$0.0000025", "$0.00001"], 6).unwrap();
        assert_eq!(rates.divisor, 10);
        assert_eq!(rates.numerators, [25, 100]);
        assert_eq!(rates.cost([3, 1]), Some(Atomic(18)));
        assert_eq!(rates.cost([0, 0]), Some(Atomic(0)));
        assert_eq!(rates.cost([1, 0]), Some(Atomic(3)));
        assert_eq!(rates.cost([2, 0]), Some(Atomic(5)));
    }

    #[test]
    fn coarse_amounts_need_no_divisor_and_zero_costs_nothing() {
        let rates = rates(["0", "1.5"], 18).unwrap();
        assert_eq!(rates.divisor, 1);
        assert_eq!(rates.cost([u64::MAX, 2]), Some(Atomic(3_000_000_000_000_000_000)));
    }

    #[test]
    fn what_128_bits_do_not_hold_is_said() {
        assert_eq!(rates(["1000"], 36), Err(MoneyError::TooLarge));
        let finer = format!("0.{}1", "0".repeat(45));
        assert_eq!(rates([&*finer], 6), Err(MoneyError::TooFine));
        assert_eq!(rates(["100000000000000000000"], 18).unwrap().cost([u64::MAX]), None);
    }

    proptest! {
        #[test]
        fn no_rounding_loses_a_unit(a in 0u64..1_000_000, b in 0u64..1_000_000, scale in 0u32..12, m in 0u64..1_000_000_000, n in 0u64..1_000_000_000) {
            let text = |mantissa: u64| {
                let digits = format!("{mantissa:0>13}");
                let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
                if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
            };
            let rates = rates([&*text(m), &*text(n)], 6).unwrap();
            let units = rates.cost([a, b]).unwrap().0;
            // In units of 10^-12 dollars times 10^-6: exact in 128 bits.
            let exact = (u128::from(a) * u128::from(m) + u128::from(b) * u128::from(n)) * 1_000_000;
            let divisor = 10u128.pow(scale);
            prop_assert!(units * divisor >= exact);
            prop_assert!(units == 0 || (units - 1) * divisor < exact);
        }
    }
}
