//! `per_minute`: wall time of the answer, rounded up to the minute.

use super::offer::Atomic;
use super::rate::Rates;

/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;

/// A price per minute.
///
/// ```yaml
/// price: {per_minute: {amount: "$0.10", minimum: 1, maximum: 30}}
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerMinute {
    /// What a minute costs, for each of the route's offers in their order.
    pub(crate) rates: Vec<Rates<1>>,
    /// Minutes that are charged at least.
    pub(crate) minimum: u64,
    /// Minutes that are quoted, and after which the answer is ended; not below `minimum`, at least 1.
    pub(crate) maximum: u64,
}

impl PerMinute {
    /// The minutes that are charged for an answer of this duration: begun minutes count, at least `minimum`, at most `maximum`.
    pub fn minutes(&self, duration_ms: u64) -> u64 {
        duration_ms.div_ceil(MINUTE_MS).clamp(self.minimum, self.maximum.max(self.minimum))
    }

    /// When an answer is to be ended, in milliseconds after its beginning.
    pub fn longest_ms(&self) -> u64 {
        self.maximum.saturating_mul(MINUTE_MS)
    }

    /// What so many minutes cost, for the offer at an index; `None` if there is no such offer or 128 bits cannot hold it.
    pub(crate) fn cost(&self, offer: usize, minutes: u64) -> Option<Atomic> {
        self.rates
            .get(offer)?
            .cost([minutes.clamp(self.minimum, self.maximum.max(self.minimum))])
    }
}
