//! Records of any size by key, in buckets as claims are: bounded, swept, and changed by one compare-and-swap.

use super::buckets::{Buckets, DEFAULT_BUCKETS};
use super::{ClaimKey, Contended, Edit, SharedStore, UnixSeconds, update};
use std::ops::Range;

/// Size of what is before a record's contents, in bytes: key (16), last second in which it is alive (5, big-endian), length of the
/// contents (1).
const HEAD_BYTES: usize = 22;

/// The latest time that a record can hold.
const LATEST: u64 = (1 << 40) - 1;

/// A record without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The last second in which it is alive.
    pub(super) expiry: UnixSeconds,
    /// At most 255 bytes: more are cut off.
    pub(super) contents: Vec<u8>,
}

/// What becomes of a record.
#[derive(Debug)]
pub(super) enum Put {
    /// It stays as it is, or absent.
    Keep,
    /// It goes.
    Remove,
    /// It is this.
    Write(Entry),
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    buckets: Buckets,
}

impl Table {
    /// Room for so many records. `prefix` names what is in them, and the version of their layout.
    pub(super) const fn new(prefix: &'static str, max_records: u32) -> Self {
        Self {
            buckets: Buckets::new(prefix, DEFAULT_BUCKETS, max_records),
        }
    }

    /// Changes the record of a key. In a full bucket another record, the one that ends first, gives way to a new one.
    ///
    /// # Errors
    ///
    /// [`Contended`], and then nothing was changed.
    pub(super) fn edit<T>(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        now: UnixSeconds,
        mut change: impl FnMut(Option<&Entry>) -> (Put, T),
    ) -> Result<T, Contended> {
        update(store, &self.buckets.name_of(key), |bytes| {
            let mut page = Page::read(bytes, Some(key), now);
            match change(page.found.as_ref()) {
                (Put::Keep, answer) => Edit::Keep(answer),
                (Put::Remove, answer) => Edit::Write(page.write(None), answer),
                (Put::Write(entry), answer) => {
                    if page.found.is_none() && page.others.len() >= self.buckets.capacity() {
                        page.drop_first_to_end();
                    }
                    Edit::Write(page.write(Some((key, &entry))), answer)
                }
            }
        })
    }

    /// The record of a key.
    pub(super) fn get(&self, store: &(impl SharedStore + ?Sized), key: &ClaimKey, now: UnixSeconds) -> Option<Entry> {
        let (bytes, _) = store.get(&self.buckets.name_of(key))?;
        Page::read(&bytes, Some(key), now).found
    }

    /// Drops what has expired, as [`Claims::sweep`](super::Claims::sweep) does.
    pub(super) fn sweep(&self, store: &(impl SharedStore + ?Sized), buckets: Range<u32>, now: UnixSeconds) -> u32 {
        self.buckets.sweep(store, buckets, |bytes| {
            let page = Page::read(bytes, None, now);
            let expired = page.expired;
            (page.write(None), expired)
        })
    }
}

/// A bucket without what has expired, and one record taken out of it.
#[derive(Debug, Default)]
struct Page<'a> {
    others: Vec<&'a [u8]>,
    found: Option<Entry>,
    expired: u32,
}

impl<'a> Page<'a> {
    /// What is left at the end and is no whole record is ignored.
    fn read(mut bytes: &'a [u8], key: Option<&ClaimKey>, now: UnixSeconds) -> Self {
        let mut page = Self::default();
        while let Some((record, rest)) = split(bytes) {
            bytes = rest;
            let Some((found, expiry, contents)) = parts(record) else { continue };
            if expiry < now {
                page.expired = page.expired.saturating_add(1);
            } else if key.is_some_and(|key| key.as_bytes() == found) {
                page.found = Some(Entry {
                    expiry,
                    contents: contents.to_vec(),
                });
            } else {
                page.others.push(record);
            }
        }
        page
    }

    fn drop_first_to_end(&mut self) {
        let expiry = |record: &&[u8]| parts(record).map(|(_, expiry, _)| expiry);
        let first = self
            .others
            .iter()
            .enumerate()
            .min_by_key(|(_, record)| expiry(record))
            .map(|(index, _)| index);
        if let Some(index) = first {
            self.others.swap_remove(index);
        }
    }

    fn write(self, with: Option<(&ClaimKey, &Entry)>) -> Vec<u8> {
        let mut bytes = self.others.concat();
        if let Some((key, entry)) = with {
            let length = u8::try_from(entry.contents.len()).unwrap_or(u8::MAX);
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend(entry.expiry.0.min(LATEST).to_be_bytes().into_iter().skip(3));
            bytes.push(length);
            bytes.extend(entry.contents.iter().take(usize::from(length)));
        }
        bytes
    }
}

/// The first record, and what comes after it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = bytes.get(HEAD_BYTES.wrapping_sub(1))?;
    bytes.split_at_checked(HEAD_BYTES.saturating_add(usize::from(*length)))
}

fn parts(record: &[u8]) -> Option<(&[u8; 16], UnixSeconds, &[u8])> {
    let (key, rest) = record.split_first_chunk::<16>()?;
    let (expiry, rest) = rest.split_first_chunk::<5>()?;
    let (_, contents) = rest.split_first()?;
    let expiry = expiry.iter().fold(0_u64, |seconds, byte| seconds << 8 | u64::from(*byte));
    Some((key, UnixSeconds(expiry), contents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{MAX_TRIES, MemoryStore};
    use proptest::prelude::*;
    use std::collections::HashMap;

    const NOW: UnixSeconds = UnixSeconds(1_000);

    /// All in one bucket: the first four bytes choose it.
    fn key(number: u8) -> ClaimKey {
        let mut bytes = [0; 16];
        bytes[15] = number;
        ClaimKey::from_bytes(bytes)
    }

    fn put(table: &Table, store: &MemoryStore, number: u8, expiry: u64, contents: &[u8]) -> Result<(), Contended> {
        let entry = Entry {
            expiry: UnixSeconds(expiry),
            contents: contents.to_vec(),
        };
        table.edit(store, &key(number), NOW, |_| (Put::Write(entry.clone()), ()))
    }

    #[test]
    fn in_a_full_bucket_the_one_that_ends_first_gives_way() {
        let (table, store) = (Table::new("test/1", 0), MemoryStore::new());
        let room = u8::try_from(table.buckets.capacity()).unwrap();
        for number in 0..room {
            put(&table, &store, number, 2_000 - u64::from(number), b"x").unwrap();
        }
        put(&table, &store, room, 1_500, b"y").unwrap();
        put(&table, &store, 0, 1_400, b"z").unwrap();
        let there = |number| table.get(&store, &key(number), NOW).is_some();
        assert!(!there(room - 1) && there(room) && (0..room - 1).all(there));
    }

    #[test]
    fn contention_changes_nothing() {
        let (table, store) = (Table::new("test/1", 10), MemoryStore::new());
        store.inject_conflicts(MAX_TRIES);
        assert_eq!(put(&table, &store, 1, 2_000, b""), Err(Contended));
        assert_eq!(table.get(&store, &key(1), NOW), None);
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Put(u8, u64, Vec<u8>),
        Remove(u8),
        Wait(u64),
        Sweep,
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let contents = prop_oneof![prop::collection::vec(any::<u8>(), 0..4), Just(vec![7; 255])];
        let operation = prop_oneof![
            4 => (0_u8..5, 0_u64..30, contents).prop_map(|(key, life, contents)| Operation::Put(key, life, contents)),
            1 => (0_u8..5).prop_map(Operation::Remove),
            2 => (0_u64..12).prop_map(Operation::Wait),
            1 => Just(Operation::Sweep),
        ];
        prop::collection::vec(operation, 1..60)
    }

    proptest! {
        #[test]
        fn a_table_does_what_a_map_does(operations in operations()) {
            let (table, store) = (Table::new("test/1", 100), MemoryStore::new());
            let (mut model, mut now): (HashMap<u8, Entry>, _) = (HashMap::new(), NOW);
            for operation in operations {
                match operation {
                    Operation::Put(number, life, contents) => {
                        let entry = Entry { expiry: now.plus(life), contents };
                        table.edit(&store, &key(number), now, |_| (Put::Write(entry.clone()), ()))?;
                        model.insert(number, entry);
                    }
                    Operation::Remove(number) => {
                        table.edit(&store, &key(number), now, |_| (Put::Remove, ()))?;
                        model.remove(&number);
                    }
                    Operation::Wait(seconds) => now = now.plus(seconds),
                    Operation::Sweep => {
                        table.sweep(&store, 0..u32::MAX, now);
                    }
                }
                model.retain(|_, entry| entry.expiry >= now);
                for number in 0..5 {
                    prop_assert_eq!(table.get(&store, &key(number), now), model.get(&number).cloned());
                }
            }
            table.sweep(&store, 0..u32::MAX, UnixSeconds(u64::MAX));
            prop_assert_eq!(store.bytes().1, 0);
        }

        #[test]
        fn any_bytes_are_some_bucket(bytes: Vec<u8>, key: [u8; 16], now: u64) {
            let page = Page::read(&bytes, Some(&ClaimKey::from_bytes(key)), UnixSeconds(now));
            prop_assert!(page.write(None).len() <= bytes.len());
        }
    }
}
