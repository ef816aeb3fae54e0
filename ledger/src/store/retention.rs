//! What is forgotten in time. The journal is not: balances are its sums.

use super::connect::{Store, StoreError};

/// How many rows go in one statement: others write meanwhile.
const BATCH: i64 = 1_000;

/// Reservations that have ended, claims whose payment has run out, intents that were never paid.
const OLD: [&str; 3] = [
    "DELETE FROM reservations WHERE id IN (SELECT id FROM reservations WHERE state <> 'open' AND ended_at < $1 LIMIT $2)",
    "DELETE FROM intents WHERE claim IN (SELECT claim FROM intents WHERE state IN ('settled', 'failed', 'released') AND ended_at < $1 \
     AND expires_at < $1 LIMIT $2)",
    "DELETE FROM topups WHERE id IN (SELECT id FROM topups WHERE state = 'failed' AND ended_at < $1 AND expires_at < $1 LIMIT $2)",
];

impl Store {
    /// Forgets what ended before a time, and can be of use to nobody; gives back how many rows there were.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the rest goes the next time.
    pub async fn forget(&self, before_ms: i64) -> Result<u64, StoreError> {
        let mut forgotten = 0u64;
        for sql in OLD {
            loop {
                let gone = sqlx::query(sql)
                    .bind(before_ms)
                    .bind(BATCH)
                    .execute(&self.pool)
                    .await?
                    .rows_affected();
                forgotten = forgotten.saturating_add(gone);
                if gone < BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(forgotten)
    }
}
