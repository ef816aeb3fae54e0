//! How much each payer has asked for lately: requests and money in a window of time, and when the last request was.

use super::table::{Entry, Put, Table};
use super::{ClaimKey, Contended, SharedStore, UnixSeconds};
use std::ops::Range;

/// The most that a payer may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// The length of a window, in milliseconds. It begins with the first request in it.
    pub window_ms: u64,
    /// Requests in a window; `None`: any number.
    pub requests: Option<u32>,
    /// Money in a window, in millionths; `None`: any amount.
    pub spend: Option<u64>,
    /// From one request to the next, in milliseconds.
    pub cooldown_ms: u64,
}

/// A request is one too many. In so many milliseconds it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch {
    /// At least 1.
    pub again_in_ms: u64,
}

/// How a request was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// When its window ends.
    ends_ms: u64,
    /// Until when the payer has to wait for it.
    rests_ms: u64,
}

/// What the records in a store say, by payer: 46 bytes for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    table: Table,
}

impl Rates {
    /// Room for so many payers. One more takes the place of the one whose window ends first.
    pub const fn new(max_records: u32) -> Self {
        Self {
            table: Table::new("rates/1", max_records),
        }
    }

    /// Counts a request over so many millionths, if it is within the limits.
    ///
    /// # Errors
    ///
    /// [`Contended`]: it was not counted.
    pub fn count(
        &self,
        store: &(impl SharedStore + ?Sized),
        payer: &ClaimKey,
        limits: &RateLimits,
        amount: u64,
        now_ms: u64,
    ) -> Result<Result<Counted, TooMuch>, Contended> {
        self.table.edit(store, payer, seconds(now_ms), |entry| {
            let found = entry.and_then(|entry| Rate::decode(&entry.contents));
            let mut rate = found.unwrap_or(Rate {
                ends_ms: 0,
                requests: 0,
                spent: 0,
                rests_ms: 0,
            });
            if rate.ends_ms <= now_ms {
                rate.ends_ms = now_ms.saturating_add(limits.window_ms);
                (rate.requests, rate.spent) = (0, 0);
            }
            let full = limits.requests.is_some_and(|most| rate.requests >= most)
                || limits.spend.is_some_and(|most| rate.spent.saturating_add(amount) > most);
            let window = if full { rate.ends_ms.saturating_sub(now_ms) } else { 0 };
            // A cooldown of a configuration before may have been longer.
            let rest = rate.rests_ms.saturating_sub(now_ms).min(limits.cooldown_ms);
            let again_in_ms = window.max(rest);
            if again_in_ms > 0 {
                return (Put::Keep, Err(TooMuch { again_in_ms }));
            }
            rate.requests = rate.requests.saturating_add(1);
            rate.spent = rate.spent.saturating_add(amount);
            rate.rests_ms = now_ms.saturating_add(limits.cooldown_ms);
            let counted = Counted {
                ends_ms: rate.ends_ms,
                rests_ms: rate.rests_ms,
            };
            (rate.put(), Ok(counted))
        })
    }

    /// Takes back money that was not paid after all, unless the window in which it was counted has ended. The request stays counted.
    ///
    /// # Errors
    ///
    /// [`Contended`]: it stays counted until its window ends.
    pub fn refund(
        &self,
        store: &(impl SharedStore + ?Sized),
        payer: &ClaimKey,
        amount: u64,
        counted: Counted,
        now_ms: u64,
    ) -> Result<(), Contended> {
        self.table.edit(store, payer, seconds(now_ms), |entry| {
            match entry.and_then(|entry| Rate::decode(&entry.contents)) {
                Some(mut rate) if rate.ends_ms == counted.ends_ms && amount > 0 => {
                    rate.spent = rate.spent.saturating_sub(amount);
                    (rate.put(), ())
                }
                _ => (Put::Keep, ()),
            }
        })
    }

    /// Takes back a request over so many millionths as if it had not been made.
    ///
    /// # Errors
    ///
    /// [`Contended`]: it stays counted until its window ends.
    pub fn uncount(
        &self,
        store: &(impl SharedStore + ?Sized),
        payer: &ClaimKey,
        amount: u64,
        counted: Counted,
        now_ms: u64,
    ) -> Result<(), Contended> {
        self.table.edit(store, payer, seconds(now_ms), |entry| {
            let Some(mut rate) = entry.and_then(|entry| Rate::decode(&entry.contents)) else {
                return (Put::Keep, ());
            };
            if rate.ends_ms == counted.ends_ms {
                rate.requests = rate.requests.saturating_sub(1);
                rate.spent = rate.spent.saturating_sub(amount);
            }
            // There was nothing to wait for before it, and another one after it has its own time.
            if rate.rests_ms == counted.rests_ms {
                rate.rests_ms = 0;
            }
            (rate.put(), ())
        })
    }

    /// Drops what has expired, as [`Claims::sweep`](super::Claims::sweep) does.
    pub fn sweep(&self, store: &(impl SharedStore + ?Sized), buckets: Range<u32>, now: UnixSeconds) -> u32 {
        self.table.sweep(store, buckets, now)
    }
}

fn seconds(ms: u64) -> UnixSeconds {
    UnixSeconds(ms.div_euclid(1000))
}

/// One payer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    /// When its window ends.
    ends_ms: u64,
    requests: u32,
    /// In millionths.
    spent: u64,
    /// Until when it has to wait.
    rests_ms: u64,
}

impl Rate {
    fn put(&self) -> Put {
        Put::Write(Entry {
            expiry: seconds(self.ends_ms.max(self.rests_ms)),
            contents: [
                &self.ends_ms.to_be_bytes()[..],
                &self.requests.to_be_bytes(),
                &self.spent.to_be_bytes(),
                &self.rests_ms.to_be_bytes(),
            ]
            .concat(),
        })
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (ends_ms, bytes) = bytes.split_first_chunk::<8>()?;
        let (requests, bytes) = bytes.split_first_chunk::<4>()?;
        let (spent, bytes) = bytes.split_first_chunk::<8>()?;
        let (rests_ms, _) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            ends_ms: u64::from_be_bytes(*ends_ms),
            requests: u32::from_be_bytes(*requests),
            spent: u64::from_be_bytes(*spent),
            rests_ms: u64::from_be_bytes(*rests_ms),
        })
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "of small numbers")]
mod tests {
    use super::*;
    use crate::replay::MemoryStore;
    use proptest::prelude::*;

    const NOW: u64 = 1_000_000;
    const LIMITS: RateLimits = RateLimits {
        window_ms: 60_000,
        requests: Some(3),
        spend: Some(1_000),
        cooldown_ms: 0,
    };

    struct World {
        rates: Rates,
        store: MemoryStore,
    }

    impl World {
        fn new() -> Self {
            Self {
                rates: Rates::new(1000),
                store: MemoryStore::new(),
            }
        }

        fn count(&self, limits: &RateLimits, amount: u64, now_ms: u64) -> Option<u64> {
            let payer = ClaimKey::from_bytes([1; 16]);
            let counted = self.rates.count(&self.store, &payer, limits, amount, now_ms).unwrap();
            counted.err().map(|too_much| too_much.again_in_ms)
        }
    }

    #[test]
    fn requests_and_money_are_counted_in_a_window() {
        let world = World::new();
        for _ in 0..3 {
            assert_eq!(world.count(&LIMITS, 1, NOW), None);
        }
        assert_eq!(world.count(&LIMITS, 1, NOW + 20_000), Some(40_000));
        assert_eq!(world.count(&LIMITS, 1_000, NOW + 60_000), None);
        assert_eq!(world.count(&LIMITS, 1, NOW + 60_001), Some(59_999));
        assert_eq!(world.count(&LIMITS, 1_001, NOW + 500_000), Some(60_000));
    }

    #[test]
    fn what_was_not_paid_after_all_can_be_spent_in_its_window() {
        let (world, payer) = (World::new(), ClaimKey::from_bytes([1; 16]));
        let count = |amount, now_ms| world.rates.count(&world.store, &payer, &LIMITS, amount, now_ms).unwrap();
        let refund = |window, now_ms| world.rates.refund(&world.store, &payer, 1_000, window, now_ms).unwrap();
        let first = count(1_000, NOW).unwrap();
        refund(first, NOW + 1);
        assert!(count(1_000, NOW + 2).is_ok());
        // Of the next one it takes nothing.
        let second = count(1_000, NOW + 60_000).unwrap();
        refund(first, NOW + 60_001);
        assert!(count(1, NOW + 60_002).is_err());
        refund(second, NOW + 60_003);
        assert!(count(1_000, NOW + 60_004).is_ok());
    }

    #[test]
    fn what_is_taken_back_was_never_asked() {
        let (world, payer) = (World::new(), ClaimKey::from_bytes([1; 16]));
        let limits = RateLimits {
            requests: Some(2),
            cooldown_ms: 5_000,
            ..LIMITS
        };
        let count = |now_ms| world.rates.count(&world.store, &payer, &limits, 500, now_ms).unwrap();
        let uncount = |counted, now_ms| world.rates.uncount(&world.store, &payer, 500, counted, now_ms).unwrap();
        let first = count(NOW).unwrap();
        let second = count(NOW + 5_000).unwrap();
        // The first one's end leaves the second one's time as it is.
        uncount(first, NOW + 5_001);
        assert_eq!(count(NOW + 5_002), Err(TooMuch { again_in_ms: 4_998 }));
        uncount(second, NOW + 5_003);
        assert!(count(NOW + 5_004).is_ok() && count(NOW + 10_004).is_ok());
        assert_eq!(count(NOW + 15_004), Err(TooMuch { again_in_ms: 44_996 }));
        // Of another window nothing is taken.
        let third = count(NOW + 60_000).unwrap();
        uncount(second, NOW + 60_001);
        assert!(count(NOW + 65_000).is_ok() && count(NOW + 70_000).is_err());
        uncount(third, NOW + 70_001);
        assert!(count(NOW + 70_002).is_ok());
    }

    #[test]
    fn a_cooldown_goes_from_one_request_to_the_next() {
        let world = World::new();
        let limits = RateLimits {
            cooldown_ms: 5_000,
            ..RateLimits::default()
        };
        assert_eq!(world.count(&limits, 1, NOW), None);
        assert_eq!(world.count(&limits, 1, NOW + 1), Some(4_999));
        assert_eq!(world.count(&limits, 1, NOW + 5_000), None);
        let shorter = RateLimits {
            cooldown_ms: 10,
            ..RateLimits::default()
        };
        assert_eq!(world.count(&shorter, 1, NOW + 5_001), Some(10));
    }

    proptest! {
        /// Whatever comes when: no window has more than its limits, and nothing is refused that would have been within them.
        #[test]
        fn no_window_has_too_much(steps in prop::collection::vec((0_u64..400, 0_u64..30_000), 1..60)) {
            let world = World::new();
            let (mut now, mut ends, mut requests, mut spent) = (NOW, 0, 0, 0);
            for (amount, wait) in steps {
                now += wait;
                if ends <= now {
                    (ends, requests, spent) = (now + 60_000, 0, 0);
                }
                let fits = requests < 3 && spent + amount <= 1_000;
                prop_assert_eq!(world.count(&LIMITS, amount, now).is_none(), fits);
                if fits {
                    (requests, spent) = (requests + 1, spent + amount);
                } else if requests == 0 {
                    // A window begins with a request that is counted.
                    ends = 0;
                }
            }
        }

        #[test]
        fn any_bytes_are_some_rate_or_none(bytes: Vec<u8>) {
            if let Some(rate) = Rate::decode(&bytes) {
                let _ = rate.put();
            }
        }
    }
}
