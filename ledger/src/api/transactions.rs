//! How the journal is shown: JSON by pages, or CSV.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Failure, json};
use crate::payments::offers::dollars;
use crate::store::{Filter, Kind, Store, Transaction};

/// The longest page.
const MOST: i64 = 1_000;

/// Which rows, and how.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    /// So many rows at most: 1 to 1000, and 100 if it is left out.
    limit: Option<i64>,
    /// Rows before the one of this id: `next` of the page before.
    before: Option<i64>,
    kind: Option<Kind>,
    /// The id of a top-up, a reservation or an adjustment.
    reference: Option<String>,
    /// Not before this time, in Unix milliseconds.
    since: Option<i64>,
    /// Before this time, in Unix milliseconds.
    until: Option<i64>,
    /// `json`, or `csv`.
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Csv,
}

/// A page.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page {
    /// The latest first.
    data: Vec<Shown>,
    has_more: bool,
    /// `before` of the next page.
    next: Option<i64>,
}

/// A row of the journal. It moves `amount` from one account to another; the tenant's own are `available` and `reserved`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Shown {
    id: i64,
    tenant: String,
    kind: Kind,
    /// In dollars.
    #[schema(example = "0.00173")]
    amount: String,
    debit: String,
    credit: String,
    /// What was available after it, in dollars.
    balance_after: String,
    /// The id of the top-up, the reservation or the adjustment.
    reference: String,
    /// CAIP-2 network and transaction of a top-up; the reason of an adjustment.
    payment: String,
    /// In Unix milliseconds.
    created_at: i64,
}

impl From<Transaction> for Shown {
    fn from(row: Transaction) -> Self {
        Self {
            id: row.seq,
            tenant: row.tenant,
            kind: row.kind,
            amount: dollars(row.amount),
            debit: row.debit,
            credit: row.credit,
            balance_after: dollars(row.balance_after),
            reference: row.reference,
            payment: row.payment,
            created_at: row.created_at,
        }
    }
}

/// A page of the journal, of one tenant or of all.
pub(super) async fn page(store: &Store, tenant: Option<String>, query: Query) -> Result<Response<Body>, Failure> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=MOST).contains(&limit) {
        return Err(Failure::invalid("invalid_limit", format!("limit has to be from 1 to {MOST}")));
    }
    let filter = Filter {
        tenant,
        kind: query.kind,
        reference: query.reference,
        since_ms: query.since,
        until_ms: query.until,
        before: query.before,
    };
    let mut rows = store.transactions(&filter, limit.saturating_add(1)).await?;
    let length = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > length;
    rows.truncate(length);
    let next = rows.last().map(|row| row.seq).filter(|_| has_more);
    if query.format == Format::Csv {
        let next = next.map(|next| next.to_string()).unwrap_or_default();
        let headers = [(header::CONTENT_TYPE.as_str(), "text/csv; charset=utf-8"), ("x-next", &next)];
        return Ok((StatusCode::OK, headers, csv(&rows, true)).into_response());
    }
    let data = rows.into_iter().map(Shown::from).collect();
    Ok(json(StatusCode::OK, Page { data, has_more, next }))
}

/// Rows as CSV, with or without the line of names.
pub(crate) fn csv(rows: &[Transaction], with_names: bool) -> String {
    let mut text = String::new();
    if with_names {
        text.push_str("id,tenant,kind,amount,debit,credit,balance_after,reference,payment,created_at\r\n");
    }
    for row in rows {
        let (amount, balance) = (dollars(row.amount), dollars(row.balance_after));
        let (kind, reference, payment) = (row.kind.as_str(), quoted(&row.reference), quoted(&row.payment));
        let written = write!(
            text,
            "{},{},{kind},{amount},{},{},{balance},{reference},{payment},{}\r\n",
            row.seq, row.tenant, row.debit, row.credit, row.created_at
        );
        debug_assert!(written.is_ok(), "a String takes everything");
    }
    text
}

/// A field as a table program has to read it. One that it would take for a formula is made a text: reasons are written by people.
pub(crate) fn quoted(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_never_formulas() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=1+1", "'=1+1"),
            ("-2", "'-2"),
            ("@x,y", "\"'@x,y\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
