//! What was measured, over time: every reading for days, sums over five minutes, hours and days for
//! months, in a file of its own beside the ledger's.
//!
//! A reading is a row of the tick log and is kept in memory until its hour is over. Then the hour is cut,
//! entity by entity and spread over the readings that follow, into a block of its samples and its
//! sums; the log's rows go when all of it is cut. Everything that is derived is a function of the block
//! alone, so that cutting an hour again, after a crash or for a late reading, gives what it gave before.
//! A crash costs the last reading at most. The reasons are in `docs/adr/0010-history.md`.

mod column;
mod file;
mod live;
mod read;
mod rollup;
mod samples;
mod walk;
mod wide;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use plimsoll_core::metric::Metric;
use rusqlite::Connection;

pub use file::HISTORY_FILE;
pub(crate) use file::SCHEMA_VERSION;
pub use read::{Ask, Bucket, Extent, Level, Logged, Scan, Series};
pub use walk::{Kept, Place};

use crate::error::Result;
use crate::records::Reservation;
use live::Live;
use write::Writer;

/// What one entity was seen to use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Point {
    /// `system`, `host:NAME`, `team:ID`, `user:ID`, `project:ID`, `container:ID`.
    pub entity: String,
    /// In the metrics' own units. What was not measured is left out.
    pub values: Vec<(Metric, u64)>,
}

/// A reading of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tick {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// An entity each.
    pub points: Vec<Point>,
    /// For the view of what is used now.
    pub totals: Vec<Totals>,
}

/// What an entity used in sum, and at most in a day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Its key, which has a point, too.
    pub entity: String,
    /// Millicores.
    pub peak_cpu_milli: u64,
    /// Bytes.
    pub peak_memory_bytes: u64,
    /// Running ones.
    pub peak_containers: u64,
    /// Time in which at least one container ran, milliseconds.
    pub runtime_ms: u64,
    /// CPU time, nanoseconds.
    pub cpu_ns: u64,
    /// Working set over time.
    pub memory_byte_ms: u128,
}

/// What is known of an entity beside its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// As people know it.
    pub name: Option<String>,
    /// Of a container: its user's id.
    pub user: Option<String>,
    /// Of a container: its team's id.
    pub team: Option<String>,
    /// Of a container: its project.
    pub project: Option<String>,
    /// Of a container: the image it was made from, as its tenant wrote it.
    pub image: Option<String>,
    /// The host it is on.
    pub host: Option<String>,
}

impl Labels {
    /// Those of a container, by its reservation.
    #[must_use]
    pub fn of(row: &Reservation) -> Self {
        Self {
            name: row.container_name.clone(),
            user: Some(row.user.to_string()),
            team: row.team.map(|team| team.to_string()),
            project: row.project.clone(),
            image: row.image.clone(),
            host: Some(row.host.clone()),
        }
    }
}

/// How a history is kept.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The time between two readings, milliseconds.
    pub interval_ms: u32,
    /// Every reading is kept so many days.
    pub raw_days: u64,
    /// Sums of five minutes.
    pub five_days: u64,
    /// Sums of hours and days.
    pub rollup_days: u64,
    /// Readings that another store has not taken are kept for it so many hours; 0 where there is none.
    pub unsent_hours: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval_ms: 10_000,
            raw_days: 7,
            five_days: 60,
            rollup_days: 400,
            unsent_hours: 0,
        }
    }
}

impl Settings {
    /// A sample speaks for no more time than this.
    const fn gap_ms(&self) -> u32 {
        self.interval_ms.saturating_mul(3)
    }
}

/// What went wrong since the start; all zeros is a history without holes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Readings that came at a time not after the one before: the clock was set back.
    pub backward: u64,
    /// Readings that could not be kept: the disk was full for too long.
    pub lost: u64,
    /// Rows and blocks that did not read back, and were passed over.
    pub unreadable: u64,
    /// A damaged file that was moved out of the way.
    pub set_aside: Option<PathBuf>,
}

/// The history. Every method blocks; none blocks another for long.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    settings: Settings,
    live: RwLock<Live>,
    writer: Mutex<Writer>,
    readers: Mutex<Vec<Connection>>,
}

impl History {
    /// Opens the history in `data_dir`, which the ledger has locked. A file that is damaged is moved out
    /// of the way and a new one begun; [`faults`](Self::faults) says so.
    ///
    /// # Errors
    /// [`StoreError::SchemaTooNew`](crate::StoreError::SchemaTooNew), or what SQLite and the file system
    /// say.
    pub fn open(data_dir: &Path, settings: Settings, now_ms: i64) -> Result<Self> {
        let path = data_dir.join(HISTORY_FILE);
        let mut live = Live::default();
        let writer = Writer::open(&path, settings, &mut live, now_ms)?;
        Ok(Self {
            path,
            settings,
            live: RwLock::new(live),
            writer: Mutex::new(writer),
            readers: Mutex::default(),
        })
    }

    /// Adds a reading. Once this returns it survives a crash of the process. On an error it is kept in
    /// memory, shown to readers, and written with the next one.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`](crate::StoreError::DiskFull), or what SQLite says.
    pub fn append(&self, tick: &Tick) -> Result<()> {
        let mut writer = locked(&self.writer);
        let aside = writer.faults.set_aside.clone();
        let done = writer.append(&self.live, tick);
        if writer.faults.set_aside != aside {
            // They still read the file that was moved.
            locked(&self.readers).clear();
        }
        done
    }

    /// Says what an entity is called and belongs to, from the next reading on.
    pub fn describe(&self, entity: &str, labels: Labels) {
        locked(&self.writer).describe(entity, labels);
    }

    /// Whether an entity was lately measured, so that its labels are known.
    #[must_use]
    pub fn knows(&self, entity: &str) -> bool {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.ids.contains_key(entity)
    }

    /// How many readings were added since the start.
    #[must_use]
    pub fn added(&self) -> u64 {
        locked(&self.writer).added
    }

    /// Says that another store has all readings up to a time: they need not be kept for it.
    pub fn sent(&self, until_ms: i64) {
        locked(&self.writer).sent_ms = until_ms;
    }

    /// How many readings from before the start were given up, as no other store took them in time.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        locked(&self.writer).given_up
    }

    /// What went wrong since the start.
    #[must_use]
    pub fn faults(&self) -> Faults {
        locked(&self.writer).faults.clone()
    }

    /// Runs `job` on a consistent snapshot.
    fn reading<T>(&self, job: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let pooled = locked(&self.readers).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => file::open_reader(&self.path)?,
        };
        let snapshot = connection.unchecked_transaction()?;
        let outcome = job(&snapshot)?;
        drop(snapshot);
        locked(&self.readers).push(connection);
        Ok(outcome)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The blocks that do not match their checksums, in words.
///
/// # Errors
/// What SQLite says.
pub(crate) fn unreadable(connection: &Connection) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for table in ["tick", "unsent", "raw", "five", "spread"] {
        let mut statement = connection.prepare(&format!("SELECT body FROM {table}"))?;
        let mut rows = statement.query([])?;
        let mut bad = 0u64;
        while let Some(row) = rows.next()? {
            let body: Vec<u8> = row.get(0)?;
            bad += u64::from(column::unsealed(&body).is_err());
        }
        if bad > 0 {
            found.push(format!(
                "{HISTORY_FILE}: {bad} rows of {table} do not read back"
            ));
        }
    }
    Ok(found)
}
