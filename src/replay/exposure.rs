//! Trust: how much was promised to payers whose settlement is still to come, each of them and all together.
//!
//! ```text
//!  open ──► the amount is in the payer's sum and in the sum of all
//!  close ─► it is in neither; so it is soon after its claim has expired, should nobody close it
//! ```
//!
//! Sums are kept by the time at which their parts expire: what a worker that died has left open is forgotten with the slot of time that
//! it is in, so that no sum can drift away. A slot is narrow against the time that is left, and there are few of them: a payer who has
//! a thousand answers open takes no more room than one who has twenty.

use super::buckets::{Buckets, DEFAULT_BUCKETS};
use super::{ClaimKey, Contended, Edit, SharedStore, UnixSeconds, update};
use std::ops::Range;

/// Size of a payer's slot, in bytes: payer (16), last second in which it is alive (5), amount (8); numbers are big-endian.
const RECORD_BYTES: usize = 29;
/// Size of a slot of the sum of all, in bytes: last second in which it is alive (5), amount (8).
const SLOT_BYTES: usize = 13;
/// A slot is at most this part of the time that is left when trust is given.
const SLOTS: u64 = 16;
/// The latest time that a slot can hold.
const LATEST: u64 = (1 << 40) - 1;

/// What is open, in a store; in buckets as claims are, at most 29 bytes for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    buckets: Buckets,
}

/// Trust to be given: to whom, how much, until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// [`ClaimKey::payer`]
    pub payer: ClaimKey,
    /// [`ClaimKey::all_payers`]
    pub all: ClaimKey,
    /// Millionths.
    pub amount: u64,
    /// When the claim that it goes with expires.
    pub expiry: UnixSeconds,
}

/// Trust that was given. Closing it twice would take from what others have open: who closes it gives it away.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Opened {
    trust: Trust,
    /// The slot that it is in.
    slot: u64,
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
            buckets: Buckets::new("exposure/2", DEFAULT_BUCKETS, max_open),
        }
    }

    /// Gives trust, within the limits.
    ///
    /// # Errors
    ///
    /// [`Exceeded`], and then nothing was changed.
    pub fn open(&self, store: &(impl SharedStore + ?Sized), trust: &Trust, limits: &Limits, now: UnixSeconds) -> Result<Opened, Exceeded> {
        let opened = Opened {
            trust: *trust,
            slot: slot(trust.expiry, now),
        };
        let (slot, amount) = (opened.slot, trust.amount);
        update(store, &self.buckets.name_of(&trust.payer), |bytes| {
            let mut page = Page::read(bytes, Some(&trust.payer), now);
            if limits.payer.is_some_and(|most| page.sum.total().saturating_add(amount) > most) {
                return Edit::Keep(Err(Exceeded::Payer));
            }
            let before = page.records();
            page.sum.add(slot, amount);
            if page.records() > before.max(self.buckets.capacity()) {
                return Edit::Keep(Err(Exceeded::Unavailable));
            }
            Edit::Write(page.write(&trust.payer), Ok(()))
        })??;
        let added = update(store, &sum_name(&trust.all), |bytes| {
            let mut sum = Sum::read(bytes, now);
            if limits.total.is_some_and(|most| sum.total().saturating_add(amount) > most) {
                return Edit::Keep(Err(Exceeded::Total));
            }
            sum.add(slot, amount);
            Edit::Write(sum.write(), Ok(()))
        })
        .unwrap_or(Err(Exceeded::Unavailable));
        if added.is_err() {
            // If this fails too the amount goes with its slot.
            let _ = self.take_from_payer(store, &opened, now);
        }
        added.map(|()| opened)
    }

    /// Whether trust would be given now: for those who cannot be given it yet.
    ///
    /// # Errors
    ///
    /// [`Exceeded`], but for want of room, which only giving it shows.
    pub fn check(&self, store: &(impl SharedStore + ?Sized), trust: &Trust, limits: &Limits, now: UnixSeconds) -> Result<(), Exceeded> {
        let above = |limit: Option<u64>, open: &dyn Fn() -> u64| limit.is_some_and(|most| open().saturating_add(trust.amount) > most);
        let value = |name: &str| store.get(name).map(|(value, _)| value).unwrap_or_default();
        let of_payer = || {
            Page::read(&value(&self.buckets.name_of(&trust.payer)), Some(&trust.payer), now)
                .sum
                .total()
        };
        if above(limits.payer, &of_payer) {
            return Err(Exceeded::Payer);
        }
        match above(limits.total, &|| Sum::read(&value(&sum_name(&trust.all)), now).total()) {
            true => Err(Exceeded::Total),
            false => Ok(()),
        }
    }

    /// Ends trust. What has expired since is gone already.
    ///
    /// # Errors
    ///
    /// [`Contended`]: a part of it stays until it expires.
    pub fn close(&self, store: &(impl SharedStore + ?Sized), opened: Opened, now: UnixSeconds) -> Result<(), Contended> {
        let of_payer = self.take_from_payer(store, &opened, now);
        let of_all = update(store, &sum_name(&opened.trust.all), |bytes| {
            let mut sum = Sum::read(bytes, now);
            match sum.take(opened.slot, opened.trust.amount) {
                true => Edit::Write(sum.write(), ()),
                false => Edit::Keep(()),
            }
        });
        of_payer.and(of_all)
    }

    /// Drops what has expired, as [`Claims::sweep`](super::Claims::sweep) does.
    pub fn sweep(&self, store: &(impl SharedStore + ?Sized), buckets: Range<u32>, now: UnixSeconds) -> u32 {
        self.buckets.sweep(store, buckets, |bytes| {
            let page = Page::read(bytes, None, now);
            (page.rest, page.expired)
        })
    }

    fn take_from_payer(&self, store: &(impl SharedStore + ?Sized), opened: &Opened, now: UnixSeconds) -> Result<(), Contended> {
        let payer = &opened.trust.payer;
        update(store, &self.buckets.name_of(payer), |bytes| {
            let mut page = Page::read(bytes, Some(payer), now);
            match page.sum.take(opened.slot, opened.trust.amount) {
                true => Edit::Write(page.write(payer), ()),
                false => Edit::Keep(()),
            }
        })
    }
}

/// A bucket without what has expired, and one payer's sum taken out of it.
#[derive(Debug, Default)]
struct Page {
    rest: Vec<u8>,
    sum: Sum,
    expired: u32,
}

impl Page {
    fn read(bytes: &[u8], payer: Option<&ClaimKey>, now: UnixSeconds) -> Self {
        let mut page = Self::default();
        for record in bytes.chunks_exact(RECORD_BYTES) {
            let Some((key, slot)) = record.split_first_chunk::<16>() else {
                continue;
            };
            match decode(slot) {
                Some((last, _)) if last < now.0 => page.expired = page.expired.saturating_add(1),
                Some((last, amount)) if payer.is_some_and(|payer| payer.as_bytes() == key) => page.sum.add(last, amount),
                _ => page.rest.extend_from_slice(record),
            }
        }
        page
    }

    fn records(&self) -> usize {
        self.rest.len().wrapping_div(RECORD_BYTES).saturating_add(self.sum.slots.len())
    }

    fn write(mut self, payer: &ClaimKey) -> Vec<u8> {
        for (last, amount) in self.sum.slots {
            self.rest.extend_from_slice(payer.as_bytes());
            self.rest.extend(encode(last, amount));
        }
        self.rest
    }
}

/// Amounts by the last second in which they are alive.
#[derive(Debug, Default)]
struct Sum {
    slots: Vec<(u64, u64)>,
}

impl Sum {
    fn read(bytes: &[u8], now: UnixSeconds) -> Self {
        let mut sum = Self::default();
        let slots = bytes.chunks_exact(SLOT_BYTES).filter_map(decode);
        slots
            .filter(|(last, _)| *last >= now.0)
            .for_each(|(last, amount)| sum.add(last, amount));
        sum
    }

    fn total(&self) -> u64 {
        self.slots.iter().fold(0, |sum, (_, amount)| sum.saturating_add(*amount))
    }

    fn add(&mut self, slot: u64, by: u64) {
        match self.slots.iter_mut().find(|(last, _)| *last == slot) {
            Some((_, amount)) => *amount = amount.saturating_add(by),
            None if by > 0 => self.slots.push((slot, by)),
            None => {}
        }
    }

    /// Whether anything was there to take from.
    fn take(&mut self, slot: u64, by: u64) -> bool {
        let Some((_, amount)) = self.slots.iter_mut().find(|(last, _)| *last == slot) else {
            return false;
        };
        *amount = amount.saturating_sub(by);
        self.slots.retain(|(_, amount)| *amount > 0);
        true
    }

    fn write(self) -> Vec<u8> {
        self.slots.into_iter().flat_map(|(last, amount)| encode(last, amount)).collect()
    }
}

fn encode(last: u64, amount: u64) -> impl Iterator<Item = u8> {
    last.min(LATEST).to_be_bytes().into_iter().skip(3).chain(amount.to_be_bytes())
}

fn decode(bytes: &[u8]) -> Option<(u64, u64)> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let (last, amount) = bytes.split_first_chunk::<5>()?;
    Some((number(last), number(amount)))
}

fn sum_name(all: &ClaimKey) -> String {
    format!("x402/exposure/2/sum/{}", hex::encode(all.as_bytes()))
}

/// The last second of the slot that this expiry is in: its width is a power of two, at most a sixteenth of the time that is left.
///
/// Of each width there are at most 33 slots at a time.
fn slot(expiry: UnixSeconds, now: UnixSeconds) -> u64 {
    let exponent = expiry.since(now).div_euclid(SLOTS).checked_ilog2().unwrap_or(0);
    let width = 1_u64.checked_shl(exponent).unwrap_or(1);
    expiry.0.checked_next_multiple_of(width).unwrap_or(LATEST).min(LATEST)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "of small numbers")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn slots_are_exact_where_time_is_short_and_few_where_it_is_long() {
        for seconds in 0..32 {
            assert_eq!(slot(UnixSeconds(1_000_001 + seconds), UnixSeconds(1_000_001)), 1_000_001 + seconds);
        }
        for width in [1_u64, 16, 256, 32_768] {
            // All that expire in this time are as many as there can be of this width.
            let left = (16 * width)..(32 * width);
            let slots: BTreeSet<u64> = left
                .map(|left| slot(UnixSeconds(1_000_001 + left), UnixSeconds(1_000_001)))
                .collect();
            assert!(slots.len() <= 17, "{width}: {}", slots.len());
        }
    }

    proptest! {
        #[test]
        fn a_slot_ends_soon_after_the_expiry(now in 0..LATEST, left in 0_u64..1_000_000) {
            let last = slot(UnixSeconds(now + left), UnixSeconds(now));
            prop_assert!(last >= (now + left).min(LATEST) && last <= now + left + left / SLOTS);
        }

        #[test]
        fn any_bytes_are_some_bucket_and_some_sum(bytes: Vec<u8>, now: u64, payer: [u8; 16], slot: u64, amount: u64) {
            let payer = ClaimKey::from_bytes(payer);
            let mut page = Page::read(&bytes, Some(&payer), UnixSeconds(now));
            page.sum.add(slot, amount);
            prop_assert!(page.write(&payer).len() <= bytes.len() + RECORD_BYTES);
            let sum = Sum::read(&bytes, UnixSeconds(now));
            prop_assert!(sum.slots.len() <= bytes.len() / SLOT_BYTES);
            prop_assert!(sum.write().len() <= bytes.len());
        }
    }
}
