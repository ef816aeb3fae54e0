//! The database: SQLite in one file, or PostgreSQL for a fleet. The same SQL on both.
//!
//! Every change is one transaction whose first statement writes: it takes the lock of its tenant's row, so that changes of a tenant come
//! one after another and `credit_transactions.seq` grows in their order.

mod check;
mod connect;
mod copy;
mod ended;
mod intents;
mod journal;
mod keys;
mod limits;
mod reservations;
mod retention;
mod standing;
mod topups;

pub use check::Findings;
pub use connect::{Store, StoreError};
pub use copy::{Copied, CopyError};
pub use intents::{Ended, Intent, NewIntent, Stage};
pub use journal::{Filter, Kind, Transaction};
pub(crate) use keys::hash;
pub use keys::{Adjusted, Key, NewKey, Tenant};
pub use limits::Limits;
pub use reservations::{Captured, NewReservation, Reserved};
pub use standing::Standing;
