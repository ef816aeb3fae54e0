//! Trust: how much was promised to payers whose settlement is still to come, each of them and all together.
//!
//! ```text
//!  open ──► (payer, hold, amount, expiry) in the payer's bucket, and the amount in the sum of all
//!  close ─► both are gone; so they are once the hold has expired, should nobody close it
//! ```
//!
//! The sum of all is kept by the time at which its parts expire, in slots of [`SLOT`] seconds: what a worker that died has left open is
//! forgotten with its slot, so that the sum cannot drift away.

use super::buckets::{Buckets, DEFAULT_BUCKETS};
use super::{ClaimKey, Contended, Edit, SharedStore, UnixSeconds, update};
use std::ops::Range;

/// Size of one record, in bytes: payer (16), hold (8), amount (8), last second in which it is alive (5); numbers are big-endian.
const RECORD_BYTES: usize = 37;
/// Size of one slot of a sum, in bytes: its number (5), amount (8).
const SLOT_BYTES: usize = 13;
/// How long a slot is, in seconds.
const SLOT: u64 = 600;
/// The latest time that a record can hold.
const LATEST: u64 = (1 << 40) - 1;

/// What is open, in a store; in buckets as claims are, at most 37 bytes for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    buckets: Buckets,
}

/// One payer's trust: whose, for what, how much, until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// [`ClaimKey::payer`]
    pub payer: ClaimKey,
    /// [`ClaimKey::all_payers`]
    pub all: ClaimKey,
    /// The claim that it goes with.
    pub hold: ClaimKey,
    /// Millionths.
    pub amount: u64,
    /// When the claim expires.
    pub expiry: UnixSeconds,
}

/// The most that may be open, in millionths; `None`: any amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For one payer.
    pub payer: Option<u64>,
    /// For all of them.
    pub total: Option<u64>,
}

/// Why no more trust is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The payer has too much open.
    Payer,
    /// All payers together have.
    Total,
    /// There is no room for another record, or other workers were faster too many times.
    Unavailable,
}

impl From<Contended> for Exceeded {
    fn from(_: Contended) -> Self {
        Self::Unavailable
    }
}

impl Exposure {
    /// Room for so many.
    pub const fn new(max_open: u32) -> Self {
        Self {
            buckets: Buckets::new("exposure/1", DEFAULT_BUCKETS, max_open),
        }
    }

    /// Gives trust, within the limits. What a hold has open already counts once.
    ///
    /// # Errors
    ///
    /// [`Exceeded`], and then nothing was changed.
    pub fn open(&self, store: &(impl SharedStore + ?Sized), trust: &Trust, limits: &Limits, now: UnixSeconds) -> Result<(), Exceeded> {
        let is_new = update(store, &self.buckets.name_of(&trust.payer), |bytes| {
            let open = Open::read(bytes, trust, now);
            if open.found {
                return Edit::Keep(Ok(false));
            }
            if open.others >= self.buckets.capacity() {
                return Edit::Keep(Err(Exceeded::Unavailable));
            }
            if limits.payer.is_some_and(|most| open.of_payer.saturating_add(trust.amount) > most) {
                return Edit::Keep(Err(Exceeded::Payer));
            }
            Edit::Write(open.with(trust), Ok(true))
        })??;
        if !is_new {
            return Ok(());
        }
        let added = update(store, &sum_name(&trust.all), |bytes| {
            let sum = Sum::read(bytes, now);
            if limits.total.is_some_and(|most| sum.total().saturating_add(trust.amount) > most) {
                return Edit::Keep(Err(Exceeded::Total));
            }
            Edit::Write(sum.plus(slot(trust.expiry), trust.amount), Ok(()))
        })
        .unwrap_or(Err(Exceeded::Unavailable));
        if added.is_err() {
            // If this fails too the record goes with its expiry.
            let _ = self.forget(store, trust, now);
        }
        added
    }

    /// Ends trust, if it is still there.
    ///
    /// # Errors
    ///
    /// [`Contended`]: it stays until it expires.
    pub fn close(&self, store: &(impl SharedStore + ?Sized), trust: &Trust, now: UnixSeconds) -> Result<(), Contended> {
        if !self.forget(store, trust, now)? {
            return Ok(());
        }
        update(store, &sum_name(&trust.all), |bytes| {
            Edit::Write(Sum::read(bytes, now).minus(slot(trust.expiry), trust.amount), ())
        })
    }

    /// Drops what has expired, as [`Claims::sweep`](super::Claims::sweep) does.
    pub fn sweep(&self, store: &(impl SharedStore + ?Sized), buckets: Range<u32>, now: UnixSeconds) -> u32 {
        self.buckets.sweep(store, buckets, |bytes| {
            let open = Open::prune(bytes, now);
            (open.rest, open.expired)
        })
    }

    /// Removes the payer's record; whether it was there.
    fn forget(&self, store: &(impl SharedStore + ?Sized), trust: &Trust, now: UnixSeconds) -> Result<bool, Contended> {
        update(store, &self.buckets.name_of(&trust.payer), |bytes| {
            let open = Open::read(bytes, trust, now);
            match open.found {
                true => Edit::Write(open.rest, true),
                false => Edit::Keep(false),
            }
        })
    }
}

/// A bucket without what has expired, and without one record that is looked for.
#[derive(Default)]
struct Open {
    rest: Vec<u8>,
    others: usize,
    /// What the payer has open beside the record that is looked for.
    of_payer: u64,
    found: bool,
    expired: u32,
}

impl Open {
    fn read(bytes: &[u8], trust: &Trust, now: UnixSeconds) -> Self {
        Self::scan(bytes, Some(trust), now)
    }

    fn prune(bytes: &[u8], now: UnixSeconds) -> Self {
        Self::scan(bytes, None, now)
    }

    fn scan(bytes: &[u8], trust: Option<&Trust>, now: UnixSeconds) -> Self {
        let mut open = Self::default();
        for record in bytes.chunks_exact(RECORD_BYTES) {
            let Some((payer, rest)) = record.split_first_chunk::<16>() else {
                continue;
            };
            let Some((hold, rest)) = rest.split_first_chunk::<8>() else {
                continue;
            };
            let Some((amount, expiry)) = rest.split_first_chunk::<8>() else {
                continue;
            };
            if number(expiry) < now.0 {
                open.expired = open.expired.saturating_add(1);
                continue;
            }
            let of_payer = trust.is_some_and(|trust| trust.payer.as_bytes() == payer);
            if of_payer && trust.is_some_and(|trust| *hold == id(&trust.hold)) {
                open.found = true;
                continue;
            }
            if of_payer {
                open.of_payer = open.of_payer.saturating_add(u64::from_be_bytes(*amount));
            }
            open.others = open.others.saturating_add(1);
            open.rest.extend_from_slice(record);
        }
        open
    }

    fn with(mut self, trust: &Trust) -> Vec<u8> {
        self.rest.extend_from_slice(trust.payer.as_bytes());
        self.rest.extend_from_slice(&id(&trust.hold));
        self.rest.extend_from_slice(&trust.amount.to_be_bytes());
        self.rest.extend(five(trust.expiry.0));
        self.rest
    }
}

/// The sum of all, by slots that have not ended.
struct Sum {
    slots: Vec<(u64, u64)>,
}

impl Sum {
    fn read(bytes: &[u8], now: UnixSeconds) -> Self {
        let slots = bytes.chunks_exact(SLOT_BYTES).filter_map(|bytes| {
            let (number_of, amount) = bytes.split_first_chunk::<5>()?;
            Some((number(number_of), number(amount)))
        });
        Self {
            slots: slots.filter(|(number, _)| *number >= slot(now)).collect(),
        }
    }

    fn total(&self) -> u64 {
        self.slots.iter().fold(0, |sum, (_, amount)| sum.saturating_add(*amount))
    }

    fn plus(mut self, slot: u64, by: u64) -> Vec<u8> {
        match self.slots.iter_mut().find(|(number, _)| *number == slot) {
            Some((_, amount)) => *amount = amount.saturating_add(by),
            None => self.slots.push((slot, by)),
        }
        self.write()
    }

    fn minus(mut self, slot: u64, by: u64) -> Vec<u8> {
        for (_, amount) in self.slots.iter_mut().filter(|(number, _)| *number == slot) {
            *amount = amount.saturating_sub(by);
        }
        self.slots.retain(|(_, amount)| *amount > 0);
        self.write()
    }

    fn write(self) -> Vec<u8> {
        let slots = self.slots.into_iter();
        slots
            .flat_map(|(number, amount)| five(number).chain(amount.to_be_bytes()))
            .collect()
    }
}

fn sum_name(all: &ClaimKey) -> String {
    format!("x402/exposure/1/sum/{}", hex::encode(all.as_bytes()))
}

fn slot(time: UnixSeconds) -> u64 {
    time.0.min(LATEST).div_euclid(SLOT)
}

/// Enough of a claim to tell a payer's holds apart.
fn id(hold: &ClaimKey) -> [u8; 8] {
    let [.., a, b, c, d, e, f, g, h] = *hold.as_bytes();
    [a, b, c, d, e, f, g, h]
}

fn five(number: u64) -> impl Iterator<Item = u8> {
    number.min(LATEST).to_be_bytes().into_iter().skip(3)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "of small numbers")]
mod tests {
    use super::*;
    use crate::replay::{MAX_TRIES, MemoryStore};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);
    const LIMITS: Limits = Limits {
        payer: Some(100),
        total: Some(250),
    };

    fn key(kind: u8, number: u8) -> ClaimKey {
        // The first four bytes choose the bucket: few of them.
        let mut bytes = [kind; 16];
        bytes[..4].copy_from_slice(&[0, 0, 0, number % 2]);
        bytes[15] = number;
        ClaimKey::from_bytes(bytes)
    }

    fn trust(payer: u8, hold: u8, amount: u64) -> Trust {
        Trust {
            payer: key(1, payer),
            all: key(2, 0),
            hold: key(3, hold),
            amount,
            expiry: NOW.plus(300),
        }
    }

    #[test]
    fn trust_ends_at_the_payers_limit_and_at_that_of_all() {
        let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
        let open = |trust: &Trust| exposure.open(&store, trust, &LIMITS, NOW);
        assert_eq!(open(&trust(1, 1, 60)), Ok(()));
        assert_eq!(open(&trust(1, 2, 41)), Err(Exceeded::Payer));
        assert_eq!(open(&trust(1, 2, 40)), Ok(()));
        assert_eq!(open(&trust(2, 3, 100)), Ok(()));
        assert_eq!(open(&trust(3, 4, 51)), Err(Exceeded::Total));
        assert_eq!(open(&trust(3, 4, 50)), Ok(()), "what was not given left nothing behind");
        exposure.close(&store, &trust(1, 1, 60), NOW).unwrap();
        exposure.close(&store, &trust(1, 1, 60), NOW).unwrap();
        assert_eq!(open(&trust(1, 5, 61)), Err(Exceeded::Payer));
        assert_eq!(open(&trust(1, 5, 60)), Ok(()), "closed twice counts once");
        assert_eq!(open(&trust(4, 6, 1)), Err(Exceeded::Total));
    }

    #[test]
    fn what_nobody_closes_ends_with_its_claim() {
        let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
        exposure.open(&store, &trust(1, 1, 100), &LIMITS, NOW).unwrap();
        exposure.open(&store, &trust(2, 2, 100), &LIMITS, NOW).unwrap();
        let later = |trust: Trust, seconds: u64| Trust {
            expiry: trust.expiry.plus(seconds),
            ..trust
        };
        let (last, first) = (NOW.plus(300), NOW.plus(301));
        assert_eq!(
            exposure.open(&store, &later(trust(1, 3, 1), 900), &LIMITS, last),
            Err(Exceeded::Payer)
        );
        assert_eq!(exposure.open(&store, &later(trust(1, 3, 50), 900), &LIMITS, first), Ok(()));
        // The sum forgets when the slot has passed.
        let end = UnixSeconds((slot(NOW.plus(300)) + 1) * SLOT);
        let more = later(trust(5, 4, 100), 900);
        assert_eq!(exposure.open(&store, &more, &LIMITS, UnixSeconds(end.0 - 1)), Err(Exceeded::Total));
        assert_eq!(exposure.open(&store, &more, &LIMITS, end), Ok(()));
        // A payer whose bucket nobody writes to is swept.
        assert_eq!(exposure.sweep(&store, 0..u32::MAX, NOW.plus(301)), 1);
        assert_eq!(exposure.sweep(&store, 0..u32::MAX, NOW.plus(301 + 900)), 2);
        // Closing what has expired takes nothing from others.
        exposure.close(&store, &trust(1, 1, 100), end).unwrap();
    }

    #[test]
    fn contention_gives_no_trust_and_leaves_none() {
        let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
        store.inject_conflicts(MAX_TRIES);
        assert_eq!(exposure.open(&store, &trust(1, 1, 10), &LIMITS, NOW), Err(Exceeded::Unavailable));
        exposure.open(&store, &trust(1, 1, 100), &LIMITS, NOW).unwrap();
        store.inject_conflicts(MAX_TRIES);
        assert_eq!(exposure.close(&store, &trust(1, 1, 100), NOW), Err(Contended));
        assert_eq!(exposure.open(&store, &trust(1, 2, 1), &LIMITS, NOW), Err(Exceeded::Payer));
    }

    #[test]
    fn workers_that_collide_give_no_more_than_the_limits() {
        let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
        std::thread::scope(|scope| {
            for worker in 0..8u8 {
                let (exposure, store) = (&exposure, &store);
                scope.spawn(move || {
                    for round in 0..100u8 {
                        let trust = trust(worker % 4, worker * 16 + round % 16, 40);
                        if exposure.open(store, &trust, &LIMITS, NOW).is_ok() && round % 2 == 0 {
                            while exposure.close(store, &trust, NOW).is_err() {}
                        }
                    }
                });
            }
        });
        let open: Vec<u64> = (0..4)
            .map(|payer| {
                (0..=100)
                    .rev()
                    .find(|amount| {
                        let probe = trust(payer, 255, *amount);
                        exposure.open(&store, &probe, &Limits { total: None, ..LIMITS }, NOW).is_ok()
                            && exposure.close(&store, &probe, NOW).is_ok()
                    })
                    .map_or(0, |free| 100 - free)
            })
            .collect();
        assert!(open.iter().all(|open| *open <= 80) && open.iter().sum::<u64>() <= 250, "{open:?}");
    }

    proptest! {
        /// Against a map that knows everything.
        #[test]
        fn it_is_what_a_map_would_be(events in proptest::collection::vec((any::<bool>(), 0u8..4, 0u8..6, 0u64..120), 0..60)) {
            let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
            let mut model: BTreeMap<(u8, u8), u64> = BTreeMap::new();
            for (opens, payer, hold, amount) in events {
                let known = model.get(&(payer, hold)).copied();
                if opens {
                    // A claim is had by one request at a time, and so is its trust.
                    if known.is_some() { continue }
                    let of_payer: u64 = model.iter().filter(|((of, _), _)| *of == payer).map(|(_, amount)| amount).sum();
                    let all: u64 = model.values().sum();
                    let expected = if of_payer + amount > 100 {
                        Err(Exceeded::Payer)
                    } else if all + amount > 250 {
                        Err(Exceeded::Total)
                    } else {
                        model.insert((payer, hold), amount);
                        Ok(())
                    };
                    prop_assert_eq!(exposure.open(&store, &trust(payer, hold, amount), &LIMITS, NOW), expected);
                } else if let Some(amount) = known {
                    model.remove(&(payer, hold));
                    prop_assert_eq!(exposure.close(&store, &trust(payer, hold, amount), NOW), Ok(()));
                }
            }
        }

        #[test]
        fn any_bytes_are_some_bucket_and_some_sum(bytes: Vec<u8>, now: u64) {
            let open = Open::read(&bytes, &trust(1, 1, 1), UnixSeconds(now));
            prop_assert!(open.with(&trust(1, 1, 1)).len() <= bytes.len() + RECORD_BYTES);
            let sum = Sum::read(&bytes, UnixSeconds(now));
            prop_assert!(sum.total() == u64::MAX || sum.slots.len() <= bytes.len() / SLOT_BYTES);
        }
    }
}
