//! Sums over samples: what an hour, a day or five minutes come to.
//!
//! A sample speaks for the time since the one before it, and for three intervals at most: what lies in
//! between is not known, and nothing is made up for it.

use std::collections::BTreeMap;

use plimsoll_core::metric::{Kind, Metric};

use super::column::{Bytes, Unreadable, column, put, put_column, sealed, skip_column, unsealed};
use super::samples::{Column, Samples};

/// Five minutes, milliseconds.
pub(crate) const FIVE_MS: u32 = 300_000;

/// One metric over a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sum {
    /// How many samples.
    pub(crate) samples: u32,
    /// The time they speak for, milliseconds.
    pub(crate) watched_ms: u64,
    /// Value times time, in units times milliseconds; of events, their number.
    pub(crate) total: u128,
    pub(crate) max: u64,
}

impl Sum {
    /// Adds a sample that speaks for so long.
    pub(crate) fn sample(&mut self, kind: Kind, value: u64, watched_ms: u32) {
        self.samples = self.samples.saturating_add(1);
        self.watched_ms += u64::from(watched_ms);
        self.total += match kind {
            Kind::Gauge => u128::from(value) * u128::from(watched_ms),
            Kind::Events => u128::from(value),
        };
        self.max = self.max.max(value);
    }

    /// Adds another span.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.samples = self.samples.saturating_add(other.samples);
        self.watched_ms += other.watched_ms;
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The average over the time watched; of events, their number.
    pub(crate) fn value(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Events => self.total as f64,
            // A single sample, of which nobody knows how long it held.
            Kind::Gauge if self.watched_ms == 0 => self.max as f64,
            Kind::Gauge => self.total as f64 / self.watched_ms as f64,
        }
    }

    /// The total as it is stored: in units times seconds, or events.
    pub(crate) fn stored(&self, kind: Kind) -> i64 {
        let total = match kind {
            Kind::Gauge => (self.total + 500) / 1000,
            Kind::Events => self.total,
        };
        i64::try_from(total).unwrap_or(i64::MAX)
    }

    /// Undoes [`stored`](Self::stored).
    pub(crate) fn restored(kind: Kind, total: i64) -> u128 {
        let total = u128::from(total.unsigned_abs());
        match kind {
            Kind::Gauge => total * 1000,
            Kind::Events => total,
        }
    }
}

/// Every metric of an entity over a span of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rollup {
    pub(crate) samples: u32,
    pub(crate) watched_ms: u64,
    pub(crate) sums: BTreeMap<Metric, Sum>,
}

impl Rollup {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.samples = self.samples.saturating_add(other.samples);
        self.watched_ms += other.watched_ms;
        for (metric, sum) in &other.sums {
            self.sums.entry(*metric).or_default().merge(sum);
        }
    }
}

/// The time each sample speaks for.
pub(crate) fn watched(samples: &Samples, gap_ms: u32) -> Vec<u32> {
    let since = samples.times.windows(2).map(|pair| pair[1] - pair[0]);
    let first = samples.times.first().map(|_| samples.before_ms);
    let all = first.into_iter().chain(since);
    all.map(|ms| ms.min(gap_ms)).collect()
}

/// What the samples come to, in slots of `slot_ms` by number.
pub(crate) fn slots(samples: &Samples, gap_ms: u32, slot_ms: u32) -> BTreeMap<u32, Rollup> {
    let watched = watched(samples, gap_ms);
    let mut slots: BTreeMap<u32, Rollup> = BTreeMap::new();
    for (at, ms) in samples.times.iter().zip(&watched) {
        let slot = slots.entry(at / slot_ms).or_default();
        slot.samples += 1;
        slot.watched_ms += u64::from(*ms);
    }
    for (metric, column) in &samples.columns {
        for (index, value) in column.each() {
            let slot = slots.entry(samples.times[index] / slot_ms).or_default();
            let sum = slot.sums.entry(*metric).or_default();
            sum.sample(metric.kind(), value, watched[index]);
        }
    }
    slots
}

/// The form of a block of five minutes, its first byte.
const FORM: u8 = 1;
/// Averages of small numbers keep this many times their precision.
const FINE: u64 = 256;
/// Numbers below this are small.
const SMALL: u64 = 1 << 20;

/// An hour's five minutes as a block.
pub(crate) fn five_block(slots: &BTreeMap<u32, Rollup>) -> Vec<u8> {
    let mut block = vec![FORM];
    put(&mut block, slots.len() as u64);
    let of = |field: fn(&Rollup) -> u64| slots.values().map(field).collect::<Vec<_>>();
    let numbers: Vec<u64> = slots.keys().map(|slot| u64::from(*slot)).collect();
    put_column(&mut block, &numbers);
    put_column(&mut block, &of(|slot| slot.watched_ms));
    put_column(&mut block, &of(|slot| u64::from(slot.samples)));
    let mut metrics: BTreeMap<Metric, (Column, Vec<u64>)> = BTreeMap::new();
    for (index, slot) in slots.values().enumerate() {
        for metric in Metric::ALL {
            let (value, max) = match slot.sums.get(&metric) {
                Some(sum) => (sum, sum.max),
                None => continue,
            };
            let (column, maxima) = metrics.entry(metric).or_default();
            let missing = column.values.len() + column.holes.len()..index;
            column.holes.extend(missing.map(|hole| hole as u32));
            let fine = value.value(metric.kind()) * FINE as f64;
            column.values.push(fine.round() as u64);
            maxima.push(max);
        }
    }
    put(&mut block, metrics.len() as u64);
    for (metric, (mut column, maxima)) in metrics {
        let missing = column.values.len() + column.holes.len()..slots.len();
        column.holes.extend(missing.map(|hole| hole as u32));
        let fine = maxima.iter().all(|max| *max < SMALL);
        if !fine {
            let whole = |value: &mut u64| *value = (*value + FINE / 2) / FINE;
            column.values.iter_mut().for_each(whole);
        }
        block.push(metric as u8);
        block.push(u8::from(fine));
        super::samples::put_holes(&mut block, &column.holes);
        put_column(&mut block, &column.values);
        put_column(&mut block, &maxima);
    }
    sealed(&block)
}

/// Reads one metric of an hour's five minutes: the slot's number and its sum.
///
/// # Errors
/// [`Unreadable`] when it is not as it was written.
pub(crate) fn read_five(block: &[u8], wanted: Metric) -> Result<Vec<(u32, Sum)>, Unreadable> {
    let mut bytes = unsealed(block)?;
    if bytes.byte()? != FORM {
        return Err(Unreadable);
    }
    let count = bytes.count()?;
    let numbers = column(&mut bytes, count)?;
    let watched = column(&mut bytes, count)?;
    let samples = column(&mut bytes, count)?;
    for _ in 0..bytes.count()? {
        let metric = Metric::ALL.get(usize::from(bytes.byte()?)).copied();
        let fine = bytes.byte()? == 1;
        let holes = super::samples::read_holes(&mut bytes, count)?;
        let present = count.checked_sub(holes.len()).ok_or(Unreadable)?;
        if metric != Some(wanted) {
            skip_column(&mut bytes, present)?;
            skip_column(&mut bytes, present)?;
            continue;
        }
        let values = column(&mut bytes, present)?;
        let maxima = column(&mut bytes, present)?;
        let scale = if fine { FINE } else { 1 };
        let sum = |((index, value), max): ((usize, u64), u64)| {
            let slot = u32::try_from(*numbers.get(index)?).ok()?;
            let watched_ms = *watched.get(index)?;
            let total = match wanted.kind() {
                Kind::Gauge => u128::from(value) * u128::from(watched_ms) / u128::from(scale),
                Kind::Events => u128::from(value / scale),
            };
            let samples = u32::try_from(*samples.get(index)?).ok()?;
            let sum = Sum {
                samples,
                watched_ms,
                total,
                max,
            };
            Some((slot, sum))
        };
        let column = Column { values, holes };
        return column
            .each()
            .zip(maxima)
            .map(|each| sum(each).ok_or(Unreadable))
            .collect();
    }
    Ok(Vec::new())
}

/// How values are distributed: counts by size, within 1.6 %.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spread(BTreeMap<u16, u32>);

/// Each doubling has this many steps, as a power of two.
const STEPS_LOG: u32 = 5;
const STEPS: u64 = 1 << STEPS_LOG;

fn step_of(value: u64) -> u16 {
    if value < STEPS {
        return value as u16;
    }
    let doubling = value.ilog2() - STEPS_LOG;
    ((u64::from(doubling) << STEPS_LOG) + (value >> doubling)) as u16
}

/// The middle of a step.
fn middle_of(step: u16) -> u64 {
    let step = u64::from(step);
    if step < STEPS * 2 {
        return step;
    }
    let doubling = (step >> STEPS_LOG) - 1;
    let low = (step - (doubling << STEPS_LOG)) << doubling;
    low + (1 << doubling) / 2
}

impl Spread {
    pub(crate) fn add(&mut self, value: u64) {
        *self.0.entry(step_of(value)).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (step, count) in &other.0 {
            *self.0.entry(*step).or_default() += count;
        }
    }

    /// The value that a share of the samples, in thousandths, does not exceed.
    pub(crate) fn percentile(&self, permille: u32) -> Option<u64> {
        let all: u64 = self.0.values().map(|count| u64::from(*count)).sum();
        let rank = (all * u64::from(permille)).div_ceil(1000).max(1);
        let mut seen = 0;
        let reached = |(step, count): (&u16, &u32)| {
            seen += u64::from(*count);
            (seen >= rank).then(|| middle_of(*step))
        };
        self.0.iter().find_map(reached)
    }
}

/// The spread of each gauge.
pub(crate) type Spreads = BTreeMap<Metric, Spread>;

/// How the samples of each gauge are spread.
pub(crate) fn spreads(samples: &Samples) -> Spreads {
    let gauges = samples.columns.iter();
    let gauges = gauges.filter(|(metric, _)| metric.kind() == Kind::Gauge);
    gauges
        .map(|(metric, column)| {
            let mut spread = Spread::default();
            column.values.iter().for_each(|value| spread.add(*value));
            (*metric, spread)
        })
        .collect()
}

/// Spreads as a block.
pub(crate) fn spread_block(spreads: &Spreads) -> Vec<u8> {
    let mut block = vec![FORM];
    put(&mut block, spreads.len() as u64);
    for (metric, Spread(counts)) in spreads {
        block.push(*metric as u8);
        put(&mut block, counts.len() as u64);
        let mut before = 0;
        for (step, count) in counts {
            put(&mut block, u64::from(step - before));
            put(&mut block, u64::from(*count));
            before = *step;
        }
    }
    sealed(&block)
}

/// Reads the spread of one metric.
///
/// # Errors
/// [`Unreadable`] when it is not as it was written.
pub(crate) fn read_spread(block: &[u8], metric: Metric) -> Result<Option<Spread>, Unreadable> {
    read_spreads(block).map(|mut spreads| spreads.remove(&metric))
}

/// Reads spreads.
///
/// # Errors
/// [`Unreadable`] when they are not as they were written.
pub(crate) fn read_spreads(block: &[u8]) -> Result<Spreads, Unreadable> {
    let mut bytes = unsealed(block)?;
    if bytes.byte()? != FORM {
        return Err(Unreadable);
    }
    let mut spreads = Spreads::new();
    for _ in 0..bytes.count()? {
        let metric = Metric::ALL.get(usize::from(bytes.byte()?)).copied();
        let counts = read_counts(&mut bytes)?;
        if let Some(metric) = metric {
            spreads.insert(metric, Spread(counts));
        }
    }
    Ok(spreads)
}

fn read_counts(bytes: &mut Bytes<'_>) -> Result<BTreeMap<u16, u32>, Unreadable> {
    let mut counts = BTreeMap::new();
    let mut step = 0u16;
    for _ in 0..bytes.count()? {
        let more = u16::try_from(bytes.number()?).map_err(|_| Unreadable)?;
        step = step.checked_add(more).ok_or(Unreadable)?;
        let count = u32::try_from(bytes.number()?).map_err(|_| Unreadable)?;
        counts.insert(step, count);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::Open;
    use super::*;

    fn samples(rows: &[(u32, u64)]) -> Samples {
        let mut open = Open::default();
        for (at, cpu) in rows {
            open.push(*at, 10_000, &[(Metric::Cpu, *cpu), (Metric::OomKills, 1)]);
        }
        open.samples()
    }

    #[test]
    fn a_sample_speaks_for_the_time_since_the_last_and_gaps_are_not_filled() {
        let rows = [(5_000, 100), (15_000, 200), (25_000, 0), (1_000_000, 400)];
        let hour = &slots(&samples(&rows), 30_000, 3_600_000)[&0];
        let cpu = hour.sums[&Metric::Cpu];
        assert_eq!((cpu.samples, cpu.max), (4, 400));
        assert_eq!(cpu.watched_ms, 10_000 + 10_000 + 10_000 + 30_000);
        assert_eq!(cpu.total, 100 * 10_000 + 200 * 10_000 + 400 * 30_000);
        assert_eq!(hour.sums[&Metric::OomKills].total, 4);
        let five = slots(&samples(&rows), 30_000, FIVE_MS);
        assert_eq!(five.keys().copied().collect::<Vec<_>>(), [0, 3]);
        let mut both = Rollup::default();
        five.values().for_each(|slot| both.merge(slot));
        assert_eq!(&both, hour, "the parts are the whole");
    }

    #[test]
    fn five_minutes_read_back_and_small_averages_keep_their_fractions() {
        let five = slots(
            &samples(&[(5_000, 1), (15_000, 2), (700_000, 5_000_000)]),
            30_000,
            FIVE_MS,
        );
        let block = five_block(&five);
        let cpu = read_five(&block, Metric::Cpu).unwrap();
        assert_eq!(
            cpu.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(),
            [0, 2]
        );
        assert_eq!(cpu[1].1, five[&2].sums[&Metric::Cpu]);
        let small = slots(&samples(&[(5_000, 1), (15_000, 2)]), 30_000, FIVE_MS);
        let small = read_five(&five_block(&small), Metric::Cpu).unwrap();
        assert_eq!(small[0].1.value(Kind::Gauge), 1.5);
        assert_eq!(read_five(&block, Metric::Memory).unwrap(), []);
        assert_eq!(read_five(&block, Metric::OomKills).unwrap()[0].1.total, 2);
    }

    proptest! {
        #[test]
        fn a_percentile_is_within_two_percent(mut values in prop::collection::vec(0u64..1 << 44, 1..300), permille in 1u32..=1000) {
            let mut spread = Spread::default();
            values.iter().for_each(|value| spread.add(*value));
            let spreads = Spreads::from([(Metric::Cpu, spread)]);
            let spread = &read_spreads(&spread_block(&spreads)).unwrap()[&Metric::Cpu];
            values.sort_unstable();
            let rank = (values.len() as u64 * u64::from(permille)).div_ceil(1000).max(1);
            let exact = values[rank as usize - 1] as f64;
            let found = spread.percentile(permille).unwrap() as f64;
            prop_assert!((found - exact).abs() <= exact * 0.0157 + 0.5, "{found} for {exact}");
        }
    }
}
