//! Tests with real threads, and of what a store of claims costs.
#![allow(clippy::arithmetic_side_effects)] // of counters, in tests only

use super::*;
use crate::evm::keccak256;
use std::sync::Barrier;
use std::thread;

const NOW: UnixSeconds = UnixSeconds(1_795_223_574);
const LATER: UnixSeconds = NOW.plus(300);

fn key(number: u32) -> ClaimKey {
    ClaimKey::solana(&[9; 16], "solana:test", &keccak256(&number.to_be_bytes()))
}

/// Runs `work` on this many threads at once and returns what each found.
fn at_once<T: Send>(threads: u32, work: impl Fn(u32) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(threads as usize);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|number| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    work(number)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

#[test]
fn of_a_hundred_claims_one_wins() {
    let claims = Claims::new(1000);
    for round in 0..40 {
        let store = MemoryStore::new();
        let results = at_once(100, |_| claims.claim(&store, &key(round), LATER, NOW));
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(
            results
                .iter()
                .all(|result| matches!(result, Ok(_) | Err(Held::InUse)))
        );
    }
}

#[test]
fn of_many_who_take_over_one_wins() {
    let claims = Claims::new(1000);
    for round in 0..40 {
        let store = MemoryStore::new();
        claims.claim(&store, &key(round), LATER, NOW).unwrap();
        claims
            .mark_pending(&store, &key(round), LATER, NOW)
            .unwrap();
        let results = at_once(50, |_| claims.retake(&store, &key(round), LATER, NOW));
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(
            results
                .iter()
                .all(|result| matches!(result, Ok(_) | Err(Held::InUse)))
        );
    }
}

#[test]
fn neighbours_in_a_bucket_lose_nothing() {
    let claims = Claims::with_buckets(1, 2000);
    let store = MemoryStore::new();
    let net: i64 = at_once(8, |thread| {
        let mut net = 0_i64;
        for number in 0..100 {
            let key = key(thread << 16 | number);
            net += loop {
                match claims.claim(&store, &key, LATER, NOW) {
                    Ok(change) => break change.net(),
                    Err(held) => assert_eq!(held, Held::Contended),
                }
            };
            if number % 2 == 0 {
                net += loop {
                    if let Ok(change) = claims.release(&store, &key, NOW) {
                        break change.net();
                    }
                };
            }
        }
        net
    })
    .into_iter()
    .sum();
    assert_eq!(net, 400);
    assert_eq!(store.bytes().1, 400 * RECORD_BYTES);
    for (thread, number) in (0..8).flat_map(|thread| (0..100).map(move |number| (thread, number))) {
        let held = claims.state(&store, &key(thread << 16 | number), NOW);
        assert_eq!(held, (number % 2 == 1).then_some(State::InUse));
    }
}

/// Claims and releases race on one key: at no time do two threads hold it.
#[test]
fn a_claim_has_one_holder_at_a_time() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let claims = Claims::new(1000);
    let store = MemoryStore::new();
    let holders = AtomicU32::new(0);
    let won: u32 = at_once(8, |_| {
        let mut won = 0;
        for _ in 0..500 {
            if claims.claim(&store, &key(1), LATER, NOW).is_ok() {
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                won += 1;
                holders.fetch_sub(1, Ordering::SeqCst);
                claims.release(&store, &key(1), NOW).unwrap();
            }
        }
        won
    })
    .into_iter()
    .sum();
    assert!(won > 0);
    assert_eq!(store.bytes().1, 0);
}

#[test]
fn all_claims_that_were_promised_find_room_in_bounded_memory() {
    let max_claims = 50_000;
    let claims = Claims::new(max_claims);
    let store = MemoryStore::new();
    for number in 0..max_claims {
        assert_eq!(
            claims.claim(&store, &key(number), LATER, NOW),
            Ok(Change {
                added: 1,
                dropped: 0
            })
        );
    }
    let (keys, values) = store.bytes();
    assert_eq!(values, max_claims as usize * RECORD_BYTES);
    assert!((keys + values) / max_claims as usize <= 100);

    // All have expired: a round of sweeps empties the store, a bucket at a time.
    let dropped: u32 = (0..DEFAULT_BUCKETS / 64 + 1)
        .map(|tick| claims.sweep(&store, tick * 64..(tick + 1) * 64, LATER.plus(1)))
        .sum();
    assert_eq!((dropped, store.bytes().1), (max_claims, 0));
}

#[test]
fn the_worst_case_is_bounded_too() {
    for max_claims in [0, 1, 4096, 100_000, 1_000_000, 50_000_000, u32::MAX] {
        let claims = Claims::new(max_claims);
        let bytes = claims.capacity() * RECORD_BYTES * DEFAULT_BUCKETS as usize;
        assert!(
            bytes <= 4 << 20 || bytes / max_claims as usize <= 100,
            "{max_claims}: {bytes}"
        );
        assert!(claims.capacity() as u64 * u64::from(DEFAULT_BUCKETS) >= u64::from(max_claims));
    }
}

#[test]
fn a_full_bucket_refuses_until_something_expires() {
    let claims = Claims::with_buckets(1, 0);
    let store = MemoryStore::new();
    let room = u32::try_from(claims.capacity()).unwrap();
    for number in 0..room {
        claims
            .claim(&store, &key(number), LATER.plus(u64::from(number % 2)), NOW)
            .unwrap();
    }
    assert_eq!(
        claims.claim(&store, &key(room), LATER, NOW),
        Err(Held::Full)
    );
    assert_eq!(
        claims.retake(&store, &key(room), LATER, NOW),
        Err(Held::Full)
    );
    assert_eq!(claims.claim(&store, &key(0), LATER, NOW), Err(Held::InUse));
    assert_eq!(
        claims.claim(&store, &key(room), LATER, LATER),
        Err(Held::Full)
    );
    // What has been paid must be written down all the same.
    assert_eq!(
        claims.mark_spent(&store, &key(room), LATER, NOW),
        Ok(Change {
            added: 1,
            dropped: 0
        })
    );
    let change = claims
        .claim(&store, &key(room + 1), LATER.plus(9), LATER.plus(1))
        .unwrap();
    assert_eq!(
        change,
        Change {
            added: 1,
            dropped: room.div_ceil(2) + 1
        }
    );
}

#[test]
fn contention_changes_nothing() {
    let claims = Claims::new(1000);
    let store = MemoryStore::new();
    store.inject_conflicts(MAX_TRIES - 1);
    assert!(claims.claim(&store, &key(1), LATER, NOW).is_ok());
    store.inject_conflicts(MAX_TRIES);
    assert_eq!(
        claims.claim(&store, &key(2), LATER, NOW),
        Err(Held::Contended)
    );
    assert_eq!(claims.state(&store, &key(2), NOW), None);
    store.inject_conflicts(MAX_TRIES);
    assert_eq!(
        claims.mark_spent(&store, &key(1), LATER, NOW),
        Err(Contended)
    );
    store.inject_conflicts(MAX_TRIES);
    assert_eq!(
        claims.mark_pending(&store, &key(1), LATER, NOW),
        Err(Contended)
    );
    store.inject_conflicts(MAX_TRIES);
    assert_eq!(claims.release(&store, &key(1), NOW), Err(Contended));
    assert_eq!(claims.state(&store, &key(1), NOW), Some(State::InUse));
    store.inject_conflicts(1);
    assert_eq!(claims.sweep(&store, 0..u32::MAX, LATER.plus(1)), 0);
    assert_eq!(claims.sweep(&store, 0..u32::MAX, LATER.plus(1)), 1);
}

#[test]
fn works_through_a_trait_object() {
    let store = MemoryStore::new();
    let shared: &dyn SharedStore = &store;
    let claims = Claims::new(1000);
    let secret = secret(shared, [1; 16]).unwrap();
    let key = ClaimKey::solana(&secret, "solana:test", &[0; 32]);
    assert!(claims.claim(shared, &key, LATER, NOW).is_ok());
    assert_eq!(
        claims.mark_spent(shared, &key, LATER, NOW),
        Ok(Change::default())
    );
    assert_eq!(claims.state(shared, &key, NOW), Some(State::Spent));
}
