//! The secret that claim keys are hashed with.

use super::{Contended, Edit, SharedStore, update};

/// The key under which the workers share the secret.
const KEY: &str = "x402/secret";

/// What claims are hashed with that others hash too: the replicas of a fleet, and the ledger they share. Whoever knows it can choose where a
/// claim of theirs is kept, and gains nothing by that: each costs a signature of a payer of their own.
pub const SHARED_SECRET: [u8; 16] = [0; 16];

/// The secret that all workers share: the one that is there already, or `random` if there is none yet.
///
/// Without it anybody could find payments that fall into one bucket and fill it. It lives as long as the claims do:
/// in the same store, which survives reloads but not restarts.
///
/// # Errors
///
/// [`Contended`] if the store refuses every time; no claim can be made then.
pub fn secret(store: &(impl SharedStore + ?Sized), random: [u8; 16]) -> Result<[u8; 16], Contended> {
    update(store, KEY, |found| match found.try_into() {
        Ok(secret) => Edit::Keep(secret),
        Err(_) => Edit::Write(random.to_vec(), random),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{Cas, MAX_TRIES, MemoryStore};

    #[test]
    fn the_first_one_stays() {
        let store = MemoryStore::new();
        assert_eq!(secret(&store, [1; 16]), Ok([1; 16]));
        assert_eq!(secret(&store, [2; 16]), Ok([1; 16]));
        store.inject_conflicts(MAX_TRIES);
        assert_eq!(secret(&store, [3; 16]), Ok([1; 16]));
    }

    #[test]
    fn what_is_no_secret_is_replaced() {
        let store = MemoryStore::new();
        store.compare_and_swap(KEY, b"short", Cas::Absent).unwrap();
        assert_eq!(secret(&store, [1; 16]), Ok([1; 16]));
        assert_eq!(secret(&store, [2; 16]), Ok([1; 16]));
    }

    #[test]
    fn all_workers_get_the_same() {
        for _ in 0..100 {
            let store = MemoryStore::new();
            let secrets: Vec<_> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..8)
                    .map(|worker| {
                        scope.spawn({
                            let store = &store;
                            move || secret(store, [worker; 16])
                        })
                    })
                    .collect();
                workers.into_iter().map(|worker| worker.join().unwrap().unwrap()).collect()
            });
            assert!(secrets.iter().all(|secret| Some(secret) == secrets.first()));
        }
    }
}
