//! Payers who are not served for a while, because they had an answer that could not be settled.

use super::bucket::{Bucket, Record, State};
use super::buckets::{Buckets, DEFAULT_BUCKETS};
use super::{ClaimKey, Contended, Edit, SharedStore, UnixSeconds, update};
use std::ops::Range;

/// The bans in a store, by [`ClaimKey::payer`]: records of [`RECORD_BYTES`](super::RECORD_BYTES), in buckets as claims are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bans {
    buckets: Buckets,
}

impl Bans {
    /// Room for so many.
    pub const fn new(max_bans: u32) -> Self {
        Self {
            buckets: Buckets::new("bans/1", DEFAULT_BUCKETS, max_bans),
        }
    }

    /// Bans a payer until that second, or for as long as it was banned before. In a full bucket another ban, the one that ends first,
    /// gives way.
    ///
    /// # Errors
    ///
    /// [`Contended`]: the payer is not banned.
    pub fn ban(
        &self,
        store: &(impl SharedStore + ?Sized),
        payer: &ClaimKey,
        until: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<(), Contended> {
        self.edit(store, payer, until, now, |_| true).map(|_| ())
    }

    /// The same for a payer that is not banned already; whether it was not, which one of many who ask at once is told.
    ///
    /// # Errors
    ///
    /// [`Contended`]: the payer is not banned.
    pub fn ban_first(
        &self,
        store: &(impl SharedStore + ?Sized),
        payer: &ClaimKey,
        until: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<bool, Contended> {
        self.edit(store, payer, until, now, |banned| !banned)
    }

    fn edit(
        &self,
        store: &(impl SharedStore + ?Sized),
        payer: &ClaimKey,
        until: UnixSeconds,
        now: UnixSeconds,
        wanted: impl Fn(bool) -> bool,
    ) -> Result<bool, Contended> {
        update(store, &self.buckets.name_of(payer), |bytes| {
            let mut bucket = Bucket::read(bytes, Some(payer), now);
            if !wanted(bucket.found.is_some()) {
                return Edit::Keep(false);
            }
            if bucket.found.is_none() && bucket.others() >= self.buckets.capacity() {
                bucket.drop_first_to_end();
            }
            let before = bucket.found.map_or(until, |record| record.expiry);
            let record = Record {
                key: *payer,
                state: State::Spent,
                expiry: before.max(until),
            };
            Edit::Write(bucket.write(Some(record)), true)
        })
    }

    /// For how many seconds from now a payer is not served; `None` if it is.
    pub fn banned(&self, store: &(impl SharedStore + ?Sized), payer: &ClaimKey, now: UnixSeconds) -> Option<u64> {
        let (bytes, _) = store.get(&self.buckets.name_of(payer))?;
        let record = Bucket::read(&bytes, Some(payer), now).found?;
        // To the end of the last second.
        Some(record.expiry.since(now).saturating_add(1))
    }

    /// Drops bans that have ended, as [`Claims::sweep`](super::Claims::sweep) does.
    pub fn sweep(&self, store: &(impl SharedStore + ?Sized), buckets: Range<u32>, now: UnixSeconds) -> u32 {
        self.buckets.sweep(store, buckets, |bytes| {
            let bucket = Bucket::read(bytes, None, now);
            let expired = bucket.expired;
            (bucket.write(None), expired)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{MAX_TRIES, MemoryStore};

    const NOW: UnixSeconds = UnixSeconds(1_000);

    fn payer(number: u8) -> ClaimKey {
        // The first four bytes choose the bucket: one for all.
        let mut bytes = [0; 16];
        bytes[15] = number;
        ClaimKey::from_bytes(bytes)
    }

    #[test]
    fn a_ban_lasts_as_long_as_it_says() {
        let (bans, store) = (Bans::new(1000), MemoryStore::new());
        assert_eq!(bans.banned(&store, &payer(1), NOW), None);
        bans.ban(&store, &payer(1), NOW.plus(9), NOW).unwrap();
        assert_eq!(bans.banned(&store, &payer(1), NOW), Some(10));
        assert_eq!(bans.banned(&store, &payer(1), NOW.plus(9)), Some(1));
        assert_eq!(bans.banned(&store, &payer(1), NOW.plus(10)), None);
        assert_eq!(bans.banned(&store, &payer(2), NOW), None);
        // A second one does not shorten it.
        bans.ban(&store, &payer(1), NOW.plus(5), NOW.plus(1)).unwrap();
        assert_eq!(bans.banned(&store, &payer(1), NOW.plus(9)), Some(1));
        assert_eq!(bans.sweep(&store, 0..u32::MAX, NOW.plus(9)), 0);
        assert_eq!(bans.sweep(&store, 0..u32::MAX, NOW.plus(10)), 1);
    }

    #[test]
    fn in_a_full_bucket_the_one_that_ends_first_gives_way() {
        let (bans, store) = (Bans::new(0), MemoryStore::new());
        let room = u8::try_from(bans.buckets.capacity()).unwrap();
        for number in 0..room {
            bans.ban(&store, &payer(number), NOW.plus(u64::from(100 - number)), NOW).unwrap();
        }
        bans.ban(&store, &payer(room), NOW.plus(50), NOW).unwrap();
        let banned = |number| bans.banned(&store, &payer(number), NOW).is_some();
        assert!(!banned(room - 1) && banned(room) && (0..room - 1).all(banned));
    }

    #[test]
    fn one_of_many_is_the_first() {
        let (bans, store) = (Bans::new(1000), MemoryStore::new());
        for _ in 0..200 {
            let store = MemoryStore::new();
            let ban = || bans.ban_first(&store, &payer(1), NOW.plus(9), NOW) == Ok(true);
            let firsts: usize = std::thread::scope(|scope| {
                let asked: Vec<_> = (0..4).map(|_| scope.spawn(ban)).collect();
                asked.into_iter().map(|asked| usize::from(asked.join().unwrap())).sum()
            });
            assert_eq!(firsts, 1);
        }
        assert_eq!(bans.ban_first(&store, &payer(1), NOW, NOW), Ok(true));
        assert_eq!(bans.ban_first(&store, &payer(1), NOW.plus(9), NOW), Ok(false));
        assert_eq!(bans.ban_first(&store, &payer(1), NOW.plus(9), NOW.plus(1)), Ok(true));
    }

    #[test]
    fn contention_bans_nobody() {
        let (bans, store) = (Bans::new(1000), MemoryStore::new());
        store.inject_conflicts(MAX_TRIES);
        assert_eq!(bans.ban(&store, &payer(1), NOW.plus(9), NOW), Err(Contended));
        assert_eq!(bans.banned(&store, &payer(1), NOW), None);
    }
}
