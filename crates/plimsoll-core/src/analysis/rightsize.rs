//! What a container should be given, from what it used.
//!
//! As the Vertical Pod Autoscaler of Kubernetes does, by quantiles of fading history with a margin; a dead
//! band and a time of rest keep it from changing its mind.

use super::series::{DAY_MS, Series};
use super::stats::{known, median, weighted_quantile};

/// After so long a value counts half.
const HALF_LIFE_MS: i64 = 7 * DAY_MS;

/// Days of history that are looked at.
const WINDOW_MS: i64 = 28 * DAY_MS;

/// On top of what is needed.
const MARGIN: f64 = 1.15;

/// How much more or less must be right before anything is changed.
const UP: f64 = 1.10;
const DOWN: f64 = 0.80;

/// How long a change stands, unless it was too little.
const REST_MS: i64 = 7 * DAY_MS;

/// The fewest values that say anything.
pub const SAMPLES_MIN: usize = 100;

/// What a container killed for memory gets: by this factor, and at least so much more.
const KILLED: f64 = 1.2;
const KILLED_LEAST: f64 = (100 << 20) as f64;

/// A change of what is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// To what.
    pub target: f64,
}

/// What should be given, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizing {
    /// What should be given now.
    pub target: f64,
    /// What would have been given, had this been followed from the beginning.
    pub changes: Vec<Change>,
    /// Below this were 99 of 100 values, the latest counting most.
    pub p99: f64,
    /// Below this was the most of nine days in ten.
    pub peaks: f64,
    /// What a week adds.
    pub trend: f64,
    /// Values it rests on.
    pub samples: usize,
    /// Which share of the values since the first change was above what would have been given.
    pub over: f64,
}

/// What to give to what used this; memory in bytes where `kills` says when it was killed for want of it
/// (Unix milliseconds). `None` of fewer than [`SAMPLES_MIN`] values.
#[must_use]
pub fn rightsize(series: &Series, kills: &[i64]) -> Option<Sizing> {
    let values = series.values();
    let mut held = Held::default();
    let mut seen = 0;
    let mut evidence = None;
    let mut kills = kills.to_vec();
    kills.sort_unstable();
    let mut kills = kills.into_iter().peekable();
    let mut judged_day = i64::MIN;
    for (step, value) in values.iter().enumerate() {
        let now_ms = series.at_ms(step + 1);
        if value.is_finite() {
            seen += 1;
            held.see(*value);
        }
        while kills.next_if(|at| *at < now_ms).is_some() {
            held.killed(now_ms);
        }
        let day = now_ms.div_euclid(DAY_MS);
        let is_last = step + 1 == values.len();
        if seen < SAMPLES_MIN || (day == judged_day && !is_last && !held.changes.is_empty()) {
            continue;
        }
        judged_day = day;
        let needs = Needs::of(series, step + 1)?;
        held.judge(now_ms, needs.target());
        evidence = Some(needs);
    }
    let needs = evidence?;
    let target = held.changes.last()?.target;
    Some(Sizing {
        target,
        p99: needs.p99,
        peaks: needs.peaks,
        trend: needs.trend,
        samples: seen,
        over: match held.after {
            0 => 0.0,
            after => held.over as f64 / after as f64,
        },
        changes: held.changes,
    })
}

/// What would have been given so far.
#[derive(Default)]
struct Held {
    changes: Vec<Change>,
    /// Values since the first change, and those above it.
    after: usize,
    over: usize,
    /// The latest change was not enough.
    too_little: bool,
}

impl Held {
    fn see(&mut self, value: f64) {
        if let Some(change) = self.changes.last() {
            self.after += 1;
            if value > change.target {
                self.over += 1;
                self.too_little = true;
            }
        }
    }

    fn killed(&mut self, at_ms: i64) {
        if let Some(given) = self.changes.last().map(|c| c.target) {
            self.set(at_ms, (given * KILLED).max(given + KILLED_LEAST));
        }
    }

    fn judge(&mut self, at_ms: i64, target: f64) {
        let Some(given) = self.changes.last().copied() else {
            return self.set(at_ms, target);
        };
        let rested = at_ms - given.at_ms >= REST_MS;
        let more = target > given.target * UP && (rested || self.too_little);
        let less = target < given.target * DOWN && rested;
        if more || less {
            self.set(at_ms, target);
        }
    }

    fn set(&mut self, at_ms: i64, target: f64) {
        self.changes.push(Change { at_ms, target });
        self.too_little = false;
    }
}

/// What history says is needed.
struct Needs {
    p99: f64,
    peaks: f64,
    trend: f64,
}

impl Needs {
    /// Of the values before step `end`.
    fn of(series: &Series, end: usize) -> Option<Self> {
        let steps = usize::try_from(WINDOW_MS / series.step_ms())
            .unwrap_or(usize::MAX)
            .max(1);
        let begin = end.saturating_sub(steps);
        let fade = |age_ms: i64| 0.5_f64.powf(age_ms as f64 / HALF_LIFE_MS as f64);
        let end_ms = series.at_ms(end);
        let window = begin..end;
        let values = window
            .clone()
            .map(|step| (series.values()[step], fade(end_ms - series.at_ms(step))));
        let mut values: Vec<(f64, f64)> = values.filter(|v| v.0.is_finite()).collect();
        let peaks = peaks(series, begin, end);
        let aged = peaks.iter().rev().zip(0..);
        let mut aged: Vec<(f64, f64)> = aged
            .map(|(peak, days)| (*peak, fade(days * DAY_MS)))
            .collect();
        Some(Self {
            p99: weighted_quantile(&mut values, 0.99)?,
            peaks: weighted_quantile(&mut aged, 0.90)?,
            trend: trend(&peaks[peaks.len().saturating_sub(7)..]),
        })
    }

    fn target(&self) -> f64 {
        self.p99.max(self.peaks) * MARGIN + self.trend
    }
}

/// The most of each day, oldest first, days without any left out.
fn peaks(series: &Series, begin: usize, end: usize) -> Vec<f64> {
    let mut found: Vec<(i64, f64)> = Vec::new();
    for step in begin..end {
        let value = series.values()[step];
        if !value.is_finite() {
            continue;
        }
        let day = series.at_ms(step).div_euclid(DAY_MS);
        match found.last_mut() {
            Some((last, most)) if *last == day => *most = most.max(value),
            _ => found.push((day, value)),
        }
    }
    found.into_iter().map(|(_, most)| most).collect()
}

/// What seven days add, if anything: the median of the slopes between any two days (Theil and Sen), which
/// one odd day does not move.
fn trend(peaks: &[f64]) -> f64 {
    let mut slopes = Vec::new();
    for (later, peak) in peaks.iter().enumerate() {
        for (earlier, before) in peaks[..later].iter().enumerate() {
            slopes.push((peak - before) / (later - earlier) as f64);
        }
    }
    let slope = known(&slopes).collect::<Vec<_>>();
    median(&mut { slope }).map_or(0.0, |slope| (slope * 7.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::series::HOUR_MS;
    use crate::analysis::stats::Draws;

    fn hourly(values: impl IntoIterator<Item = f64>) -> Series {
        let points: Vec<(i64, f64)> = (0..).map(|h: i64| h * HOUR_MS).zip(values).collect();
        Series::of(&points, Some(HOUR_MS)).unwrap()
    }

    fn noisy(hours: usize, level: impl Fn(usize) -> f64) -> Series {
        let mut draws = Draws(11);
        hourly((0..hours).map(|h| level(h) + draws.below(100) as f64 / 100.0))
    }

    #[test]
    fn what_is_steady_gets_its_peaks_and_a_margin() {
        let sizing = rightsize(&noisy(24 * 28, |_| 10.0), &[]).unwrap();
        assert!((12.0..13.5).contains(&sizing.target), "{sizing:?}");
        assert_eq!(sizing.changes.len(), 1, "{sizing:?}");
        assert!(sizing.over < 0.001);
    }

    #[test]
    fn what_grows_is_followed_before_it_is_too_much() {
        let sizing = rightsize(&noisy(24 * 56, |h| 10.0 + h as f64 / 48.0), &[]).unwrap();
        assert!(sizing.over <= 0.005, "{sizing:?}");
        assert!(sizing.target > 38.0 && sizing.trend > 2.0, "{sizing:?}");
        assert!(sizing.changes.len() <= 8, "{sizing:?}");
    }

    #[test]
    fn less_is_given_only_after_a_while() {
        let falls = |h: usize| if h < 24 * 10 { 100.0 } else { 10.0 };
        let sizing = rightsize(&noisy(24 * 60, falls), &[]).unwrap();
        let cut = sizing.changes.iter().find(|c| c.target < 60.0).unwrap();
        assert!(cut.at_ms >= 17 * DAY_MS, "{sizing:?}");
        assert!((11.0..14.0).contains(&sizing.target), "{sizing:?}");
    }

    #[test]
    fn a_kill_for_memory_is_answered() {
        let level = (1_u64 << 30) as f64;
        let series = hourly(vec![level; 24 * 10]);
        let without = rightsize(&series, &[]).unwrap().target;
        let with = rightsize(&series, &[9 * DAY_MS]).unwrap();
        assert!((with.target - without * 1.2).abs() < 1.0, "{with:?}");
        let small = hourly(vec![1e6; 24 * 10]);
        let with = rightsize(&small, &[9 * DAY_MS]).unwrap();
        assert!(with.target > KILLED_LEAST, "{with:?}");
    }

    #[test]
    fn few_values_are_no_advice() {
        assert_eq!(rightsize(&noisy(99, |_| 1.0), &[]), None);
        assert!(rightsize(&noisy(100, |_| 1.0), &[]).is_some());
    }
}
