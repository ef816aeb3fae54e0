//! A fixed number of buckets in the store, for records of whatever size: how many there are, what they are called, how much one takes.

use super::{Cas, ClaimKey, SharedStore};
use std::ops::Range;

/// How many buckets there are. It must not change while records are alive, so it is not configuration.
pub const DEFAULT_BUCKETS: u32 = 4096;

/// Records for which a bucket has room beside its share and the spread around it.
const SLACK: u32 = 16;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buckets {
    /// What is in them, and the version of the records' layout: a filter that lays them out in another way must not read these.
    prefix: &'static str,
    count: u32,
    capacity: usize,
}

impl Buckets {
    /// So many buckets (none counts as one) for so many records.
    ///
    /// A bucket holds its share, six standard deviations (keys are hashes, so the share is Poisson's) and 16: it is practically never
    /// full below `max_records` records alive.
    pub(super) const fn new(prefix: &'static str, count: u32, max_records: u32) -> Self {
        let count = if count == 0 { 1 } else { count };
        let share = max_records.div_ceil(count);
        // The root is rounded up, so that it is never less than the deviation.
        let spread = share.isqrt().saturating_add(1).saturating_mul(6);
        let capacity = share.saturating_add(spread).saturating_add(SLACK);
        Self {
            prefix,
            count,
            capacity: capacity as usize,
        }
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// How many records a bucket takes.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The store's key of the bucket that a record belongs to.
    pub(super) fn name_of(&self, key: &ClaimKey) -> String {
        let [a, b, c, d, ..] = *key.as_bytes();
        // Never zero buckets; 4 bytes of a hash spread evenly over any number of them.
        self.name(u32::from_be_bytes([a, b, c, d]).checked_rem(self.count).unwrap_or(0))
    }

    fn name(&self, bucket: u32) -> String {
        format!("x402/{}/{bucket:04x}", self.prefix)
    }

    /// Drops what has expired in some buckets, and tells how many records that were. Numbers beyond the last bucket are ignored.
    ///
    /// `prune` gives a bucket without what has expired, and how many records that were. A bucket that is written by another worker at
    /// the same moment is passed over: that write drops the same records.
    pub(super) fn sweep(&self, store: &(impl SharedStore + ?Sized), buckets: Range<u32>, prune: impl Fn(&[u8]) -> (Vec<u8>, u32)) -> u32 {
        let mut dropped = 0_u32;
        for index in buckets.start..buckets.end.min(self.count) {
            let name = self.name(index);
            let Some((bytes, version)) = store.get(&name) else {
                continue;
            };
            let (rest, expired) = prune(&bytes);
            if expired > 0 && store.compare_and_swap(&name, &rest, Cas::Version(version)).is_ok() {
                dropped = dropped.saturating_add(expired);
            }
        }
        dropped
    }
}
