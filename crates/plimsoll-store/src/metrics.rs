//! What was measured, in a file of its own beside the ledger: totals that survive restarts, the peaks
//! of the last day, and the kernel counters they were read from.
//!
//! Losing the last tick in a crash is allowed; the counters are written in the same transaction as the
//! totals, so nothing is counted twice or skipped afterwards.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, params};

use crate::error::{Result, StoreError};

/// The metrics' file in the data directory.
pub const METRICS_FILE: &str = "metrics.db";

const SCHEMA: &str = include_str!("migrations/sqlite_001_metrics.sql");
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// What an entity used in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageTotals {
    /// Time in which at least one container ran, milliseconds.
    pub runtime_ms: u64,
    /// CPU time, nanoseconds.
    pub cpu_ns: u64,
    /// Working set over time, byte-milliseconds.
    pub memory_byte_ms: u128,
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
        if found == 0 {
            connection.execute_batch(&format!(
                "BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
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
            .prepare("SELECT entity, runtime_ms, cpu_ns, memory_byte_ms FROM total")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let memory: String = row.get(3)?;
            let totals = UsageTotals {
                runtime_ms: unsigned(row, 1)?,
                cpu_ns: unsigned(row, 2)?,
                memory_byte_ms: memory
                    .parse()
                    .map_err(|_| StoreError::Corrupt(format!("a total of {memory} byte-ms")))?,
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
        Ok(kept)
    }

    /// Writes one tick, all of it or nothing.
    ///
    /// # Errors
    /// What SQLite says; the tick is then not written.
    pub fn save(&mut self, tick: &Tick) -> Result<()> {
        let tx = self.connection.transaction()?;
        {
            let mut total = tx.prepare_cached(
                "INSERT INTO total (entity, runtime_ms, cpu_ns, memory_byte_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (entity) DO UPDATE
                 SET runtime_ms = ?2, cpu_ns = ?3, memory_byte_ms = ?4",
            )?;
            for (key, t) in &tick.totals {
                total.execute(params![
                    key,
                    t.runtime_ms.cast_signed(),
                    t.cpu_ns.cast_signed(),
                    t.memory_byte_ms.to_string()
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
            tx.prepare_cached("DELETE FROM peak WHERE from_ms < ?1")?
                .execute([tick.keep_from_ms])?;
        }
        tx.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let totals = UsageTotals {
            runtime_ms: 5,
            cpu_ns: 7,
            memory_byte_ms: u128::from(u64::MAX) * 3,
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
                totals: HashMap::from([("user:a".into(), totals)]),
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
                ..Tick::default()
            };
            metrics.save(&tick).unwrap();
        }
        let mut metrics = Metrics::open(dir.path()).unwrap();
        let kept = metrics.load().unwrap();
        assert_eq!(kept.totals["user:a"], totals);
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
