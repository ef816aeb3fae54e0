//! The store that workers share, and the one way to change it.

use std::fmt;

/// How often [`update`] tries before it gives up. Each failed try means that another worker got through, so running
/// out takes this many other writes to one key within a few microseconds each.
pub const MAX_TRIES: u32 = 64;

/// A process-wide store of values by key, without deletion and without expiry: Envoy's shared data.
pub trait SharedStore {
    /// The value and its version, or `None` if the key was never set.
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)>;

    /// Sets the value if nobody has set it since.
    ///
    /// The host passes [`Cas::Absent`] on as `u32::MAX`, which no version reaches: Envoy then inserts only if the key
    /// is absent, where 0 (or no version) would overwrite. Envoy's versions start at 1.
    ///
    /// # Errors
    ///
    /// [`Conflict`] if the version is another one, or if the store cannot tell or refuses for any other reason.
    fn compare_and_swap(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), Conflict>;
}

impl<S: SharedStore + ?Sized> SharedStore for &S {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        (**self).get(key)
    }

    fn compare_and_swap(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), Conflict> {
        (**self).compare_and_swap(key, value, cas)
    }
}

/// What must be there for a value to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cas {
    /// Nothing: the key was never set.
    Absent,
    /// The value that [`SharedStore::get`] gave with this version.
    Version(u32),
}

/// Somebody else has set the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shared value has changed")
    }
}

impl std::error::Error for Conflict {}

/// Somebody else has set the value, each of [`MAX_TRIES`] times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contended;

impl fmt::Display for Contended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the shared value has changed {MAX_TRIES} times in a row")
    }
}

impl std::error::Error for Contended {}

/// What to do with a value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit<T> {
    /// Leave it, and answer this.
    Keep(T),
    /// Set this value, and answer this once it is set.
    Write(Vec<u8>, T),
}

impl<T> Edit<T> {
    /// The same edit with another answer.
    pub fn map<U>(self, answer: impl FnOnce(T) -> U) -> Edit<U> {
        match self {
            Self::Keep(kept) => Edit::Keep(answer(kept)),
            Self::Write(value, written) => Edit::Write(value, answer(written)),
        }
    }
}

/// Changes the value of a key as if nobody else was there: reads, asks `edit`, sets, and starts again on a conflict.
///
/// `edit` is given an empty slice for a key that was never set, and may be called up to [`MAX_TRIES`] times.
///
/// # Errors
///
/// [`Contended`] after the last try; nothing was changed then.
pub fn update<T>(
    store: &(impl SharedStore + ?Sized),
    key: &str,
    mut edit: impl FnMut(&[u8]) -> Edit<T>,
) -> Result<T, Contended> {
    for _ in 0..MAX_TRIES {
        let (value, cas) = match store.get(key) {
            Some((value, version)) => (value, Cas::Version(version)),
            None => (Vec::new(), Cas::Absent),
        };
        match edit(&value) {
            Edit::Keep(answer) => return Ok(answer),
            Edit::Write(value, answer) => {
                if store.compare_and_swap(key, &value, cas).is_ok() {
                    return Ok(answer);
                }
            }
        }
    }
    Err(Contended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::MemoryStore;

    #[test]
    fn tries_again_and_gives_up() {
        let store = MemoryStore::new();
        let append = |value: &[u8]| Edit::Write([value, b"x"].concat(), value.len());
        assert_eq!(update(&store, "key", append), Ok(0));
        store.inject_conflicts(MAX_TRIES - 1);
        assert_eq!(update(&store, "key", append), Ok(1));
        store.inject_conflicts(MAX_TRIES);
        assert_eq!(update(&store, "key", append), Err(Contended));
        assert_eq!(store.get("key").unwrap().0, b"xx");
        assert_eq!(
            update(&store, "key", |value| Edit::Keep(value.len())),
            Ok(2)
        );
    }

    #[test]
    fn loses_no_change_of_any_thread() {
        let store = MemoryStore::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        while update(&store, "key", |value| {
                            Edit::Write([value, b"x"].concat(), ())
                        })
                        .is_err()
                        {}
                    }
                });
            }
        });
        assert_eq!(store.get("key").unwrap().0.len(), 800);
    }
}
