//! Reading: one entity over time, and all entities over a span.
//!
//! Memory is looked at first and the file second: an hour goes from one to the other, and an hour that is
//! found in both is taken from the file.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::PoisonError;

use plimsoll_core::metric::{Kind, Metric};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::live::{HOUR_MS, hour_of, read_row};
use super::rollup::{self, FIVE_MS, Spread, Sum};
use super::samples::Samples;
use super::wide::{self, Wide, key, parts};
use super::write::block;
use super::{History, Labels};
use crate::error::Result;

pub(crate) const DAY_HOURS: i64 = 24;
/// A day, milliseconds.
pub(crate) const DAY_MS: i64 = DAY_HOURS * HOUR_MS;

/// Steps that people count in, seconds. Longer ones are whole days.
const STEPS_S: [i64; 15] = [
    1, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200,
];

/// How finely something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every reading.
    Raw,
    /// Sums of five minutes.
    Five,
    /// Sums of an hour.
    Hour,
    /// Sums of a day, in UTC.
    Day,
}

impl Level {
    /// The span of one sum, milliseconds; one of every reading.
    #[must_use]
    pub const fn period_ms(self) -> i64 {
        match self {
            Self::Raw => 1,
            Self::Five => FIVE_MS as i64,
            Self::Hour => HOUR_MS,
            Self::Day => DAY_MS,
        }
    }
}

/// What is asked of one entity.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Its key.
    pub entity: &'a str,
    /// What.
    pub metric: Metric,
    /// From when on, Unix milliseconds.
    pub from_ms: i64,
    /// Until before when.
    pub to_ms: i64,
    /// The span of each point; one that suits the whole span unless given.
    pub step_ms: Option<i64>,
    /// No more points than this; the step is made longer where it must be.
    pub points_max: usize,
    /// The time now.
    pub now_ms: i64,
}

/// A metric over a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bucket {
    /// Its start, Unix milliseconds.
    pub at_ms: i64,
    /// The average over the time watched, in stored units; of events, their number.
    pub value: f64,
    /// The greatest sample.
    pub max: u64,
    /// Stored units times seconds; of events, their number.
    pub total: f64,
    /// The time that the samples speak for, milliseconds.
    pub watched_ms: u64,
    /// How many samples.
    pub samples: u32,
}

impl Bucket {
    pub(crate) fn of(at_ms: i64, kind: Kind, sum: &Sum) -> Self {
        let total = match kind {
            Kind::Gauge => sum.total as f64 / 1000.0,
            Kind::Events => sum.total as f64,
        };
        Self {
            at_ms,
            value: sum.value(kind),
            max: sum.max,
            total,
            watched_ms: sum.watched_ms,
            samples: sum.samples,
        }
    }
}

/// One entity over time. What was not watched has no point.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// How finely it was read.
    pub level: Level,
    /// The span of each point, milliseconds.
    pub step_ms: i64,
    /// By time.
    pub points: Vec<Bucket>,
}

/// A reading in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Entities by number, with what was measured.
    pub rows: Vec<(u32, Vec<(Metric, u64)>)>,
}

/// What is asked of all entities of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a> {
    /// What their keys begin with: `container:`.
    pub prefix: &'a str,
    /// What.
    pub metric: Metric,
    /// From when on; the hour it is in counts whole.
    pub from_ms: i64,
    /// Until when; the hour it is in counts whole.
    pub to_ms: i64,
    /// The span of each bucket, hours or days; one bucket unless given.
    pub step_ms: Option<i64>,
    /// The time now.
    pub now_ms: i64,
}

impl Scan<'_> {
    /// The step in whole hours, from a day on in whole days.
    #[must_use]
    pub fn whole_step_ms(&self) -> Option<i64> {
        let step_ms = self.step_ms?.max(1);
        let period = if step_ms >= DAY_MS { DAY_MS } else { HOUR_MS };
        Some((step_ms + period - 1) / period * period)
    }
}

/// An entity that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Extent {
    /// Its key.
    pub entity: String,
    /// What is known of it.
    pub labels: Labels,
    /// By time; only those in which it was measured.
    pub buckets: Vec<Bucket>,
}

/// Sums by the number of their bucket.
type Sums = BTreeMap<i64, Sum>;

/// The samples of one entity that are in memory, by hour.
pub(crate) type LiveHours = BTreeMap<i64, Samples>;

impl History {
    /// One entity over time, from the longest sums that are short enough.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn series(&self, ask: &Ask<'_>) -> Result<Series> {
        let (level, step_ms) = self.plan(ask);
        let from_ms = ask.from_ms.max(self.kept_from(Level::Day, ask.now_ms));
        let to_ms = ask.to_ms.min(ask.now_ms.saturating_add(DAY_MS));
        let mut series = Series {
            level,
            step_ms,
            points: Vec::new(),
        };
        if from_ms >= to_ms {
            return Ok(series);
        }
        let range = from_ms.div_euclid(level.period_ms()) * level.period_ms()..to_ms;
        let (live_id, live) = self.live_hours(ask.entity, ask.metric, &range);
        let mut sums = Sums::new();
        self.reading(|connection| {
            let id = match live_id {
                None => id_of(connection, ask.entity)?,
                known => known,
            };
            let Some(id) = id else { return Ok(()) };
            let reader = Reader {
                connection,
                id,
                metric: ask.metric,
                gap_ms: self.settings.gap_ms(),
                live: &live,
            };
            let mut add = |at_ms: i64, sum: &Sum| {
                if range.contains(&at_ms) {
                    let bucket = sums.entry(at_ms.div_euclid(step_ms)).or_default();
                    bucket.merge(sum);
                }
            };
            match level {
                Level::Raw => reader.raw(hours(&range), &mut add),
                Level::Five => reader.five(hours(&range), &mut add),
                Level::Hour => reader.hours(hours(&range), &mut add),
                Level::Day => reader.days(days(&range), &mut add),
            }
        })?;
        let kind = ask.metric.kind();
        let points = sums.iter();
        let points = points.map(|(number, sum)| Bucket::of(number * step_ms, kind, sum));
        series.points = points.collect();
        Ok(series)
    }

    /// The oldest readings after a time that are still in the log, and how many are there in all. The log
    /// holds the hour that is open, those that are not cut yet, and what is kept for another store.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn log_after(&self, after_ms: i64, limit: usize) -> Result<(Vec<Logged>, u64)> {
        self.reading(|connection| {
            let sql = "SELECT (SELECT count(*) FROM unsent WHERE at_ms > ?1)
                            + (SELECT count(*) FROM tick WHERE at_ms > ?1)";
            let waiting: i64 = connection.query_row(sql, [after_ms], |row| row.get(0))?;
            let mut statement = connection.prepare_cached(
                "SELECT at_ms, body FROM unsent WHERE at_ms > ?1
                 UNION ALL SELECT at_ms, body FROM tick WHERE at_ms > ?1
                 ORDER BY at_ms LIMIT ?2",
            )?;
            let mut rows = statement.query(params![after_ms, limit as i64])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let body: Vec<u8> = row.get(1)?;
                found.push(Logged {
                    at_ms: row.get(0)?,
                    rows: read_row(&body).unwrap_or_default(),
                });
            }
            Ok((found, waiting.unsigned_abs()))
        })
    }

    /// The key and labels of an entity by its number in the log.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn named(&self, id: u32) -> Result<Option<(String, Labels)>> {
        self.reading(|connection| self.entity(connection, id, ""))
    }

    /// The step of each point of an answer.
    #[must_use]
    pub fn step_ms(&self, ask: &Ask<'_>) -> i64 {
        self.plan(ask).1
    }

    /// How finely to read, and the step.
    fn plan(&self, ask: &Ask<'_>) -> (Level, i64) {
        let span = ask.to_ms.saturating_sub(ask.from_ms).max(1);
        let points_max = i64::try_from(ask.points_max.max(1)).unwrap_or(i64::MAX);
        // A step that does not divide the span begins one bucket and ends another.
        let least = span / points_max.saturating_sub(1).max(1) + 1;
        let mut step_ms = match ask.step_ms {
            Some(step_ms) if step_ms >= least => step_ms,
            Some(_) => handy(least),
            None => handy(least.max(span / 300)),
        };
        let mut level = Level::Raw;
        for longer in [Level::Five, Level::Hour, Level::Day] {
            if longer.period_ms() <= step_ms || ask.from_ms < self.kept_from(level, ask.now_ms) {
                level = longer;
            }
        }
        let period = level.period_ms();
        step_ms = step_ms.saturating_add(period - 1) / period * period;
        (level, step_ms)
    }

    /// Since when this level is kept.
    fn kept_from(&self, level: Level, now_ms: i64) -> i64 {
        let days = match level {
            Level::Raw => self.settings.raw_days,
            Level::Five => self.settings.five_days,
            Level::Hour | Level::Day => self.settings.rollup_days,
        };
        let days = i64::try_from(days).unwrap_or(i64::MAX);
        now_ms.saturating_sub(days.saturating_mul(DAY_MS)).max(0)
    }

    /// An entity's id and samples, as far as they are in memory.
    fn live_hours(
        &self,
        entity: &str,
        metric: Metric,
        range: &Range<i64>,
    ) -> (Option<u32>, LiveHours) {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let Some(id) = live.ids.get(entity) else {
            return (None, LiveHours::new());
        };
        let windows = live.windows.iter();
        // A whole day: its sums may be in the file, and its last hours here.
        let wide = range.start - DAY_MS..range.end + DAY_MS;
        let found = windows
            .filter(|(hour, _)| wide.contains(&(**hour * HOUR_MS)))
            .filter_map(|(hour, window)| Some((*hour, window.entities.get(id)?.of(metric))));
        (Some(*id), found.collect())
    }

    /// Every entity of a kind, from the sums of days and hours.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn scan(&self, scan: &Scan<'_>) -> Result<Vec<Extent>> {
        let step_ms = scan.whole_step_ms();
        let bucket = |at_ms: i64| match step_ms {
            Some(step_ms) => at_ms.div_euclid(step_ms) * step_ms,
            None => scan.from_ms,
        };
        let range = scan.from_ms.max(self.kept_from(Level::Day, scan.now_ms))
            ..scan.to_ms.min(scan.now_ms.saturating_add(DAY_MS));
        let plan = Cover::of(&range, scan.now_ms, step_ms);
        let live = self.live_sums(scan.metric, &plan);
        let mut found: HashMap<u32, Sums> = HashMap::new();
        let mut extents = Vec::new();
        self.reading(|connection| {
            let mut masks: HashMap<(u32, i64), u32> = HashMap::new();
            let mut take = |wide: Wide, numbers: &Range<i64>| {
                let period = match wide {
                    Wide::Hour => HOUR_MS,
                    Wide::Day => DAY_MS,
                };
                each(
                    connection,
                    wide,
                    scan.metric,
                    numbers,
                    |number, id, hours, sum| {
                        let sums = found.entry(id).or_default();
                        sums.entry(bucket(number * period)).or_default().merge(sum);
                        if live.contains_key(&id) {
                            let (day, bits) = match wide {
                                Wide::Day => (number, hours),
                                Wide::Hour => (number.div_euclid(DAY_HOURS), bit(number)),
                            };
                            *masks.entry((id, day)).or_default() |= bits;
                        }
                    },
                )
            };
            take(Wide::Hour, &plan.before)?;
            take(Wide::Day, &plan.days)?;
            take(Wide::Hour, &plan.after)?;
            for (id, hours) in &live {
                for (hour, sum) in hours {
                    let mask = masks.get(&(*id, hour.div_euclid(DAY_HOURS)));
                    if mask.is_none_or(|mask| mask & bit(*hour) == 0) {
                        let sums = found.entry(*id).or_default();
                        sums.entry(bucket(hour * HOUR_MS)).or_default().merge(sum);
                    }
                }
            }
            let kind = scan.metric.kind();
            for (id, sums) in &found {
                if let Some((entity, labels)) = self.entity(connection, *id, scan.prefix)? {
                    let buckets = sums.iter();
                    let buckets = buckets.map(|(at_ms, sum)| Bucket::of(*at_ms, kind, sum));
                    extents.push(Extent {
                        entity,
                        labels,
                        buckets: buckets.collect(),
                    });
                }
            }
            Ok(())
        })?;
        extents.sort_by(|a, b| a.entity.cmp(&b.entity));
        Ok(extents)
    }

    /// The value that a share of each entity's samples, in thousandths, does not exceed, within 1.6 %.
    /// Days count whole.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn percentiles(
        &self,
        scan: &Scan<'_>,
        permille: u32,
    ) -> Result<Vec<(String, Labels, u64)>> {
        let from_ms = scan.from_ms.max(self.kept_from(Level::Day, scan.now_ms));
        let days = days(&(from_ms..scan.to_ms.min(scan.now_ms.saturating_add(DAY_MS))));
        let hours = days.start * DAY_HOURS..days.end * DAY_HOURS;
        let live = self.live_spreads(scan.metric, &hours);
        let mut values = Vec::new();
        self.reading(|connection| {
            let mut found: HashMap<u32, Spread> = HashMap::new();
            let mut statement = connection.prepare_cached(
                "SELECT s.key, s.body, d.hours FROM spread s JOIN day d ON d.key = s.key
                 WHERE s.key >= ?1 AND s.key < ?2",
            )?;
            let mut masks: HashMap<(u32, i64), u32> = HashMap::new();
            let mut rows = statement.query([key(days.start, 0), key(days.end, 0)])?;
            while let Some(row) = rows.next()? {
                let (day, id) = parts(row.get(0)?);
                let body: Vec<u8> = row.get(1)?;
                masks.insert((id, day), row.get(2)?);
                if let Some(spread) = rollup::read_spread(&body, scan.metric).unwrap_or_default() {
                    found.entry(id).or_default().merge(&spread);
                }
            }
            for (id, hour, spread) in &live {
                let mask = masks.get(&(*id, hour.div_euclid(DAY_HOURS)));
                if mask.is_none_or(|mask| mask & bit(*hour) == 0) {
                    found.entry(*id).or_default().merge(spread);
                }
            }
            for (id, spread) in &found {
                let value = spread.percentile(permille);
                let entity = self.entity(connection, *id, scan.prefix)?;
                values.extend(entity.zip(value).map(|((e, labels), v)| (e, labels, v)));
            }
            Ok(())
        })?;
        values.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(values)
    }

    /// What is in memory, summed by hour.
    fn live_sums(&self, metric: Metric, plan: &Cover) -> HashMap<u32, Vec<(i64, Sum)>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: HashMap<u32, Vec<(i64, Sum)>> = HashMap::new();
        for (hour, window) in &live.windows {
            if !plan.covers(*hour) {
                continue;
            }
            for (id, open) in &window.entities {
                let mut sum = Sum::default();
                let add = |_: i64, sample: &Sum| sum.merge(sample);
                each_sample(*hour, &open.of(metric), self.settings.gap_ms(), metric, add);
                if sum.samples > 0 {
                    all.entry(*id).or_default().push((*hour, sum));
                }
            }
        }
        all
    }

    fn live_spreads(&self, metric: Metric, hours: &Range<i64>) -> Vec<(u32, i64, Spread)> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for (hour, window) in live.windows.range(hours.clone()) {
            for (id, open) in &window.entities {
                let spread = rollup::spreads(&open.of(metric)).remove(&metric);
                all.extend(spread.map(|spread| (*id, *hour, spread)));
            }
        }
        all
    }

    /// The key and labels of an entity, if its key begins so.
    pub(crate) fn entity(
        &self,
        connection: &Connection,
        id: u32,
        prefix: &str,
    ) -> Result<Option<(String, Labels)>> {
        let mut statement = connection.prepare_cached(
            "SELECT key, name, user_id, team_id, project, image, host FROM entity WHERE id = ?1",
        )?;
        let found = statement.query_row([id], |row| {
            let labels = Labels {
                name: row.get(1)?,
                user: row.get(2)?,
                team: row.get(3)?,
                project: row.get(4)?,
                image: row.get(5)?,
                host: row.get(6)?,
            };
            Ok((row.get::<_, String>(0)?, labels))
        });
        let found = match found.optional()? {
            None => self.unsaved_entity(id),
            found => found,
        };
        Ok(found.filter(|(key, _)| key.starts_with(prefix)))
    }

    /// An entity that is not in the file yet.
    fn unsaved_entity(&self, id: u32) -> Option<(String, Labels)> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let (key, _) = live.ids.iter().find(|(_, other)| **other == id)?;
        Some((key.clone(), Labels::default()))
    }
}

/// The bit of an hour in its day.
pub(crate) const fn bit(hour: i64) -> u32 {
    1 << hour.rem_euclid(DAY_HOURS)
}

/// The hours that a range touches.
pub(crate) fn hours(range: &Range<i64>) -> Range<i64> {
    hour_of(range.start)..hour_of(range.end - 1) + 1
}

/// The days that a range touches.
pub(crate) fn days(range: &Range<i64>) -> Range<i64> {
    range.start.div_euclid(DAY_MS)..(range.end - 1).div_euclid(DAY_MS) + 1
}

/// Whole days, and the hours before and after them, that cover a range.
struct Cover {
    before: Range<i64>,
    days: Range<i64>,
    after: Range<i64>,
}

impl Cover {
    fn of(range: &Range<i64>, now_ms: i64, step_ms: Option<i64>) -> Self {
        if range.start >= range.end {
            return Self {
                before: 0..0,
                days: 0..0,
                after: 0..0,
            };
        }
        let all = hours(range);
        // A day that is not over is whole when the range goes on to now.
        let until = if range.end >= now_ms {
            (range.end - 1).div_euclid(DAY_MS) + 1
        } else {
            range.end.div_euclid(DAY_MS)
        };
        let first = -(-all.start).div_euclid(DAY_HOURS);
        if first >= until || step_ms.is_some_and(|step| step % DAY_MS != 0) {
            return Self {
                before: all,
                days: 0..0,
                after: 0..0,
            };
        }
        Self {
            before: all.start..first * DAY_HOURS,
            days: first..until,
            after: until * DAY_HOURS..all.end.max(until * DAY_HOURS),
        }
    }

    fn covers(&self, hour: i64) -> bool {
        self.before.contains(&hour)
            || self.after.contains(&hour)
            || self.days.contains(&hour.div_euclid(DAY_HOURS))
    }
}

/// Runs `job` on the number, entity, hours and sum of every row.
fn each(
    connection: &Connection,
    wide: Wide,
    metric: Metric,
    numbers: &Range<i64>,
    mut job: impl FnMut(i64, u32, u32, &Sum),
) -> Result<()> {
    if numbers.is_empty() {
        return Ok(());
    }
    let (table, name) = (wide.name(), metric.name());
    let mut statement = connection.prepare_cached(&format!(
        "SELECT key, hours, samples, watched_ms, partial, {name}, {name}_max FROM {table}
         WHERE key >= ?1 AND key < ?2"
    ))?;
    let mut rows = statement.query(params![key(numbers.start, 0), key(numbers.end, 0)])?;
    while let Some(row) = rows.next()? {
        if let Some(sum) = wide::sum(row, metric, 2, 5)? {
            let (number, id) = parts(row.get(0)?);
            job(number, id, row.get(1)?, &sum);
        }
    }
    Ok(())
}

fn id_of(connection: &Connection, entity: &str) -> Result<Option<u32>> {
    let mut statement = connection.prepare_cached("SELECT id FROM entity WHERE key = ?1")?;
    Ok(statement.query_row([entity], |row| row.get(0)).optional()?)
}

/// Runs `job` on the time and sum of each sample.
fn each_sample(
    hour: i64,
    samples: &Samples,
    gap_ms: u32,
    metric: Metric,
    mut job: impl FnMut(i64, &Sum),
) {
    let Some(column) = samples.columns.get(&metric) else {
        return;
    };
    let watched = rollup::watched(samples, gap_ms);
    for (index, value) in column.each() {
        let mut sum = Sum::default();
        sum.sample(metric.kind(), value, watched[index]);
        job(hour * HOUR_MS + i64::from(samples.times[index]), &sum);
    }
}

/// Reads one metric of one entity.
struct Reader<'a> {
    connection: &'a Connection,
    id: u32,
    metric: Metric,
    gap_ms: u32,
    live: &'a LiveHours,
}

impl Reader<'_> {
    fn raw(&self, hours: Range<i64>, add: &mut impl FnMut(i64, &Sum)) -> Result<()> {
        for hour in hours {
            let mut samples = self.live.get(&hour).cloned().unwrap_or_default();
            if let Some(block) = block(self.connection, "raw", key(hour, self.id))?
                && let Ok(there) = Samples::read(&block, Some(self.metric))
            {
                samples = samples.merged(there);
            }
            each_sample(hour, &samples, self.gap_ms, self.metric, &mut *add);
        }
        Ok(())
    }

    fn five(&self, hours: Range<i64>, add: &mut impl FnMut(i64, &Sum)) -> Result<()> {
        for hour in hours {
            let slots = match block(self.connection, "five", key(hour, self.id))? {
                Some(block) => rollup::read_five(&block, self.metric).unwrap_or_default(),
                None => {
                    self.live_samples(hour, add);
                    continue;
                }
            };
            for (slot, sum) in slots {
                add(hour * HOUR_MS + i64::from(slot * FIVE_MS), &sum);
            }
        }
        Ok(())
    }

    fn hours(&self, hours: Range<i64>, add: &mut impl FnMut(i64, &Sum)) -> Result<()> {
        for hour in hours {
            match self.row(Wide::Hour, hour)? {
                Some((sum, _)) => {
                    sum.iter().for_each(|sum| add(hour * HOUR_MS, sum));
                }
                None => self.live_samples(hour, add),
            }
        }
        Ok(())
    }

    fn days(&self, days: Range<i64>, add: &mut impl FnMut(i64, &Sum)) -> Result<()> {
        for day in days {
            let (sum, mask) = self.row(Wide::Day, day)?.unwrap_or_default();
            sum.iter().for_each(|sum| add(day * DAY_MS, sum));
            for hour in day * DAY_HOURS..(day + 1) * DAY_HOURS {
                if mask & bit(hour) == 0 {
                    self.live_samples(hour, &mut |_, sum: &Sum| add(day * DAY_MS, sum));
                }
            }
        }
        Ok(())
    }

    /// A row of the roll-ups, and which hours are in it. The sum is missing where this metric is.
    fn row(&self, wide: Wide, number: i64) -> Result<Option<(Option<Sum>, u32)>> {
        let (table, name) = (wide.name(), self.metric.name());
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT hours, samples, watched_ms, partial, {name}, {name}_max FROM {table}
             WHERE key = ?1"
        ))?;
        let found = statement.query_row([key(number, self.id)], |row| {
            Ok((wide::sum(row, self.metric, 1, 4)?, row.get(0)?))
        });
        Ok(found.optional()?)
    }

    fn live_samples(&self, hour: i64, add: &mut impl FnMut(i64, &Sum)) {
        if let Some(samples) = self.live.get(&hour) {
            each_sample(hour, samples, self.gap_ms, self.metric, add);
        }
    }
}

/// The next step that people count in.
fn handy(least_ms: i64) -> i64 {
    let found = STEPS_S.into_iter().map(|s| s * 1000);
    let found = found.into_iter().find(|step| *step >= least_ms);
    found.unwrap_or_else(|| (least_ms + DAY_MS - 1) / DAY_MS * DAY_MS)
}
