//! Points in time, as the module is told them.

use std::fmt;

/// Seconds since 1970-01-01 00:00 UTC, as `validBefore` counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// The time this many seconds later; the end of time if there is none.
    pub const fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// The seconds from an earlier time to this one; zero if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_time() {
        assert_eq!(UnixSeconds(5).plus(7), UnixSeconds(12));
        assert_eq!(UnixSeconds(5).plus(u64::MAX), UnixSeconds(u64::MAX));
        assert_eq!(UnixSeconds(12).since(UnixSeconds(5)), 7);
        assert_eq!(UnixSeconds(5).since(UnixSeconds(12)), 0);
    }
}
