//! Money that is held for requests under way: reserved in one step, captured or given back once.
//!
//! ```text
//! ──reserve──► open ──capture──► captured ◄──a late capture── lapsed
//!               │ └───capture 0─► released                      ▲
//!               └───────────────nothing heard in time───────────┘
//! ──capture 0 of what is not there yet──► refused (its reservation, when it comes, is too late)
//! ```

use sqlx::Row as _;

use super::connect::{Store, StoreError, Tx};
use super::journal::{Account, Kind, Posting, post};
use super::limits::{self, Limits};

/// How many reservations lapse in a round.
const BATCH: i64 = 100;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct NewReservation<'a> {
    /// Chosen by who asks.
    pub id: &'a str,
    /// Whose money.
    pub tenant: &'a str,
    /// In micro-dollars.
    pub amount: i64,
    /// The filter's name of the route.
    pub route: &'a str,
    /// `limits.account`.
    pub limits: Option<Limits>,
    /// When it lapses, in Unix milliseconds.
    pub expires_at: i64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is held.
    Held {
        /// What is available now, in micro-dollars.
        balance: i64,
    },
    /// There is less.
    Insufficient {
        /// What is available, in micro-dollars.
        balance: i64,
    },
    /// The account has had its requests or its money of this window.
    Limited {
        /// When the window ends, in milliseconds from now.
        again_in_ms: i64,
    },
    /// The id was used before, or it was given up before it came.
    TooLate,
}

/// What became of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Captured {
    /// So much is charged, now or by an earlier call, in micro-dollars.
    Charged(i64),
    /// There is no such reservation.
    Unknown,
    /// It ended otherwise.
    Otherwise,
}

impl Store {
    /// Holds money for a request, in one step that no other request can come between. Asked again with the same id, it says the same.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: nothing is held.
    pub async fn reserve(&self, new: &NewReservation<'_>, now_ms: i64) -> Result<Reserved, StoreError> {
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "UPDATE tenants SET available = available - $2, reserved = reserved + $2 WHERE id = $1 AND available >= $2 RETURNING available",
        )
        .bind(new.tenant)
        .bind(new.amount)
        .fetch_optional(&mut *tx)
        .await?;
        let balance = match row {
            Some(row) => Some(row.try_get::<i64, _>(0)?),
            None => None,
        };
        let inserted = sqlx::query(
            "INSERT INTO reservations (id, tenant, amount, state, route, created_at, expires_at) \
             VALUES ($1, $2, $3, 'open', $4, $5, $6) ON CONFLICT (id) DO NOTHING",
        )
        .bind(new.id)
        .bind(new.tenant)
        .bind(new.amount)
        .bind(new.route)
        .bind(now_ms)
        .bind(new.expires_at)
        .execute(&mut *tx)
        .await?;
        if inserted.rows_affected() == 0 {
            tx.rollback().await?;
            return self.reserved_before(new).await;
        }
        let Some(balance) = balance else {
            tx.rollback().await?;
            return Ok(Reserved::Insufficient {
                balance: self.available(new.tenant).await?,
            });
        };
        if let Some(limits) = &new.limits {
            match limits::count(&mut tx, new.tenant, new.amount, limits, now_ms).await? {
                Ok(ends_at) => {
                    sqlx::query("UPDATE reservations SET window_ms = $2, window_ends_at = $3 WHERE id = $1")
                        .bind(new.id)
                        .bind(limits.window_ms)
                        .bind(ends_at)
                        .execute(&mut *tx)
                        .await?;
                }
                Err(again_in_ms) => {
                    tx.rollback().await?;
                    return Ok(Reserved::Limited { again_in_ms });
                }
            }
        }
        let posting = Posting {
            tenant: new.tenant,
            kind: Kind::Reservation,
            debit: Account::Available,
            credit: Account::Reserved,
            amount: new.amount,
            balance_after: balance,
            reference: new.id,
            payment: "",
            now_ms,
        };
        post(&mut tx, &posting).await?;
        tx.commit().await?;
        Ok(Reserved::Held { balance })
    }

    async fn reserved_before(&self, new: &NewReservation<'_>) -> Result<Reserved, StoreError> {
        let row = sqlx::query("SELECT id FROM reservations WHERE id = $1 AND tenant = $2 AND amount = $3 AND state = 'open'")
            .bind(new.id)
            .bind(new.tenant)
            .bind(new.amount)
            .fetch_optional(&self.pool)
            .await?;
        if row.is_none() {
            return Ok(Reserved::TooLate);
        }
        let balance = self.available(new.tenant).await?;
        Ok(Reserved::Held { balance })
    }

    async fn available(&self, tenant: &str) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT available FROM tenants WHERE id = $1")
            .bind(tenant)
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Charges what a request cost, at most what was held for it, and gives the rest back. 0 gives all of it back, also before it is held.
    /// It does not matter how often this is called.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: nothing has changed.
    pub async fn capture(&self, id: &str, amount: i64, now_ms: i64) -> Result<Captured, StoreError> {
        let state = if amount == 0 { "released" } else { "captured" };
        let mut tx = self.begin().await?;
        // The state is changed first, and by a condition: of two captures at once, one finds nothing to do.
        let row = sqlx::query(
            "UPDATE reservations SET state = $2, captured = CASE WHEN $3 < amount THEN $3 ELSE amount END, ended_at = $4 \
             WHERE id = $1 AND state = 'open' RETURNING tenant, amount, captured, window_ms, window_ends_at",
        )
        .bind(id)
        .bind(state)
        .bind(amount)
        .bind(now_ms)
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(row) = row {
            let (tenant, held, due): (String, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            end(&mut tx, (&tenant, id), held, due, now_ms).await?;
            let window = (row.try_get(3)?, row.try_get(4)?);
            limits::give_back(&mut tx, &tenant, held.saturating_sub(due), window).await?;
            tx.commit().await?;
            return Ok(Captured::Charged(due));
        }
        if amount == 0 {
            let refused = sqlx::query(
                "INSERT INTO reservations (id, tenant, amount, state, route, created_at, expires_at, ended_at) \
                 VALUES ($1, '', 0, 'refused', '', $2, $2, $2) ON CONFLICT (id) DO NOTHING",
            )
            .bind(id)
            .bind(now_ms)
            .execute(&mut *tx)
            .await?;
            if refused.rows_affected() > 0 {
                tx.commit().await?;
                return Ok(Captured::Charged(0));
            }
        }
        let row = sqlx::query("SELECT state, captured FROM reservations WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Ok(Captured::Unknown) };
        let (state, captured): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        match &*state {
            "lapsed" if amount > 0 => return charge_late(tx, id, amount, now_ms).await,
            "lapsed" | "refused" | "released" if amount == 0 => Ok(Captured::Charged(0)),
            "captured" if captured == amount || amount > captured => Ok(Captured::Charged(captured)),
            "refused" => Ok(Captured::Unknown),
            // It came between our two looks: worth another call.
            "open" => Err(StoreError::Database(sqlx::Error::RowNotFound)),
            _ => Ok(Captured::Otherwise),
        }
    }

    /// Charges a request that was served though nothing could be reserved for it: what the tenant has of it, once per id.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: nothing has changed.
    pub async fn charge(&self, id: &str, tenant: &str, amount: i64, now_ms: i64) -> Result<Captured, StoreError> {
        let mut tx = self.begin().await?;
        // As a reservation that has lapsed is charged.
        let inserted = sqlx::query(
            "INSERT INTO reservations (id, tenant, amount, state, route, created_at, expires_at, ended_at) \
             VALUES ($1, $2, $3, 'lapsed', '', $4, $4, $4) ON CONFLICT (id) DO NOTHING",
        )
        .bind(id)
        .bind(tenant)
        .bind(amount)
        .bind(now_ms)
        .execute(&mut *tx)
        .await?;
        if inserted.rows_affected() == 0 {
            // It was given up, or charged by a call at the same time.
            tx.rollback().await?;
            return self.capture(id, amount, now_ms).await;
        }
        charge_late(tx, id, amount, now_ms).await
    }

    /// Gives up what nothing was heard of in time; gives back how many there were.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the rest is given up in the next round.
    pub async fn lapse(&self, now_ms: i64) -> Result<usize, StoreError> {
        let rows = sqlx::query("SELECT id FROM reservations WHERE state = 'open' AND expires_at <= $1 ORDER BY expires_at LIMIT $2")
            .bind(now_ms)
            .bind(BATCH)
            .fetch_all(&self.pool)
            .await?;
        let mut lapsed = 0usize;
        for row in rows {
            let id: String = row.try_get(0)?;
            let mut tx = self.begin().await?;
            let row = sqlx::query(
                "UPDATE reservations SET state = 'lapsed', ended_at = $2 WHERE id = $1 AND state = 'open' \
                 RETURNING tenant, amount, window_ms, window_ends_at",
            )
            .bind(&id)
            .bind(now_ms)
            .fetch_optional(&mut *tx)
            .await?;
            if let Some(row) = row {
                let tenant: String = row.try_get(0)?;
                let held: i64 = row.try_get(1)?;
                end(&mut tx, (&tenant, &id), held, 0, now_ms).await?;
                limits::give_back(&mut tx, &tenant, held, (row.try_get(2)?, row.try_get(3)?)).await?;
                tx.commit().await?;
                lapsed = lapsed.saturating_add(1);
            }
        }
        Ok(lapsed)
    }
}

/// Takes what was held from `reserved`: `due` is earned, the rest available again.
async fn end(tx: &mut Tx, (tenant, id): (&str, &str), held: i64, due: i64, now_ms: i64) -> Result<(), StoreError> {
    let rest = held.saturating_sub(due);
    let row = sqlx::query("UPDATE tenants SET reserved = reserved - $2, available = available + $3 WHERE id = $1 RETURNING available")
        .bind(tenant)
        .bind(held)
        .bind(rest)
        .fetch_one(&mut **tx)
        .await?;
    let balance: i64 = row.try_get(0)?;
    let posting = |kind, credit, amount, balance_after| Posting {
        tenant,
        kind,
        debit: Account::Reserved,
        credit,
        amount,
        balance_after,
        reference: id,
        payment: "",
        now_ms,
    };
    post(tx, &posting(Kind::Usage, Account::Revenue, due, balance.saturating_sub(rest))).await?;
    post(tx, &posting(Kind::Refund, Account::Available, rest, balance)).await
}

/// A capture after its reservation has lapsed: what was given back may be spent, so that at most what is there is charged.
async fn charge_late(mut tx: Tx, id: &str, amount: i64, now_ms: i64) -> Result<Captured, StoreError> {
    let row = sqlx::query(
        "UPDATE reservations SET state = 'captured', ended_at = $2 WHERE id = $1 AND state = 'lapsed' RETURNING tenant, amount",
    )
    .bind(id)
    .bind(now_ms)
    .fetch_one(&mut *tx)
    .await?;
    let (tenant, held): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    // Locked before it is read.
    let row = sqlx::query("UPDATE tenants SET available = available WHERE id = $1 RETURNING available")
        .bind(&tenant)
        .fetch_one(&mut *tx)
        .await?;
    let available: i64 = row.try_get(0)?;
    let due = amount.min(held).min(available);
    let balance_after = available.saturating_sub(due);
    for (sql, value, of) in [
        ("UPDATE tenants SET available = $1 WHERE id = $2", balance_after, &*tenant),
        ("UPDATE reservations SET captured = $1 WHERE id = $2", due, id),
    ] {
        sqlx::query(sql).bind(value).bind(of).execute(&mut *tx).await?;
    }
    let posting = Posting {
        tenant: &tenant,
        kind: Kind::Usage,
        debit: Account::Available,
        credit: Account::Revenue,
        amount: due,
        balance_after,
        reference: id,
        payment: "",
        now_ms,
    };
    post(&mut tx, &posting).await?;
    tx.commit().await?;
    Ok(Captured::Charged(due))
}
