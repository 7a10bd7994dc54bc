//! The file: how it is opened, and what becomes of one that cannot be used.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::wide;
use crate::error::{Result, StoreError};

/// The history's file in the data directory.
pub const HISTORY_FILE: &str = "history.db";

const SCHEMAS: [&str; 2] = [
    include_str!("../migrations/sqlite_001_history.sql"),
    include_str!("../migrations/sqlite_002_history.sql"),
];
pub(crate) const SCHEMA_VERSION: u32 = SCHEMAS.len() as u32;

/// Opens the file for writing, making it first.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -8192; PRAGMA journal_size_limit = 16777216;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::SchemaTooNew {
            found,
            known: SCHEMA_VERSION,
        });
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let made = prepare(&connection, found);
    connection.execute_batch(if made.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    made.map(|()| connection)
}

fn prepare(connection: &Connection, found: u32) -> Result<()> {
    for schema in SCHEMAS.iter().skip(found as usize) {
        connection.execute_batch(schema)?;
    }
    wide::prepare(connection)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    Ok(())
}

/// Opens the file for reading.
pub(crate) fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch(
        "PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Whether the file itself is damaged, so that no retry helps.
pub(crate) fn is_damage(error: &StoreError) -> bool {
    let StoreError::Sqlite(error) = error else {
        return false;
    };
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Moves a damaged file out of the way, with what belongs to it. Returns where it is now.
pub(crate) fn set_aside(path: &Path, now_ms: i64) -> Result<PathBuf> {
    let aside = path.with_extension(format!("damaged-{now_ms}.db"));
    for suffix in ["-wal", "-shm", ""] {
        let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        let from = with(path);
        if from.exists() {
            std::fs::rename(&from, with(&aside)).map_err(|source| StoreError::Io {
                path: from.display().to_string(),
                source,
            })?;
        }
    }
    Ok(aside)
}
