//! The time in which a payment is valid.

use super::{Refused, Terms};
use crate::evm::U256;
use crate::replay::UnixSeconds;
use crate::x402::Refusal;

/// Checks `validAfter` and `validBefore` (or a deadline), both in Unix seconds, against the clock and its skew.
///
/// Gives back when a claim on the payment may be forgotten: when it can no longer pass this check.
pub(super) fn check(valid_after: &U256, valid_before: &U256, terms: &Terms<'_>) -> Result<UnixSeconds, Refused> {
    let (now, skew) = (u128::from(terms.now.0), u128::from(terms.bounds.clock_skew));
    let valid_after = valid_after.to_u128().unwrap_or(u128::MAX);
    let valid_before = valid_before.to_u128().unwrap_or(u128::MAX);
    if valid_after > now.saturating_add(skew) {
        return Err(Refused::new(
            Refusal::ValidAfter,
            format!("valid after {valid_after}, it is {now} here"),
        ));
    }
    // What is about to expire cannot be settled any more when the backend has answered.
    if valid_before.saturating_add(u128::from(terms.grace)) <= now.saturating_add(skew) {
        return Err(Refused::new(
            Refusal::ValidBefore,
            format!("valid before {valid_before}, it is {now} here"),
        ));
    }
    let longest = now.saturating_add(u128::from(terms.bounds.max_validity)).saturating_add(skew);
    if valid_before > longest {
        let limit = terms.bounds.max_validity;
        return Err(Refused::new(
            Refusal::ValidityTooLong,
            format!("valid before {valid_before}: at most {limit} s from now are accepted"),
        ));
    }
    Ok(UnixSeconds(u64::try_from(valid_before.saturating_add(skew)).unwrap_or(u64::MAX)))
}
