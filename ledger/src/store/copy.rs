//! Everything of one database into another, empty one: from SQLite to PostgreSQL, or back.
//!
//! Rows are copied as they are, payloads sealed: whoever serves from the copy needs the same `X402_LEDGER_KEY`.

use std::fmt;

use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::check::{Findings, check};
use super::connect::{Store, StoreError, Tx};

/// How many rows go in one statement: a third of the parameters that SQLite takes.
const BATCH: usize = 400;

/// A table, its columns of text, and those of numbers.
struct Table(&'static str, &'static [&'static str], &'static [&'static str]);

/// What others refer to comes first.
const TABLES: [Table; 9] = [
    Table("meta", &["name", "value"], &[]),
    Table("tenants", &["id", "name"], &["available", "reserved", "created_at"]),
    Table("api_keys", &["hash", "id", "tenant", "label"], &["created_at", "revoked_at"]),
    Table(
        "credit_transactions",
        &["tenant", "kind", "debit", "credit", "reference", "payment"],
        &["seq", "amount", "balance_after", "created_at"],
    ),
    Table(
        "reservations",
        &["id", "tenant", "state", "route"],
        &[
            "amount",
            "captured",
            "window_ms",
            "window_ends_at",
            "created_at",
            "expires_at",
            "ended_at",
        ],
    ),
    Table("account_windows", &["tenant"], &["window_ms", "ends_at", "requests", "spend"]),
    Table(
        "topups",
        &[
            "id",
            "tenant",
            "source",
            "state",
            "claim",
            "payload",
            "requirements",
            "resource",
            "network",
            "payer",
            "transaction_id",
            "error",
        ],
        &[
            "amount",
            "attempts",
            "next_attempt_at",
            "lease_until",
            "created_at",
            "expires_at",
            "ended_at",
        ],
    ),
    Table(
        "intents",
        &[
            "claim",
            "holder",
            "state",
            "facilitator",
            "identity",
            "network",
            "scheme",
            "payer",
            "amount",
            "used",
            "payload",
            "answer",
            "transaction_id",
            "error",
        ],
        &[
            "delivered",
            "attempts",
            "next_attempt_at",
            "lease_until",
            "created_at",
            "expires_at",
            "ended_at",
        ],
    ),
    Table("ended_requests", &["holder"], &["ended_at"]),
];

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Either database did not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is there would be mixed with what comes.
    #[error("the database to copy to is not empty: there are rows in {0}")]
    NotEmpty(&'static str),
    /// No ledger has served from it.
    #[error("there is nothing in the database to copy from")]
    Nothing,
    /// The books that were copied do not add up.
    #[error("nothing was copied: {0}")]
    Wrong(Findings),
}

impl From<sqlx::Error> for CopyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Rows of each table.
    pub tables: Vec<(&'static str, u64)>,
    /// The copy added up.
    pub findings: Findings,
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (table, rows) in &self.tables {
            writeln!(f, "{table}: {rows}")?;
        }
        write!(f, "{}", self.findings)
    }
}

impl Store {
    /// Copies one moment's state into an empty database, all of it or nothing, and adds the copy up. What happens here meanwhile is not in it.
    ///
    /// # Errors
    ///
    /// [`CopyError`]: the other one is as empty as before.
    pub async fn copy_to(&self, to: &Self) -> Result<Copied, CopyError> {
        let (mut from, mut tx) = (self.snapshot().await?, to.begin().await?);
        if !to.is_sqlite {
            // A ledger that is started on it meanwhile waits.
            let names = TABLES.map(|Table(name, ..)| name).join(", ");
            sqlx::query(&format!("LOCK TABLE {names} IN EXCLUSIVE MODE"))
                .execute(&mut *tx)
                .await?;
        }
        for Table(name, ..) in TABLES {
            let any = sqlx::query(&format!("SELECT 1 FROM {name} LIMIT 1"))
                .fetch_optional(&mut *tx)
                .await?;
            if any.is_some() {
                return Err(CopyError::NotEmpty(name));
            }
        }
        let mut tables = Vec::new();
        for table in &TABLES {
            tables.push((table.0, copy(&mut from, &mut tx, table, to.is_sqlite).await?));
        }
        if tables.iter().all(|(_, rows)| *rows == 0) {
            return Err(CopyError::Nothing);
        }
        if !to.is_sqlite {
            // SQLite goes on after the highest by itself.
            let next = "SELECT setval(pg_get_serial_sequence('credit_transactions', 'seq'), MAX(seq)) FROM credit_transactions HAVING MAX(seq) > 0";
            sqlx::query(next).execute(&mut *tx).await?;
        }
        let findings = check(&mut tx).await?;
        if !findings.wrong.is_empty() {
            return Err(CopyError::Wrong(findings));
        }
        tx.commit().await?;
        Ok(Copied { tables, findings })
    }
}

async fn copy(from: &mut Tx, to: &mut Tx, table: &Table, is_sqlite: bool) -> Result<u64, CopyError> {
    let Table(name, texts, numbers) = table;
    let columns = [*texts, *numbers].concat();
    let select = format!("SELECT {} FROM {name}", columns.join(", "));
    let mut rows = sqlx::query(&select).fetch(&mut **from);
    let (mut batch, mut copied) = (Vec::with_capacity(BATCH), 0u64);
    loop {
        let row = rows.try_next().await?;
        let is_last = row.is_none();
        batch.extend(row);
        if batch.len() < BATCH && !is_last {
            continue;
        }
        if !batch.is_empty() {
            copied = copied.saturating_add(insert(to, table, &batch, is_sqlite).await?);
            batch.clear();
        }
        if is_last {
            return Ok(copied);
        }
    }
}

async fn insert(to: &mut Tx, Table(name, texts, numbers): &Table, rows: &[AnyRow], is_sqlite: bool) -> Result<u64, CopyError> {
    let columns = [*texts, *numbers].concat();
    let mut places = (1..).map(|place: usize| format!("${place}"));
    let values: Vec<String> = rows
        .iter()
        .map(|_| format!("({})", places.by_ref().take(columns.len()).collect::<Vec<_>>().join(", ")))
        .collect();
    // PostgreSQL numbers the journal by itself, unless it is told otherwise.
    let overriding = if is_sqlite { "" } else { "OVERRIDING SYSTEM VALUE " };
    let sql = format!(
        "INSERT INTO {name} ({}) {overriding}VALUES {}",
        columns.join(", "),
        values.join(", ")
    );
    let mut insert = sqlx::query(&sql);
    for row in rows {
        for index in 0..texts.len() {
            insert = insert.bind(row.try_get::<Option<String>, _>(index)?);
        }
        for index in texts.len()..columns.len() {
            insert = insert.bind(row.try_get::<i64, _>(index)?);
        }
    }
    Ok(insert.execute(&mut **to).await?.rows_affected())
}
