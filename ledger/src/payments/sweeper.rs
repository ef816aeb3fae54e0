//! Takes up what nobody waits for any more: unknown settlements, and those whose settler is gone.

use std::sync::Arc;
use std::time::Duration;

use super::books::Books;
use super::topup::{TopupError, Topups, now_ms};

const PERIOD: Duration = Duration::from_secs(1);
/// How many are taken up in a round.
const BATCH: i64 = 32;

/// Takes up what is due, one after another; gives back how many there were. Leases keep two ledgers on one database apart.
///
/// # Errors
///
/// [`TopupError::Books`] where what is due cannot be read.
pub async fn sweep<B: Books>(topups: &Arc<Topups<B>>) -> Result<usize, TopupError> {
    let due = topups.books().due_topups(now_ms(), BATCH).await;
    let due = due.map_err(|error| TopupError::Books(Box::new(error)))?;
    let count = due.len();
    for topup in due {
        let id = topup.id.clone();
        if let Err(error) = topups.resume(topup).await {
            tracing::warn!(id, %error, "a settlement could not be taken up");
        }
    }
    Ok(count)
}

/// Sweeps for ever.
pub async fn run<B: Books>(topups: Arc<Topups<B>>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep(&topups).await {
            tracing::error!(%error, "top-ups could not be swept");
        }
    }
}
