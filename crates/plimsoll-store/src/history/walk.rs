//! Everything that is kept at one level, by time and entity, a part at a time: for other programs.
//!
//! Each part is a snapshot of its own, so that a slow reader keeps no old pages alive. A place only ever
//! moves forward; what is cut meanwhile stays at its place, first in memory and then in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::PoisonError;

use plimsoll_core::metric::Metric;
use rusqlite::Connection;

use super::live::HOUR_MS;
use super::read::{Bucket, DAY_HOURS, DAY_MS, Level, LiveHours, bit, days, hours};
use super::rollup::{self, FIVE_MS, Rollup};
use super::samples::Samples;
use super::wide::{self, Wide, key, parts};
use super::write::block;
use super::{History, Labels};
use crate::error::Result;

/// Where a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(i64);

/// What is kept of an entity in an hour, or a day.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its key.
    pub entity: String,
    /// What is known of it.
    pub labels: Labels,
    /// By time.
    pub points: Vec<(Metric, Bucket)>,
}

/// Sums by their time.
type Rollups = BTreeMap<i64, Rollup>;

impl History {
    /// The next entities' hours, or days, that are kept at this level, and where it goes on.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn kept(
        &self,
        level: Level,
        range: &Range<i64>,
        from: Option<Place>,
        limit: usize,
    ) -> Result<(Vec<Kept>, Option<Place>)> {
        let numbers = match level {
            Level::Day => days(range),
            _ => hours(range),
        };
        let first = from.map_or(key(numbers.start, 0), |place| place.0);
        let keys = first..key(numbers.end, 0);
        let live = self.live_at(level, &keys, limit);
        let start = range.start.div_euclid(level.period_ms()) * level.period_ms();
        self.reading(|connection| {
            let mut found = stored(connection, level, &keys, limit)?;
            found.extend(live.keys());
            let next = found.iter().nth(limit).copied();
            let mut all = Vec::new();
            for key in found.into_iter().take(limit) {
                let none = LiveHours::new();
                let rollups =
                    self.rollups(connection, level, key, live.get(&key).unwrap_or(&none))?;
                let wanted = rollups.range(start..range.end);
                let points = wanted.flat_map(|(at_ms, rollup)| {
                    let sums = rollup.sums.iter();
                    sums.map(|(metric, sum)| (*metric, Bucket::of(*at_ms, metric.kind(), sum)))
                });
                let points: Vec<_> = points.collect();
                if let Some((entity, labels)) = self.entity(connection, parts(key).1, "")? {
                    all.push(Kept {
                        entity,
                        labels,
                        points,
                    });
                }
            }
            Ok((all, next.map(Place)))
        })
    }

    /// The first of what is in memory, and one more.
    fn live_at(&self, level: Level, keys: &Range<i64>, limit: usize) -> BTreeMap<i64, LiveHours> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let number = |hour: i64| match level {
            Level::Day => hour.div_euclid(DAY_HOURS),
            _ => hour,
        };
        let windows = || live.windows.iter().map(|(hour, window)| (*hour, window));
        let all = windows().flat_map(|(hour, window)| {
            let ids = window.entities.keys();
            ids.map(move |id| key(number(hour), *id))
        });
        let all: BTreeSet<i64> = all.filter(|key| keys.contains(key)).collect();
        let first = all.into_iter().take(limit + 1).map(|key| {
            let (period, id) = parts(key);
            let hours = windows().filter(|(hour, _)| number(*hour) == period);
            let samples =
                hours.filter_map(|(hour, w)| Some((hour, w.entities.get(&id)?.samples())));
            (key, samples.collect())
        });
        first.collect()
    }

    fn rollups(
        &self,
        connection: &Connection,
        level: Level,
        key: i64,
        live: &LiveHours,
    ) -> Result<Rollups> {
        let (number, _) = parts(key);
        let gap_ms = self.settings.gap_ms();
        let start_ms = number * HOUR_MS;
        let slots = |samples: &Samples, slot_ms: u32| -> Rollups {
            let slots = rollup::slots(samples, gap_ms, slot_ms).into_iter();
            let at_ms = |slot| start_ms + i64::from(slot * slot_ms);
            slots.map(|(slot, sums)| (at_ms(slot), sums)).collect()
        };
        let of_memory = live.get(&number).cloned().unwrap_or_default();
        match level {
            Level::Raw => {
                let there = block(connection, "raw", key)?;
                let there = there.and_then(|block| Samples::read(&block, None).ok());
                Ok(slots(&of_memory.merged(there.unwrap_or_default()), 1))
            }
            Level::Five => match block(connection, "five", key)? {
                Some(block) => Ok(five(&block, start_ms)),
                None => Ok(slots(&of_memory, FIVE_MS)),
            },
            Level::Hour => match wide::load(connection, Wide::Hour, key)? {
                Some((rollup, _)) => Ok(Rollups::from([(start_ms, rollup)])),
                None => Ok(slots(&of_memory, HOUR_MS as u32)),
            },
            Level::Day => {
                let (mut rollup, mask) =
                    wide::load(connection, Wide::Day, key)?.unwrap_or_default();
                for (_, samples) in live.iter().filter(|(hour, _)| mask & bit(**hour) == 0) {
                    let hour = rollup::slots(samples, gap_ms, HOUR_MS as u32);
                    hour.values().for_each(|sums| rollup.merge(sums));
                }
                Ok(Rollups::from([(number * DAY_MS, rollup)]))
            }
        }
    }
}

/// The first keys that are in the file, and one more.
fn stored(
    connection: &Connection,
    level: Level,
    keys: &Range<i64>,
    limit: usize,
) -> Result<BTreeSet<i64>> {
    let table = match level {
        Level::Raw => "raw",
        Level::Five => "five",
        Level::Hour => Wide::Hour.name(),
        Level::Day => Wide::Day.name(),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT key FROM {table} WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3"
    ))?;
    let rows = statement.query_map((keys.start, keys.end, limit as i64 + 1), |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A block of five minutes. One that does not read back holds nothing.
fn five(block: &[u8], start_ms: i64) -> Rollups {
    let mut rollups = Rollups::new();
    for metric in Metric::ALL {
        for (slot, sum) in rollup::read_five(block, metric).unwrap_or_default() {
            let at_ms = start_ms + i64::from(slot * FIVE_MS);
            rollups.entry(at_ms).or_default().sums.insert(metric, sum);
        }
    }
    rollups
}
