//! A history in a folder of its own, and ticks to put into it.

use std::path::Path;

use plimsoll_core::metric::Metric;
use plimsoll_store::history::{Ask, Bucket, History, Point, Scan, Series, Settings, Tick};

pub(crate) const SECOND: i64 = 1000;
pub(crate) const HOUR: i64 = 3600 * SECOND;
pub(crate) const DAY: i64 = 24 * HOUR;
/// The beginning of a day.
pub(crate) const START: i64 = 1_700_006_400_000;

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) history: History,
    pub(crate) settings: Settings,
    pub(crate) now_ms: i64,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path(), settings, START).unwrap();
        Self {
            dir,
            history,
            settings,
            now_ms: START,
        }
    }

    /// Ends it without a word, and begins anew on what is there.
    pub(crate) fn reopen(&mut self) {
        let elsewhere = tempfile::tempdir().unwrap();
        self.history = History::open(elsewhere.path(), self.settings, 0).unwrap();
        self.history = History::open(self.dir.path(), self.settings, self.now_ms).unwrap();
    }

    pub(crate) fn tick(&mut self, at_ms: i64, points: Vec<Point>) {
        self.now_ms = self.now_ms.max(at_ms);
        let tick = Tick {
            at_ms,
            points,
            ..Tick::default()
        };
        self.history.append(&tick).unwrap();
    }

    /// Readings every ten seconds, `count` of them, of CPU that is the number of the reading.
    pub(crate) fn run(&mut self, from_ms: i64, count: i64, entities: &[&str]) {
        for index in 0..count {
            let value = index.cast_unsigned() % 1000;
            let points = entities.iter().map(|entity| cpu(entity, value));
            self.tick(from_ms + index * 10 * SECOND, points.collect());
        }
    }

    pub(crate) fn series(&self, entity: &str, from_ms: i64, to_ms: i64, step_ms: i64) -> Series {
        series(
            &self.history,
            entity,
            from_ms,
            to_ms,
            Some(step_ms),
            self.now_ms,
        )
    }

    pub(crate) fn points(&self, entity: &str, from_ms: i64, to_ms: i64, step: i64) -> Vec<Bucket> {
        self.series(entity, from_ms, to_ms, step).points
    }

    /// The one bucket of each entity.
    pub(crate) fn scan(&self, prefix: &str, from_ms: i64, to_ms: i64) -> Vec<(String, Bucket)> {
        let scan = Scan {
            prefix,
            metric: Metric::Cpu,
            from_ms,
            to_ms,
            step_ms: None,
            now_ms: self.now_ms,
        };
        let extents = self.history.scan(&scan).unwrap();
        extents
            .into_iter()
            .map(|e| (e.entity, e.buckets[0]))
            .collect()
    }

    pub(crate) fn sql_write(&self, sql: &str) {
        let path = self.dir.path().join(plimsoll_store::history::HISTORY_FILE);
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    pub(crate) fn sql<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        query(self.dir.path(), sql)
    }
}

pub(crate) fn query<T: rusqlite::types::FromSql>(dir: &Path, sql: &str) -> T {
    let path = dir.join(plimsoll_store::history::HISTORY_FILE);
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

pub(crate) fn series(
    history: &History,
    entity: &str,
    from_ms: i64,
    to_ms: i64,
    step_ms: Option<i64>,
    now_ms: i64,
) -> Series {
    let ask = Ask {
        entity,
        metric: Metric::Cpu,
        from_ms,
        to_ms,
        step_ms,
        points_max: 10_000,
        now_ms,
    };
    history.series(&ask).unwrap()
}

pub(crate) fn cpu(entity: &str, value: u64) -> Point {
    Point {
        entity: entity.to_owned(),
        values: vec![(Metric::Cpu, value), (Metric::Memory, value << 20)],
    }
}

pub(crate) fn tick(at_ms: i64, points: Vec<Point>) -> Tick {
    Tick {
        at_ms,
        points,
        ..Tick::default()
    }
}
