//! When something runs out, and how sure that is.
//!
//! Daily maxima go on as they went: paths of their day-to-day changes, drawn in blocks (the moving block
//! bootstrap: Künsch, "The jackknife and the bootstrap for general stationary observations", 1989) from
//! several windows, until they first reach the limit. Each window counts by how well it would have told
//! the level three days on; a level that only wavers is drawn, too.

use super::series::{DAY_MS, Series};
use super::stats::{Draws, mean, weighted_quantile};

/// Days that changes are drawn from.
const WINDOWS: [usize; 4] = [4, 7, 14, 28];

/// Days that hang together in a path.
const BLOCK: usize = 3;

/// Paths of each source.
const PATHS: usize = 200;

/// Paths end here: what is farther away is not said.
const DAYS_MAX: usize = 120;

/// How many days ahead a window is judged by, and how often.
const JUDGED_AHEAD: usize = 3;
const JUDGED: usize = 14;

/// Where growth has stalled, this share of what would run out does.
const STALLED: f64 = 0.25;

/// The fewest days that say anything about growth.
pub const DAYS_MIN: usize = 4;

/// From this chance within two weeks on it is worth saying.
pub const SURE: f64 = 0.7;

/// Days within which it must be likely to be said.
pub const SOON_DAYS: usize = 14;

/// Where a level is going.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// The chance that the limit is reached within [`SOON_DAYS`].
    pub soon: f64,
    /// In how many days, as likely as not; `None` where that is never.
    pub days: Option<f64>,
    /// Between how many days, as often as was asked; the later is `None` where it may be never.
    pub between: (Option<f64>, Option<f64>),
    /// The last day's most.
    pub level: f64,
    /// What a day adds, over the window that counts most.
    pub growth: f64,
    /// Growth has been, and is no more.
    pub stalled: bool,
    /// Days it rests on.
    pub known: usize,
}

impl Outlook {
    /// Whether it is likely enough to be said.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.soon >= SURE
    }
}

/// When the daily maxima of `series` reach `limit`; `level` is how often the interval shall hold. `None`
/// of fewer than [`DAYS_MIN`] days.
#[must_use]
pub fn exhaustion(series: &Series, limit: f64, level: f64) -> Option<Outlook> {
    let days = filled(&series.maxima(DAY_MS));
    let (&now, before) = days.split_last()?;
    if days.len() < DAYS_MIN {
        return None;
    }
    // A day that has just begun has not had its most.
    let now = before.last().map_or(now, |yesterday| now.max(*yesterday));
    let sources = sources(&days);
    let stalled = stalled(&days);
    let mut draws = Draws(1);
    let mut reached: Vec<(f64, f64)> = Vec::new();
    for source in &sources {
        for _ in 0..PATHS {
            let day = match now >= limit {
                true => 0.0,
                false => source.path(now, limit, &mut draws),
            };
            let weight = source.weight / PATHS as f64;
            let comes = if stalled && day > 0.0 { STALLED } else { 1.0 };
            reached.push((day, weight * comes));
            reached.push((f64::INFINITY, weight * (1.0 - comes)));
        }
    }
    let soon = reached.iter().filter(|(day, _)| *day <= SOON_DAYS as f64);
    let soon: f64 = soon.map(|r| r.1).sum();
    let tail = (1.0 - level.clamp(0.0, 1.0)) / 2.0;
    let mut at = |share| weighted_quantile(&mut reached, share).filter(|day| day.is_finite());
    let most = sources.iter().max_by(|a, b| a.weight.total_cmp(&b.weight));
    Some(Outlook {
        soon: soon.min(1.0),
        days: at(0.5),
        between: (at(tail), at(1.0 - tail)),
        level: now,
        growth: most
            .and_then(|s| mean(s.changes.iter().copied()))
            .unwrap_or(0.0),
        stalled,
        known: days.len(),
    })
}

/// A gap goes on as the day before it.
fn filled(days: &Series) -> Vec<f64> {
    let mut last = None;
    let days = days.values().iter().filter_map(|v| {
        if v.is_finite() {
            last = Some(*v);
        }
        last
    });
    days.collect()
}

/// Changes to draw from.
struct Source {
    changes: Vec<f64>,
    weight: f64,
}

impl Source {
    /// On which day a path from `level` first reaches `limit`; infinite for one that does not.
    fn path(&self, mut level: f64, limit: f64, draws: &mut Draws) -> f64 {
        let mut at = 0;
        for day in 0..DAYS_MAX {
            if day % BLOCK == 0 {
                at = draws.below(self.changes.len());
            }
            let change = self.changes[at % self.changes.len()];
            at += 1;
            if level + change >= limit {
                // Within the day, in proportion.
                let part = if change > 0.0 {
                    (limit - level) / change
                } else {
                    1.0
                };
                return day as f64 + part.clamp(0.0, 1.0);
            }
            level += change;
        }
        f64::INFINITY
    }
}

/// The windows that there are days for, and the longest of them without its trend; together one.
fn sources(days: &[f64]) -> Vec<Source> {
    let changes: Vec<f64> = days.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let last = |window: usize| &changes[changes.len().saturating_sub(window)..];
    let mut found: Vec<(Vec<f64>, f64)> = Vec::new();
    for window in WINDOWS {
        if changes.len() + 1 >= window {
            found.push((last(window).to_vec(), error(days, Some(window))));
        }
    }
    let longest = last(WINDOWS[WINDOWS.len() - 1]);
    let trend = mean(longest.iter().copied()).unwrap_or(0.0);
    let level = longest.iter().map(|change| change - trend).collect();
    found.push((level, error(days, None)));

    let best = found.iter().map(|f| f.1).fold(f64::INFINITY, f64::min);
    let worth = |error: f64| {
        if error <= best {
            1.0
        } else {
            (best / error).powi(2)
        }
    };
    let total: f64 = found.iter().map(|f| worth(f.1)).sum();
    let source = |(changes, error)| Source {
        changes,
        weight: worth(error) / total,
    };
    found.into_iter().map(source).collect()
}

/// By how much the trend of a window, or none, would have missed the level some days on, on average.
fn error(days: &[f64], window: Option<usize>) -> f64 {
    let last = days.len() - 1;
    let ahead = JUDGED_AHEAD.min(last);
    let ends = (ahead..=last).rev().take(JUDGED);
    let missed = ends.map(|end| {
        let from = end - ahead;
        let window = window.map_or(0, |window| window.min(from));
        let trend = match window {
            0 => 0.0,
            _ => (days[from] - days[from - window]) / window as f64,
        };
        (days[from] + trend * ahead as f64 - days[end]).abs()
    });
    mean(missed).unwrap_or(0.0)
}

/// Whether the last days add next to nothing to what the weeks before did.
fn stalled(days: &[f64]) -> bool {
    let count = days.len();
    if count < 10 {
        return false;
    }
    let of = |days: &[f64]| mean(days.iter().copied()).unwrap_or(0.0);
    let recent = (of(&days[count - 3..]) - of(&days[count - 6..count - 3])) / 3.0;
    let long = count.min(WINDOWS[3]);
    let before = (of(&days[count - 6..count - 3]) - of(&days[count - long..count - long + 3]))
        / (long - 6) as f64;
    before > 0.0 && recent < 0.1 * before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::series::HOUR_MS;

    /// Hourly values, the most of each day at noon.
    fn days(maxima: impl IntoIterator<Item = f64>) -> Series {
        let mut points = Vec::new();
        for (day, most) in (0..).zip(maxima) {
            for hour in 0..24 {
                let share = if hour == 12 { 1.0 } else { 0.5 };
                points.push((day * DAY_MS + hour * HOUR_MS, most * share));
            }
        }
        Series::of(&points, None).unwrap()
    }

    fn wobble(day: i32) -> f64 {
        f64::from(day * 7919 % 13) / 13.0 - 0.5
    }

    #[test]
    fn what_grows_evenly_runs_out_on_the_day() {
        let growing = days((0..28).map(|d| 10.0 + 2.0 * f64::from(d) + wobble(d)));
        // 64 on the last day.
        let found = exhaustion(&growing, 82.0, 0.8).unwrap();
        assert!(found.is_sure() && !found.stalled, "{found:?}");
        let days = found.days.unwrap();
        assert!((7.0..11.0).contains(&days), "{found:?}");
        let (Some(early), Some(late)) = found.between else {
            panic!("{found:?}");
        };
        assert!(early <= days && days <= late, "{found:?}");
        // A limit far away is not reached soon.
        let far = exhaustion(&growing, 200.0, 0.8).unwrap();
        assert!(far.soon < 0.1, "{far:?}");
        assert!(far.days.unwrap() > 40.0, "{far:?}");
    }

    #[test]
    fn what_only_wavers_is_no_alarm() {
        let level = days((0..40).map(|d| 50.0 + 4.0 * wobble(d)));
        let found = exhaustion(&level, 70.0, 0.8).unwrap();
        assert!(!found.is_sure(), "{found:?}");
        let falling = days((0..40).map(|d| 100.0 - f64::from(d) + wobble(d)));
        let found = exhaustion(&falling, 110.0, 0.8).unwrap();
        assert!(found.soon < 0.1 && found.days.is_none(), "{found:?}");
    }

    #[test]
    fn growth_that_stopped_is_not_carried_on() {
        let stopped = |d: i32| 10.0 + 2.0 * f64::from(d.min(22));
        let found = exhaustion(&days((0..28).map(stopped)), 64.0, 0.8).unwrap();
        assert!(found.stalled && !found.is_sure(), "{found:?}");
    }

    #[test]
    fn what_has_run_out_has() {
        let full = days((0..10).map(|d| 10.0 + f64::from(d)));
        let found = exhaustion(&full, 15.0, 0.8).unwrap();
        assert_eq!((found.days, found.soon > 0.99), (Some(0.0), true));
    }

    #[test]
    fn few_days_say_nothing() {
        assert_eq!(exhaustion(&days([1.0, 2.0, 3.0]), 9.0, 0.8), None);
        let constant = exhaustion(&days([5.0; 4]), 9.0, 0.8).unwrap();
        assert_eq!((constant.days, constant.growth), (None, 0.0));
    }
}
