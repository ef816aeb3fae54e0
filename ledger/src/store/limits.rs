//! `limits.account`: requests and money of a tenant in a window of time, which begins with the first request in it.

use sqlx::Row as _;

use super::connect::{StoreError, Tx};

/// What a tenant may at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in a window; `None`: any number.
    pub requests: Option<i64>,
    /// The window's length, in milliseconds.
    pub window_ms: i64,
    /// Money in a window, in micro-dollars; `None`: any amount.
    pub spend: Option<i64>,
}

/// Counts a request of so much money, and gives back when its window ends; `Err`: in how many milliseconds it is worth asking again.
/// The tenant's row has to be locked by `tx`.
pub(super) async fn count(tx: &mut Tx, tenant: &str, amount: i64, limits: &Limits, now_ms: i64) -> Result<Result<i64, i64>, StoreError> {
    let row = sqlx::query("SELECT ends_at, requests, spend FROM account_windows WHERE tenant = $1 AND window_ms = $2")
        .bind(tenant)
        .bind(limits.window_ms)
        .fetch_optional(&mut **tx)
        .await?;
    let open = match row {
        Some(row) => Some((row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?, row.try_get::<i64, _>(2)?)),
        None => None,
    };
    let fresh = (now_ms.saturating_add(limits.window_ms), 0, 0);
    let (ends_at, requests, spend) = open.filter(|(ends_at, ..)| *ends_at > now_ms).unwrap_or(fresh);
    let (requests, spend) = (requests.saturating_add(1), spend.saturating_add(amount));
    if limits.requests.is_some_and(|most| requests > most) || limits.spend.is_some_and(|most| spend > most) {
        return Ok(Err(ends_at.saturating_sub(now_ms)));
    }
    sqlx::query(
        "INSERT INTO account_windows (tenant, window_ms, ends_at, requests, spend) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (tenant, window_ms) DO UPDATE SET ends_at = excluded.ends_at, requests = excluded.requests, spend = excluded.spend",
    )
    .bind(tenant)
    .bind(limits.window_ms)
    .bind(ends_at)
    .bind(requests)
    .bind(spend)
    .execute(&mut **tx)
    .await?;
    Ok(Ok(ends_at))
}

/// Takes back money that was not spent after all, unless the window in which it was counted has ended. The request stays counted.
pub(super) async fn give_back(tx: &mut Tx, tenant: &str, amount: i64, window: (i64, i64)) -> Result<(), StoreError> {
    let (window_ms, ends_at) = window;
    if window_ms == 0 || amount == 0 {
        return Ok(());
    }
    sqlx::query("UPDATE account_windows SET spend = spend - $1 WHERE tenant = $2 AND window_ms = $3 AND ends_at = $4 AND spend >= $1")
        .bind(amount)
        .bind(tenant)
        .bind(window_ms)
        .bind(ends_at)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
