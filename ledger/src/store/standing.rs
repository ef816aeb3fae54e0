//! How much is under way, for whoever watches.

use sqlx::Row as _;

use super::connect::{Store, StoreError};

/// What is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Reservations of requests under way.
    pub open_reservations: i64,
    /// What they hold, in micro-dollars.
    pub reserved: i64,
    /// Top-ups in each state that is no end.
    pub topups: Vec<(String, i64)>,
    /// Shared claims in each state that is no end.
    pub claims: Vec<(String, i64)>,
}

impl Store {
    /// What is under way now.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn standing(&self) -> Result<Standing, StoreError> {
        let row = sqlx::query("SELECT COUNT(*), CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM reservations WHERE state = 'open'")
            .fetch_one(&self.pool)
            .await?;
        let mut standing = Standing {
            open_reservations: row.try_get(0)?,
            reserved: row.try_get(1)?,
            topups: Vec::new(),
            claims: Vec::new(),
        };
        // One that is none has to be told too, else its last number stays.
        for state in ["created", "processing", "unknown"] {
            let row = sqlx::query("SELECT COUNT(*) FROM topups WHERE state = $1 AND state IN ('created', 'processing', 'unknown')")
                .bind(state)
                .fetch_one(&self.pool)
                .await?;
            standing.topups.push((state.to_owned(), row.try_get(0)?));
        }
        for state in ["held", "settling", "unknown"] {
            // Top-ups are counted as such.
            let claims =
                "SELECT COUNT(*) FROM intents WHERE state = $1 AND state IN ('held', 'settling', 'unknown') AND holder NOT LIKE 'pi_%'";
            let row = sqlx::query(claims).bind(state).fetch_one(&self.pool).await?;
            standing.claims.push((state.to_owned(), row.try_get(0)?));
        }
        Ok(standing)
    }
}
