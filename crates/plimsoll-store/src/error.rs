//! What can go wrong in a store, in words for the person at the other end.

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such thing.
    #[error("no {what} named {name}")]
    NotFound {
        /// `user`, `team`, ...
        what: &'static str,
        /// As the caller wrote it.
        name: String,
    },
    /// The thing exists, or is in a state that does not allow the change.
    #[error("{0}")]
    Conflict(String),
    /// The quota changed since the caller read it.
    #[error("changed by someone else since it was read: read it again (now version {now})")]
    Stale {
        /// The version in the ledger.
        now: u64,
    },
    /// The caller may not, whatever the numbers.
    #[error("{0}")]
    Forbidden(String),
    /// The input contradicts itself or the ledger.
    #[error("{0}")]
    Invalid(String),
    /// The queue is full or the deadline passed.
    #[error("the ledger is busy and nothing was changed: try again in a moment")]
    Busy,
    /// The disk under the data directory is full.
    #[error("the disk under the data directory is full: free some space; nothing was changed")]
    DiskFull,
    /// The data was written by a newer version.
    #[error(
        "the data directory has schema {found}, this version knows up to {known}: \
         install a Plimsoll at least as new as the one that wrote it"
    )]
    SchemaTooNew {
        /// In the file.
        found: u32,
        /// In this binary.
        known: u32,
    },
    /// Another server has the data directory.
    #[error("the data directory is in use by process {holder}: stop that server first")]
    Locked {
        /// What the lock file says.
        holder: String,
    },
    /// This process does not own the host, or no longer.
    #[error(
        "host {host} belongs to another server, or was taken over by one: only its owner writes \
         what is charged on it; nothing was changed"
    )]
    Fenced {
        /// The host.
        host: String,
    },
    /// A file of the data directory cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite said no.
    #[error("the ledger's database failed; nothing was changed")]
    Sqlite(#[source] rusqlite::Error),
    /// The transaction failed as a whole.
    #[error("nothing was changed: {0}")]
    Aborted(String),
    /// What the database holds cannot be read back.
    #[error("the ledger holds a value that cannot be read: {0}")]
    Corrupt(String),
    /// The writer is gone.
    #[error("the ledger has stopped")]
    Stopped,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                Self::Busy
            }
            _ => Self::Sqlite(error),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// The store's result.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
