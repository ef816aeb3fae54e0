//! The proof that balances are sums: the journal is added up again from its beginning.

use std::collections::BTreeMap;
use std::fmt;

use sqlx::Row as _;

use super::connect::{Store, StoreError, Tx};
use super::journal;

const PAGE: i64 = 1_000;

/// What was looked at, and what does not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Tenants looked at.
    pub tenants: u64,
    /// Rows of the journal added up.
    pub transactions: u64,
    /// One sentence each; empty if all fits.
    pub wrong: Vec<String>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for wrong in &self.wrong {
            writeln!(f, "{wrong}")?;
        }
        let verdict = if self.wrong.is_empty() {
            "every balance is the sum of its journal"
        } else {
            "NOT in order"
        };
        write!(f, "{} tenants, {} transactions: {verdict}", self.tenants, self.transactions)
    }
}

/// Each has to give no rows; the first column names what is wrong.
const NONE_OF: [(&str, &str); 6] = [
    (
        "a settled top-up was not credited once with its amount",
        "SELECT id FROM topups WHERE state = 'settled' AND amount <> COALESCE((SELECT amount FROM credit_transactions AS moved \
         WHERE moved.kind = 'x402_topup' AND moved.reference = topups.id AND moved.tenant = topups.tenant), -1)",
    ),
    (
        "a credit belongs to no settled top-up",
        "SELECT reference FROM credit_transactions WHERE kind = 'x402_topup' AND NOT EXISTS \
         (SELECT 1 FROM topups WHERE topups.id = credit_transactions.reference AND topups.state = 'settled')",
    ),
    (
        "a captured reservation was not charged with what it says",
        "SELECT id FROM reservations WHERE state = 'captured' AND captured <> COALESCE((SELECT amount FROM credit_transactions AS moved \
         WHERE moved.kind = 'usage' AND moved.reference = reservations.id AND moved.tenant = reservations.tenant), 0)",
    ),
    (
        "an ended reservation was charged nevertheless",
        "SELECT id FROM reservations WHERE state IN ('open', 'released', 'lapsed', 'refused') AND EXISTS \
         (SELECT 1 FROM credit_transactions AS moved WHERE moved.kind = 'usage' AND moved.reference = reservations.id)",
    ),
    (
        "a top-up that has ended holds its payment",
        "SELECT holder FROM intents WHERE state = 'held' AND holder LIKE 'pi_%' AND NOT EXISTS \
         (SELECT 1 FROM topups WHERE topups.id = intents.holder AND topups.state IN ('processing', 'unknown'))",
    ),
    (
        "the payload of an ended top-up is still there",
        "SELECT id FROM topups WHERE state IN ('settled', 'failed') AND payload <> ''",
    ),
];

impl Store {
    /// Adds the whole journal up, in one moment's state of the database.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where it cannot be read; what does not fit is in [`Findings::wrong`].
    pub async fn check(&self) -> Result<Findings, StoreError> {
        check(&mut self.snapshot().await?).await
    }
}

/// The same, of what a transaction sees.
pub(super) async fn check(tx: &mut Tx) -> Result<Findings, StoreError> {
    let mut findings = Findings::default();
    let mut sums: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = journal::page(tx, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        for row in &page {
            findings.transactions = findings.transactions.saturating_add(1);
            let (available, reserved) = sums.entry(row.tenant.clone()).or_default();
            for (account, sign) in [(&*row.debit, -1i64), (&*row.credit, 1)] {
                let sum = match account {
                    "available" => &mut *available,
                    "reserved" => &mut *reserved,
                    _ => continue,
                };
                *sum = sum.saturating_add(row.amount.saturating_mul(sign));
            }
            if *available != row.balance_after {
                let (seq, said) = (row.seq, row.balance_after);
                findings
                    .wrong
                    .push(format!("transaction {seq}: {said} available after it, and the sum is {available}"));
            }
        }
    }
    check_tenants(tx, &mut sums, &mut findings).await?;
    for (what, sql) in NONE_OF {
        for row in sqlx::query(sql).fetch_all(&mut **tx).await? {
            findings.wrong.push(format!("{what}: {}", row.try_get::<String, _>(0)?));
        }
    }
    Ok(findings)
}

async fn check_tenants(tx: &mut Tx, sums: &mut BTreeMap<String, (i64, i64)>, findings: &mut Findings) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "SELECT id, available, reserved, CAST(COALESCE((SELECT SUM(amount) FROM reservations \
             WHERE reservations.tenant = tenants.id AND state = 'open'), 0) AS BIGINT) FROM tenants",
    )
    .fetch_all(&mut **tx)
    .await?;
    for row in rows {
        findings.tenants = findings.tenants.saturating_add(1);
        let id: String = row.try_get(0)?;
        let (available, reserved, held): (i64, i64, i64) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (sum, sum_reserved) = sums.remove(&id).unwrap_or_default();
        if (available, reserved) != (sum, sum_reserved) {
            findings.wrong.push(format!(
                "tenant {id}: {available} available and {reserved} reserved, and the sums are {sum} and {sum_reserved}"
            ));
        }
        if reserved != held {
            findings
                .wrong
                .push(format!("tenant {id}: {reserved} reserved, and open reservations are {held}"));
        }
    }
    for id in sums.keys() {
        findings.wrong.push(format!("tenant {id}: in the journal alone"));
    }
    Ok(())
}
