//! The records of one bucket: 22 bytes for each claim.

use super::{ClaimKey, UnixSeconds};

/// Size of one record, in bytes: key (16), state (1), last second in which it is alive (5, big-endian).
pub const RECORD_BYTES: usize = 22;

/// The latest time that a record can hold, in the year 36812: later ones are kept as this one.
const LATEST: u64 = (1 << 40) - 1;

/// What has become of a claim, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// A request is being served for it; no settlement was sent whose outcome is not known.
    InUse,
    /// Its settlement was sent and the outcome is not known.
    Pending,
    /// As `Pending`, and nobody else may find out: whoever sent it may yet hear of it, or its answer was delivered.
    Left,
    /// As `Pending`, and one request is finding out.
    Retaken,
    /// The money has moved.
    Spent,
}

impl State {
    const fn to_byte(self) -> u8 {
        match self {
            Self::InUse => b'u',
            Self::Pending => b'p',
            Self::Left => b'l',
            Self::Retaken => b'r',
            Self::Spent => b's',
        }
    }

    /// What cannot be read counts as spent: it was a claim, and refusing is the safe side.
    const fn from_byte(byte: u8) -> Self {
        match byte {
            b'u' => Self::InUse,
            b'p' => Self::Pending,
            b'l' => Self::Left,
            b'r' => Self::Retaken,
            _ => Self::Spent,
        }
    }
}

/// One claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: ClaimKey,
    pub(super) state: State,
    /// The last second in which the record is alive.
    pub(super) expiry: UnixSeconds,
}

/// A bucket as it is to be written, with one claim taken out to look at.
#[derive(Debug)]
pub(super) struct Bucket {
    /// The records of all other claims that are alive.
    rest: Vec<u8>,
    /// The claim that was asked for, if it is there and alive.
    pub(super) found: Option<Record>,
    /// How many records had expired and are left out.
    pub(super) expired: u32,
}

impl Bucket {
    /// Reads a bucket and takes out the record of `key`. A part of a record at the end is ignored.
    pub(super) fn read(bytes: &[u8], key: Option<&ClaimKey>, now: UnixSeconds) -> Self {
        let mut bucket = Self {
            rest: Vec::with_capacity(bytes.len().saturating_add(RECORD_BYTES)),
            found: None,
            expired: 0,
        };
        for bytes in bytes.chunks_exact(RECORD_BYTES) {
            let Some(record) = decode(bytes) else {
                continue;
            };
            if record.expiry < now {
                bucket.expired = bucket.expired.saturating_add(1);
            } else if Some(&record.key) == key {
                bucket.found = Some(record);
            } else {
                bucket.rest.extend_from_slice(bytes);
            }
        }
        bucket
    }

    /// How many records there are beside the one that was found.
    pub(super) fn others(&self) -> usize {
        self.rest.len().wrapping_div(RECORD_BYTES)
    }

    /// Leaves out the record, of the others, that ends first.
    pub(super) fn drop_first_to_end(&mut self) {
        let records = self.rest.chunks_exact(RECORD_BYTES).enumerate();
        let first = records.min_by_key(|(_, bytes)| decode(bytes).map(|record| record.expiry));
        if let Some((index, _)) = first {
            let start = index.saturating_mul(RECORD_BYTES);
            self.rest.drain(start..start.saturating_add(RECORD_BYTES));
        }
    }

    /// The bytes of the bucket with `record` in it, or without the one that was found.
    pub(super) fn write(mut self, record: Option<Record>) -> Vec<u8> {
        if let Some(Record { key, state, expiry }) = record {
            self.rest.extend_from_slice(key.as_bytes());
            self.rest.push(state.to_byte());
            let expiry = expiry.0.min(LATEST).to_be_bytes();
            self.rest.extend(expiry.into_iter().skip(3));
        }
        self.rest
    }
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let (key, rest) = bytes.split_first_chunk::<16>()?;
    let (state, expiry) = rest.split_first()?;
    let expiry = expiry.iter().fold(0_u64, |seconds, byte| seconds << 8 | u64::from(*byte));
    Some(Record {
        key: ClaimKey::from_bytes(*key),
        state: State::from_byte(*state),
        expiry: UnixSeconds(expiry),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(key: u8, state: State, expiry: u64) -> Record {
        Record {
            key: ClaimKey::from_bytes([key; 16]),
            state,
            expiry: UnixSeconds(expiry),
        }
    }

    fn write(records: &[Record]) -> Vec<u8> {
        records
            .iter()
            .flat_map(|record| Bucket::read(&[], None, UnixSeconds(0)).write(Some(*record)))
            .collect()
    }

    #[test]
    fn drops_what_has_expired_and_takes_out_what_is_asked_for() {
        let records = [
            record(1, State::InUse, 9),
            record(2, State::Spent, 10),
            record(3, State::Pending, 11),
            record(4, State::Retaken, u64::MAX),
        ];
        let bytes = write(&records);
        assert_eq!(bytes.len(), 4 * RECORD_BYTES);

        let bucket = Bucket::read(&bytes, Some(&records[1].key), UnixSeconds(10));
        assert_eq!((bucket.found, bucket.expired, bucket.others()), (Some(records[1]), 1, 2));
        assert_eq!(bucket.write(None), bytes[2 * RECORD_BYTES..]);

        let bucket = Bucket::read(&bytes, Some(&records[0].key), UnixSeconds(10));
        assert_eq!((bucket.found, bucket.expired, bucket.others()), (None, 1, 3));
        let bucket = Bucket::read(&bytes, Some(&records[3].key), UnixSeconds(1 << 39));
        assert_eq!(bucket.found, Some(record(4, State::Retaken, LATEST)));
    }

    #[test]
    fn takes_unknown_states_for_spent_and_ignores_half_records() {
        let mut bytes = write(&[record(1, State::InUse, 9), record(2, State::InUse, 9)]);
        bytes[16] = 0xff;
        bytes.pop();
        let bucket = Bucket::read(&bytes, Some(&ClaimKey::from_bytes([1; 16])), UnixSeconds(0));
        assert_eq!((bucket.found, bucket.others()), (Some(record(1, State::Spent, 9)), 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_bucket(bytes: Vec<u8>, key: [u8; 16], now: u64) {
            let bucket = Bucket::read(&bytes, Some(&ClaimKey::from_bytes(key)), UnixSeconds(now));
            let whole = bytes.len() / RECORD_BYTES;
            prop_assert!(bucket.others().saturating_add(bucket.expired as usize) <= whole);
            prop_assert!(bucket.write(None).len() <= bytes.len());
        }
    }
}
