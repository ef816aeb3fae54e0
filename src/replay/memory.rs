//! A store in memory, for tests, simulations and tools.

use super::{Cas, Conflict, SharedStore};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A [`SharedStore`] for threads of one process, with conflicts on demand.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<String, (Vec<u8>, u32)>,
    /// Counts all writes: as in Envoy, versions start at 1 and differ between keys.
    version: u32,
    /// How many more writes are to fail.
    conflicts: u32,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the next `count` writes fail as if another worker had been faster.
    pub fn inject_conflicts(&self, count: u32) {
        self.state().conflicts = count;
    }

    /// Forgets everything: a restart of Envoy.
    pub fn clear(&self) {
        self.state().values.clear();
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.state().values.len()
    }

    /// The sizes of all keys and of all values, in bytes.
    pub fn bytes(&self) -> (usize, usize) {
        let state = self.state();
        let keys = state.values.keys().map(String::len).sum();
        let values = state.values.values().map(|(value, _)| value.len()).sum();
        (keys, values)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked here left whole values: there is nothing to repair.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedStore for MemoryStore {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.state().values.get(key).cloned()
    }

    fn compare_and_swap(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), Conflict> {
        let mut state = self.state();
        if let Some(fewer) = state.conflicts.checked_sub(1) {
            state.conflicts = fewer;
            return Err(Conflict);
        }
        let found = match state.values.get(key) {
            Some((_, version)) => Cas::Version(*version),
            None => Cas::Absent,
        };
        if found != cas {
            return Err(Conflict);
        }
        state.version = state.version.saturating_add(1);
        let version = state.version;
        state
            .values
            .insert(key.to_owned(), (value.to_vec(), version));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_only_what_nobody_has_changed() {
        let store = MemoryStore::new();
        assert_eq!(store.get("a"), None);
        assert_eq!(
            store.compare_and_swap("a", b"1", Cas::Version(1)),
            Err(Conflict)
        );
        assert_eq!(store.compare_and_swap("a", b"1", Cas::Absent), Ok(()));
        assert_eq!(
            store.compare_and_swap("a", b"2", Cas::Absent),
            Err(Conflict)
        );
        let (value, version) = store.get("a").unwrap();
        assert_eq!(value, b"1");
        assert_eq!(
            store.compare_and_swap("a", b"2", Cas::Version(version)),
            Ok(())
        );
        assert_eq!(
            store.compare_and_swap("a", b"3", Cas::Version(version)),
            Err(Conflict)
        );
        assert_eq!((store.keys(), store.bytes()), (1, (1, 1)));
        store.clear();
        assert_eq!(store.get("a"), None);
    }

    #[test]
    fn fails_on_demand() {
        let store = MemoryStore::new();
        store.inject_conflicts(2);
        assert_eq!(store.compare_and_swap("a", b"", Cas::Absent), Err(Conflict));
        assert_eq!(store.compare_and_swap("a", b"", Cas::Absent), Err(Conflict));
        assert_eq!(store.compare_and_swap("a", b"", Cas::Absent), Ok(()));
    }
}
