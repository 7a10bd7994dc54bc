//! Writing: the log, cutting hours into blocks, forgetting what is old.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use plimsoll_core::metric::Metric;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::live::{HOUR_MS, Live, Row, hour_of, read_row, row};
use super::rollup::{self, FIVE_MS, Rollup, Spreads};
use super::samples::Samples;
use super::wide::{self, Wide, key};
use super::{Faults, Labels, Settings, Tick, Totals, file};
use crate::error::Result;

/// An hour is cut over this many readings.
const CUT_OVER: usize = 60;
/// At least so many entities at a time.
const CUT_LEAST: usize = 16;
/// What waits for a full disk to have space again is kept up to this many bytes.
const UNSAVED_MAX: usize = 32 << 20;
/// And up to this many hours.
const WINDOWS_MAX: usize = 4;
/// Rows that are forgotten at a time, of each table, where readings are ten seconds apart or less.
const FORGET_MAX: u32 = 64;
/// Pages given back to the disk at a time, and kept for the next hour's log.
const VACUUM_PAGES: u32 = 128;
const FREE_PAGES_KEPT: u32 = 128;

const DAY_HOURS: i64 = 24;

/// The one that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    settings: Settings,
    connection: Connection,
    next_id: u32,
    /// Entities of which nothing is in the file yet.
    unsaved_ids: Vec<(u32, String)>,
    /// What was said of the entities in memory.
    described: HashMap<String, Labels>,
    /// Those of which it is not in the file yet.
    undescribed: HashSet<String>,
    /// What is used now, by entity.
    current: Vec<(u32, i64, Totals, HashMap<Metric, u64>)>,
    /// Rows of the log that are not in the file yet.
    unsaved: VecDeque<(i64, Vec<u8>)>,
    /// The hour that is being cut, and the last entity of it that was.
    cutting: Option<(i64, Option<u32>)>,
    newest_ms: i64,
    /// The newest reading from before the start.
    before_ms: i64,
    /// What another store has taken.
    pub(crate) sent_ms: i64,
    pub(crate) given_up: u64,
    pub(crate) added: u64,
    pub(crate) faults: Faults,
}

/// The step that a transaction did, to be noted when it is committed.
#[derive(Debug, Default)]
struct Done {
    cut: Option<(i64, Option<u32>)>,
    whole: Option<i64>,
    unreadable: u64,
    given_up: u64,
}

impl Writer {
    pub(crate) fn open(
        path: &Path,
        settings: Settings,
        live: &mut Live,
        now_ms: i64,
    ) -> Result<Self> {
        let read = |live: &mut Live| {
            let connection = file::open(path)?;
            let read = replay(&connection, live)?;
            Ok((connection, read))
        };
        let mut aside = None;
        let opened = match read(live) {
            Err(error) if file::is_damage(&error) => {
                aside = Some(file::set_aside(path, now_ms)?);
                *live = Live::default();
                read(live)
            }
            opened => opened,
        };
        let (connection, replayed) = opened?;
        Ok(Self {
            path: path.to_owned(),
            settings,
            connection,
            next_id: replayed.next_id,
            unsaved_ids: Vec::new(),
            described: HashMap::new(),
            undescribed: HashSet::new(),
            current: Vec::new(),
            unsaved: VecDeque::new(),
            cutting: None,
            newest_ms: replayed.newest_ms,
            before_ms: replayed.newest_ms,
            sent_ms: i64::MIN,
            given_up: 0,
            added: 0,
            faults: Faults {
                unreadable: replayed.unreadable,
                set_aside: aside,
                ..Faults::default()
            },
        })
    }

    pub(crate) fn describe(&mut self, entity: &str, labels: Labels) {
        self.undescribed.insert(entity.to_owned());
        self.described.insert(entity.to_owned(), labels);
    }

    pub(crate) fn append(&mut self, live: &RwLock<Live>, tick: &Tick) -> Result<()> {
        self.take_in(live, tick)?;
        let outcome = self.write(live);
        match outcome {
            Err(error) if file::is_damage(&error) => {
                self.begin_anew(live, tick.at_ms)?;
                self.write(live)
            }
            outcome => outcome,
        }
    }

    /// Adds a tick to what is in memory.
    fn take_in(&mut self, live: &RwLock<Live>, tick: &Tick) -> Result<()> {
        let mut live = live.write().unwrap_or_else(PoisonError::into_inner);
        if tick.at_ms <= self.newest_ms {
            self.faults.backward += 1;
        }
        let at_ms = live.free(tick.at_ms);
        let mut rows: Vec<Row> = Vec::with_capacity(tick.points.len());
        for point in &tick.points {
            rows.push((self.id(&mut live, &point.entity)?, point.values.clone()));
        }
        live.add(at_ms, &rows);
        self.current.clear();
        let by_id: HashMap<u32, &Vec<_>> = rows.iter().map(|(id, values)| (*id, values)).collect();
        for totals in &tick.totals {
            let id = self.id(&mut live, &totals.entity)?;
            let values = by_id.get(&id);
            let values = values.map(|values| values.iter().copied().collect());
            self.current
                .push((id, at_ms, totals.clone(), values.unwrap_or_default()));
        }
        self.newest_ms = at_ms;
        self.added += 1;
        if self.cutting.is_some_and(|(hour, _)| hour == hour_of(at_ms)) {
            self.cutting = None;
        }
        self.unsaved.push_back((at_ms, row(&rows)));
        self.bound(&mut live);
        Ok(())
    }

    /// Keeps what waits for the disk within bounds.
    fn bound(&mut self, live: &mut Live) {
        let bytes = |rows: &VecDeque<(i64, Vec<u8>)>| rows.iter().map(|(_, b)| b.len()).sum();
        let mut waiting: usize = bytes(&self.unsaved);
        while waiting > UNSAVED_MAX && self.unsaved.len() > 1 {
            if let Some((_, body)) = self.unsaved.pop_front() {
                waiting -= body.len();
                self.faults.lost += 1;
            }
        }
        while live.windows.len() > WINDOWS_MAX {
            let Some(hour) = live.closed() else { return };
            live.forget(hour);
            self.cutting = None;
            let before = self.unsaved.len();
            self.unsaved.retain(|(at_ms, _)| hour_of(*at_ms) != hour);
            self.faults.lost += (before - self.unsaved.len()) as u64;
        }
    }

    fn id(&mut self, live: &mut Live, entity: &str) -> Result<u32> {
        if let Some(id) = live.ids.get(entity) {
            return Ok(*id);
        }
        let sql = "SELECT id FROM entity WHERE key = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let found = statement.query_row([entity], |row| row.get(0)).optional()?;
        let id = found.unwrap_or(self.next_id);
        if found.is_none() {
            self.next_id += 1;
            self.unsaved_ids.push((id, entity.to_owned()));
        }
        live.ids.insert(entity.to_owned(), id);
        Ok(id)
    }

    /// One transaction: what is not in the file yet, a part of the hour that is being cut, and a part of
    /// what is too old.
    fn write(&mut self, live: &RwLock<Live>) -> Result<()> {
        let done = self.transact(live)?;
        self.unsaved.clear();
        self.unsaved_ids.clear();
        self.undescribed.clear();
        self.faults.unreadable += done.unreadable;
        self.given_up += done.given_up;
        self.cutting = done.cut;
        if let Some(hour) = done.whole {
            let mut live = live.write().unwrap_or_else(PoisonError::into_inner);
            live.forget(hour);
            self.described
                .retain(|entity, _| live.ids.contains_key(entity));
        }
        self.shrink()
    }

    fn transact(&self, live: &RwLock<Live>) -> Result<Done> {
        let tx = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        self.save(&tx)?;
        let mut done = Done {
            cut: self.cutting,
            ..Done::default()
        };
        self.cut(&tx, live, &mut done)?;
        self.forget(&tx, done.whole.is_some())?;
        done.given_up = self.forget_unsent(&tx)?;
        tx.commit()?;
        Ok(done)
    }

    fn save(&self, tx: &Transaction<'_>) -> Result<()> {
        for (id, entity) in &self.unsaved_ids {
            tx.prepare_cached("INSERT INTO entity (id, key, seen) VALUES (?1, ?2, ?3)")?
                .execute(params![id, entity, hour_of(self.newest_ms)])?;
        }
        for entity in &self.undescribed {
            let Some(labels) = self.described.get(entity) else {
                continue;
            };
            tx.prepare_cached(
                "UPDATE entity SET name = ?2, user_id = ?3, team_id = ?4, project = ?5,
                                   image = ?6, host = ?7 WHERE key = ?1",
            )?
            .execute(params![
                entity,
                labels.name,
                labels.user,
                labels.team,
                labels.project,
                labels.image,
                labels.host
            ])?;
        }
        self.save_current(tx)?;
        for (at_ms, body) in &self.unsaved {
            tx.prepare_cached("INSERT OR REPLACE INTO tick (at_ms, body) VALUES (?1, ?2)")?
                .execute(params![at_ms, body])?;
        }
        Ok(())
    }

    fn save_current(&self, tx: &Transaction<'_>) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO current VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        for (id, at_ms, totals, values) in &self.current {
            let now = |metric| values.get(&metric).copied().unwrap_or(0).cast_signed();
            tx.prepare_cached(sql)?.execute(params![
                id,
                at_ms,
                now(Metric::Cpu),
                now(Metric::Memory),
                now(Metric::Storage),
                now(Metric::Containers),
                now(Metric::NetReceive) + now(Metric::NetTransmit),
                totals.peak_cpu_milli.cast_signed(),
                totals.peak_memory_bytes.cast_signed(),
                totals.peak_containers.cast_signed(),
                totals.runtime_ms.cast_signed(),
                totals.cpu_ns.cast_signed(),
                totals.memory_byte_ms as f64 / (1u64 << 30) as f64 / 3.6e6,
            ])?;
        }
        Ok(())
    }

    /// Cuts the next entities of the oldest hour that is over.
    fn cut(&self, tx: &Transaction<'_>, live: &RwLock<Live>, done: &mut Done) -> Result<()> {
        let live = live.read().unwrap_or_else(PoisonError::into_inner);
        let Some(hour) = live.closed() else {
            return Ok(());
        };
        let last = done.cut.filter(|(cut, _)| *cut == hour);
        let last = last.and_then(|(_, id)| id);
        let window = &live.windows[&hour];
        // Behind, everything: the next hour waits.
        let many = match live.windows.len() {
            0..=2 => (window.entities.len() / CUT_OVER).max(CUT_LEAST),
            _ => usize::MAX,
        };
        let from = last.map_or(0, |id| id + 1);
        let mut rest = window.entities.range(from..);
        done.cut = Some((hour, last));
        for (id, open) in rest.by_ref().take(many) {
            let gap_ms = self.settings.gap_ms();
            done.unreadable += cut_entity(tx, hour, *id, open.samples(), gap_ms)?;
            done.cut = Some((hour, Some(*id)));
        }
        if rest.next().is_none() {
            let from_ms = hour * HOUR_MS;
            self.keep_unsent(tx, from_ms)?;
            tx.execute(
                "DELETE FROM tick WHERE at_ms >= ?1 AND at_ms < ?2",
                [from_ms, from_ms + HOUR_MS],
            )?;
            done.cut = None;
            done.whole = Some(hour);
        }
        Ok(())
    }

    /// Keeps an hour of the log for another store, as far as it has not taken it.
    fn keep_unsent(&self, tx: &Transaction<'_>, from_ms: i64) -> Result<()> {
        if self.settings.unsent_hours > 0 {
            tx.execute(
                "INSERT OR REPLACE INTO unsent SELECT at_ms, body FROM tick
                 WHERE at_ms >= ?1 AND at_ms < ?2 AND at_ms > ?3",
                [from_ms, from_ms + HOUR_MS, self.sent_ms],
            )?;
        }
        Ok(())
    }

    /// Forgets the oldest of what another store has taken, and gives up what it did not take in time.
    /// Returns how many of those are from before the start.
    fn forget_unsent(&self, tx: &Transaction<'_>) -> Result<u64> {
        let mut delete = tx.prepare_cached(&format!(
            "DELETE FROM unsent WHERE at_ms IN (SELECT at_ms FROM unsent
                 WHERE at_ms > ?1 AND at_ms <= ?2 ORDER BY at_ms LIMIT {FORGET_MAX})"
        ))?;
        delete.execute([i64::MIN, self.sent_ms])?;
        let hours = i64::try_from(self.settings.unsent_hours).unwrap_or(i64::MAX);
        let first = hour_of(self.newest_ms).saturating_sub(hours);
        let until_ms = first.saturating_mul(HOUR_MS) - 1;
        let old = delete.execute([self.sent_ms, until_ms.min(self.before_ms)])?;
        delete.execute([self.sent_ms.max(self.before_ms), until_ms])?;
        Ok(old as u64)
    }

    /// Forgets the oldest of what is too old.
    fn forget(&self, tx: &Transaction<'_>, entities_too: bool) -> Result<()> {
        let now = hour_of(self.newest_ms);
        let hours = |days: u64| i64::try_from(days.saturating_mul(24)).unwrap_or(i64::MAX / 2);
        let Settings {
            raw_days,
            five_days,
            rollup_days,
            ..
        } = self.settings;
        let oldest = now - hours(rollup_days);
        // As many an hour however seldom the readings are: what comes in is by the hour, too.
        let many = FORGET_MAX * (self.settings.interval_ms / 10_000).max(1);
        for (table, before) in [
            ("raw", now - hours(raw_days)),
            ("five", now - hours(five_days)),
            ("hour", oldest),
            ("day", oldest.div_euclid(DAY_HOURS)),
            ("spread", oldest.div_euclid(DAY_HOURS)),
        ] {
            tx.prepare_cached(&format!(
                "DELETE FROM {table} WHERE key IN
                     (SELECT key FROM {table} WHERE key < ?1 ORDER BY key LIMIT {many})"
            ))?
            .execute([key(before.max(0), 0)])?;
        }
        if entities_too {
            let gone = "DELETE FROM entity WHERE seen < ?1";
            tx.execute(gone, [oldest - DAY_HOURS])?;
            let gone = "DELETE FROM current WHERE entity NOT IN (SELECT id FROM entity)";
            tx.execute(gone, [])?;
        }
        Ok(())
    }

    /// Gives free pages back to the disk, a part at a time.
    fn shrink(&self) -> Result<()> {
        let pragma = |name: &str| {
            let sql = format!("PRAGMA {name}");
            self.connection
                .query_row(&sql, [], |row| row.get::<_, u32>(0))
        };
        let (free, all) = (pragma("freelist_count")?, pragma("page_count")?);
        if free > FREE_PAGES_KEPT + all / 8 {
            // Each row is a page: a statement that is not stepped to its end frees one.
            let sql = format!("PRAGMA incremental_vacuum({VACUUM_PAGES})");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    /// Moves the damaged file out of the way, and writes what is in memory into a new one.
    fn begin_anew(&mut self, live: &RwLock<Live>, now_ms: i64) -> Result<()> {
        self.connection = Connection::open_in_memory()?;
        self.faults.set_aside = Some(file::set_aside(&self.path, now_ms)?);
        self.connection = file::open(&self.path)?;
        let live = live.read().unwrap_or_else(PoisonError::into_inner);
        self.cutting = None;
        self.unsaved = live.log().into();
        self.undescribed = self.described.keys().cloned().collect();
        let ids = live.ids.iter();
        self.unsaved_ids = ids.map(|(key, id)| (*id, key.clone())).collect();
        Ok(())
    }
}

/// What the log says of the hours that are not cut.
struct Replayed {
    next_id: u32,
    newest_ms: i64,
    unreadable: u64,
}

fn replay(connection: &Connection, live: &mut Live) -> Result<Replayed> {
    let sql = "SELECT coalesce(max(id), 0) + 1 FROM entity";
    let mut replayed = Replayed {
        next_id: connection.query_row(sql, [], |row| row.get(0))?,
        newest_ms: i64::MIN,
        unreadable: 0,
    };
    let mut statement = connection.prepare("SELECT at_ms, body FROM tick ORDER BY at_ms")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let at_ms = row.get(0)?;
        match read_row(&row.get::<_, Vec<u8>>(1)?) {
            Ok(rows) => live.add(at_ms, &rows),
            Err(_) => replayed.unreadable += 1,
        }
        replayed.newest_ms = at_ms;
    }
    let sql = "SELECT max(at_ms) FROM unsent";
    let unsent: Option<i64> = connection.query_row(sql, [], |row| row.get(0))?;
    replayed.newest_ms = replayed.newest_ms.max(unsent.unwrap_or(i64::MIN));
    let ids: Vec<u32> = live
        .windows
        .values()
        .flat_map(|window| window.entities.keys().copied())
        .collect();
    let mut statement = connection.prepare("SELECT key FROM entity WHERE id = ?1")?;
    for id in ids {
        let found = statement.query_row([id], |row| row.get(0)).optional()?;
        live.ids.extend(found.map(|key: String| (key, id)));
    }
    Ok(replayed)
}

/// Writes an entity's hour, together with what is there of it. Returns how many blocks did not read back.
fn cut_entity(
    tx: &Transaction<'_>,
    hour: i64,
    id: u32,
    samples: Samples,
    gap_ms: u32,
) -> Result<u64> {
    let mut unreadable = 0;
    let samples = match block(tx, "raw", key(hour, id))? {
        None => samples,
        Some(there) => match Samples::read(&there, None) {
            Ok(there) => samples.merged(there),
            Err(_) => {
                unreadable += 1;
                samples
            }
        },
    };
    put_block(tx, "raw", key(hour, id), &samples.block())?;
    let five = rollup::slots(&samples, gap_ms, FIVE_MS);
    put_block(tx, "five", key(hour, id), &rollup::five_block(&five))?;
    let mut sums = Rollup::default();
    five.values().for_each(|slot| sums.merge(slot));
    wide::save(tx, Wide::Hour, key(hour, id), 1, &sums)?;
    unreadable += add_to_day(tx, hour, id, &sums, &rollup::spreads(&samples))?;
    tx.prepare_cached("UPDATE entity SET seen = max(seen, ?2) WHERE id = ?1")?
        .execute(params![id, hour])?;
    Ok(unreadable)
}

/// Adds an hour to its day, or makes the day anew where it holds that hour already.
fn add_to_day(
    tx: &Transaction<'_>,
    hour: i64,
    id: u32,
    sums: &Rollup,
    spreads: &Spreads,
) -> Result<u64> {
    let (day, bit) = (hour.div_euclid(DAY_HOURS), 1 << hour.rem_euclid(DAY_HOURS));
    let (mut rollup, mut hours) = wide::load(tx, Wide::Day, key(day, id))?.unwrap_or_default();
    let mut spread = Spreads::new();
    let mut unreadable = 0;
    if hours & bit == 0 {
        rollup.merge(sums);
        if let Some(there) = block(tx, "spread", key(day, id))? {
            match rollup::read_spreads(&there) {
                Ok(there) => spread = there,
                Err(_) => unreadable += 1,
            }
        }
        add(&mut spread, spreads);
    } else {
        rollup = Rollup::default();
        for hour in day * DAY_HOURS..(day + 1) * DAY_HOURS {
            if let Some((sums, _)) = wide::load(tx, Wide::Hour, key(hour, id))? {
                rollup.merge(&sums);
            }
            let Some(there) = block(tx, "raw", key(hour, id))? else {
                continue;
            };
            match Samples::read(&there, None) {
                Ok(samples) => add(&mut spread, &rollup::spreads(&samples)),
                Err(_) => unreadable += 1,
            }
        }
    }
    hours |= bit;
    wide::save(tx, Wide::Day, key(day, id), hours, &rollup)?;
    put_block(tx, "spread", key(day, id), &rollup::spread_block(&spread))?;
    Ok(unreadable)
}

fn add(all: &mut Spreads, more: &Spreads) {
    for (metric, spread) in more {
        all.entry(*metric).or_default().merge(spread);
    }
}

/// Reads a block.
pub(crate) fn block(connection: &Connection, table: &str, key: i64) -> Result<Option<Vec<u8>>> {
    let sql = format!("SELECT body FROM {table} WHERE key = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

fn put_block(connection: &Connection, table: &str, key: i64, block: &[u8]) -> Result<()> {
    let sql = format!("INSERT OR REPLACE INTO {table} (key, body) VALUES (?1, ?2)");
    connection
        .prepare_cached(&sql)?
        .execute(params![key, block])?;
    Ok(())
}
