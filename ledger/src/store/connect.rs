//! Opening a database and bringing its schema up to date.

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr as _;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::error::BoxDynError;
use sqlx::migrate::{Migration, MigrationSource, MigrationType, Migrator};
use sqlx::{Any, AnyPool, Executor as _, Row as _};

/// Version, name, and text for SQLite and for PostgreSQL. A text that has been released is never changed: its checksum is in databases.
const MIGRATIONS: [(i64, &str, &str, &str); 3] = [
    (
        1,
        "credits",
        include_str!("../../migrations/sqlite/0001_credits.sql"),
        include_str!("../../migrations/postgres/0001_credits.sql"),
    ),
    (
        2,
        "intents",
        include_str!("../../migrations/0002_intents.sql"),
        include_str!("../../migrations/0002_intents.sql"),
    ),
    (
        3,
        "ended requests",
        include_str!("../../migrations/0003_ended_requests.sql"),
        include_str!("../../migrations/0003_ended_requests.sql"),
    ),
];

/// WAL lets readers be; `FULL` makes what was answered outlive a loss of power, not only of the process.
const PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000; PRAGMA foreign_keys = ON;";

/// A transaction.
pub(super) type Tx = sqlx::Transaction<'static, Any>;

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no database that this can speak to; the URL itself may hold a password.
    #[error("the database's URL has to be sqlite:<file> or postgres://<user>@<host>/<database>")]
    Url,
    /// It cannot be opened, read or written.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// Its schema cannot be brought up to date.
    #[error("the database's schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// The file cannot be created.
    #[error("the database's file: {0}")]
    File(#[from] std::io::Error),
    /// It says what this version never writes.
    #[error("the database has {0}, which this version never writes")]
    Foreign(String),
    /// The operating system gave no random bytes.
    #[error("no random bytes")]
    Random,
}

/// An open database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) pool: AnyPool,
    pub(super) is_sqlite: bool,
}

/// Ours are compiled in: there is nothing to install beside the binary.
#[derive(Debug)]
struct Embedded {
    is_sqlite: bool,
}

impl MigrationSource<'static> for Embedded {
    fn resolve(self) -> Pin<Box<dyn Future<Output = Result<Vec<Migration>, BoxDynError>> + Send>> {
        let text = move |(version, name, sqlite, postgres): (i64, &'static str, &'static str, &'static str)| {
            let sql = if self.is_sqlite { sqlite } else { postgres };
            Migration::new(version, name.into(), MigrationType::Simple, sql.into(), false)
        };
        Box::pin(async move { Ok(MIGRATIONS.map(text).to_vec()) })
    }
}

impl Store {
    /// Opens `sqlite:<file>` (made if it is not there, readable by its owner alone) or `postgres://…`, and brings the schema up to date.
    ///
    /// # Errors
    ///
    /// [`StoreError`], without the URL, which may hold a password.
    pub async fn open(url: &str, connections: u32) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let is_sqlite = url.starts_with("sqlite:");
        if !is_sqlite && !url.starts_with("postgres:") && !url.starts_with("postgresql:") {
            return Err(StoreError::Url);
        }
        let options = AnyConnectOptions::from_str(url).map_err(|_| StoreError::Url)?;
        let pool = AnyPoolOptions::new().acquire_timeout(std::time::Duration::from_secs(10));
        let pool = if is_sqlite {
            make_file(url)?;
            // SQLite has one writer; queues of ours are fairer than its own.
            pool.max_connections(1)
                .after_connect(|connection, _| Box::pin(async move { connection.execute(PRAGMAS).await.map(|_| ()) }))
        } else {
            pool.max_connections(connections.max(1))
        };
        let pool = pool.connect_with(options).await?;
        Migrator::new(Embedded { is_sqlite }).await?.run(&pool).await?;
        Ok(Self { pool, is_sqlite })
    }

    /// The same, of a database that has to be there.
    ///
    /// # Errors
    ///
    /// [`StoreError`], without the URL, which may hold a password.
    pub async fn open_existing(url: &str, connections: u32) -> Result<Self, StoreError> {
        if url.starts_with("sqlite:") {
            std::fs::metadata(file(url)?)?;
        }
        Self::open(url, connections).await
    }

    /// A transaction that is going to write.
    pub(super) async fn begin(&self) -> Result<Tx, StoreError> {
        let begin = if self.is_sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
        Ok(self.pool.begin_with(begin).await?)
    }

    /// A transaction that sees one moment.
    pub(super) async fn snapshot(&self) -> Result<Tx, StoreError> {
        let begin = if self.is_sqlite {
            "BEGIN"
        } else {
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        };
        Ok(self.pool.begin_with(begin).await?)
    }

    /// Whether it answers.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] if it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT name FROM meta LIMIT 1").fetch_optional(&self.pool).await?;
        Ok(())
    }

    /// The database's own secret, made once: what is to be told apart and not to be known is hashed with it, by every ledger that shares the
    /// database.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn secret(&self) -> Result<[u8; 16], StoreError> {
        let mut fresh = [0u8; 16];
        getrandom::fill(&mut fresh).map_err(|_| StoreError::Random)?;
        sqlx::query("INSERT INTO meta (name, value) VALUES ('secret', $1) ON CONFLICT (name) DO NOTHING")
            .bind(hex::encode(fresh))
            .execute(&self.pool)
            .await?;
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'secret'")
            .fetch_one(&self.pool)
            .await?;
        let bytes = hex::decode(row.try_get::<String, _>(0)?)
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| StoreError::Foreign("a secret that is not 32 hexadecimal digits".to_owned()))
    }

    /// Lets go of the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// The file of an SQLite database.
fn file(url: &str) -> Result<&str, StoreError> {
    let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let path = path.split('?').next().unwrap_or_default();
    if path.is_empty() || path == ":memory:" {
        return Err(StoreError::Url);
    }
    Ok(path)
}

/// Payloads of open payments are encrypted in it, but whoever can write it can write balances.
fn make_file(url: &str) -> Result<(), StoreError> {
    let path = file(url)?;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?;
    Ok(())
}
