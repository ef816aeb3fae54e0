//! Claims that a fleet shares, and what is known of their settlements.
//!
//! ```text
//! ──hold──► held ──begin──► settling ──settled──► settled ──delivered──► (spent)
//!             │ ▲             │  ▲ └──refused───► released, or failed (its nonce is used)
//!     release │ │ hold        ▼  │ begin
//!             ▼ │           unknown
//!           released
//! ```

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::connect::{Store, StoreError};

/// Where a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A request has it, and nothing is known to have been settled.
    Held,
    /// It is being settled.
    Settling,
    /// Its settlement was sent, and nobody knows what came of it.
    Unknown,
    /// Paid.
    Settled,
    /// It buys nothing any more, and has not been paid here.
    Failed,
    /// It can be had again.
    Released,
}

impl Stage {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Settling => "settling",
            Self::Unknown => "unknown",
            Self::Settled => "settled",
            Self::Failed => "failed",
            Self::Released => "released",
        }
    }
}

/// A claim to be held.
#[derive(Clone, Debug)]
pub struct NewIntent<'a> {
    /// What can be spent once.
    pub claim: &'a str,
    /// The request.
    pub holder: &'a str,
    /// The facilitator's URL.
    pub facilitator: &'a str,
    /// What tells this payment from another one that spends the same, hashed.
    pub identity: &'a str,
    /// As the requirements name it.
    pub network: &'a str,
    /// `exact` or `upto`.
    pub scheme: &'a str,
    /// The account that pays, if it is known.
    pub payer: &'a str,
    /// In the token's smallest unit.
    pub amount: &'a str,
    /// The body of `/settle`, sealed.
    pub payload: &'a str,
    /// In Unix milliseconds.
    pub lease_until: i64,
    /// In Unix milliseconds.
    pub expires_at: i64,
}

/// A claim as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// What can be spent once.
    pub claim: String,
    /// The request.
    pub holder: String,
    /// Where it is.
    pub stage: Stage,
    /// Whether what it pays for has been had.
    pub delivered: bool,
    /// The facilitator's URL.
    pub facilitator: String,
    /// What tells this payment from another one that spends the same, hashed.
    pub identity: String,
    /// As the requirements name it.
    pub network: String,
    /// `exact` or `upto`.
    pub scheme: String,
    /// The account that pays; may be empty.
    pub payer: String,
    /// In the token's smallest unit.
    pub amount: String,
    /// What has been reported as due so far, in the token's smallest unit; may be empty.
    pub used: String,
    /// The body of `/settle`, sealed; empty once the outcome is known.
    pub payload: String,
    /// What the facilitator answered when it was settled.
    pub answer: String,
    /// Transaction hash or signature; may be empty.
    pub transaction: String,
    /// Why it failed; may be empty.
    pub error: String,
    /// How often it was sent.
    pub attempts: i64,
    /// In Unix milliseconds.
    pub lease_until: i64,
    /// In Unix milliseconds.
    pub expires_at: i64,
}

impl Intent {
    /// Whether a top-up has it, or has had it last, and not a request.
    pub fn is_topups(&self) -> bool {
        self.holder.starts_with("pi_")
    }
}

/// Where an end does not change how long its holder has it.
const LEASE_AS_IT_IS: i64 = -1;

const INTENT: &str = "SELECT claim, holder, state, delivered, facilitator, network, scheme, payer, amount, used, payload, answer, transaction_id, \
                      error, attempts, lease_until, expires_at, identity FROM intents";

fn stage(text: &str) -> Result<Stage, StoreError> {
    Ok(match text {
        "held" => Stage::Held,
        "settling" => Stage::Settling,
        "unknown" => Stage::Unknown,
        "settled" => Stage::Settled,
        "failed" => Stage::Failed,
        "released" => Stage::Released,
        other => return Err(StoreError::Foreign(format!("an intent in state {other:?}"))),
    })
}

fn intent(row: &AnyRow) -> Result<Intent, StoreError> {
    Ok(Intent {
        claim: row.try_get(0)?,
        holder: row.try_get(1)?,
        stage: stage(&row.try_get::<String, _>(2)?)?,
        delivered: row.try_get::<i64, _>(3)? != 0,
        facilitator: row.try_get(4)?,
        network: row.try_get(5)?,
        scheme: row.try_get(6)?,
        payer: row.try_get(7)?,
        amount: row.try_get(8)?,
        used: row.try_get(9)?,
        payload: row.try_get(10)?,
        answer: row.try_get(11)?,
        transaction: row.try_get(12)?,
        error: row.try_get(13)?,
        attempts: row.try_get(14)?,
        lease_until: row.try_get(15)?,
        expires_at: row.try_get(16)?,
        identity: row.try_get(17)?,
    })
}

/// How a settlement ended, or did not.
#[derive(Clone, Copy, Debug)]
pub enum Ended<'a> {
    /// Paid.
    Settled {
        /// What the facilitator answered.
        answer: &'a str,
        /// Transaction hash or signature.
        transaction: &'a str,
        /// The account that paid; may be empty.
        payer: &'a str,
    },
    /// Refused for certain: the payment may be used again.
    Refused(&'a str),
    /// It buys nothing any more.
    UsedUp(&'a str),
    /// It certainly was not sent.
    NotSent,
    /// Nobody knows. When it is sent again, in Unix milliseconds.
    Unknown(&'a str, i64),
}

impl Ended<'_> {
    /// Whether this is what is written down of an attempt.
    pub fn is_of(&self, intent: &Intent, attempt: i64) -> bool {
        let (stage, text) = match *self {
            Self::Settled { answer, .. } => return intent.stage == Stage::Settled && intent.answer == answer,
            Self::Refused(error) => (Stage::Released, error),
            Self::UsedUp(error) => (Stage::Failed, error),
            Self::NotSent => (Stage::Held, ""),
            Self::Unknown(error, _) => (Stage::Unknown, error),
        };
        intent.stage == stage && intent.error == text && intent.attempts == attempt
    }
}

impl Store {
    /// By what can be spent once.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn intent(&self, claim: &str) -> Result<Option<Intent>, StoreError> {
        let row = sqlx::query(&format!("{INTENT} WHERE claim = $1"))
            .bind(claim)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(intent).transpose()
    }

    /// By the request or the top-up that has it.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn intent_of(&self, holder: &str) -> Result<Option<Intent>, StoreError> {
        let row = sqlx::query(&format!("{INTENT} WHERE holder = $1"))
            .bind(holder)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(intent).transpose()
    }

    /// Takes a claim: one that is new, released, this request's already, or whose holder was not heard of in time. Whether it was taken.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn hold_intent(&self, new: &NewIntent<'_>, now_ms: i64) -> Result<bool, StoreError> {
        hold(&self.pool, new, now_ms).await
    }

    /// Gives a claim whose settlement was sent, and whose holder is gone or does not wait for it, to another request with the very same
    /// payment. Whether it did.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn take_over_intent(
        &self,
        claim: &str,
        (holder, identity): (&str, &str),
        lease_until: i64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let taken = sqlx::query(
            "UPDATE intents SET holder = $2, lease_until = $3 WHERE claim = $1 AND delivered = 0 AND lease_until <= $4 \
             AND identity = $5 AND state IN ('unknown', 'settled')",
        )
        .bind(claim)
        .bind(holder)
        .bind(lease_until)
        .bind(now_ms)
        .bind(identity)
        .execute(&self.pool)
        .await?;
        Ok(taken.rows_affected() > 0)
    }

    /// held or unknown → settling, for its holder, with the body that is about to be sent. Whether it may be sent.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: nothing may be sent.
    pub async fn begin_intent(
        &self,
        claim: &str,
        holder: &str,
        (payload, amount): (&str, &str),
        delivered: bool,
        (attempts, lease_until): (i64, i64),
    ) -> Result<bool, StoreError> {
        let begun = sqlx::query(
            "UPDATE intents SET state = 'settling', attempts = attempts + 1, payload = $3, amount = $4, lease_until = $5, \
             delivered = CASE WHEN $6 = 1 THEN 1 ELSE delivered END \
             WHERE claim = $1 AND holder = $2 AND state IN ('held', 'unknown') AND attempts = $7",
        )
        .bind(claim)
        .bind(holder)
        .bind(payload)
        .bind(amount)
        .bind(lease_until)
        .bind(i64::from(delivered))
        .bind(attempts)
        .execute(&self.pool)
        .await?;
        Ok(begun.rows_affected() > 0)
    }

    /// Takes up what is due, for the sweeper: unknown, settling by somebody who is gone, or held by somebody who is gone and has delivered
    /// some of it: that is sent with another body. Whether it may be sent; not if it is not as it was read any more.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: nothing may be sent.
    pub async fn resume_intent(
        &self,
        intent: &Intent,
        (payload, amount): (&str, &str),
        lease_until: i64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let resumed = sqlx::query(
            "UPDATE intents SET state = 'settling', attempts = attempts + 1, lease_until = $3, delivered = CASE WHEN state = 'held' THEN 1 ELSE \
             delivered END, payload = $5, amount = $6 WHERE claim = $1 AND holder = $2 AND state = $7 AND attempts = $8 AND used = $9 \
             AND ((state = 'unknown' AND next_attempt_at <= $4) OR (state IN ('settling', 'held') AND lease_until <= $4))",
        )
        .bind(&intent.claim)
        .bind(&intent.holder)
        .bind(lease_until)
        .bind(now_ms)
        .bind(payload)
        .bind(amount)
        .bind(intent.stage.as_str())
        .bind(intent.attempts)
        .bind(&intent.used)
        .execute(&self.pool)
        .await?;
        Ok(resumed.rows_affected() > 0)
    }

    /// What became of the settlement that was begun as this attempt. Whether it still was this attempt's to tell. `lease_until`: until when
    /// its holder may deliver what it paid for, if it has not left.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: it stays as it is.
    pub async fn end_intent(&self, claim: &str, attempt: i64, ended: Ended<'_>, lease_until: i64, now_ms: i64) -> Result<bool, StoreError> {
        let begun = ("state = 'settling' AND attempts = $11", attempt);
        self.end(claim, begun, ended, lease_until, now_ms).await
    }

    /// An attempt whose lease has ended was settled after all. Whether that was not known.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: it stays as it is.
    pub async fn settle_late_intent(&self, claim: &str, attempt: i64, settled: Ended<'_>, now_ms: i64) -> Result<bool, StoreError> {
        let open = ("state IN ('unknown', 'settling') AND attempts >= $11", attempt);
        self.end(claim, open, settled, LEASE_AS_IT_IS, now_ms).await
    }

    /// What somebody has found out about a settlement whose outcome is not known, or about a payment that has run out while it was held and
    /// nobody could settle it. Whether that was so still, and nobody was at it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: it stays as it is.
    pub async fn resolve_intent(&self, claim: &str, ended: Ended<'_>, now_ms: i64) -> Result<bool, StoreError> {
        let open = "(state = 'unknown' OR (state = 'settling' AND lease_until <= $11) OR (state = 'held' AND expires_at <= $11 AND $2 = 'failed'))";
        self.end(claim, (open, now_ms), ended, LEASE_AS_IT_IS, now_ms).await
    }

    /// What a transaction has settled already, if anything: a claim, or a top-up.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn is_settled_by(&self, transaction: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT claim FROM intents WHERE state = 'settled' AND lower(transaction_id) = lower($1) \
                   UNION ALL SELECT id FROM topups WHERE state = 'settled' AND lower(transaction_id) = lower($1) LIMIT 1";
        let row = sqlx::query(sql).bind(transaction).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// `condition`: on what it is now, with $11 for a number.
    async fn end(
        &self,
        claim: &str,
        (condition, number): (&str, i64),
        ended: Ended<'_>,
        lease_until: i64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let (state, answer, transaction, payer, error, next) = match ended {
            Ended::Settled {
                answer,
                transaction,
                payer,
            } => ("settled", answer, transaction, payer, "", 0),
            Ended::Refused(error) => ("released", "", "", "", error, 0),
            Ended::UsedUp(error) => ("failed", "", "", "", error, 0),
            Ended::NotSent => ("held", "", "", "", "", 0),
            Ended::Unknown(error, next) => ("unknown", "", "", "", error, next),
        };
        let is_open = matches!(ended, Ended::NotSent | Ended::Unknown(..));
        let done = sqlx::query(&format!(
            "UPDATE intents SET state = $2, answer = $3, transaction_id = $4, payer = CASE WHEN $5 = '' THEN payer ELSE $5 END, error = $6, \
             next_attempt_at = $7, lease_until = CASE WHEN holder = '' THEN 0 WHEN $8 < 0 THEN lease_until ELSE $8 END, ended_at = $9, \
             payload = CASE WHEN $10 = 1 THEN payload ELSE '' END WHERE claim = $1 AND {condition}"
        ))
        .bind(claim)
        .bind(state)
        .bind(answer)
        .bind(transaction)
        .bind(payer)
        .bind(error)
        .bind(next)
        .bind(lease_until)
        .bind(if is_open { 0 } else { now_ms })
        .bind(i64::from(is_open))
        .bind(number)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Its holder has ended without settling it.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn release_intent(&self, holder: &str, now_ms: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE intents SET state = 'released', payload = '', ended_at = $2 WHERE holder = $1 AND state = 'held'";
        let released = sqlx::query(sql).bind(holder).bind(now_ms).execute(&self.pool).await?;
        Ok(released.rows_affected() > 0)
    }

    /// Its holder has delivered what it paid for, or keeps what is left of that to itself.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn deliver_intent(&self, holder: &str) -> Result<bool, StoreError> {
        let sql = "UPDATE intents SET delivered = 1 WHERE holder = $1";
        let delivered = sqlx::query(sql).bind(holder).execute(&self.pool).await?;
        Ok(delivered.rows_affected() > 0)
    }

    /// Its holder does not wait for its settlement any more: whoever comes next may have it.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn leave_intent(&self, holder: &str) -> Result<bool, StoreError> {
        // While it is being settled the lease is the settler's.
        let sql = "UPDATE intents SET lease_until = CASE WHEN state = 'settling' THEN lease_until ELSE 0 END, \
                   holder = CASE WHEN state = 'settling' THEN '' ELSE holder END \
                   WHERE holder = $1 AND state IN ('held', 'settling', 'unknown', 'settled')";
        let left = sqlx::query(sql).bind(holder).execute(&self.pool).await?;
        Ok(left.rows_affected() > 0)
    }

    /// Its holder goes on, and so much is due so far.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn report_intent(&self, holder: &str, used: &str, lease_until: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE intents SET used = $2, lease_until = $3 WHERE holder = $1 AND state = 'held'";
        let reported = sqlx::query(sql)
            .bind(holder)
            .bind(used)
            .bind(lease_until)
            .execute(&self.pool)
            .await?;
        Ok(reported.rows_affected() > 0)
    }

    /// Nothing can be done for it before this time: a settlement whose settler is gone is unknown until then, for somebody to end it.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn postpone_intent(&self, claim: &str, until: i64, now_ms: i64) -> Result<(), StoreError> {
        let sql = "UPDATE intents SET next_attempt_at = $2, lease_until = CASE WHEN state = 'held' THEN $2 ELSE lease_until END, \
                   state = CASE WHEN state = 'held' THEN state ELSE 'unknown' END \
                   WHERE claim = $1 AND ((state = 'unknown' AND next_attempt_at <= $3) OR (state IN ('held', 'settling') AND lease_until <= $3))";
        sqlx::query(sql).bind(claim).bind(until).bind(now_ms).execute(&self.pool).await?;
        Ok(())
    }

    /// What the sweeper has to settle, the oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn due_intents(&self, now_ms: i64, limit: i64) -> Result<Vec<Intent>, StoreError> {
        let rows = sqlx::query(&format!(
            "{INTENT} WHERE (state = 'unknown' AND next_attempt_at <= $1) OR (state = 'settling' AND lease_until <= $1) \
             OR (state = 'held' AND lease_until <= $1 AND used NOT IN ('', '0')) ORDER BY created_at, claim LIMIT $2"
        ))
        .bind(now_ms)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(intent).collect()
    }

    /// Gives back what nothing was heard of in time and nothing is due for; gives back how many there were.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn lapse_intents(&self, now_ms: i64) -> Result<u64, StoreError> {
        let lapsed = sqlx::query(
            "UPDATE intents SET state = 'released', payload = '', error = 'lapsed', ended_at = $1 \
             WHERE state = 'held' AND lease_until <= $1 AND used IN ('', '0')",
        )
        .bind(now_ms)
        .execute(&self.pool)
        .await?;
        Ok(lapsed.rows_affected())
    }

    /// All of them by claim, those after one: for export, and for comparing with the chain.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn intents(&self, after: &str, limit: i64) -> Result<Vec<Intent>, StoreError> {
        let rows = sqlx::query(&format!("{INTENT} WHERE claim > $1 ORDER BY claim LIMIT $2"))
            .bind(after)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(intent).collect()
    }
}

/// [`Store::hold_intent`], also as a part of a transaction.
pub(super) async fn hold<'e>(
    at: impl sqlx::Executor<'e, Database = sqlx::Any>,
    new: &NewIntent<'_>,
    now_ms: i64,
) -> Result<bool, StoreError> {
    // One statement: of all that come at once, one finds it so. What was reported as due is settled first, by the sweeper.
    let held = sqlx::query(
            "INSERT INTO intents (claim, holder, state, facilitator, network, scheme, payer, amount, payload, lease_until, created_at, expires_at, \
             identity) VALUES ($1, $2, 'held', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (claim) DO UPDATE SET holder = excluded.holder, state = 'held', delivered = 0, facilitator = excluded.facilitator, \
             network = excluded.network, scheme = excluded.scheme, payer = excluded.payer, amount = excluded.amount, identity = excluded.identity, \
             used = CASE WHEN intents.state = 'held' AND intents.holder = excluded.holder THEN intents.used ELSE '' END, \
             payload = excluded.payload, answer = '', transaction_id = '', error = '', attempts = 0, next_attempt_at = 0, \
             lease_until = excluded.lease_until, created_at = excluded.created_at, expires_at = excluded.expires_at, ended_at = 0 \
             WHERE intents.state = 'released' OR (intents.state = 'held' AND (intents.holder = excluded.holder \
             OR (intents.lease_until <= $10 AND intents.used IN ('', '0'))))",
        )
        .bind(new.claim)
        .bind(new.holder)
        .bind(new.facilitator)
        .bind(new.network)
        .bind(new.scheme)
        .bind(new.payer)
        .bind(new.amount)
        .bind(new.payload)
        .bind(new.lease_until)
        .bind(now_ms)
        .bind(new.expires_at)
        .bind(new.identity)
        .execute(at)
        .await?;
    Ok(held.rows_affected() > 0)
}
