//! Requests of a fleet that have ended. What a request says last goes another way than what it asked before, and may come first.

use super::connect::{Store, StoreError};

/// For how long a call may be on its way, in milliseconds: longer than any Envoy or proxy waits for one.
const LATE_MS: i64 = 3_600_000;
/// How many rows go in one statement: others write meanwhile.
const BATCH: i64 = 1_000;

impl Store {
    /// A request has ended, and waits for no settlement: it gives back what was not sent, leaves the rest to whoever comes next, and has nothing
    /// any more. Whether it had something.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: it is worth saying again.
    pub async fn end_request(&self, holder: &str, now_ms: i64) -> Result<bool, StoreError> {
        // Committed first: whoever takes a claim looks here afterwards, so that one of the two sees the other.
        sqlx::query("INSERT INTO ended_requests (holder, ended_at) VALUES ($1, $2) ON CONFLICT (holder) DO NOTHING")
            .bind(holder)
            .bind(now_ms)
            .execute(&self.pool)
            .await?;
        // What is paid, or may be, is for whoever comes next with it.
        Ok(self.release_intent(holder, now_ms).await? || self.leave_intent(holder).await?)
    }

    /// Whether a request has ended.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn has_ended(&self, holder: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT holder FROM ended_requests WHERE holder = $1")
            .bind(holder)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// Forgets those of which nothing can be on its way any more; gives back how many there were.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the rest goes the next time.
    pub async fn forget_ended(&self, now_ms: i64) -> Result<u64, StoreError> {
        let mut forgotten = 0u64;
        loop {
            let gone =
                sqlx::query("DELETE FROM ended_requests WHERE holder IN (SELECT holder FROM ended_requests WHERE ended_at < $1 LIMIT $2)")
                    .bind(now_ms.saturating_sub(LATE_MS))
                    .bind(BATCH)
                    .execute(&self.pool)
                    .await?
                    .rows_affected();
            forgotten = forgotten.saturating_add(gone);
            if gone < BATCH.unsigned_abs() {
                return Ok(forgotten);
            }
        }
    }
}
