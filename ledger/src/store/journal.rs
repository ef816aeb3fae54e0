//! `credit_transactions`: what was moved, once and for ever.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::connect::{Store, StoreError, Tx};

/// The accounts that money is moved between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// A tenant's, to be spent.
    Available,
    /// A tenant's, held for requests that are under way.
    Reserved,
    /// What came in by x402.
    X402,
    /// What was earned.
    Revenue,
    /// What was given and taken by hand.
    Adjustments,
}

impl Account {
    fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Reserved => "reserved",
            Self::X402 => "x402",
            Self::Revenue => "revenue",
            Self::Adjustments => "adjustments",
        }
    }
}

/// Why money was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A payment was settled.
    X402Topup,
    /// A request was charged.
    Usage,
    /// A request's maximum was set aside.
    Reservation,
    /// What a request did not cost was given back.
    Refund,
    /// By hand.
    Adjustment,
}

impl Kind {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X402Topup => "x402_topup",
            Self::Usage => "usage",
            Self::Reservation => "reservation",
            Self::Refund => "refund",
            Self::Adjustment => "adjustment",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let all = [Self::X402Topup, Self::Usage, Self::Reservation, Self::Refund, Self::Adjustment];
        let kind = all.into_iter().find(|kind| kind.as_str() == text);
        kind.ok_or_else(|| StoreError::Foreign(format!("a transaction of kind {text:?}")))
    }
}

/// A row to be.
pub(super) struct Posting<'a> {
    pub(super) tenant: &'a str,
    pub(super) kind: Kind,
    pub(super) debit: Account,
    pub(super) credit: Account,
    pub(super) amount: i64,
    pub(super) balance_after: i64,
    pub(super) reference: &'a str,
    pub(super) payment: &'a str,
    pub(super) now_ms: i64,
}

/// Writes a row; nothing for nothing. The tenant's row has to be locked by `tx`.
pub(super) async fn post(tx: &mut Tx, posting: &Posting<'_>) -> Result<(), StoreError> {
    if posting.amount == 0 {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO credit_transactions (tenant, kind, debit, credit, amount, balance_after, reference, payment, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(posting.tenant)
    .bind(posting.kind.as_str())
    .bind(posting.debit.as_str())
    .bind(posting.credit.as_str())
    .bind(posting.amount)
    .bind(posting.balance_after)
    .bind(posting.reference)
    .bind(posting.payment)
    .bind(posting.now_ms)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A row of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Grows; of a tenant in the order in which things happened.
    pub seq: i64,
    /// Whose.
    pub tenant: String,
    /// Why.
    pub kind: Kind,
    /// From this account.
    pub debit: String,
    /// To this one.
    pub credit: String,
    /// So many micro-dollars.
    pub amount: i64,
    /// What is available after it, in micro-dollars.
    pub balance_after: i64,
    /// Of what it was written: a top-up's id, a reservation's, an adjustment's.
    pub reference: String,
    /// CAIP-2 network and transaction of a top-up; the reason of an adjustment.
    pub payment: String,
    /// In Unix milliseconds.
    pub created_at: i64,
}

impl Transaction {
    /// What it changes of what the tenant has available, in micro-dollars.
    pub fn change(&self) -> i64 {
        match (&*self.debit, &*self.credit) {
            ("available", _) => self.amount.saturating_neg(),
            (_, "available") => self.amount,
            _ => 0,
        }
    }

    fn read(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            seq: row.try_get(0)?,
            tenant: row.try_get(1)?,
            kind: Kind::parse(&row.try_get::<String, _>(2)?)?,
            debit: row.try_get(3)?,
            credit: row.try_get(4)?,
            amount: row.try_get(5)?,
            balance_after: row.try_get(6)?,
            reference: row.try_get(7)?,
            payment: row.try_get(8)?,
            created_at: row.try_get(9)?,
        })
    }
}

/// Which rows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this tenant alone.
    pub tenant: Option<String>,
    /// Of this kind alone.
    pub kind: Option<Kind>,
    /// Written of this alone.
    pub reference: Option<String>,
    /// Not before this time, in Unix milliseconds.
    pub since_ms: Option<i64>,
    /// Before this time, in Unix milliseconds.
    pub until_ms: Option<i64>,
    /// With a `seq` below this: the next page.
    pub before: Option<i64>,
}

const COLUMNS: &str =
    "SELECT seq, tenant, kind, debit, credit, amount, balance_after, reference, payment, created_at FROM credit_transactions";

impl Store {
    /// Rows of the journal, the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn transactions(&self, filter: &Filter, limit: i64) -> Result<Vec<Transaction>, StoreError> {
        // A condition that is not asked for is always true; but whose it is has to be found by the index, where others have millions of rows.
        let whose = if filter.tenant.is_some() { "tenant = $1" } else { "$1 = ''" };
        let sql = format!(
            "{COLUMNS} WHERE {whose} AND ($2 = '' OR kind = $2) AND ($3 = '' OR reference = $3) \
             AND created_at >= $4 AND created_at < $5 AND seq < $6 ORDER BY seq DESC LIMIT $7"
        );
        let rows = sqlx::query(&sql)
            .bind(filter.tenant.as_deref().unwrap_or_default())
            .bind(filter.kind.map_or("", Kind::as_str))
            .bind(filter.reference.as_deref().unwrap_or_default())
            .bind(filter.since_ms.unwrap_or(0))
            .bind(filter.until_ms.unwrap_or(i64::MAX))
            .bind(filter.before.unwrap_or(i64::MAX))
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(Transaction::read).collect()
    }
}

/// A page of the journal from its beginning.
pub(super) async fn page(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<Transaction>, StoreError> {
    let rows = sqlx::query(&format!("{COLUMNS} WHERE seq > $1 ORDER BY seq LIMIT $2"))
        .bind(after)
        .bind(limit)
        .fetch_all(&mut **tx)
        .await?;
    rows.iter().map(Transaction::read).collect()
}
