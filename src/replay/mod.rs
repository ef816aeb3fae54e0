//! What can be spent once is claimed here, over a key-value store that all workers share.
//!
//! A claim holds (chain, token, owner, nonce), or what else makes a payment unique, from before verification until the
//! payment can no longer be used. This module owns the keys, the records and their races; it does not know what a
//! payment is, where the store is, what time it is (time is passed in), or how many claims are alive (each change is
//! reported, so that the host can keep a gauge).
//!
//! The store forgets nothing and cannot delete, so that a key for each payment would be a leak: claims live in a
//! fixed number of buckets, and every write to a bucket drops what has expired in it.
//!
//! ```text
//!            claim                    mark_spent
//!  (absent) ───────► InUse ─────────────────────────────► Spent
//!     ▲               │  │ mark_pending      mark_spent     ▲
//!     │    release    │  └────────────► Pending ────────────┤
//!     └───────────────┘         mark_pending ▲│ retake      │
//!                                 or release ││             │
//!                                            │▼  mark_spent │
//!                                          Retaken ─────────┘
//! ```

mod attempts;
mod bans;
mod bucket;
mod buckets;
mod claims;
mod entitlements;
mod exposure;
#[cfg(test)]
mod exposure_tests;
#[cfg(test)]
mod grinding;
mod identifiers;
mod key;
mod memory;
#[cfg(test)]
mod model;
mod outcome;
#[cfg(test)]
mod races;
mod rates;
mod secret;
mod store;
mod table;
mod time;

pub use attempts::Attempts;
pub use bans::Bans;
pub use bucket::{RECORD_BYTES, State};
pub use buckets::DEFAULT_BUCKETS;
pub use claims::Claims;
pub use entitlements::{Entitlements, Purchase, Right, Undelivered, Wanted};
pub use exposure::{Exceeded, Exposure, Limits, Opened, Trust};
pub use identifiers::{Bound, Identifiers, Meaning};
pub use key::ClaimKey;
pub use memory::MemoryStore;
pub use outcome::{Change, Held};
pub use rates::{Counted, RateLimits, Rates, TooMuch};
pub use secret::{SHARED_SECRET, secret};
pub use store::{Cas, Conflict, Contended, Edit, MAX_TRIES, SharedStore, update};
pub use time::UnixSeconds;
