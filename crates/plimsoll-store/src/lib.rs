//! The ledger: who may use how much, what is charged, and why.
//!
//! [`Store`] is one concrete type over SQLite: one writer thread that batches, readers on their own
//! connections. It reads, asks [`plimsoll_core::admit()`] and writes, in one transaction. It knows no
//! HTTP status, no Docker, no cgroup; ids and the time come from its callers.

mod alerts;
mod audit;
mod backup;
mod books;
mod budgets;
mod certs;
mod changes;
mod check;
mod clamps;
mod decisions;
mod error;
pub mod history;
mod hosts;
mod images;
mod lock;
mod metrics;
mod migrate;
mod notices;
mod people;
mod quotas;
mod records;
mod reservations;
mod retention;
mod rows;
mod shadow;
mod shares;
mod steps;
mod tokens;
mod violations;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use alerts::{Alert, Seen, Silence, subject};
pub use backup::{backup, check_measured, restore};
pub use changes::{After, CHANGES_KEPT, Change, Changes};
pub use decisions::DecisionCount;
pub use error::{Result, StoreError};
pub use images::Push;
pub use metrics::{Counted, Kept, METRICS_FILE, Metrics, Peak, Tick, UsageTotals};
pub use migrate::SCHEMA_VERSION;
pub use notices::{Channel, Channels, Delivery, DeliveryState, Inbox, Notification, Tried};
pub use people::NewMember;
pub use records::*;
pub use reservations::Deed;
pub use retention::{FORGET_MAX, Forgotten};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
pub use shares::{
    Grant, GrantState, GrantTo, NewGrant, NewRequest, Redistribute, Redistribution,
    RedistributionState, Request, RequestState, Turn,
};
pub use steps::Turned;
pub use tokens::NewToken;
pub use violations::{BEHIND_MAX, Measured, most};

use crate::books::{Books, Cache};
use crate::writer::{Manner, Writer};

/// How long an admission may wait for its transaction before the caller is told to come back.
pub const ADMISSION_DEADLINE: Duration = Duration::from_secs(5);

/// The ledger's file in the data directory.
pub const LEDGER_FILE: &str = "ledger.db";

/// The ledger. Cheap to clone; every clone is the same ledger.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// A connection and what was read over it.
type Reader = (Connection, Cache);

struct Inner {
    // Dropped in this order: the directory is unlocked when the writer is done.
    writer: Writer,
    readers: Mutex<Vec<Reader>>,
    decided: decisions::Counters,
    changes: Arc<Changes>,
    leases: Arc<hosts::Leases>,
    path: PathBuf,
    _lock: lock::DataDirLock,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the ledger in `data_dir`, creating or migrating it first.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another server has the directory, [`StoreError::SchemaTooNew`]
    /// when a newer version wrote it, and whatever the file system and SQLite say.
    pub fn open(data_dir: &Path, now_ms: i64) -> Result<Self> {
        let io = |source| StoreError::Io {
            path: data_dir.display().to_string(),
            source,
        };
        std::fs::create_dir_all(data_dir).map_err(io)?;
        let lock = lock::DataDirLock::take(data_dir)?;
        let path = data_dir.join(LEDGER_FILE);
        let connection = Connection::open(&path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA busy_timeout = 5000; PRAGMA wal_autocheckpoint = 4000;
             PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16384;",
        )?;
        prepared_once(&connection, 128)?;
        migrate::migrate(&connection, &path, now_ms)?;
        let changes = Arc::new(Changes::default());
        let writer =
            Writer::start(connection, Arc::clone(&changes)).map_err(|source| StoreError::Io {
                path: "the ledger's thread".into(),
                source,
            })?;
        let inner = Inner {
            writer,
            readers: Mutex::new(Vec::new()),
            decided: decisions::Counters::default(),
            changes,
            leases: Arc::default(),
            path,
            _lock: lock,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What changed lately.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.inner.changes
    }

    /// Runs `job` in the next transaction, on balances shared with the rest of its batch.
    async fn charge<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        self.inner.writer.write(Manner::Shared, job).await
    }

    /// As [`charge`](Self::charge), for what the engine shows again should the machine lose power before
    /// it is on disk: its caller need not wait for that.
    async fn see<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        self.inner.writer.write(Manner::Seen, job).await
    }

    /// Runs `job` in the next transaction, with everything written out before it.
    async fn write<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        self.inner.writer.write(Manner::Alone, job).await
    }

    /// Runs `job` on a consistent snapshot, on the calling thread: for a handful of keyed reads.
    fn read<T>(&self, job: impl FnOnce(&mut Books<'_>) -> Result<T>) -> Result<T> {
        let pooled = self.readers().pop();
        let (connection, cache) = match pooled {
            Some(reader) => reader,
            None => (self.open_reader()?, Cache::default()),
        };
        connection.prepare_cached("BEGIN")?.execute([])?;
        let mut books = Books::with(&connection, cache);
        books.refresh()?;
        let outcome = job(&mut books);
        let cache = books.into_cache();
        connection.prepare_cached("COMMIT")?.execute([])?;
        self.readers().push((connection, cache));
        outcome
    }

    /// Runs `job` like [`read`](Self::read), off the asynchronous threads: for lists.
    async fn read_list<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Books<'_>) -> Result<T> + Send + 'static,
    {
        let store = self.clone();
        let read = tokio::task::spawn_blocking(move || store.read(job));
        read.await.map_err(|_| StoreError::Stopped)?
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Reader>> {
        self.inner
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn open_reader(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.inner.path, flags)?;
        connection.execute_batch(
            "PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -4096;",
        )?;
        prepared_once(&connection, 64)?;
        Ok(connection)
    }

    /// Whether the ledger answers a read and a write.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn ping(&self) -> Result<()> {
        self.charge(|books| books.capacity().map(drop)).await
    }
}

/// Keeps `most` prepared statements, and their plans whatever is bound to them: without the second,
/// SQLite prepares a query over a table with partial indexes anew each time it is run.
fn prepared_once(connection: &Connection, most: usize) -> Result<()> {
    connection.set_prepared_statement_cache_capacity(most);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}
