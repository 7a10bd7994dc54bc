//! The samples of one entity in one hour: as they come in, and as a block.
//!
//! What comes in is kept packed, a byte or two a sample, so that the open hour of a thousand containers
//! takes a few megabytes. A block is what a closed hour becomes: one column of times, one a metric.

use std::collections::BTreeMap;

use plimsoll_core::metric::Metric;

use super::column::{
    Bytes, Unreadable, column, put, put_column, put_difference, sealed, skip_column, unsealed,
};

/// The form of a block, its first byte.
const FORM: u8 = 1;

/// Packed values of one metric.
#[derive(Debug, Clone, Default)]
struct Packed {
    /// Differences from value to value.
    bytes: Vec<u8>,
    last: u64,
    count: usize,
    /// Which samples of the entity lack this metric.
    holes: Vec<u32>,
}

impl Packed {
    fn push(&mut self, index: usize, value: u64) {
        self.fill(index);
        put_difference(&mut self.bytes, self.last, value);
        self.last = value;
        self.count += 1;
    }

    /// Whatever is not there before sample `index` is a hole.
    fn fill(&mut self, index: usize) {
        while self.count + self.holes.len() < index {
            self.holes.push((self.count + self.holes.len()) as u32);
        }
    }

    fn values(&self) -> Result<Vec<u64>, Unreadable> {
        let mut bytes = Bytes(&self.bytes);
        let mut before = 0;
        let mut next = || {
            before = bytes.after(before)?;
            Ok(before)
        };
        (0..self.count).map(|_| next()).collect()
    }
}

/// Samples of an entity in an hour that is still open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Open {
    /// Milliseconds into the hour, as they came.
    times: Vec<u32>,
    before_ms: u32,
    packed: BTreeMap<Metric, Packed>,
}

impl Open {
    /// Adds a sample. `since_ms` is the time it speaks for.
    pub(crate) fn push(&mut self, at_ms: u32, since_ms: u32, values: &[(Metric, u64)]) {
        if self.times.is_empty() {
            self.before_ms = since_ms;
        }
        let index = self.times.len();
        for (metric, value) in values {
            let packed = self.packed.entry(*metric).or_default();
            // A metric given twice counts once.
            if packed.count + packed.holes.len() <= index {
                packed.push(index, *value);
            }
        }
        self.times.push(at_ms);
    }

    /// Everything.
    pub(crate) fn samples(&self) -> Samples {
        self.some(|_| true)
    }

    /// One metric alone.
    pub(crate) fn of(&self, metric: Metric) -> Samples {
        self.some(|other| other == metric)
    }

    fn some(&self, wanted: impl Fn(Metric) -> bool) -> Samples {
        let columns = self.packed.iter().filter(|(metric, _)| wanted(**metric));
        let columns = columns.map(|(metric, packed)| {
            let mut packed = packed.clone();
            packed.fill(self.times.len());
            let column = Column {
                values: packed.values().unwrap_or_default(),
                holes: packed.holes,
            };
            (*metric, column)
        });
        let mut samples = Samples {
            before_ms: self.before_ms,
            times: self.times.clone(),
            columns: columns.collect(),
        };
        samples.sort();
        samples
    }
}

/// The values of one metric.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Column {
    /// Those that are there, in order.
    pub(crate) values: Vec<u64>,
    /// Which samples lack one, ascending.
    pub(crate) holes: Vec<u32>,
}

impl Column {
    /// Each value with the sample it belongs to.
    pub(crate) fn each(&self) -> impl Iterator<Item = (usize, u64)> {
        let mut holes = self.holes.iter().peekable();
        let mut index = 0;
        self.values.iter().map(move |value| {
            while holes.next_if(|hole| **hole as usize == index).is_some() {
                index += 1;
            }
            index += 1;
            (index - 1, *value)
        })
    }
}

/// The samples of one entity in one hour, by time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Samples {
    /// The time the first sample speaks for, milliseconds.
    pub(crate) before_ms: u32,
    /// Milliseconds into the hour, ascending.
    pub(crate) times: Vec<u32>,
    pub(crate) columns: BTreeMap<Metric, Column>,
}

impl Samples {
    /// Both together; where both have a value at one time, the first's counts.
    pub(crate) fn merged(self, other: Self) -> Self {
        let (Some(own), Some(others)) = (self.times.first(), other.times.first()) else {
            return if self.times.is_empty() { other } else { self };
        };
        let before_ms = if own <= others {
            self.before_ms
        } else {
            other.before_ms
        };
        let mut rows = other.rows();
        for (at, row) in self.rows() {
            rows.entry(at).or_default().extend(row);
        }
        Self::of_rows(before_ms, &rows)
    }

    /// After the clock was set back, samples did not come in the order of their times.
    fn sort(&mut self) {
        if !self.times.is_sorted() {
            *self = Self::of_rows(self.before_ms, &self.rows());
        }
    }

    /// By time and metric.
    pub(crate) fn rows(&self) -> BTreeMap<u32, BTreeMap<Metric, u64>> {
        let empty = |at: &u32| (*at, BTreeMap::new());
        let mut rows: BTreeMap<_, BTreeMap<_, _>> = self.times.iter().map(empty).collect();
        for (metric, column) in &self.columns {
            for (index, value) in column.each() {
                let row = rows.entry(self.times[index]).or_default();
                row.entry(*metric).or_insert(value);
            }
        }
        rows
    }

    fn of_rows(before_ms: u32, rows: &BTreeMap<u32, BTreeMap<Metric, u64>>) -> Self {
        let mut open = Open::default();
        for (at, row) in rows {
            let values: Vec<_> = row
                .iter()
                .map(|(metric, value)| (*metric, *value))
                .collect();
            open.push(*at, before_ms, &values);
        }
        open.samples()
    }

    /// As a block.
    pub(crate) fn block(&self) -> Vec<u8> {
        let mut block = vec![FORM];
        put(&mut block, u64::from(self.before_ms));
        put(&mut block, self.times.len() as u64);
        let mut before = 0;
        let steps = self.times.iter().map(|at| {
            let step = at - before;
            before = *at;
            u64::from(step)
        });
        put_column(&mut block, &steps.collect::<Vec<_>>());
        put(&mut block, self.columns.len() as u64);
        for (metric, column) in &self.columns {
            block.push(*metric as u8);
            put_holes(&mut block, &column.holes);
            put_column(&mut block, &column.values);
        }
        sealed(&block)
    }

    /// Reads a block, or one metric of it. Metrics that this version does not know are left out.
    ///
    /// # Errors
    /// [`Unreadable`] when it is not as it was written.
    pub(crate) fn read(block: &[u8], only: Option<Metric>) -> Result<Self, Unreadable> {
        let mut bytes = unsealed(block)?;
        if bytes.byte()? != FORM {
            return Err(Unreadable);
        }
        let before_ms = u32::try_from(bytes.number()?).map_err(|_| Unreadable)?;
        let count = bytes.count()?;
        let mut at = 0u64;
        let times = column(&mut bytes, count)?.into_iter().map(|step| {
            at = at.saturating_add(step);
            u32::try_from(at).map_err(|_| Unreadable)
        });
        let mut samples = Self {
            before_ms,
            times: times.collect::<Result<_, _>>()?,
            columns: BTreeMap::new(),
        };
        for _ in 0..bytes.count()? {
            let metric = Metric::ALL.get(usize::from(bytes.byte()?)).copied();
            let holes = read_holes(&mut bytes, count)?;
            let present = count.checked_sub(holes.len()).ok_or(Unreadable)?;
            match metric {
                Some(metric) if only.is_none_or(|only| only == metric) => {
                    let values = column(&mut bytes, present)?;
                    samples.columns.insert(metric, Column { values, holes });
                }
                _ => skip_column(&mut bytes, present)?,
            }
        }
        Ok(samples)
    }
}

pub(crate) fn put_holes(into: &mut Vec<u8>, holes: &[u32]) {
    put(into, holes.len() as u64);
    let mut before = 0;
    for hole in holes {
        put(into, u64::from(hole - before));
        before = *hole;
    }
}

pub(crate) fn read_holes(bytes: &mut Bytes<'_>, samples: usize) -> Result<Vec<u32>, Unreadable> {
    let count = bytes.count()?;
    if count > samples {
        return Err(Unreadable);
    }
    let mut before = 0;
    let mut next = || {
        before += bytes.count()? as u32;
        Ok(before)
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Times and which metrics each sample has, with what values.
    fn anything() -> impl Strategy<Value = Vec<(u32, Vec<(Metric, u64)>)>> {
        let metric = prop::sample::select(Metric::ALL.to_vec());
        let row = prop::collection::btree_map(metric, 0u64..1 << 40, 0..4);
        let row = row.prop_map(|row| row.into_iter().collect());
        prop::collection::vec((0u32..3_600_000, row), 0..80)
    }

    fn opened(rows: &[(u32, Vec<(Metric, u64)>)]) -> Samples {
        let mut open = Open::default();
        for (at, values) in rows {
            open.push(*at, 5, values);
        }
        open.samples()
    }

    proptest! {
        #[test]
        fn blocks_read_back_and_a_merge_adds_nothing_twice(rows in anything(), cut in any::<prop::sample::Index>()) {
            let all = opened(&rows);
            prop_assert!(all.times.is_sorted());
            let block = all.block();
            prop_assert_eq!(Samples::read(&block, None).unwrap(), all.clone());
            let one = Samples::read(&block, Some(Metric::Memory)).unwrap();
            prop_assert_eq!(one.columns.get(&Metric::Memory), all.columns.get(&Metric::Memory));
            prop_assert!(one.columns.len() <= 1);

            prop_assert_eq!(all.clone().merged(all.clone()).rows(), all.rows());
            let (first, rest) = rows.split_at(if rows.is_empty() { 0 } else { cut.index(rows.len()) });
            let both = opened(first).merged(opened(rest));
            prop_assert_eq!(both.rows(), all.rows());
        }
    }
}
