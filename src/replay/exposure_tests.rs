//! Exposure: its limits, its ends, and its races.
#![allow(clippy::arithmetic_side_effects)] // of small numbers, in tests only

use super::*;
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

fn trust(payer: u8, amount: u64) -> Trust {
    trust_until(payer, amount, NOW.plus(300))
}

fn trust_until(payer: u8, amount: u64, expiry: UnixSeconds) -> Trust {
    Trust {
        payer: key(1, payer),
        all: key(2, 0),
        amount,
        expiry,
    }
}

/// A store in which the keys with this in their names are contended for ever.
struct Contends<'s>(&'s MemoryStore, &'static str);

impl SharedStore for Contends<'_> {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.0.get(key)
    }

    fn compare_and_swap(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), Conflict> {
        if key.contains(self.1) {
            return Err(Conflict);
        }
        self.0.compare_and_swap(key, value, cas)
    }
}

#[test]
fn trust_ends_at_the_payers_limit_and_at_that_of_all() {
    let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
    let open = |trust: &Trust| {
        let (checked, opened) = (
            exposure.check(&store, trust, &LIMITS, NOW),
            exposure.open(&store, trust, &LIMITS, NOW),
        );
        assert_eq!(checked, opened.as_ref().map(|_| ()).map_err(|exceeded| *exceeded));
        opened
    };
    let first = open(&trust(1, 60)).unwrap();
    assert_eq!(open(&trust(1, 41)), Err(Exceeded::Payer));
    let _second = open(&trust(1, 40)).unwrap();
    let _other = open(&trust(2, 100)).unwrap();
    assert_eq!(open(&trust(3, 51)), Err(Exceeded::Total));
    let _third = open(&trust(3, 50)).expect("what was not given left nothing behind");
    exposure.close(&store, first, NOW).unwrap();
    assert_eq!(open(&trust(1, 61)), Err(Exceeded::Payer));
    assert_eq!(open(&trust(4, 61)), Err(Exceeded::Total));
    assert!(open(&trust(1, 60)).is_ok());
}

#[test]
fn what_has_no_limit_is_kept_for_the_day_on_which_it_has_one() {
    let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
    let none = Limits::default();
    let opened = exposure.open(&store, &trust(1, u64::MAX), &none, NOW).unwrap();
    assert!(exposure.open(&store, &trust(1, 1000), &none, NOW).is_ok());
    assert_eq!(exposure.open(&store, &trust(1, 1), &LIMITS, NOW), Err(Exceeded::Payer));
    assert_eq!(exposure.open(&store, &trust(2, 1), &LIMITS, NOW), Err(Exceeded::Total));
    exposure.close(&store, opened, NOW).unwrap();
}

#[test]
fn what_nobody_closes_ends_soon_after_its_claim() {
    for life in [0, 5, 31, 60, 300, 3600, 604_800] {
        // Wherever the clock stands.
        for start in (0..700).step_by(23) {
            let (exposure, store, now) = (Exposure::new(1000), MemoryStore::new(), NOW.plus(start));
            let expiry = now.plus(life);
            let _ = exposure.open(&store, &trust_until(1, 100, expiry), &LIMITS, now).unwrap();
            let _ = exposure.open(&store, &trust_until(2, 100, expiry), &LIMITS, now).unwrap();
            let open = |payer, now: UnixSeconds| {
                let opened = exposure.open(&store, &trust_until(payer, 51, now.plus(9)), &LIMITS, now)?;
                exposure.close(&store, opened, now).unwrap();
                Ok(())
            };
            assert_eq!(open(1, expiry), Err(Exceeded::Payer));
            assert_eq!(open(3, expiry), Err(Exceeded::Total));
            let soon = expiry.plus(life / 16 + 1);
            assert_eq!((open(1, soon), open(3, soon)), (Ok(()), Ok(())), "{life} s from {now}");
        }
    }
}

#[test]
fn closing_what_has_expired_takes_nothing_from_others() {
    let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
    let late = exposure.open(&store, &trust(1, 100), &LIMITS, NOW).unwrap();
    let now = NOW.plus(400);
    let _ = exposure.open(&store, &trust_until(1, 100, now.plus(300)), &LIMITS, now).unwrap();
    exposure.close(&store, late, now).unwrap();
    assert_eq!(
        exposure.open(&store, &trust_until(1, 1, now.plus(300)), &LIMITS, now),
        Err(Exceeded::Payer)
    );
}

#[test]
fn a_payer_with_many_open_takes_little_room_and_none_of_its_neighbours() {
    let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
    let limits = Limits {
        payer: Some(10_000),
        total: None,
    };
    let opened: Vec<Opened> = (0..10_000)
        .map(|number| {
            // Ten a second, each good for the same time.
            let now = NOW.plus(number / 10);
            let many = trust_until(1, 1, now.plus(3600));
            exposure.open(&store, &many, &limits, now).unwrap()
        })
        .collect();
    let now = NOW.plus(1000);
    assert_eq!(exposure.open(&store, &trust_until(1, 1, now), &limits, now), Err(Exceeded::Payer));
    assert!(store.bytes().1 < 1000, "{:?}", store.bytes());
    assert!(exposure.open(&store, &trust_until(3, 1, now), &limits, now).is_ok());
    for opened in opened {
        exposure.close(&store, opened, now).unwrap();
    }
    assert!(exposure.open(&store, &trust_until(1, 10_000, now), &limits, now).is_ok());
}

#[test]
fn a_full_bucket_gives_no_trust_until_something_expires() {
    let (exposure, store) = (Exposure::new(0), MemoryStore::new());
    let payers: Vec<u8> = (0..u8::MAX).step_by(2).collect();
    let fit = payers
        .iter()
        .take_while(|payer| exposure.open(&store, &trust(**payer, 1), &Limits::default(), NOW).is_ok());
    let fit = u8::try_from(fit.count()).unwrap();
    assert!((16..100).contains(&fit), "{fit}");
    let open = |payer, now| exposure.open(&store, &trust(payer, 1), &Limits::default(), now);
    assert_eq!(open(200, NOW), Err(Exceeded::Unavailable));
    assert!(open(0, NOW).is_ok(), "one that is in it already");
    assert!(open(201, NOW).is_ok(), "one of another bucket");
    let later = NOW.plus(400);
    let dropped = exposure.sweep(&store, 0..u32::MAX, later);
    assert_eq!(dropped, u32::from(fit) + 1);
    assert!(exposure.open(&store, &trust_until(200, 1, later), &LIMITS, later).is_ok());
}

#[test]
fn contention_gives_no_trust_and_leaves_none() {
    let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
    for contended in ["exposure/2/0", "exposure/2/sum"] {
        let contends = Contends(&store, contended);
        assert_eq!(exposure.open(&contends, &trust(1, 100), &LIMITS, NOW), Err(Exceeded::Unavailable));
        let opened = exposure.open(&store, &trust(1, 100), &LIMITS, NOW).expect("nothing is open");
        exposure.close(&store, opened, NOW).unwrap();
    }
    store.inject_conflicts(MAX_TRIES - 1);
    assert!(exposure.open(&store, &trust(1, 100), &LIMITS, NOW).is_ok());
}

#[test]
fn what_cannot_be_closed_stays_open_and_no_more_than_that() {
    for (contended, of_payer, of_all) in [
        ("exposure/2/0", Err(Exceeded::Payer), Ok(())),
        ("exposure/2/sum", Ok(()), Err(Exceeded::Total)),
    ] {
        let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
        let opened = exposure.open(&store, &trust(1, 100), &LIMITS, NOW).unwrap();
        assert_eq!(exposure.close(&Contends(&store, contended), opened, NOW), Err(Contended));
        let open = |payer, limits: Limits| {
            let opened = exposure.open(&store, &trust(payer, 100), &limits, NOW)?;
            exposure.close(&store, opened, NOW).unwrap();
            Ok(())
        };
        assert_eq!(open(1, Limits { total: None, ..LIMITS }), of_payer);
        assert_eq!(
            open(
                2,
                Limits {
                    total: Some(199),
                    ..LIMITS
                }
            ),
            of_all
        );
    }
}

#[test]
fn workers_that_collide_give_no_more_than_the_limits() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
    let (all, contended) = (AtomicU64::new(0), AtomicBool::new(false));
    let payers: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for worker in 0..8_u8 {
            let (exposure, store, all, payers, contended) = (&exposure, &store, &all, &payers, &contended);
            scope.spawn(move || {
                let mut kept = Vec::new();
                for round in 0..200_u64 {
                    let (payer, amount) = (worker % 4, 20 + round % 3 * 20);
                    let of_payer = &payers[usize::from(payer)];
                    if let Ok(opened) = exposure.open(store, &trust(payer, amount), &LIMITS, NOW) {
                        // Counted after it was given and before it is taken back: never more than what is open.
                        assert!(of_payer.fetch_add(amount, Ordering::SeqCst) + amount <= 100);
                        assert!(all.fetch_add(amount, Ordering::SeqCst) + amount <= 250);
                        kept.push((opened, amount));
                    }
                    if round % 2 == 1 {
                        for (opened, amount) in kept.drain(..) {
                            of_payer.fetch_sub(amount, Ordering::SeqCst);
                            all.fetch_sub(amount, Ordering::SeqCst);
                            if exposure.close(store, opened, NOW).is_err() {
                                contended.store(true, Ordering::SeqCst);
                            }
                        }
                    }
                }
            });
        }
    });
    // All of it was given back, unless a thread was unlucky 64 times in a row.
    assert!(contended.into_inner() || store.bytes().1 == 0);
}

#[derive(Clone, Debug)]
enum Event {
    Open { payer: u8, amount: u64, life: u64 },
    Close(usize),
    Forget(usize),
    Sweep,
    Wait(u64),
    Conflicts(u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0_u8..4, 0_u64..120, 0_u64..32).prop_map(|(payer, amount, life)| Event::Open { payer, amount, life }),
        4 => any::<usize>().prop_map(Event::Close),
        1 => any::<usize>().prop_map(Event::Forget),
        1 => Just(Event::Sweep),
        2 => (0_u64..12).prop_map(Event::Wait),
        2 => (0..MAX_TRIES).prop_map(Event::Conflicts),
    ];
    proptest::collection::vec(event, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Against a map that knows everything. Lives are so short that slots are exact.
    #[test]
    fn it_is_what_a_map_would_be(events in events()) {
        let (exposure, store) = (Exposure::new(1000), MemoryStore::new());
        let mut model: BTreeMap<usize, (u8, u64, u64)> = BTreeMap::new();
        let mut held: Vec<(usize, Opened)> = Vec::new();
        let mut now = NOW;
        for (number, event) in events.into_iter().enumerate() {
            model.retain(|_, (_, _, expiry)| *expiry >= now.0);
            match event {
                Event::Open { payer, amount, life } => {
                    let sum = |of: Option<u8>| -> u64 {
                        model.values().filter(|(by, _, _)| of.is_none_or(|of| of == *by)).map(|(_, amount, _)| amount).sum()
                    };
                    let expected = if sum(Some(payer)) + amount > 100 {
                        Err(Exceeded::Payer)
                    } else if sum(None) + amount > 250 {
                        Err(Exceeded::Total)
                    } else {
                        Ok(())
                    };
                    let expiry = now.plus(life);
                    prop_assert_eq!(exposure.check(&store, &trust_until(payer, amount, expiry), &LIMITS, now), expected);
                    let result = exposure.open(&store, &trust_until(payer, amount, expiry), &LIMITS, now);
                    prop_assert_eq!(result.as_ref().map(|_| ()).map_err(|exceeded| *exceeded), expected);
                    if let Ok(opened) = result {
                        model.insert(number, (payer, amount, expiry.0));
                        held.push((number, opened));
                    }
                }
                Event::Close(which) if !held.is_empty() => {
                    let (number, opened) = held.swap_remove(which % held.len());
                    model.remove(&number);
                    prop_assert_eq!(exposure.close(&store, opened, now), Ok(()));
                }
                // Its worker has died: it stays until it expires.
                Event::Forget(which) if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                Event::Close(_) | Event::Forget(_) => {}
                Event::Sweep => {
                    exposure.sweep(&store, 0..u32::MAX, now);
                }
                Event::Wait(seconds) => now = now.plus(seconds),
                Event::Conflicts(count) => store.inject_conflicts(count),
            }
        }
    }
}
