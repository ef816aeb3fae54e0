//! [`Books`] on the database.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::connect::{Store, StoreError, Tx};
use super::intents::{self, NewIntent};
use super::journal::{Account, Kind, Posting, post};
use crate::payments::books::{Begin, Begun, Books, NewTopup, Source, State, Topup, TopupReceipt};

const TOPUP: &str = "SELECT id, tenant, amount, state, payload, requirements, resource, network, payer, transaction_id, error, attempts, \
                     lease_until FROM topups";

fn state(text: &str) -> Result<State, StoreError> {
    Ok(match text {
        "created" => State::Created,
        "processing" => State::Processing,
        "unknown" => State::Unknown,
        "settled" => State::Settled,
        "failed" => State::Failed,
        other => return Err(StoreError::Foreign(format!("a top-up in state {other:?}"))),
    })
}

fn topup(row: &AnyRow) -> Result<Topup, StoreError> {
    let text =
        |index: usize| -> Result<Option<String>, StoreError> { Ok(Some(row.try_get(index)?).filter(|text: &String| !text.is_empty())) };
    Ok(Topup {
        id: row.try_get(0)?,
        tenant: row.try_get(1)?,
        amount: row.try_get(2)?,
        state: state(&row.try_get::<String, _>(3)?)?,
        payload: text(4)?,
        requirements: text(5)?,
        resource: row.try_get(6)?,
        network: text(7)?,
        payer: text(8)?,
        transaction: text(9)?,
        error: text(10)?,
        attempts: row.try_get(11)?,
        lease_until: Some(row.try_get(12)?).filter(|at| *at != 0),
    })
}

impl Store {
    async fn one_topup(&self, column: &str, value: &str) -> Result<Option<Topup>, StoreError> {
        let row = sqlx::query(&format!("{TOPUP} WHERE {column} = $1"))
            .bind(value)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(topup).transpose()
    }

    /// All that were settled on a network, or may be, by id; those after one.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn topups_on(&self, network: &str, after: &str, limit: i64) -> Result<Vec<Topup>, StoreError> {
        let sql = format!("{TOPUP} WHERE state IN ('processing', 'unknown', 'settled') AND network = $1 AND id > $2 ORDER BY id LIMIT $3");
        let rows = sqlx::query(&sql)
            .bind(network)
            .bind(after)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(topup).collect()
    }

    /// Fails what was asked for and never paid; gives back how many there were.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn expire_topups(&self, now_ms: i64) -> Result<u64, StoreError> {
        let expired = sqlx::query(
            "UPDATE topups SET state = 'failed', error = 'expired', ended_at = $1 WHERE state = 'created' AND expires_at <= $1",
        )
        .bind(now_ms)
        .execute(&self.pool)
        .await?;
        Ok(expired.rows_affected())
    }
}

/// created → processing, with its claim; undone by whoever called, unless it is [`Begun::Yes`].
async fn begin_settlement(tx: &mut Tx, id: &str, begin: &Begin, now_ms: i64) -> Result<Begun, StoreError> {
    let begun = sqlx::query(
        "UPDATE topups SET state = 'processing', claim = $2, payload = $3, requirements = $4, network = $5, payer = $6, lease_until = $7, \
             attempts = 1 WHERE id = $1 AND state = 'created' AND expires_at > $8 \
             AND NOT EXISTS (SELECT 1 FROM topups AS other WHERE other.claim = $2)",
    )
    .bind(id)
    .bind(&begin.claim)
    .bind(&begin.payload)
    .bind(&begin.requirements)
    .bind(&begin.network)
    .bind(&begin.payer)
    .bind(begin.lease_until)
    .bind(now_ms)
    .execute(&mut **tx)
    .await;
    match begun {
        Ok(done) if done.rows_affected() > 0 => {}
        Ok(_) => return Ok(Begun::Not),
        // PostgreSQL's: the other one committed between our look and our write.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Ok(Begun::Not),
        Err(error) => return Err(error.into()),
    }
    let claim = NewIntent {
        claim: &begin.claim,
        holder: id,
        facilitator: "",
        identity: "",
        network: &begin.network,
        scheme: "",
        payer: &begin.payer,
        amount: "",
        // The top-up has it, and is what is sent again.
        payload: "",
        lease_until: i64::MAX,
        expires_at: begin.expires_at,
    };
    if !intents::hold(&mut **tx, &claim, now_ms).await? {
        let row = sqlx::query("SELECT state FROM intents WHERE claim = $1")
            .bind(&begin.claim)
            .fetch_optional(&mut **tx)
            .await?;
        let state: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
        return Ok(match state.as_deref() {
            Some("settled" | "failed") => Begun::Spent,
            _ => Begun::Held,
        });
    }
    Ok(Begun::Yes)
}

/// A top-up has ended: requests without a key may have its payment, or never.
async fn end_claim(tx: &mut Tx, id: &str, used_up: bool, now_ms: i64) -> Result<(), StoreError> {
    // What has come in is the top-up's to tell of: for requests it is a payment that buys nothing.
    let (state, error) = if used_up { ("failed", "topup") } else { ("released", "") };
    sqlx::query("UPDATE intents SET state = $2, error = $3, ended_at = $4 WHERE holder = $1")
        .bind(id)
        .bind(state)
        .bind(error)
        .bind(now_ms)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Books for Store {
    type Error = StoreError;

    async fn create_topup(&self, new: &NewTopup, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO topups (id, tenant, amount, source, state, resource, created_at, expires_at) VALUES ($1, $2, $3, $4, 'created', $5, $6, $7)",
        )
        .bind(&new.id)
        .bind(&new.tenant)
        .bind(new.amount)
        .bind(match new.source {
            Source::Fund => "fund",
            Source::Request => "request",
        })
        .bind(&new.resource)
        .bind(now_ms)
        .bind(new.expires_at)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn topup(&self, id: &str) -> Result<Option<Topup>, StoreError> {
        self.one_topup("id", id).await
    }

    async fn topup_by_claim(&self, claim: &str) -> Result<Option<Topup>, StoreError> {
        self.one_topup("claim", claim).await
    }

    async fn open_topup(&self, tenant: &str, amount: i64, now_ms: i64) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(
            "SELECT id FROM topups WHERE tenant = $1 AND amount = $2 AND source = 'fund' AND state = 'created' AND expires_at > $3 \
             ORDER BY created_at DESC, id DESC LIMIT 1",
        )
        .bind(tenant)
        .bind(amount)
        .bind(now_ms)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn begin_settlement(&self, id: &str, begin: &Begin, now_ms: i64) -> Result<Begun, StoreError> {
        let mut tx = self.begin().await?;
        let begun = begin_settlement(&mut tx, id, begin, now_ms).await?;
        if begun == Begun::Yes {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        Ok(begun)
    }

    async fn resume_settlement(&self, id: &str, lease_until: i64, now_ms: i64) -> Result<bool, StoreError> {
        let resumed = sqlx::query(
            "UPDATE topups SET state = 'processing', lease_until = $2, attempts = attempts + 1 \
             WHERE id = $1 AND (state = 'unknown' OR (state = 'processing' AND lease_until <= $3))",
        )
        .bind(id)
        .bind(lease_until)
        .bind(now_ms)
        .execute(&self.pool)
        .await?;
        Ok(resumed.rows_affected() > 0)
    }

    async fn settle_topup(&self, id: &str, receipt: &TopupReceipt, now_ms: i64) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        // What was known of the network and the payer before is kept where the receipt is silent.
        let row = sqlx::query(
            "UPDATE topups SET state = 'settled', payload = '', error = '', lease_until = 0, ended_at = $5, \
             transaction_id = CASE WHEN $2 = '' THEN transaction_id ELSE $2 END, \
             network = CASE WHEN $3 = '' THEN network ELSE $3 END, \
             payer = CASE WHEN $4 = '' THEN payer ELSE $4 END \
             WHERE id = $1 AND state <> 'settled' RETURNING tenant, amount, network, transaction_id",
        )
        .bind(id)
        .bind(&receipt.transaction)
        .bind(&receipt.network)
        .bind(&receipt.payer)
        .bind(now_ms)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(false) };
        let (tenant, amount): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let payment = format!("{}/{}", row.try_get::<String, _>(2)?, row.try_get::<String, _>(3)?);
        let row = sqlx::query("UPDATE tenants SET available = available + $2 WHERE id = $1 RETURNING available")
            .bind(&tenant)
            .bind(amount)
            .fetch_one(&mut *tx)
            .await?;
        let posting = Posting {
            tenant: &tenant,
            kind: Kind::X402Topup,
            debit: Account::X402,
            credit: Account::Available,
            amount,
            balance_after: row.try_get(0)?,
            reference: id,
            payment: &payment,
            now_ms,
        };
        post(&mut tx, &posting).await?;
        end_claim(&mut tx, id, true, now_ms).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn fail_topup(&self, id: &str, error: &str, used_up: bool, now_ms: i64) -> Result<bool, StoreError> {
        let claim = if used_up { "claim" } else { "NULL" };
        let mut tx = self.begin().await?;
        let failed = sqlx::query(&format!(
            "UPDATE topups SET state = 'failed', payload = '', error = $2, lease_until = 0, ended_at = $3, claim = {claim} \
             WHERE id = $1 AND state <> 'settled'"
        ))
        .bind(id)
        .bind(error)
        .bind(now_ms)
        .execute(&mut *tx)
        .await?;
        if failed.rows_affected() > 0 {
            end_claim(&mut tx, id, used_up, now_ms).await?;
        }
        tx.commit().await?;
        Ok(failed.rows_affected() > 0)
    }

    async fn unknown_topup(&self, id: &str, next_attempt_at: i64, _: i64) -> Result<bool, StoreError> {
        let unknown = sqlx::query(
            "UPDATE topups SET state = 'unknown', lease_until = 0, next_attempt_at = $2 WHERE id = $1 AND state = 'processing'",
        )
        .bind(id)
        .bind(next_attempt_at)
        .execute(&self.pool)
        .await?;
        Ok(unknown.rows_affected() > 0)
    }

    async fn due_topups(&self, now_ms: i64, limit: i64) -> Result<Vec<Topup>, StoreError> {
        let rows = sqlx::query(&format!(
            "{TOPUP} WHERE (state = 'unknown' AND next_attempt_at <= $1) OR (state = 'processing' AND lease_until <= $1) \
             ORDER BY created_at, id LIMIT $2"
        ))
        .bind(now_ms)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(topup).collect()
    }
}
