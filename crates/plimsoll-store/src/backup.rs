//! Copies of the data directory's databases, made while a server writes them, and put back while none
//! does.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::error::{Result, StoreError};
use crate::history::HISTORY_FILE;
use crate::lock::DataDirLock;
use crate::{LEDGER_FILE, METRICS_FILE, SCHEMA_VERSION, history, metrics};

/// Each database, with the schema that this version knows.
const FILES: [(&str, u32); 3] = [
    (METRICS_FILE, metrics::SCHEMA_VERSION),
    (HISTORY_FILE, history::SCHEMA_VERSION),
    // Last: nothing that was measured in a copy is of somebody the copy's ledger does not know.
    (LEDGER_FILE, SCHEMA_VERSION),
];

/// Copies every database of `data_dir` into `to`, which must not hold any. Each copy is one moment of its
/// database; a server may write meanwhile. Returns the files.
///
/// # Errors
/// [`StoreError::Conflict`] when there are copies, and what SQLite and the file system say.
pub fn backup(data_dir: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(to);
    made.map_err(|e| io(to, e))?;
    let mut copies = Vec::new();
    for (name, _) in FILES {
        let (from, copy) = (data_dir.join(name), to.join(name));
        if copy.exists() {
            let what = format!(
                "{} is there already: name a folder of its own",
                copy.display()
            );
            return Err(StoreError::Conflict(what));
        }
        if !from.exists() {
            continue;
        }
        // Under another name until it is whole.
        let partial = to.join(format!("{name}.partial"));
        remove(&partial)?;
        let connection = read_only(&from)?;
        connection.execute("VACUUM INTO ?1", [partial.display().to_string()])?;
        settle(&partial, &copy)?;
        copies.push(copy);
    }
    if copies.is_empty() {
        let what = format!("{} holds no ledger", data_dir.display());
        return Err(StoreError::Invalid(what));
    }
    Ok(copies)
}

/// Puts the databases in `from` into `data_dir`. What was there is kept in a folder beside them, which is
/// returned if there was anything.
///
/// # Errors
/// [`StoreError::Locked`] when a server has the directory; [`StoreError::Invalid`] when a copy is damaged
/// or there is none, [`StoreError::SchemaTooNew`]: nothing was changed then.
pub fn restore(from: &Path, data_dir: &Path, now_ms: i64) -> Result<Option<PathBuf>> {
    let mut copies = Vec::new();
    for (name, known) in FILES {
        let copy = from.join(name);
        if copy.exists() {
            sound(&copy, known)?;
            copies.push((name, copy));
        }
    }
    if !copies.iter().any(|(name, _)| *name == LEDGER_FILE) {
        let what = format!("{} holds no copy of a ledger", from.display());
        return Err(StoreError::Invalid(what));
    }
    fs::create_dir_all(data_dir).map_err(|e| io(data_dir, e))?;
    let _lock = DataDirLock::take(data_dir)?;
    // The long part first, so that little is left to go wrong between the old and the new.
    for (name, copy) in &copies {
        let partial = data_dir.join(format!("{name}.restored"));
        fs::copy(copy, &partial).map_err(|e| io(&partial, e))?;
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&partial, private).map_err(|e| io(&partial, e))?;
    }
    let aside = set_aside(data_dir, now_ms)?;
    for (name, _) in &copies {
        let partial = data_dir.join(format!("{name}.restored"));
        settle(&partial, &data_dir.join(name))?;
    }
    Ok(aside)
}

/// Moves every database out of the way, with what belongs to it.
fn set_aside(data_dir: &Path, now_ms: i64) -> Result<Option<PathBuf>> {
    let aside = data_dir.join(format!("before-restore-{now_ms}"));
    let mut moved = None;
    for (name, _) in FILES {
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("{name}{suffix}");
            let from = data_dir.join(&name);
            if from.exists() {
                fs::create_dir_all(&aside).map_err(|e| io(&aside, e))?;
                fs::rename(&from, aside.join(&name)).map_err(|e| io(&from, e))?;
                moved = Some(aside.clone());
            }
        }
    }
    Ok(moved)
}

/// What is wrong with the databases of what was measured; an empty list is nothing. A server may write
/// them meanwhile.
///
/// # Errors
/// When one cannot be read at all.
pub fn check_measured(data_dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in [METRICS_FILE, HISTORY_FILE] {
        let path = data_dir.join(name);
        if path.exists() {
            let connection = read_only(&path)?;
            let complaints = complaints(&connection)?;
            found.extend(complaints.into_iter().map(|what| format!("{name}: {what}")));
            if name == HISTORY_FILE && found.is_empty() {
                found.extend(history::unreadable(&connection)?);
            }
        }
    }
    Ok(found)
}

fn complaints(connection: &Connection) -> Result<Vec<String>> {
    let sql = "SELECT * FROM pragma_quick_check WHERE quick_check <> 'ok'";
    crate::rows::all(connection, sql, [], |row| row.get(0))
}

fn sound(copy: &Path, known: u32) -> Result<()> {
    let damaged = |what: String| {
        StoreError::Invalid(format!(
            "{} is damaged: {what}; nothing was changed",
            copy.display()
        ))
    };
    let look = || {
        let connection = read_only(copy)?;
        let found = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((found, complaints(&connection)?))
    };
    match look() {
        Ok((found, _)) if found > known => Err(StoreError::SchemaTooNew { found, known }),
        Ok((_, complaints)) if complaints.is_empty() => Ok(()),
        Ok((_, complaints)) => Err(damaged(complaints.join("; "))),
        Err(StoreError::Sqlite(error)) => Err(damaged(error.to_string())),
        Err(error) => Err(error),
    }
}

fn read_only(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch("PRAGMA busy_timeout = 5000;")?;
    Ok(connection)
}

/// Gives a file that is whole its name, so that it has it after a power cut, too.
fn settle(partial: &Path, path: &Path) -> Result<()> {
    let synced = File::open(partial).and_then(|file| file.sync_all());
    synced.map_err(|e| io(partial, e))?;
    fs::rename(partial, path).map_err(|e| io(path, e))?;
    let dir = path.parent().unwrap_or(path);
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|e| io(dir, e))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(path, error)),
        _ => Ok(()),
    }
}

fn io(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Io {
        path: path.display().to_string(),
        source,
    }
}
