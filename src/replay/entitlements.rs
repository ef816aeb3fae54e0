//! What a settled payment still buys: further requests where it was sold for several, and the same request once more where its answer
//! was not delivered.
//!
//! ```text
//!  several:  grant ──► more: n ── take ──► more: n-1
//!                            ◄─ give_back ─┘              (its answer never began, or one of few times)
//!  again:    give_back ──► open ── take ──► out ── close ──► (nothing)
//!                            ◄─ give_back ─┘
//! ```
//!
//! A payment that bought one answer and got it has no record here.

use super::table::{Entry, Put, Table};
use super::{ClaimKey, Contended, Held, SharedStore, UnixSeconds};
use std::ops::Range;

/// The longest transaction and the longest amount that are kept.
const MAX_TRANSACTION: usize = 128;
const MAX_SAID: usize = 40;

/// What was bought, by a payment that was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// Hash of the payment itself, beyond what makes its claim.
    pub identity: [u8; 16],
    /// Hash of the name of the route that sold.
    pub route: [u8; 16],
    /// What was settled, in the token's smallest unit.
    pub amount: u128,
    /// The settlement's transaction, in visible ASCII of at most 128 bytes.
    pub transaction: String,
    /// The amount as the facilitator said it, if it did: at most 40 digits.
    pub said: Option<String>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// As in [`Purchase`].
    pub identity: [u8; 16],
    /// As in [`Purchase`].
    pub route: [u8; 16],
    /// What it costs now.
    pub amount: u128,
    /// Hash of the request; `None` if its body is not known.
    pub request: Option<[u8; 16]>,
}

/// What lets a request pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Its own payment, just settled.
    First,
    /// It is one of several that its payment was sold for.
    More,
    /// An earlier answer to the same request was not delivered.
    Again,
}

/// An answer that was not delivered to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// What had let its request pass.
    pub right: Right,
    /// As in [`Wanted`].
    pub request: Option<[u8; 16]>,
    /// Whether any of it was.
    pub begun: bool,
    /// How many answers of a payment may begin in vain, beside the last one.
    pub times: u8,
    /// Until when the same request is served again.
    pub until: UnixSeconds,
}

/// What the records in a store say, by the payment's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entitlements {
    table: Table,
}

impl Entitlements {
    /// Room for so many.
    pub const fn new(max_records: u32) -> Self {
        Self {
            table: Table::new("entitlements/1", max_records),
        }
    }

    /// Notes that a payment buys so many more requests, until its claim expires.
    ///
    /// # Errors
    ///
    /// [`Contended`]: it does not.
    pub fn grant(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        purchase: &Purchase,
        more: u32,
        expiry: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<(), Contended> {
        let record = Record {
            more,
            ..Record::new(purchase.clone())
        };
        self.table.edit(store, key, now, |_| (record.put(expiry), ()))
    }

    /// Takes what a payment still buys; `None` if that is nothing.
    ///
    /// # Errors
    ///
    /// [`Held::InUse`] while another request is being served again for it; [`Held::Contended`].
    pub fn take(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        wanted: &Wanted,
        now: UnixSeconds,
    ) -> Result<Option<(Right, Purchase)>, Held> {
        self.table.edit(store, key, now, |entry| {
            let found = entry.and_then(|entry| Some((entry.expiry, Record::decode(&entry.contents)?)));
            let Some((expiry, mut record)) = found else {
                return (Put::Keep, Ok(None));
            };
            let same = record.purchase.identity == wanted.identity && record.purchase.route == wanted.route;
            let right = match (record.more.checked_sub(1), record.again) {
                _ if !same => return (Put::Keep, Ok(None)),
                (Some(fewer), _) if wanted.amount <= record.purchase.amount => {
                    record.more = fewer;
                    Right::More
                }
                (_, Again::Open(request)) if wanted.request == Some(request) => {
                    record.again = Again::Out(request);
                    Right::Again
                }
                (_, Again::Out(request)) if wanted.request == Some(request) => return (Put::Keep, Err(Held::InUse)),
                _ => return (Put::Keep, Ok(None)),
            };
            (record.put(expiry), Ok(Some((right, record.purchase))))
        })?
    }

    /// Gives back what an answer was not delivered for. Whether it can be had again.
    ///
    /// # Errors
    ///
    /// [`Contended`]: it cannot.
    pub fn give_back(
        &self,
        store: &(impl SharedStore + ?Sized),
        key: &ClaimKey,
        purchase: &Purchase,
        undelivered: &Undelivered,
        now: UnixSeconds,
    ) -> Result<bool, Contended> {
        self.table.edit(store, key, now, |entry| {
            let found = entry.and_then(|entry| Some((entry.expiry, Record::decode(&entry.contents)?)));
            let is_new = found.is_none();
            let (expiry, mut record) = found.unwrap_or_else(|| (now, Record::new(purchase.clone())));
            let Undelivered {
                right,
                request,
                begun,
                times,
                until,
            } = *undelivered;
            // It has outlasted its record, which knew how many had begun before.
            if is_new && begun && right == Right::Again {
                return (Put::Keep, false);
            }
            if is_new && right == Right::Again {
                record.begun = times;
            }
            record.begun = record.begun.saturating_add(u8::from(begun));
            // The first of several is one of several. What has outlasted the time of all of them can be had by itself.
            let several = right != Right::Again && !is_new;
            match request {
                _ if begun && record.begun > times => record.again = Again::Never,
                _ if several => {
                    record.more = record.more.saturating_add(1);
                    return (record.put(expiry), true);
                }
                Some(request) if times > 0 => {
                    record.again = Again::Open(request);
                    return (record.put(expiry.max(until)), true);
                }
                _ => record.again = Again::Never,
            }
            let put = if is_new { Put::Keep } else { record.put(expiry) };
            (put, false)
        })
    }

    /// Notes that an answer that was had again was delivered.
    ///
    /// # Errors
    ///
    /// [`Contended`]: it cannot be had again all the same.
    pub fn close(&self, store: &(impl SharedStore + ?Sized), key: &ClaimKey, now: UnixSeconds) -> Result<(), Contended> {
        self.table.edit(store, key, now, |_| (Put::Remove, ()))
    }

    /// Drops what has expired, as [`Claims::sweep`](super::Claims::sweep) does.
    pub fn sweep(&self, store: &(impl SharedStore + ?Sized), buckets: Range<u32>, now: UnixSeconds) -> u32 {
        self.table.sweep(store, buckets, now)
    }
}

/// Whether the same request is served again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Never,
    Open([u8; 16]),
    /// It is being.
    Out([u8; 16]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    purchase: Purchase,
    more: u32,
    again: Again,
    /// How many answers had begun and did not come to their end.
    begun: u8,
}

impl Record {
    fn new(purchase: Purchase) -> Self {
        Self {
            purchase,
            more: 0,
            again: Again::Never,
            begun: 0,
        }
    }

    fn put(&self, expiry: UnixSeconds) -> Put {
        Put::Write(Entry {
            expiry,
            contents: self.encode(),
        })
    }

    /// Identity (16), route (16), amount (16), more (4), begun (1), again (1 and 16), length of the transaction (1) and its bytes; what
    /// follows is the amount that was said.
    fn encode(&self) -> Vec<u8> {
        let (state, request) = match self.again {
            Again::Never => (0, [0; 16]),
            Again::Open(request) => (1, request),
            Again::Out(request) => (2, request),
        };
        let Purchase {
            identity,
            route,
            amount,
            transaction,
            said,
        } = &self.purchase;
        let transaction = transaction.as_bytes().get(..MAX_TRANSACTION).unwrap_or(transaction.as_bytes());
        let said = said.as_deref().filter(|said| said.len() <= MAX_SAID).unwrap_or_default();
        let mut bytes = [&identity[..], route, &amount.to_be_bytes(), &self.more.to_be_bytes()].concat();
        bytes.extend([self.begun, state]);
        bytes.extend_from_slice(&request);
        bytes.push(u8::try_from(transaction.len()).unwrap_or(0));
        bytes.extend_from_slice(transaction);
        bytes.extend_from_slice(said.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (identity, bytes) = bytes.split_first_chunk::<16>()?;
        let (route, bytes) = bytes.split_first_chunk::<16>()?;
        let (amount, bytes) = bytes.split_first_chunk::<16>()?;
        let (more, bytes) = bytes.split_first_chunk::<4>()?;
        let ([begun, state], bytes) = bytes.split_first_chunk::<2>()?;
        let (request, bytes) = bytes.split_first_chunk::<16>()?;
        let (length, bytes) = bytes.split_first()?;
        let (transaction, said) = bytes.split_at_checked(usize::from(*length))?;
        let text = |bytes: &[u8]| core::str::from_utf8(bytes).ok().map(str::to_owned);
        Some(Self {
            purchase: Purchase {
                identity: *identity,
                route: *route,
                amount: u128::from_be_bytes(*amount),
                transaction: text(transaction)?,
                said: (!said.is_empty()).then(|| text(said)).flatten(),
            },
            more: u32::from_be_bytes(*more),
            again: match state {
                1 => Again::Open(*request),
                2 => Again::Out(*request),
                _ => Again::Never,
            },
            begun: *begun,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{MAX_TRIES, MemoryStore};
    use proptest::prelude::*;

    const NOW: UnixSeconds = UnixSeconds(1_000);
    const KEY: ClaimKey = ClaimKey::from_bytes([5; 16]);
    const WANTED: Wanted = Wanted {
        identity: [1; 16],
        route: [2; 16],
        amount: 1_000,
        request: Some([3; 16]),
    };

    fn purchase() -> Purchase {
        Purchase {
            identity: [1; 16],
            route: [2; 16],
            amount: 1_000,
            transaction: "0xabc".into(),
            said: None,
        }
    }

    fn undelivered(right: Right, begun: bool) -> Undelivered {
        Undelivered {
            right,
            request: WANTED.request,
            begun,
            times: 1,
            until: NOW.plus(120),
        }
    }

    struct World {
        all: Entitlements,
        store: MemoryStore,
        now: UnixSeconds,
    }

    impl World {
        fn new() -> Self {
            Self {
                all: Entitlements::new(1000),
                store: MemoryStore::new(),
                now: NOW,
            }
        }

        fn take(&self, wanted: Wanted) -> Result<Option<Right>, Held> {
            let taken = self.all.take(&self.store, &KEY, &wanted, self.now)?;
            assert!(taken.iter().all(|(_, bought)| *bought == purchase()));
            Ok(taken.map(|(right, _)| right))
        }

        fn give_back(&self, right: Right, begun: bool) -> bool {
            let undelivered = undelivered(right, begun);
            self.all.give_back(&self.store, &KEY, &purchase(), &undelivered, self.now).unwrap()
        }
    }

    #[test]
    fn the_same_request_is_served_once_more() {
        let world = World::new();
        assert_eq!(world.take(WANTED), Ok(None));
        assert!(world.give_back(Right::First, true));
        for other in [
            Wanted {
                request: Some([4; 16]),
                ..WANTED
            },
            Wanted { request: None, ..WANTED },
            Wanted {
                identity: [4; 16],
                ..WANTED
            },
            Wanted { route: [4; 16], ..WANTED },
        ] {
            assert_eq!(world.take(other), Ok(None), "{other:?}");
        }
        assert_eq!(world.take(WANTED), Ok(Some(Right::Again)));
        assert_eq!(world.take(WANTED), Err(Held::InUse));
        // A backend that fails uses nothing up; an answer that has begun does.
        assert!(world.give_back(Right::Again, false));
        assert_eq!(world.take(WANTED), Ok(Some(Right::Again)));
        assert!(!world.give_back(Right::Again, true));
        assert_eq!(world.take(WANTED), Ok(None));
    }

    #[test]
    fn an_answer_that_never_began_is_not_one_of_the_times() {
        let world = World::new();
        assert!(world.give_back(Right::First, false));
        assert_eq!(world.take(WANTED), Ok(Some(Right::Again)));
        assert!(world.give_back(Right::Again, true));
        assert_eq!(world.take(WANTED), Ok(Some(Right::Again)));
        assert!(!world.give_back(Right::Again, true));
    }

    #[test]
    fn what_was_delivered_is_not_served_again() {
        let world = World::new();
        assert!(world.give_back(Right::First, true));
        assert_eq!(world.take(WANTED), Ok(Some(Right::Again)));
        world.all.close(&world.store, &KEY, NOW).unwrap();
        assert_eq!(world.take(WANTED), Ok(None));
        assert_eq!(world.store.bytes().1, 0);
    }

    #[test]
    fn it_lasts_as_long_as_it_says() {
        let mut world = World::new();
        assert!(world.give_back(Right::First, true));
        world.now = NOW.plus(120);
        assert_eq!(world.take(WANTED), Ok(Some(Right::Again)));
        world.now = NOW.plus(121);
        assert_eq!(world.take(WANTED), Ok(None));
    }

    #[test]
    fn without_a_known_request_or_any_times_there_is_nothing() {
        let world = World::new();
        for (request, times) in [(None, 1), (WANTED.request, 0)] {
            let undelivered = Undelivered {
                request,
                times,
                ..undelivered(Right::First, true)
            };
            let given = world.all.give_back(&world.store, &KEY, &purchase(), &undelivered, NOW);
            assert_eq!(given, Ok(false));
        }
        assert_eq!(world.store.bytes().1, 0);
    }

    #[test]
    fn several_requests_are_counted_down() {
        let mut world = World::new();
        world.all.grant(&world.store, &KEY, &purchase(), 2, NOW.plus(60), NOW).unwrap();
        assert_eq!(world.take(Wanted { amount: 1_001, ..WANTED }), Ok(None));
        assert_eq!(
            world.take(Wanted {
                amount: 1,
                request: None,
                ..WANTED
            }),
            Ok(Some(Right::More))
        );
        assert_eq!(world.take(WANTED), Ok(Some(Right::More)));
        assert_eq!(world.take(WANTED), Ok(None));
        // None of them began: all three come back. Those that did come back once in all.
        assert!(world.give_back(Right::First, false) && world.give_back(Right::More, false) && world.give_back(Right::More, false));
        for _ in 0..3 {
            assert_eq!(world.take(WANTED), Ok(Some(Right::More)));
        }
        assert!(world.give_back(Right::First, true));
        assert!(!world.give_back(Right::More, true));
        assert_eq!(world.take(WANTED), Ok(Some(Right::More)));
        assert_eq!(world.take(WANTED), Ok(None));
        assert!(world.give_back(Right::More, false));
        world.now = NOW.plus(61);
        assert_eq!(world.take(WANTED), Ok(None));
    }

    #[test]
    fn what_outlasts_its_record_does_not_begin_anew() {
        let world = World::new();
        let give_back = |right, begun, now| {
            let undelivered = Undelivered {
                times: 2,
                until: UnixSeconds(now).plus(10),
                ..undelivered(right, begun)
            };
            world
                .all
                .give_back(&world.store, &KEY, &purchase(), &undelivered, UnixSeconds(now))
                .unwrap()
        };
        let take = |now| {
            world
                .all
                .take(&world.store, &KEY, &WANTED, UnixSeconds(now))
                .unwrap()
                .map(|(right, _)| right)
        };
        assert!(give_back(Right::First, true, 1_000));
        assert_eq!(take(1_001), Some(Right::Again));
        // Its answer takes longer than the window, and there are two more tries at most.
        assert!(!give_back(Right::Again, true, 1_100));
        assert_eq!(take(1_101), None);
        // One of several, whose payment has expired meanwhile.
        assert!(give_back(Right::More, true, 1_200));
        assert_eq!(take(1_201), Some(Right::Again));
        assert!(give_back(Right::Again, false, 1_300));
        assert_eq!(take(1_301), Some(Right::Again));
        // Two had begun when that was forgotten, for all that is known now.
        assert!(!give_back(Right::Again, true, 1_302));
        assert_eq!(take(1_303), None);
    }

    #[test]
    fn contention_gives_nothing() {
        let world = World::new();
        assert!(world.give_back(Right::First, true));
        world.store.inject_conflicts(MAX_TRIES);
        assert_eq!(world.take(WANTED), Err(Held::Contended));
        assert_eq!(world.take(WANTED), Ok(Some(Right::Again)));
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            hashes: ([u8; 16], [u8; 16], [u8; 16]), amount: u128, more: u32, begun: u8, state in 0_u8..3,
            transaction in "[!-~]{0,128}", said in prop::option::of("[0-9]{1,40}"),
        ) {
            let (identity, route, request) = hashes;
            let again = match state {
                0 => Again::Never,
                1 => Again::Open(request),
                _ => Again::Out(request),
            };
            let record = Record { purchase: Purchase { identity, route, amount, transaction, said }, more, again, begun };
            let bytes = record.encode();
            prop_assert!(bytes.len() <= 255);
            prop_assert_eq!(Record::decode(&bytes), Some(record));
        }

        #[test]
        fn any_bytes_are_some_record_or_none(bytes: Vec<u8>) {
            if let Some(record) = Record::decode(&bytes) {
                let _ = record.encode();
            }
        }
    }
}
