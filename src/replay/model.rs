//! Claims against a model: a map, a clock and the rules of the states.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Copy, Debug)]
enum Operation {
    Claim(u8, u64),
    Retake(u8, u64),
    Release(u8),
    Forgive(u8),
    MarkPending(u8, u64),
    MarkLeft(u8, u64),
    MarkSpent(u8, u64),
    Sweep(u32, u32),
    Wait(u64),
    Conflicts(u32),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let (key, life) = (0_u8..6, 0_u64..40);
    let operation = prop_oneof![
        6 => (key.clone(), life.clone()).prop_map(|(key, life)| Operation::Claim(key, life)),
        3 => (key.clone(), life.clone()).prop_map(|(key, life)| Operation::Retake(key, life)),
        4 => key.clone().prop_map(Operation::Release),
        1 => key.clone().prop_map(Operation::Forgive),
        3 => (key.clone(), life.clone()).prop_map(|(key, life)| Operation::MarkPending(key, life)),
        1 => (key.clone(), life.clone()).prop_map(|(key, life)| Operation::MarkLeft(key, life)),
        2 => (key, life).prop_map(|(key, life)| Operation::MarkSpent(key, life)),
        2 => (0_u32..4, 0_u32..4).prop_map(|(from, to)| Operation::Sweep(from, to)),
        4 => (0_u64..15).prop_map(Operation::Wait),
        2 => (0_u32..MAX_TRIES).prop_map(Operation::Conflicts),
    ];
    prop::collection::vec(operation, 1..60)
}

/// What ought to be: the claims that were made and have not ended, whether or not they have expired.
#[derive(Default)]
struct Model {
    claims: HashMap<u8, (State, u64)>,
}

impl Model {
    fn state(&self, key: u8, now: u64) -> Option<State> {
        self.claims.get(&key).filter(|(_, expiry)| *expiry >= now).map(|(state, _)| *state)
    }

    fn put(&mut self, key: u8, state: State, expiry: u64, now: u64) {
        let expiry = match self.claims.get(&key) {
            Some((_, before)) if *before >= now => expiry.max(*before),
            _ => expiry.max(now),
        };
        self.claims.insert(key, (state, expiry));
    }

    /// Applies an operation on one key; an error is what a claim ought to be refused with.
    fn apply(&mut self, operation: Operation, now: u64) -> Result<(), Held> {
        match operation {
            Operation::Claim(key, life) => match self.state(key, now) {
                None => self.put(key, State::InUse, now.saturating_add(life), now),
                Some(State::InUse | State::Retaken) => return Err(Held::InUse),
                Some(State::Pending | State::Left) => return Err(Held::Pending),
                Some(State::Spent) => return Err(Held::Spent),
            },
            Operation::Retake(key, life) => match self.state(key, now) {
                None | Some(State::Pending) => {
                    self.put(key, State::Retaken, now.saturating_add(life), now);
                }
                Some(State::InUse | State::Retaken) => return Err(Held::InUse),
                Some(State::Left) => return Err(Held::Pending),
                Some(State::Spent) => return Err(Held::Spent),
            },
            Operation::Release(key) => match self.state(key, now) {
                Some(State::InUse) => {
                    self.claims.remove(&key);
                }
                Some(State::Retaken) => self.put(key, State::Pending, 0, now),
                _ => {}
            },
            Operation::Forgive(key) => {
                if self.state(key, now) != Some(State::Spent) {
                    self.claims.remove(&key);
                }
            }
            Operation::MarkPending(key, life) => {
                if self.state(key, now) != Some(State::Spent) {
                    self.put(key, State::Pending, now.saturating_add(life), now);
                }
            }
            Operation::MarkLeft(key, life) => {
                if self.state(key, now) != Some(State::Spent) {
                    self.put(key, State::Left, now.saturating_add(life), now);
                }
            }
            Operation::MarkSpent(key, life) => {
                self.put(key, State::Spent, now.saturating_add(life), now);
            }
            Operation::Sweep(..) | Operation::Wait(_) | Operation::Conflicts(_) => {}
        }
        Ok(())
    }
}

fn key(number: u8) -> ClaimKey {
    ClaimKey::solana(&[0; 16], "solana:test", &[number; 32])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn claims_do_what_the_model_does(operations in operations()) {
        let (store, claims) = (MemoryStore::new(), Claims::with_buckets(3, 100));
        let (mut model, mut gauge, mut now) = (Model::default(), 0_i64, 1000_u64);
        for operation in operations {
            let time = UnixSeconds(now);
            let expiry = |life| UnixSeconds(now).plus(life);
            let change = match operation {
                Operation::Claim(number, life) => claims.claim(&store, &key(number), expiry(life), time),
                Operation::Retake(number, life) => claims.retake(&store, &key(number), expiry(life), time),
                Operation::Release(number) => Ok(claims.release(&store, &key(number), time)?),
                Operation::Forgive(number) => Ok(claims.forgive(&store, &key(number), time)?),
                Operation::MarkPending(number, life) => {
                    Ok(claims.mark_pending(&store, &key(number), expiry(life), time)?)
                }
                Operation::MarkLeft(number, life) => {
                    Ok(claims.mark_left(&store, &key(number), expiry(life), time)?)
                }
                Operation::MarkSpent(number, life) => {
                    Ok(claims.mark_spent(&store, &key(number), expiry(life), time)?)
                }
                Operation::Sweep(from, to) => {
                    Ok(Change { added: 0, dropped: claims.sweep(&store, from..to, time) })
                }
                Operation::Wait(seconds) => {
                    now = now.saturating_add(seconds);
                    continue;
                }
                Operation::Conflicts(count) => {
                    store.inject_conflicts(count);
                    continue;
                }
            };
            prop_assert_eq!(change.map(|_| ()), model.apply(operation, now), "{:?} at {}", operation, now);
            gauge = gauge.saturating_add(change.map_or(0, Change::net));
            for number in 0..6 {
                prop_assert_eq!(claims.state(&store, &key(number), time), model.state(number, now));
            }
            // The gauge counts the records that are there, expired ones included until a write drops them.
            let (_, bytes) = store.bytes();
            prop_assert_eq!(i64::try_from(bytes.div_euclid(RECORD_BYTES)).ok(), Some(gauge));
        }
        store.inject_conflicts(0);
        let dropped = claims.sweep(&store, 0..3, UnixSeconds(u64::MAX));
        prop_assert_eq!(i64::from(dropped), gauge);
        prop_assert_eq!(store.bytes().1, 0);
    }
}
