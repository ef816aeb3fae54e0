//! Whose settlement was sent and never answered, by the payment's claim: evidence about it is evidence about that payment alone.

use super::table::{Entry, Put, Table};
use super::{ClaimKey, Contended, SharedStore, UnixSeconds};
use std::ops::Range;

/// Nobody's: settlements of several payments of one nonce were sent.
const SEVERAL: [u8; 16] = [0; 16];

/// The payments in a store: records of 38 bytes, for settlements without an outcome alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    table: Table,
}

impl Attempts {
    /// Room for so many.
    pub const fn new(max_records: u32) -> Self {
        Self {
            table: Table::new("attempts/1", max_records),
        }
    }

    /// Notes that the settlement of this payment, by the hash of all that it says, was sent. If another one's was too, it is nobody's.
    ///
    /// # Errors
    ///
    /// [`Contended`]: it was not noted.
    pub fn note(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        payment: &[u8; 16],
        expiry: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<(), Contended> {
        self.table.edit(store, key, now, |entry| {
            let whose = match entry {
                Some(entry) if entry.contents != payment => SEVERAL,
                _ => *payment,
            };
            let contents = whose.to_vec();
            (Put::Write(Entry { expiry, contents }), ())
        })
    }

    /// Whether this payment's settlement was sent, and no other one's.
    pub fn is_only(&self, store: &(impl SharedStore + ?Sized), key: &ClaimKey, payment: &[u8; 16], now: UnixSeconds) -> bool {
        self.table.get(store, key, now).is_some_and(|entry| entry.contents == payment)
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
    fn a_claim_is_one_payments_or_nobodys() {
        let (all, store) = (Attempts::new(1000), MemoryStore::new());
        let (key, now, expiry) = (ClaimKey::from_bytes([1; 16]), UnixSeconds(1_000), UnixSeconds(1_060));
        let is_only = |payment: u8, now| all.is_only(&store, &key, &[payment; 16], now);
        assert!(!is_only(1, now));
        for _ in 0..2 {
            all.note(&store, &key, &[1; 16], expiry, now).unwrap();
            assert!(is_only(1, now) && !is_only(2, now));
        }
        all.note(&store, &key, &[2; 16], expiry, now).unwrap();
        assert!(!is_only(1, now) && !is_only(2, now));
        all.note(&store, &key, &[1; 16], expiry, now).unwrap();
        assert!(!is_only(1, now));
        assert!(!is_only(1, UnixSeconds(1_061)));
    }
}
