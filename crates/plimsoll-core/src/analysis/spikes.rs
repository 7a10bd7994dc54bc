//! What was odd: a value far from what is usual at that time, all at once.
//!
//! Each value is compared with those of the same time on the days before, and with how much was unusual
//! lately, so that a new level is odd once. How far is far is told by the median absolute deviation
//! (Hampel, "The influence curve and its role in robust estimation", 1974), which spikes do not move.
//! Nothing later than a value is looked at: what is found afterwards would have been found at the time.

use super::series::{DAY_MS, Series};
use super::stats::{known, median, quantile};

/// Days whose same time is compared, and whose deviations count.
const DAYS: usize = 7;

/// How far from the same time of day values still are of that time.
const NEAR_MS: i64 = 30 * 60 * 1000;

/// Over which time what is unusual is a new level.
const LEVEL_MS: i64 = DAY_MS / 2;

/// The fewest deviations that say what is far.
const LEAST: usize = 20;

/// What a median absolute deviation is of a standard deviation, where values are spread normally.
const NORMAL: f64 = 1.4826;

/// This share of what was seen lately is nearer than a spike.
const RARE: f64 = 0.995;

/// Deviations below this share of the whole spread are none.
const SLIGHT: f64 = 0.02;

/// How far is far, in standard deviations.
pub const FAR: f64 = 6.0;

/// Something odd.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spike {
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// What it was.
    pub value: f64,
    /// What it would usually have been.
    pub usual: f64,
    /// How far off that is, in standard deviations; below zero for a drop.
    pub score: f64,
}

/// The spikes of a series, one for as long as a day at most; `far` in standard deviations, [`FAR`] unless
/// there is reason for another.
#[must_use]
pub fn spikes(series: &Series, far: f64) -> Vec<Spike> {
    let values = series.values();
    let steps = |span_ms: i64| usize::try_from(span_ms / series.step_ms()).unwrap_or(usize::MAX);
    let day = steps(DAY_MS).max(1);
    let level = steps(LEVEL_MS).clamp(4, 500);
    let near = steps(NEAR_MS).min(day / 4);
    let memory = (day * DAYS).clamp(LEAST, 5000);
    let mut slight = Slight::default();
    let mut off: Vec<f64> = Vec::with_capacity(values.len());
    let mut beyond: Vec<f64> = Vec::with_capacity(values.len());
    let mut scale = None;
    let mut found = Vec::new();
    let mut quiet_until = 0;
    for (at, value) in values.iter().copied().enumerate() {
        let usual = Usual::at(values, at, day, near);
        let unusual = value - usual.middle;
        let mut lately: Vec<f64> = known(&off[off.len().saturating_sub(level)..]).collect();
        let lately = median(&mut lately).unwrap_or(0.0);
        off.push(unusual);
        let beside = unusual - lately;
        slight.see(value);
        // What is far changes slowly.
        if scale.is_none() || at % (day / 24).max(1) == 0 {
            scale = Scale::of(&beyond[beyond.len().saturating_sub(memory)..]);
        }
        beyond.push(beside);
        let Some(scale) = scale.filter(|_| beside.is_finite()) else {
            continue;
        };
        let score = beside / scale.deviation.max(slight.least());
        let outside = usual.outside(value - lately).abs() > scale.deviation * far / 2.0;
        let is_rare = outside && beside.abs() > scale.rare && beside.abs() > slight.least();
        if score.abs() > far && is_rare && at >= quiet_until {
            found.push(Spike {
                at_ms: series.at_ms(at),
                value,
                usual: usual.middle + lately,
                score: score.clamp(-1000.0, 1000.0),
            });
            quiet_until = at + day;
        }
    }
    found
}

/// What lately was far.
#[derive(Clone, Copy)]
struct Scale {
    deviation: f64,
    rare: f64,
}

impl Scale {
    fn of(beyond: &[f64]) -> Option<Self> {
        let mut all: Vec<f64> = known(beyond).map(f64::abs).collect();
        if all.len() < LEAST {
            return None;
        }
        Some(Self {
            deviation: NORMAL * median(&mut all)?,
            rare: quantile(&mut all, RARE)?,
        })
    }
}

/// What is too little to matter, beside how far values ever were from each other.
struct Slight {
    least: f64,
    most: f64,
}

impl Default for Slight {
    fn default() -> Self {
        Self {
            least: f64::INFINITY,
            most: f64::NEG_INFINITY,
        }
    }
}

impl Slight {
    fn see(&mut self, value: f64) {
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    fn least(&self) -> f64 {
        (SLIGHT * (self.most - self.least)).max(f64::MIN_POSITIVE)
    }
}

/// What is usual at a time.
struct Usual {
    middle: f64,
    /// What most days reach about that time.
    low: f64,
    high: f64,
}

impl Usual {
    /// From the same time on the days before; from the last day where there are not two.
    fn at(values: &[f64], at: usize, day: usize, near: usize) -> Self {
        let (mut then, mut lows, mut highs) = (Vec::new(), Vec::new(), Vec::new());
        for back in 1..=DAYS {
            let Some(middle) = at.checked_sub(back * day).filter(|_| day >= 2) else {
                break;
            };
            let end = (middle + near + 1).min(at);
            let from = then.len();
            then.extend(known(&values[middle.saturating_sub(near)..end]));
            if then.len() > from {
                lows.push(then[from..].iter().copied().fold(f64::INFINITY, f64::min));
                highs.push(
                    then[from..]
                        .iter()
                        .copied()
                        .fold(f64::NEG_INFINITY, f64::max),
                );
            }
        }
        if lows.len() < 2 {
            let lately = day.clamp(LEAST, 500);
            then = known(&values[at.saturating_sub(lately)..at]).collect();
            (lows, highs) = (Vec::new(), Vec::new());
        }
        let middle = median(&mut then).unwrap_or(f64::NAN);
        Self {
            middle,
            low: median(&mut lows).unwrap_or(middle),
            high: median(&mut highs).unwrap_or(middle),
        }
    }

    /// How far a value is from all that is usual.
    fn outside(&self, value: f64) -> f64 {
        (value - self.high).max(0.0) + (value - self.low).min(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::series::HOUR_MS;
    use crate::analysis::stats::Draws;

    const STEP: i64 = 5 * 60 * 1000;
    const DAY: usize = 288;

    /// Fourteen days of five minutes with a daily rhythm and noise, changed by `change`.
    fn fortnight(change: impl Fn(usize, f64) -> f64) -> Series {
        let mut draws = Draws(7);
        let points = (0..14 * DAY).map(|step| {
            let day = (step % DAY) as f64 / DAY as f64 * std::f64::consts::TAU;
            let noise = draws.below(1000) as f64 / 1000.0 - 0.5;
            let value = 10.0 + 4.0 * day.sin() + noise;
            (step as i64 * STEP, change(step, value))
        });
        Series::of(&points.collect::<Vec<_>>(), Some(STEP)).unwrap()
    }

    fn steps(found: &[Spike]) -> Vec<usize> {
        found.iter().map(|s| (s.at_ms / STEP) as usize).collect()
    }

    #[test]
    fn a_rhythm_is_not_odd_and_a_spike_is() {
        assert_eq!(spikes(&fortnight(|_, v| v), FAR), []);
        let at = 9 * DAY + 100;
        let found = spikes(&fortnight(|s, v| if s == at { v + 8.0 } else { v }), FAR);
        assert_eq!(steps(&found), [at]);
        assert!(found[0].score > FAR && (found[0].value - found[0].usual - 8.0).abs() < 1.5);
        let found = spikes(&fortnight(|s, v| if s == at { 0.0 } else { v }), FAR);
        assert_eq!(steps(&found), [at]);
        assert!(found[0].score < -FAR);
    }

    #[test]
    fn a_new_level_is_odd_once() {
        let at = 8 * DAY + 10;
        let found = spikes(&fortnight(|s, v| if s >= at { v + 10.0 } else { v }), FAR);
        assert_eq!(steps(&found)[0], at);
        assert!(found.len() <= 2, "{found:?}");
    }

    #[test]
    fn the_same_peak_at_the_same_time_is_usual() {
        let nightly = |s: usize, v: f64| if s % DAY < 6 { v + 30.0 } else { v };
        let found = spikes(&fortnight(nightly), FAR);
        assert!(steps(&found).iter().all(|s| *s < 3 * DAY), "{found:?}");
    }

    #[test]
    fn little_or_nothing_is_never_odd() {
        let of = |values: &[f64]| {
            let points: Vec<(i64, f64)> = (0..)
                .map(|h| h * HOUR_MS)
                .zip(values.iter().copied())
                .collect();
            spikes(&Series::of(&points, None).unwrap(), FAR)
        };
        assert_eq!(of(&[1.0]), []);
        assert_eq!(of(&[3.0; 500]), []);
        assert_eq!(of(&[f64::NAN, 1.0, f64::NAN, 2.0]), []);
        // What never moved and then does is.
        let mut still = vec![3.0; 500];
        still[400] = 4.0;
        assert_eq!(of(&still).len(), 1);
    }
}
