//! Making, keeping and ending claims.

use super::bucket::{Bucket, Record, State};
use super::buckets::{Buckets, DEFAULT_BUCKETS};
use super::{Change, ClaimKey, Contended, Edit, Held, SharedStore, UnixSeconds, update};
use std::ops::Range;

/// The claims in a store: how many buckets there are and how much each holds.
///
/// Every operation is atomic over all workers, takes one read and one write of one bucket unless workers collide, and
/// drops the expired records of the bucket that it writes. `now` is the host's clock; `expiry` is the last second in
/// which the payment could be accepted anywhere (its `validBefore` or deadline with the clock skew, or later), for
/// until then the record keeps it from being used again.
///
/// All buckets together bound the memory: 32 MB at a million claims. A full bucket refuses new claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    buckets: Buckets,
}

impl Claims {
    /// Claims in [`DEFAULT_BUCKETS`] buckets.
    pub const fn new(max_claims: u32) -> Self {
        Self::with_buckets(DEFAULT_BUCKETS, max_claims)
    }

    /// Claims in another number of buckets; none counts as one. All users of a store must agree on the number.
    pub const fn with_buckets(buckets: u32, max_claims: u32) -> Self {
        Self {
            buckets: Buckets::new("claims/1", buckets, max_claims),
        }
    }

    /// How many buckets there are.
    pub const fn buckets(&self) -> u32 {
        self.buckets.count()
    }

    /// How many claims a bucket takes.
    pub const fn capacity(&self) -> usize {
        self.buckets.capacity()
    }

    /// Takes a claim that nobody holds.
    ///
    /// # Errors
    ///
    /// [`Held`], and then nothing was changed.
    pub fn claim(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        expiry: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<Change, Held> {
        update(store, &self.buckets.name_of(key), |bytes| {
            let bucket = Bucket::read(bytes, Some(key), now);
            match bucket.found.map(|record| record.state) {
                Some(State::InUse | State::Retaken) => Edit::Keep(Err(Held::InUse)),
                Some(State::Pending | State::Left) => Edit::Keep(Err(Held::Pending)),
                Some(State::Spent) => Edit::Keep(Err(Held::Spent)),
                None if bucket.others() >= self.capacity() => Edit::Keep(Err(Held::Full)),
                None => put(bucket, key, State::InUse, expiry.max(now)).map(Ok),
            }
        })?
    }

    /// Takes over a claim whose settlement is pending, to find out about it: one request at a time can.
    ///
    /// It ends by [`Claims::mark_spent`], by [`Claims::mark_pending`], or by [`Claims::release`], which leaves it
    /// pending. If the settlement turns out to be refused for certain, see [`Claims::forgive`].
    ///
    /// # Errors
    ///
    /// [`Held`], and then nothing was changed; `Held::Pending` only for one that was left ([`Claims::mark_left`]). A claim that is not there (any more) is
    /// taken as by [`Claims::claim`], but as one whose settlement may have been sent.
    pub fn retake(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        expiry: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<Change, Held> {
        update(store, &self.buckets.name_of(key), |bytes| {
            let bucket = Bucket::read(bytes, Some(key), now);
            match bucket.found.map(|record| record.state) {
                Some(State::InUse | State::Retaken) => Edit::Keep(Err(Held::InUse)),
                Some(State::Left) => Edit::Keep(Err(Held::Pending)),
                Some(State::Spent) => Edit::Keep(Err(Held::Spent)),
                None if bucket.others() >= self.capacity() => Edit::Keep(Err(Held::Full)),
                Some(State::Pending) | None => put(bucket, key, State::Retaken, expiry.max(now)).map(Ok),
            }
        })?
    }

    /// Gives a claim back whose payment was not settled: it can be claimed again.
    ///
    /// Only a claim in use goes; a retaken one is pending again, and any other stays as it is.
    ///
    /// # Errors
    ///
    /// [`Contended`]: the claim stays as it is until it expires, unless this is tried again.
    pub fn release(&self, store: &(impl SharedStore + ?Sized), key: &ClaimKey, now: UnixSeconds) -> Result<Change, Contended> {
        update(store, &self.buckets.name_of(key), |bytes| {
            let bucket = Bucket::read(bytes, Some(key), now);
            match bucket.found {
                Some(Record { state: State::InUse, .. }) => take(bucket),
                Some(Record {
                    state: State::Retaken,
                    expiry,
                    ..
                }) => put(bucket, key, State::Pending, expiry),
                _ => Edit::Keep(Change::default()),
            }
        })
    }

    /// Gives back a claim that is in use, retaken or pending, because it is certain now that no settlement of it went
    /// through or will: a refusal with a certain reason after a retry.
    ///
    /// # Errors
    ///
    /// [`Contended`]: the claim stays as it is until it expires, unless this is tried again.
    pub fn forgive(&self, store: &(impl SharedStore + ?Sized), key: &ClaimKey, now: UnixSeconds) -> Result<Change, Contended> {
        update(store, &self.buckets.name_of(key), |bytes| {
            let bucket = Bucket::read(bytes, Some(key), now);
            match bucket.found {
                Some(Record {
                    state: State::InUse | State::Retaken | State::Pending | State::Left,
                    ..
                }) => take(bucket),
                _ => Edit::Keep(Change::default()),
            }
        })
    }

    /// Notes that the settlement was sent and that its outcome is not known. A spent claim stays spent.
    ///
    /// A record that was lost is made anew, even in a full bucket; a longer expiry stays.
    ///
    /// # Errors
    ///
    /// [`Contended`]: the claim stays as it is. Try again, from a tick if need be.
    pub fn mark_pending(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        expiry: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<Change, Contended> {
        self.mark(store, key, State::Pending, expiry, now)
    }

    /// As [`Claims::mark_pending`], but nobody can take it over: whoever waits for the outcome may yet hear of it, or has had what it
    /// pays for.
    ///
    /// # Errors
    ///
    /// [`Contended`]: the claim stays as it is.
    pub fn mark_left(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        expiry: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<Change, Contended> {
        self.mark(store, key, State::Left, expiry, now)
    }

    /// Notes that the money has moved.
    ///
    /// A record that was lost is made anew, even in a full bucket; a longer expiry stays.
    ///
    /// # Errors
    ///
    /// [`Contended`]: the claim stays as it is. Try again, from a tick if need be.
    pub fn mark_spent(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        expiry: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<Change, Contended> {
        self.mark(store, key, State::Spent, expiry, now)
    }

    fn mark(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        state: State,
        expiry: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<Change, Contended> {
        update(store, &self.buckets.name_of(key), |bytes| {
            let bucket = Bucket::read(bytes, Some(key), now);
            match bucket.found {
                Some(Record { state: State::Spent, .. }) if state != State::Spent => Edit::Keep(Change::default()),
                _ => put(bucket, key, state, expiry.max(now)),
            }
        })
    }

    /// What has become of a claim; `None` if it is not held, or expired.
    pub fn state(&self, store: &(impl SharedStore + ?Sized), key: &ClaimKey, now: UnixSeconds) -> Option<State> {
        let (bytes, _) = store.get(&self.buckets.name_of(key))?;
        Bucket::read(&bytes, Some(key), now).found.map(|record| record.state)
    }

    /// Drops what has expired in some buckets, and tells how many records that were. Numbers beyond the last bucket
    /// are ignored.
    ///
    /// Meant for a tick that goes round all buckets. A bucket that is written by another worker at the same moment is
    /// passed over: that write drops the same records.
    pub fn sweep(&self, store: &(impl SharedStore + ?Sized), buckets: Range<u32>, now: UnixSeconds) -> u32 {
        self.buckets.sweep(store, buckets, |bytes| {
            let bucket = Bucket::read(bytes, None, now);
            let expired = bucket.expired;
            (bucket.write(None), expired)
        })
    }
}

/// Writes the bucket with the claim in this state, alive until `expiry` or until when it was before.
fn put(bucket: Bucket, key: &ClaimKey, state: State, expiry: UnixSeconds) -> Edit<Change> {
    let before = bucket.found.map(|record| record.expiry);
    let change = Change {
        added: u32::from(before.is_none()),
        dropped: bucket.expired,
    };
    let expiry = before.map_or(expiry, |before| before.max(expiry));
    Edit::Write(bucket.write(Some(Record { key: *key, state, expiry })), change)
}

/// Writes the bucket without the claim.
fn take(bucket: Bucket) -> Edit<Change> {
    let found = u32::from(bucket.found.is_some());
    let change = Change {
        added: 0,
        dropped: bucket.expired.saturating_add(found),
    };
    Edit::Write(bucket.write(None), change)
}
