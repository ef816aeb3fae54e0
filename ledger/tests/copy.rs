//! One database copied into the other kind: all of it or nothing, and a ledger goes on from there.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/databases.rs"]
mod databases;
#[path = "support/payments.rs"]
mod payments;
#[path = "support/shared.rs"]
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;

use databases::{Database, On};
use payments::{Facilitator, Script, ledger, pay, payment, serve};
use shared::{body, claims, hex, holder};
use sqlx::Row as _;
use x402_ledger::payments::books::{Books as _, State};
use x402_ledger::payments::sweeper::sweep;
use x402_ledger::store::{Captured, CopyError, Filter, Limits, NewReservation, Stage, Store};

on_both!(everything_is_there_and_goes_on, it_is_all_or_nothing);

/// One of the other kind.
async fn other(database: &Database) -> Database {
    let is_sqlite = database.url.starts_with("sqlite:");
    databases::database(if is_sqlite { On::Postgres } else { On::Sqlite }).await
}

impl Database {
    async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = sqlx::query(sql).fetch_all(&self.sql).await.unwrap();
        rows.iter().map(|row| row.try_get(0).unwrap()).collect()
    }

    /// Each column of each table, as the database itself lists them: the values, in the order of the rows' own.
    async fn everything(&self) -> BTreeMap<String, Vec<String>> {
        let is_sqlite = self.url.starts_with("sqlite:");
        let (tables, columns) = if is_sqlite {
            let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('_sqlx_migrations', 'sqlite_sequence')";
            (tables, "SELECT name FROM pragma_table_info('TABLE') ORDER BY name")
        } else {
            let tables =
                "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'";
            (
                tables,
                "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'TABLE' \
                 ORDER BY column_name COLLATE \"C\"",
            )
        };
        let mut all = BTreeMap::new();
        for table in self.texts(tables).await {
            let columns = self.texts(&columns.replace("TABLE", &table)).await;
            let row = columns.iter().map(|column| format!("COALESCE(CAST({column} AS TEXT), 'NULL')"));
            let mut rows = self
                .texts(&format!("SELECT {} FROM {table}", row.collect::<Vec<_>>().join(" || '|' || ")))
                .await;
            rows.sort();
            for (index, column) in columns.iter().enumerate() {
                let values = rows.iter().map(|row| row.split('|').nth(index).unwrap().to_owned());
                all.insert(format!("{table}.{column}"), values.collect());
            }
        }
        all
    }
}

/// A ledger's life so far: every column of every table says something.
async fn lived(database: &Database, url: &str) -> (String, String) {
    let store = &database.store;
    store.secret().await.unwrap();
    let tenant = database.tenant(10_000).await;
    let key = store.create_key(&tenant, "production", 1).await.unwrap().unwrap();
    let revoked = store.create_key(&tenant, "old", 1).await.unwrap().unwrap();
    assert!(store.revoke_key(&revoked.id, 2).await.unwrap());
    for id in ["r", "s"] {
        let new = NewReservation {
            id,
            tenant: &tenant,
            amount: 1_000,
            route: "chat",
            limits: Some(Limits {
                requests: Some(9),
                window_ms: 60_000,
                spend: Some(1_000_000),
            }),
            expires_at: 90_000,
        };
        store.reserve(&new, 1).await.unwrap();
    }
    assert_eq!(store.capture("s", 300, 2).await.unwrap(), Captured::Charged(300));
    let topups = ledger(store.clone(), url);
    for (nonce, amount) in [(1, 1_000_000), (2, 5_000_000), (3, 1_000_000)] {
        pay(&topups, &tenant, &payment(nonce, amount)).await;
    }
    let fleet = claims(store, url);
    for n in [11, 12, 13] {
        let held = fleet.verify(0, &holder(n, n), body(n, "upto", "10000")).await.unwrap();
        assert_eq!(held.status, 200);
        if n != 13 {
            fleet.settle(0, &holder(n, n), body(n, "upto", "10000")).await.unwrap();
        }
    }
    store.report_intent(&hex(13), "77", i64::MAX).await.unwrap();
    store.deliver_intent(&hex(11)).await.unwrap();
    store.end_request(&hex(99), 7).await.unwrap();
    // What is rare.
    database
        .run("UPDATE topups SET lease_until = 5 WHERE state = 'failed'")
        .await
        .unwrap();
    database
        .run("UPDATE intents SET error = 'wrote ''it''' WHERE state = 'settled'")
        .await
        .unwrap();
    (tenant, key.key)
}

async fn everything_is_there_and_goes_on(database: Database) {
    let facilitator = Arc::new(Facilitator::default());
    let script = [Script::Settle, Script::Refuse, Script::Fail, Script::Settle, Script::Fail];
    facilitator.script.lock().unwrap().extend(script);
    let url = serve(facilitator.clone()).await;
    let (tenant, key) = lived(&database, &url).await;
    let target = other(&database).await;
    let before = database.everything().await;
    for (column, values) in &before {
        assert!(
            values.iter().any(|value| !["", "0", "NULL"].contains(&&**value)),
            "{column}: {values:?}"
        );
    }
    let copied = database.store.copy_to(&target.store).await.unwrap();
    assert_eq!(target.everything().await, before);
    assert_eq!(database.everything().await, before);
    let rows = |table: &str| copied.tables.iter().find(|(name, _)| *name == table).unwrap().1;
    assert_eq!((rows("meta"), rows("api_keys"), rows("topups"), rows("intents")), (1, 2, 3, 6));
    assert_eq!((copied.findings.tenants, copied.findings.wrong.len()), (1, 0));
    // A second time it would be twice.
    let again = database.store.copy_to(&target.store).await;
    assert!(matches!(again, Err(CopyError::NotEmpty("meta"))), "{again:?}");

    let store = &target.store;
    assert_eq!(store.secret().await.unwrap(), database.store.secret().await.unwrap());
    let hashed = |key: &str| {
        use sha2::Digest as _;
        hex_of(&sha2::Sha256::digest(key))
    };
    assert_eq!(store.tenant_of(&hashed(&key)).await.unwrap(), Some(tenant.clone()));
    assert_eq!(store.capture("r", 400, 3).await.unwrap(), Captured::Charged(400));
    let last = database.store.transactions(&Filter::default(), 1).await.unwrap()[0].seq;
    let next = store.transactions(&Filter::default(), 100).await.unwrap();
    assert!(
        next.iter().all(|row| row.seq > 0) && next.iter().filter(|row| row.seq > last).count() == 2,
        "{next:?}"
    );
    for change in ["UPDATE credit_transactions SET amount = 1", "DELETE FROM credit_transactions"] {
        assert!(target.run(change).await.unwrap_err().to_string().contains("append-only"));
    }
    // What was open when it was copied is sealed for the same key, and found out by whoever serves now.
    for table in ["topups", "intents"] {
        target
            .run(&format!("UPDATE {table} SET next_attempt_at = 0 WHERE state = 'unknown'"))
            .await
            .unwrap();
    }
    let (topups, fleet) = (ledger(store.clone(), &url), claims(store, &url));
    assert_eq!((sweep(&topups).await.unwrap(), fleet.sweep(10).await.unwrap()), (1, 1));
    let states = target.texts("SELECT state FROM topups ORDER BY state").await;
    assert_eq!(states, ["failed", "settled", "settled"]);
    assert_eq!(store.intent(&hex(12)).await.unwrap().unwrap().stage, Stage::Settled);
    let paid = payment(3, 1_000_000);
    pay(&topups, &tenant, &paid).await;
    let credits = target
        .numbers("SELECT amount FROM credit_transactions WHERE kind = 'x402_topup'")
        .await;
    assert_eq!(credits, [1_000_000, 1_000_000]);
    target.adds_up().await;
    let settled = target.texts("SELECT id FROM topups WHERE state = 'settled'").await;
    for id in settled {
        assert_eq!(store.topup(&id).await.unwrap().unwrap().state, State::Settled);
    }
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn it_is_all_or_nothing(database: Database) {
    let target = other(&database).await;
    let nothing = database.store.copy_to(&target.store).await;
    assert!(matches!(nothing, Err(CopyError::Nothing)), "{nothing:?}");
    let tenant = database.tenant(10_000).await;
    // More than goes in one statement.
    let rows = if database.url.starts_with("sqlite:") {
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n"
    } else {
        "SELECT i FROM generate_series(1, 1000) AS n(i)"
    };
    let many = format!("INSERT INTO ended_requests (holder, ended_at) SELECT 'h' || i, i FROM ({rows}) AS n");
    assert_eq!(database.run(&many).await.unwrap(), 1_000);
    database.run("UPDATE tenants SET available = 10001").await.unwrap();
    let wrong = database.store.copy_to(&target.store).await.unwrap_err().to_string();
    assert!(wrong.starts_with("nothing was copied: ") && wrong.contains(&tenant), "{wrong}");
    assert!(target.everything().await.values().all(Vec::is_empty));
    database.run("UPDATE tenants SET available = 10000").await.unwrap();
    database.store.copy_to(&target.store).await.unwrap();
    assert_eq!(target.everything().await, database.everything().await);
    let mine = other(&database).await;
    mine.tenant(0).await;
    let mixed = database.store.copy_to(&mine.store).await;
    assert!(matches!(mixed, Err(CopyError::NotEmpty("tenants"))), "{mixed:?}");
}

#[tokio::test]
async fn what_is_not_there_is_not_made_to_be_copied() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("ledgre.db");
    assert!(Store::open_existing(&format!("sqlite:{}", file.display()), 1).await.is_err());
    assert!(!file.exists());
}
