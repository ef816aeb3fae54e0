//! Identifiers that clients give their payments (the `payment-identifier` extension): what was paid for under each.

use super::table::{Entry, Put, Table};
use super::{ClaimKey, Contended, SharedStore, UnixSeconds};
use std::ops::Range;

/// The identifiers in a store, by payer: records of 38 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identifiers {
    table: Table,
}

/// What an identifier stands for: the hash of a payment and its request.
pub type Meaning = [u8; 16];

/// What an identifier stands for after [`Identifiers::bind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// For this, from now on.
    New,
    /// For this, as before.
    Same,
    /// For something else.
    Other,
}

impl Identifiers {
    /// Room for so many.
    pub const fn new(max_records: u32) -> Self {
        Self {
            table: Table::new("identifiers/1", max_records),
        }
    }

    /// Lets an identifier stand for this until then, unless it stands for something already.
    ///
    /// # Errors
    ///
    /// [`Contended`]: nothing is known, nothing was changed.
    pub fn bind(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        meaning: &Meaning,
        until: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<Bound, Contended> {
        self.table.edit(store, key, now, |entry| match entry {
            Some(entry) if entry.contents == meaning => (Put::Keep, Bound::Same),
            Some(_) => (Put::Keep, Bound::Other),
            None => {
                let contents = meaning.to_vec();
                (Put::Write(Entry { expiry: until, contents }), Bound::New)
            }
        })
    }

    /// What an identifier stands for.
    pub fn meaning(&self, store: &(impl SharedStore + ?Sized), key: &ClaimKey, now: UnixSeconds) -> Option<Meaning> {
        self.table.get(store, key, now)?.contents.try_into().ok()
    }

    /// Forgets an identifier, if it stands for this: nothing was paid.
    ///
    /// # Errors
    ///
    /// [`Contended`]: it is remembered until it expires.
    pub fn forget(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        meaning: &Meaning,
        now: UnixSeconds,
    ) -> Result<(), Contended> {
        self.table.edit(store, key, now, |entry| match entry {
            Some(entry) if entry.contents == meaning => (Put::Remove, ()),
            _ => (Put::Keep, ()),
        })
    }

    /// Drops what has expired, as [`Claims::sweep`](super::Claims::sweep) does.
    pub fn sweep(&self, store: &(impl SharedStore + ?Sized), buckets: Range<u32>, now: UnixSeconds) -> u32 {
        self.table.sweep(store, buckets, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::MemoryStore;

    #[test]
    fn an_identifier_stands_for_one_thing_at_a_time() {
        let (all, store) = (Identifiers::new(1000), MemoryStore::new());
        let (key, now) = (ClaimKey::from_bytes([1; 16]), UnixSeconds(1_000));
        let bind = |meaning: u8, now| all.bind(&store, &key, &[meaning; 16], UnixSeconds(1_060), now).unwrap();
        assert_eq!((bind(1, now), bind(1, now), bind(2, now)), (Bound::New, Bound::Same, Bound::Other));
        all.forget(&store, &key, &[2; 16], now).unwrap();
        assert_eq!(bind(2, now), Bound::Other);
        assert_eq!(all.meaning(&store, &key, now), Some([1; 16]));
        all.forget(&store, &key, &[1; 16], now).unwrap();
        assert_eq!((bind(2, now), bind(1, UnixSeconds(1_060))), (Bound::New, Bound::Other));
        assert_eq!(bind(1, UnixSeconds(1_061)), Bound::New);
    }
}
