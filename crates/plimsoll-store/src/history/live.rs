//! The hours that are not cut into blocks yet, in memory. Whatever is here is in the tick log, too.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use plimsoll_core::metric::Metric;

use super::column::{Bytes, Unreadable, put, sealed, unsealed};
use super::samples::Open;

/// An hour, milliseconds.
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// The form of a row of the tick log, its first byte.
const FORM: u8 = 1;

/// The hour a time is in, counted from the Unix epoch.
pub(crate) const fn hour_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(HOUR_MS)
}

/// One entity's values of a tick.
pub(crate) type Row = (u32, Vec<(Metric, u64)>);

/// An hour.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) ticks: BTreeSet<i64>,
    pub(crate) entities: BTreeMap<u32, Open>,
}

/// Every open hour.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) windows: BTreeMap<i64, Window>,
    /// The hour of the newest tick.
    pub(crate) current: i64,
    /// Ids by entity key, of what is or was lately measured.
    pub(crate) ids: HashMap<String, u32>,
    /// When each was last measured.
    seen_ms: HashMap<u32, i64>,
}

impl Live {
    /// The first time from `at_ms` on at which there is no tick.
    pub(crate) fn free(&self, mut at_ms: i64) -> i64 {
        let taken = |at_ms: i64| {
            let window = self.windows.get(&hour_of(at_ms));
            window.is_some_and(|window| window.ticks.contains(&at_ms))
        };
        while taken(at_ms) {
            at_ms += 1;
        }
        at_ms
    }

    /// Adds a tick.
    pub(crate) fn add(&mut self, at_ms: i64, rows: &[Row]) {
        self.current = hour_of(at_ms);
        let window = self.windows.entry(self.current).or_default();
        window.ticks.insert(at_ms);
        let into_hour = u32::try_from(at_ms.rem_euclid(HOUR_MS)).unwrap_or(0);
        for (id, values) in rows {
            let last = self.seen_ms.insert(*id, at_ms).unwrap_or(at_ms);
            let since_ms = u32::try_from((at_ms - last).max(0)).unwrap_or(u32::MAX);
            let open = window.entities.entry(*id).or_default();
            open.push(into_hour, since_ms, values);
        }
    }

    /// The oldest hour that gets no more ticks, if there is one.
    pub(crate) fn closed(&self) -> Option<i64> {
        self.windows
            .keys()
            .copied()
            .find(|hour| *hour != self.current)
    }

    /// Forgets an hour, and what was last measured before the hours that are left.
    pub(crate) fn forget(&mut self, hour: i64) {
        self.windows.remove(&hour);
        let first = self.windows.keys().next().copied().unwrap_or(hour + 1);
        self.seen_ms.retain(|_, at_ms| *at_ms >= first * HOUR_MS);
        let seen = &self.seen_ms;
        self.ids.retain(|_, id| seen.contains_key(id));
    }

    /// The ticks of every open hour as rows of the log.
    pub(crate) fn log(&self) -> Vec<(i64, Vec<u8>)> {
        let mut ticks: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
        for (hour, window) in &self.windows {
            for (id, open) in &window.entities {
                for (at, row) in open.samples().rows() {
                    let rows = ticks.entry(hour * HOUR_MS + i64::from(at)).or_default();
                    rows.push((*id, row.into_iter().collect()));
                }
            }
        }
        let rows = ticks.into_iter();
        rows.map(|(at_ms, rows)| (at_ms, row(&rows))).collect()
    }
}

/// A row of the tick log.
pub(crate) fn row(rows: &[Row]) -> Vec<u8> {
    let mut body = vec![FORM];
    put(&mut body, rows.len() as u64);
    let mut before = 0;
    for (id, values) in rows {
        put(&mut body, u64::from(id.wrapping_sub(before)));
        before = *id;
        put(&mut body, values.len() as u64);
        for (metric, value) in values {
            body.push(*metric as u8);
            put(&mut body, *value);
        }
    }
    sealed(&body)
}

/// Reads a row of the tick log. Metrics that this version does not know are left out.
///
/// # Errors
/// [`Unreadable`] when it is not as it was written.
pub(crate) fn read_row(body: &[u8]) -> Result<Vec<Row>, Unreadable> {
    let mut bytes = unsealed(body)?;
    if bytes.byte()? != FORM {
        return Err(Unreadable);
    }
    let mut id = 0u32;
    let mut rows = Vec::new();
    for _ in 0..bytes.number()? {
        let step = u32::try_from(bytes.number()?).map_err(|_| Unreadable)?;
        id = id.wrapping_add(step);
        rows.push((id, read_values(&mut bytes)?));
    }
    Ok(rows)
}

fn read_values(bytes: &mut Bytes<'_>) -> Result<Vec<(Metric, u64)>, Unreadable> {
    let mut values = Vec::new();
    for _ in 0..bytes.count()? {
        let metric = Metric::ALL.get(usize::from(bytes.byte()?)).copied();
        let value = bytes.number()?;
        values.extend(metric.map(|metric| (metric, value)));
    }
    Ok(values)
}
