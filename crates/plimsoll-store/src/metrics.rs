//! What was measured, in a file of its own beside the ledger: totals that survive restarts, the peaks
//! of the last day, and the kernel counters they were read from.
//!
//! Losing the last tick in a crash is allowed; the counters are written in the same transaction as the
//! totals, so nothing is counted twice or skipped afterwards.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::error::{Result, StoreError};

/// The metrics' file in the data directory.
pub const METRICS_FILE: &str = "metrics.db";

const MIGRATIONS: [&str; 2] = [
    include_str!("migrations/sqlite_001_metrics.sql"),
    include_str!("migrations/sqlite_002_metrics.sql"),
];
pub(crate) const SCHEMA_VERSION: u32 = 2;

const TOTAL_COLUMNS: &str = "entity, runtime_ms, cpu_ns, memory_byte_ms, received_bytes, sent_bytes, \
    block_read_bytes, block_written_bytes, oom_kills, seen_cpu_ns";
const CONTAINER_COLUMNS: &str = "id, started_ms, cpu_ns, received_bytes, sent_bytes, \
    block_read_bytes, block_written_bytes, oom_kills";

/// What an entity used in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageTotals {
    /// Time in which at least one container ran, milliseconds.
    pub runtime_ms: u64,
    /// CPU time, nanoseconds.
    pub cpu_ns: u64,
    /// Working set over time, byte-milliseconds.
    pub memory_byte_ms: u128,
    /// Received from the network, bytes.
    pub received_bytes: u64,
    /// Sent to the network, bytes.
    pub sent_bytes: u64,
    /// Read from disks, bytes.
    pub block_read_bytes: u64,
    /// Written to disks, bytes.
    pub block_written_bytes: u64,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
    /// The part of `cpu_ns` that was seen in containers themselves. The rest is of containers that
    /// lived too short to be read to their end.
    pub seen_cpu_ns: u64,
}

/// What a container had counted when it was last accounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// When it started, Unix milliseconds: with another start its counters begin anew.
    pub started_ms: i64,
    /// CPU time, nanoseconds.
    pub cpu_ns: u64,
    /// Received from the network, bytes.
    pub received_bytes: u64,
    /// Sent to the network, bytes.
    pub sent_bytes: u64,
    /// Read from disks, bytes.
    pub block_read_bytes: u64,
    /// Written to disks, bytes.
    pub block_written_bytes: u64,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
}

/// The most that was measured in a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peak {
    /// Start of the span, Unix milliseconds.
    pub from_ms: i64,
    /// Millicores.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Running containers.
    pub containers: u64,
}

/// Everything that is kept.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Totals by entity key.
    pub totals: HashMap<String, UsageTotals>,
    /// Peaks by entity key, oldest first.
    pub peaks: HashMap<String, Vec<Peak>>,
    /// CPU counters (nanoseconds) by cgroup key, as last accounted.
    pub counters: HashMap<String, u64>,
    /// Containers' counters by the engine's id, as last accounted.
    pub containers: HashMap<String, Counted>,
    /// When the last tick was, Unix milliseconds.
    pub last_tick_ms: Option<i64>,
}

/// What one tick changes, or several of which the earlier could not be written.
#[derive(Debug, Clone, Default)]
pub struct Tick {
    /// New totals of the entities that changed.
    pub totals: HashMap<String, UsageTotals>,
    /// Peaks of the entities that changed, with the start of their span.
    pub peaks: HashMap<(String, i64), Peak>,
    /// CPU counters as accounted in these totals; `None` where the cgroup is gone.
    pub counters: HashMap<String, Option<u64>>,
    /// Containers' counters as accounted; `None` where the container is gone, and its totals with it.
    pub containers: HashMap<String, Option<Counted>>,
    /// When it was, Unix milliseconds.
    pub at_ms: i64,
    /// Peaks of spans before this are dropped.
    pub keep_from_ms: i64,
}

/// The metrics file. Used by one thread at a time.
#[derive(Debug)]
pub struct Metrics {
    connection: Connection,
}

impl Metrics {
    /// Opens the metrics in `data_dir`, which the ledger has locked.
    ///
    /// # Errors
    /// [`StoreError::SchemaTooNew`], or what SQLite says.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let connection = Connection::open(data_dir.join(METRICS_FILE))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;",
        )?;
        let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if found > SCHEMA_VERSION {
            return Err(StoreError::SchemaTooNew {
                found,
                known: SCHEMA_VERSION,
            });
        }
        for (version, migration) in (1..).zip(MIGRATIONS).skip(found as usize) {
            connection.execute_batch(&format!(
                "BEGIN; {migration} PRAGMA user_version = {version}; COMMIT;"
            ))?;
        }
        Ok(Self { connection })
    }

    /// Reads everything, at start.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn load(&self) -> Result<Kept> {
        let mut kept = Kept::default();
        let unsigned = |row: &rusqlite::Row<'_>, column| row.get(column).map(i64::unsigned_abs);
        let mut statement = self
            .connection
            .prepare(&format!("SELECT {TOTAL_COLUMNS} FROM total"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let memory: String = row.get(3)?;
            let totals = UsageTotals {
                runtime_ms: unsigned(row, 1)?,
                cpu_ns: unsigned(row, 2)?,
                memory_byte_ms: memory
                    .parse()
                    .map_err(|_| StoreError::Corrupt(format!("a total of {memory} byte-ms")))?,
                received_bytes: unsigned(row, 4)?,
                sent_bytes: unsigned(row, 5)?,
                block_read_bytes: unsigned(row, 6)?,
                block_written_bytes: unsigned(row, 7)?,
                oom_kills: unsigned(row, 8)?,
                seen_cpu_ns: unsigned(row, 9)?,
            };
            kept.totals.insert(row.get(0)?, totals);
        }
        let mut statement = self.connection.prepare(
            "SELECT entity, from_ms, cpu_milli, memory_bytes, containers FROM peak ORDER BY from_ms",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let peak = Peak {
                from_ms: row.get(1)?,
                cpu_milli: unsigned(row, 2)?,
                memory_bytes: unsigned(row, 3)?,
                containers: unsigned(row, 4)?,
            };
            kept.peaks.entry(row.get(0)?).or_default().push(peak);
        }
        let mut statement = self
            .connection
            .prepare("SELECT cgroup, cpu_ns FROM counter")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            kept.counters.insert(row.get(0)?, unsigned(row, 1)?);
        }
        let mut statement = self
            .connection
            .prepare(&format!("SELECT {CONTAINER_COLUMNS} FROM container"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let counted = Counted {
                started_ms: row.get(1)?,
                cpu_ns: unsigned(row, 2)?,
                received_bytes: unsigned(row, 3)?,
                sent_bytes: unsigned(row, 4)?,
                block_read_bytes: unsigned(row, 5)?,
                block_written_bytes: unsigned(row, 6)?,
                oom_kills: unsigned(row, 7)?,
            };
            kept.containers.insert(row.get(0)?, counted);
        }
        kept.last_tick_ms = self
            .connection
            .query_row("SELECT at_ms FROM last_tick", [], |row| row.get(0))
            .optional()?;
        Ok(kept)
    }

    /// Writes one tick, all of it or nothing.
    ///
    /// # Errors
    /// What SQLite says; the tick is then not written.
    pub fn save(&mut self, tick: &Tick) -> Result<()> {
        let tx = self.connection.transaction()?;
        {
            let mut total = tx.prepare_cached(&format!(
                "INSERT OR REPLACE INTO total ({TOTAL_COLUMNS})
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
            ))?;
            for (key, t) in &tick.totals {
                total.execute(params![
                    key,
                    t.runtime_ms.cast_signed(),
                    t.cpu_ns.cast_signed(),
                    t.memory_byte_ms.to_string(),
                    t.received_bytes.cast_signed(),
                    t.sent_bytes.cast_signed(),
                    t.block_read_bytes.cast_signed(),
                    t.block_written_bytes.cast_signed(),
                    t.oom_kills.cast_signed(),
                    t.seen_cpu_ns.cast_signed()
                ])?;
            }
            let mut peak = tx.prepare_cached(
                "INSERT INTO peak (entity, from_ms, cpu_milli, memory_bytes, containers)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (entity, from_ms) DO UPDATE
                 SET cpu_milli = max(cpu_milli, ?3), memory_bytes = max(memory_bytes, ?4),
                     containers = max(containers, ?5)",
            )?;
            for ((key, _), p) in &tick.peaks {
                peak.execute(params![
                    key,
                    p.from_ms,
                    p.cpu_milli.cast_signed(),
                    p.memory_bytes.cast_signed(),
                    p.containers.cast_signed()
                ])?;
            }
            let mut counter = tx.prepare_cached(
                "INSERT INTO counter (cgroup, cpu_ns) VALUES (?1, ?2)
                 ON CONFLICT (cgroup) DO UPDATE SET cpu_ns = ?2",
            )?;
            let mut gone = tx.prepare_cached("DELETE FROM counter WHERE cgroup = ?1")?;
            for (key, cpu_ns) in &tick.counters {
                match cpu_ns {
                    Some(cpu_ns) => counter.execute(params![key, cpu_ns.cast_signed()])?,
                    None => gone.execute([key])?,
                };
            }
            save_containers(&tx, &tick.containers)?;
            tx.prepare_cached("INSERT OR REPLACE INTO last_tick (id, at_ms) VALUES (1, ?1)")?
                .execute([tick.at_ms])?;
            tx.prepare_cached("DELETE FROM peak WHERE from_ms < ?1")?
                .execute([tick.keep_from_ms])?;
        }
        tx.commit()?;
        Ok(())
    }
}

fn save_containers(tx: &Transaction<'_>, all: &HashMap<String, Option<Counted>>) -> Result<()> {
    let mut put = tx.prepare_cached(&format!(
        "INSERT OR REPLACE INTO container ({CONTAINER_COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    ))?;
    let mut gone = tx.prepare_cached("DELETE FROM container WHERE id = ?1")?;
    let mut total = tx.prepare_cached("DELETE FROM total WHERE entity = 'container:' || ?1")?;
    for (id, counted) in all {
        let Some(c) = counted else {
            gone.execute([id])?;
            total.execute([id])?;
            continue;
        };
        put.execute(params![
            id,
            c.started_ms,
            c.cpu_ns.cast_signed(),
            c.received_bytes.cast_signed(),
            c.sent_bytes.cast_signed(),
            c.block_read_bytes.cast_signed(),
            c.block_written_bytes.cast_signed(),
            c.oom_kills.cast_signed()
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_first_schema_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let old = Connection::open(dir.path().join(METRICS_FILE)).unwrap();
        let first = MIGRATIONS[0];
        let row = "INSERT INTO total VALUES ('system', 1, 2, '3')";
        old.execute_batch(&format!("{first} {row}; PRAGMA user_version = 1;"))
            .unwrap();
        drop(old);
        let kept = Metrics::open(dir.path()).unwrap().load().unwrap();
        let totals = UsageTotals {
            runtime_ms: 1,
            cpu_ns: 2,
            memory_byte_ms: 3,
            ..UsageTotals::default()
        };
        assert_eq!(kept.totals["system"], totals);
        assert_eq!(kept.last_tick_ms, None);
        assert!(Metrics::open(dir.path()).is_ok(), "once is enough");
    }

    #[test]
    fn what_was_saved_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let totals = UsageTotals {
            runtime_ms: 5,
            cpu_ns: 7,
            memory_byte_ms: u128::from(u64::MAX) * 3,
            received_bytes: 11,
            sent_bytes: 12,
            block_read_bytes: 13,
            block_written_bytes: 14,
            oom_kills: 15,
            seen_cpu_ns: 6,
        };
        let counted = Counted {
            started_ms: -1,
            cpu_ns: 2,
            received_bytes: 3,
            sent_bytes: 4,
            block_read_bytes: 5,
            block_written_bytes: 6,
            oom_kills: 7,
        };
        let peak = Peak {
            from_ms: 100,
            cpu_milli: 1,
            memory_bytes: 2,
            containers: 3,
        };
        {
            let mut metrics = Metrics::open(dir.path()).unwrap();
            let tick = Tick {
                totals: HashMap::from([("user:a".into(), totals), ("container:y".into(), totals)]),
                containers: HashMap::from([
                    ("x".into(), Some(counted)),
                    ("y".into(), Some(counted)),
                ]),
                at_ms: 50,
                peaks: HashMap::from([(("user:a".into(), 100), peak)]),
                counters: HashMap::from([("c".into(), Some(9)), ("d".into(), Some(1))]),
                ..Tick::default()
            };
            metrics.save(&tick).unwrap();
            let lower = Peak {
                cpu_milli: 0,
                memory_bytes: 9,
                ..peak
            };
            let tick = Tick {
                peaks: HashMap::from([(("user:a".into(), 100), lower)]),
                counters: HashMap::from([("d".into(), None)]),
                containers: HashMap::from([("y".into(), None)]),
                at_ms: 60,
                ..Tick::default()
            };
            metrics.save(&tick).unwrap();
        }
        let mut metrics = Metrics::open(dir.path()).unwrap();
        let kept = metrics.load().unwrap();
        assert_eq!(kept.totals, HashMap::from([("user:a".to_owned(), totals)]));
        assert_eq!(kept.containers, HashMap::from([("x".to_owned(), counted)]));
        assert_eq!(kept.last_tick_ms, Some(60));
        assert_eq!(
            kept.peaks["user:a"],
            [Peak {
                memory_bytes: 9,
                ..peak
            }]
        );
        assert_eq!(kept.counters, HashMap::from([("c".to_owned(), 9)]));
        metrics
            .save(&Tick {
                keep_from_ms: 101,
                ..Tick::default()
            })
            .unwrap();
        assert!(metrics.load().unwrap().peaks.is_empty());
    }
}
