//! What comes of an operation on claims.

use super::Contended;
use std::fmt;

/// Why a claim cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Another request is being served for it, or is finding out about its settlement.
    InUse,
    /// Its settlement was sent and the outcome is not known: see [`super::Claims::retake`].
    Pending,
    /// The money has moved.
    Spent,
    /// There is no room for another claim.
    Full,
    /// Other workers were faster too many times: nothing is known, nothing was changed.
    Contended,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => "the payment is in use by another request",
            Self::Pending => "the settlement of the payment is pending",
            Self::Spent => "the payment is spent",
            Self::Full => "there is no room for another claim",
            Self::Contended => "the claim is contended",
        })
    }
}

impl std::error::Error for Held {}

impl From<Contended> for Held {
    fn from(_: Contended) -> Self {
        Self::Contended
    }
}

/// How the number of records has changed: their sum over all workers is the number of claims in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Records that are new.
    pub added: u32,
    /// Records that are gone, because they had expired or were released.
    pub dropped: u32,
}

impl Change {
    /// What to add to a gauge.
    pub fn net(self) -> i64 {
        i64::from(self.added).saturating_sub(i64::from(self.dropped))
    }
}
