//! A database for each test: a file of SQLite's, or one on a PostgreSQL of the run's own.
#![allow(dead_code)] // each test takes what it needs

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, Row as _};
use tempfile::TempDir;
use tokio::sync::Mutex;
use x402_ledger::store::Store;

/// Which one.
#[derive(Clone, Copy, Debug)]
pub enum On {
    Sqlite,
    Postgres,
}

/// It lasts as long as this does.
#[derive(Clone)]
pub struct Database {
    pub url: String,
    pub store: Store,
    /// Past the store, as an operator would.
    pub sql: AnyPool,
    _directory: Option<Arc<TempDir>>,
}

/// The server ends when its standard input does: with this process, however that ends.
struct Server {
    url: String,
    _child: Child,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let mut child = Command::new("python3")
        .args(["-m", "stack.postgres"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).expect("PostgreSQL did not start; it says why above");
    Server {
        url: said["url"].as_str().unwrap().to_owned(),
        _child: child,
    }
});
static DATABASES: AtomicU32 = AtomicU32::new(0);
/// One database is made at a time: two cannot be copied from the same template at once.
static MAKING: Mutex<()> = Mutex::const_new(());

pub async fn database(on: On) -> Database {
    sqlx::any::install_default_drivers();
    let (url, directory) = match on {
        On::Sqlite => {
            let directory = TempDir::new().unwrap();
            (
                format!("sqlite:{}", directory.path().join("ledger.db").display()),
                Some(Arc::new(directory)),
            )
        }
        On::Postgres => {
            let _one = MAKING.lock().await;
            let server = tokio::task::spawn_blocking(|| SERVER.url.clone()).await.unwrap();
            let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
            let pool = AnyPoolOptions::new().max_connections(1).connect(&server).await.unwrap();
            sqlx::query(&format!("CREATE DATABASE {name}")).execute(&pool).await.unwrap();
            pool.close().await;
            (server.replace("/postgres?", &format!("/{name}?")), None)
        }
    };
    Database {
        _directory: directory,
        ..opened(&url).await
    }
}

/// One that is there already.
pub async fn opened(url: &str) -> Database {
    Database {
        url: url.to_owned(),
        store: Store::open(url, 8).await.unwrap(),
        sql: AnyPoolOptions::new().max_connections(1).connect(url).await.unwrap(),
        _directory: None,
    }
}

impl Database {
    /// A tenant who has so much, given by hand.
    pub async fn tenant(&self, balance: i64) -> String {
        let tenant = self.store.create_tenant("test", 1).await.unwrap();
        if balance > 0 {
            self.store.adjust(&tenant, balance, &tenant, "for the test", 1).await.unwrap();
        }
        tenant
    }

    /// What is available, and what is reserved.
    pub async fn balances(&self, tenant: &str) -> (i64, i64) {
        let tenant = self.store.tenant(tenant).await.unwrap().unwrap();
        (tenant.available, tenant.reserved)
    }

    /// That the journal adds up.
    pub async fn adds_up(&self) {
        let findings = self.store.check().await.unwrap();
        assert!(findings.wrong.is_empty(), "{findings}");
        assert!(findings.tenants > 0);
    }

    /// A statement.
    pub async fn run(&self, sql: &str) -> Result<u64, sqlx::Error> {
        Ok(sqlx::query(sql).execute(&self.sql).await?.rows_affected())
    }

    /// The first column of each row, a number.
    pub async fn numbers(&self, sql: &str) -> Vec<i64> {
        let rows = sqlx::query(sql).fetch_all(&self.sql).await.unwrap();
        rows.iter().map(|row| row.try_get(0).unwrap()).collect()
    }
}

/// Each of these, which take a [`Database`], once on SQLite and once on PostgreSQL.
#[macro_export]
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let database = $crate::databases::database($crate::databases::On::Sqlite).await;
                super::$name(database).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let database = $crate::databases::database($crate::databases::On::Postgres).await;
                super::$name(database).await;
            })*
        }
    };
}
