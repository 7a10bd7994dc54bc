//! What use will be, with how sure that is.
//!
//! A combination of simple forecasters, weighted by how well each would have done lately. Combinations
//! beat their parts (Bates and Granger, "The combination of forecasts", 1969; the M4 competition, 2018),
//! and use of machines is bursty enough that models with a trend lose to what was usual at this hour.
//! Intervals are what such forecasts missed by at the same distance, each judged by weights that did not
//! know it.

use super::profile::usual;
use super::series::{DAY_MS, HOUR_MS, Series};
use super::stats::{known, line, mean, median, persistence, quantile};

/// Days of history that a forecast looks at.
const WINDOW_DAYS: i64 = 28;

/// Forecasts of the past that weights are made of; more where they are short.
const FOLDS: usize = 10;
const FOLDS_SHORT: usize = 24;
const SHORT_MS: i64 = 3 * DAY_MS;

/// Weights are the errors, the best's being one, to minus this.
const SHARPNESS: i32 = 4;

/// Who is worth less than this beside the best does not count.
const WEIGHT_MIN: f64 = 0.5;

/// Up to where errors are of one kind, in hours ahead.
const BUCKETS_H: [i64; 7] = [3, 12, 24, 72, 168, 336, i64::MAX / HOUR_MS];

/// From here on how far use strayed at all belongs to what may come.
const STRAYS_FROM_MS: i64 = DAY_MS;

/// Of what the tails of a few weeks' misses hold, so much is outside: weeks to come are not all like them.
const NARROW: f64 = 0.7;

/// The most steps ahead.
pub const HORIZON_MAX: usize = 10_000;

/// One of the forecasters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// As it is now.
    Last,
    /// The last day's average.
    MeanDay,
    /// The last seven days' average.
    MeanWeek,
    /// The last seven days' median.
    MedianWeek,
    /// The average of all.
    Mean,
    /// What is usual at this hour.
    Daily,
    /// What is usual at this hour of this weekday.
    Weekly,
    /// The same, and that much more or less than usual as now, fading.
    DailyFading,
    /// As [`DailyFading`](Self::DailyFading), by weekday.
    WeeklyFading,
    /// The average, and that much more or less as now, fading.
    Fading,
    /// A line through the window.
    Trend,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Last,
        Self::MeanDay,
        Self::MeanWeek,
        Self::MedianWeek,
        Self::Mean,
        Self::Daily,
        Self::Weekly,
        Self::DailyFading,
        Self::WeeklyFading,
        Self::Fading,
        Self::Trend,
    ];

    /// Its name in an answer.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Last => "last value",
            Self::MeanDay => "mean of a day",
            Self::MeanWeek => "mean of 7 days",
            Self::MedianWeek => "median of 7 days",
            Self::Mean => "mean",
            Self::Daily => "daily profile",
            Self::Weekly => "weekly profile",
            Self::DailyFading => "daily profile, AR(1)",
            Self::WeeklyFading => "weekly profile, AR(1)",
            Self::Fading => "AR(1)",
            Self::Trend => "trend",
        }
    }
}

/// What is expected of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When it begins, Unix milliseconds.
    pub at_ms: i64,
    /// What is expected.
    pub value: f64,
    /// Between which it will be, as often as was asked; `None` of a single value, which says nothing
    /// about how far it moves.
    pub between: Option<(f64, f64)>,
}

/// A forecast.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Step by step.
    pub points: Vec<Point>,
    /// Who it was made by, and how much each counts; together one.
    pub methods: Vec<(Method, f64)>,
    /// How many values it rests on.
    pub known: usize,
    /// How many forecasts of the past it was judged by; with none it is a guess.
    pub folds: usize,
}

/// Forecasts `horizon` steps ([`HORIZON_MAX`] at most) beyond the end. `level` is how often the interval
/// shall hold, between 0 and 1.
#[must_use]
pub fn forecast(series: &Series, horizon: usize, level: f64) -> Forecast {
    let horizon = horizon.min(HORIZON_MAX);
    let past = Past::of(series);
    let folds = past.folds(horizon);
    let errors: Vec<Vec<Option<f64>>> = folds.iter().map(Fold::errors).collect();
    let weights = match folds.is_empty() {
        true => guessing(),
        false => weights(&errors, None),
    };
    let ahead = past.forecasts(past.values.len(), horizon);
    let values = combined(&ahead, &weights, horizon, past.level());

    let misses = past.misses(&folds, &errors);
    let strays = past.strays();
    let floor = match known(past.values).all(|v| v >= 0.0) {
        true => 0.0,
        false => f64::NEG_INFINITY,
    };
    let tail = (1.0 - level.clamp(0.0, 1.0)) / 2.0 * NARROW;
    let mut edges: Vec<Option<(f64, f64)>> = Vec::with_capacity(BUCKETS_H.len());
    for (bucket, misses) in misses.iter().enumerate() {
        let begins = if bucket == 0 {
            0
        } else {
            BUCKETS_H[bucket - 1] * HOUR_MS
        };
        let mut pool = misses.clone();
        if begins >= STRAYS_FROM_MS || pool.is_empty() {
            pool.extend(&strays);
        }
        let low = quantile(&mut pool, tail);
        edges.push(low.zip(quantile(&mut pool, 1.0 - tail)));
    }
    let points = values.into_iter().enumerate().map(|(step, value)| {
        let value = value.max(floor);
        let edge = edges[bucket(series.step_ms(), step)];
        Point {
            at_ms: series.at_ms(past.skipped + past.values.len() + step),
            value,
            between: edge.map(|(low, high)| {
                (
                    (value + low).min(value).max(floor),
                    (value + high).max(value),
                )
            }),
        }
    });
    let methods = Method::ALL
        .into_iter()
        .zip(weights)
        .filter(|(_, weight)| *weight > 0.0);
    Forecast {
        points: points.collect(),
        methods: methods.collect(),
        known: series.known(),
        folds: folds.len(),
    }
}

/// Which bucket a step ahead is in; the first is step 0.
fn bucket(step_ms: i64, step: usize) -> usize {
    let ahead = step_ms.saturating_mul(i64::try_from(step).unwrap_or(i64::MAX));
    let found = BUCKETS_H
        .iter()
        .position(|hours| ahead < hours.saturating_mul(HOUR_MS));
    found.unwrap_or(BUCKETS_H.len() - 1)
}

/// Without a past to be judged by: half as it is, half as it was.
fn guessing() -> Vec<f64> {
    let half = |m: &Method| matches!(m, Method::Last | Method::Mean);
    Method::ALL
        .iter()
        .map(|m| if half(m) { 0.5 } else { 0.0 })
        .collect()
}

/// How much each method counts by its mean error over the folds, without the one `but`.
fn weights(errors: &[Vec<Option<f64>>], but: Option<usize>) -> Vec<f64> {
    let of = |method: usize| {
        let others = errors
            .iter()
            .enumerate()
            .filter(|(fold, _)| Some(*fold) != but);
        // Who could not forecast one of them is not compared with those who could.
        let all: Option<Vec<f64>> = others.map(|(_, of)| of[method]).collect();
        all.and_then(|all| mean(all.into_iter()))
    };
    let errors: Vec<Option<f64>> = (0..Method::ALL.len()).map(of).collect();
    let Some(best) = errors.iter().flatten().copied().min_by(f64::total_cmp) else {
        return guessing();
    };
    let worth = |error: &Option<f64>| match error {
        Some(error) if *error <= best => 1.0,
        Some(error) => (best / error).powi(SHARPNESS),
        None => 0.0,
    };
    let mut worth: Vec<f64> = errors.iter().map(worth).collect();
    for weight in &mut worth {
        if *weight < WEIGHT_MIN {
            *weight = 0.0;
        }
    }
    let total: f64 = worth.iter().sum();
    worth.iter().map(|weight| weight / total).collect()
}

/// The weighted average of the forecasts there are.
fn combined(ahead: &Ahead, weights: &[f64], horizon: usize, otherwise: f64) -> Vec<f64> {
    let mut values = vec![0.0; horizon];
    let mut total = 0.0;
    for (forecast, weight) in ahead.iter().zip(weights) {
        let (Some(forecast), true) = (forecast, *weight > 0.0) else {
            continue;
        };
        for (value, expected) in values.iter_mut().zip(forecast) {
            *value += weight * expected;
        }
        total += weight;
    }
    if total <= 0.0 {
        return vec![otherwise; horizon];
    }
    for value in &mut values {
        *value /= total;
    }
    values
}

/// Each method's values ahead, where it has any.
type Ahead = Vec<Option<Vec<f64>>>;

/// A forecast of the past, and what came.
struct Fold {
    ahead: Ahead,
    came: Vec<f64>,
}

impl Fold {
    /// How far each method was off on average.
    fn errors(&self) -> Vec<Option<f64>> {
        let off = |forecast: &Vec<f64>| {
            let errors = forecast
                .iter()
                .zip(&self.came)
                .map(|(f, came)| (f - came).abs());
            mean(errors.filter(|e| e.is_finite()))
        };
        self.ahead
            .iter()
            .map(|forecast| forecast.as_ref().and_then(off))
            .collect()
    }
}

/// What a forecast looks at.
struct Past<'s> {
    values: &'s [f64],
    /// Steps of the series before these.
    skipped: usize,
    step_ms: i64,
    day: Option<usize>,
    week: Option<usize>,
    /// Steps of the window.
    window: usize,
    /// How far each value was from what is usual by day, and by week.
    unusual: [Option<Vec<f64>>; 2],
}

/// Cycles of a profile, by day and by week.
const CYCLES: [usize; 2] = [7, 4];

impl<'s> Past<'s> {
    fn of(series: &'s Series) -> Self {
        let step_ms = series.step_ms();
        let steps =
            |span_ms: i64| usize::try_from((span_ms / step_ms).max(1)).unwrap_or(usize::MAX);
        let window = steps(WINDOW_DAYS * DAY_MS).max(8);
        // Enough for every fold to have its window.
        let all = series.values();
        let skipped = all.len().saturating_sub(window.saturating_mul(4));
        let values = &all[skipped..];
        let (day, week) = (series.period(DAY_MS), series.period(7 * DAY_MS));
        let unusual = [(day, CYCLES[0]), (week, CYCLES[1])].map(|(period, cycles)| {
            let off = |at: usize, period| values[at] - usual(values, at, at, period, cycles);
            period.map(|period| (0..values.len()).map(|at| off(at, period)).collect())
        });
        Self {
            values,
            skipped,
            step_ms,
            day,
            week,
            window,
            unusual,
        }
    }

    /// About where use is at all: the average of what is known.
    fn level(&self) -> f64 {
        mean(known(self.values)).unwrap_or(0.0)
    }

    /// Forecasts of the past, the latest first.
    fn folds(&self, horizon: usize) -> Vec<Fold> {
        let count = self.values.len();
        let reach = horizon.min(count / 3).max(1);
        let span = self
            .step_ms
            .saturating_mul(i64::try_from(horizon).unwrap_or(i64::MAX));
        let most = if span <= SHORT_MS { FOLDS_SHORT } else { FOLDS };
        let apart = self.day.unwrap_or(1);
        let least = (self.window / 4).min(count / 3).max(2);
        let begins = (0..most).map_while(|fold| {
            let begin = count.checked_sub(reach)?.checked_sub(fold * apart)?;
            (begin >= least).then_some(begin)
        });
        let fold = |begin: usize| {
            let came = self.values[begin..begin + reach].to_vec();
            let ahead = self.forecasts(begin, reach);
            Fold { ahead, came }
        };
        let folds = begins.map(fold);
        folds
            .filter(|fold| fold.came.iter().any(|v| v.is_finite()))
            .collect()
    }

    /// Every method's forecast from the values before `end`.
    fn forecasts(&self, end: usize, horizon: usize) -> Ahead {
        Method::ALL
            .into_iter()
            .map(|method| self.forecast(method, end, horizon))
            .collect()
    }

    fn forecast(&self, method: Method, end: usize, horizon: usize) -> Option<Vec<f64>> {
        let before = &self.values[end.saturating_sub(self.window)..end];
        let recent = |steps: usize| &before[before.len().saturating_sub(steps)..];
        let flat = |value: f64| vec![value; horizon];
        let last = || known(before).last();
        match method {
            Method::Last => last().map(flat),
            Method::MeanDay => mean(known(recent(self.day?))).map(flat),
            Method::MeanWeek => mean(known(recent(self.week?))).map(flat),
            Method::MedianWeek => {
                let mut values: Vec<f64> = known(recent(self.week?)).collect();
                median(&mut values).map(flat)
            }
            Method::Mean => mean(known(before)).map(flat),
            Method::Daily => self.profile(0, self.day?, end, horizon),
            Method::Weekly => self.profile(1, self.week?, end, horizon),
            Method::DailyFading => self.fading_profile(0, self.day?, end, horizon),
            Method::WeeklyFading => self.fading_profile(1, self.week?, end, horizon),
            Method::Fading => {
                let level = mean(known(before))?;
                let off = last()? - level;
                Some(faded(flat(level), off, persistence(before, level)))
            }
            // Of less it would carry on what is none.
            Method::Trend if before.len() < self.window / 2 => None,
            Method::Trend => {
                let (level, slope) = line(before)?;
                Some(
                    (0..horizon)
                        .map(|step| level + slope * step as f64)
                        .collect(),
                )
            }
        }
    }

    fn profile(&self, which: usize, period: usize, end: usize, horizon: usize) -> Option<Vec<f64>> {
        let one: Vec<f64> = (0..period.min(horizon))
            .map(|step| usual(self.values, end, end + step, period, CYCLES[which]))
            .collect();
        // Hours of which nothing is known are like the others.
        let level = mean(known(&one))?;
        let of = |value: f64| if value.is_finite() { value } else { level };
        Some((0..horizon).map(|step| of(one[step % period])).collect())
    }

    fn fading_profile(
        &self,
        which: usize,
        period: usize,
        end: usize,
        horizon: usize,
    ) -> Option<Vec<f64>> {
        let profile = self.profile(which, period, end, horizon)?;
        let unusual = &self.unusual[which].as_ref()?[end.saturating_sub(self.window)..end];
        let off = known(unusual).last()?;
        Some(faded(profile, off, persistence(unusual, 0.0)))
    }

    /// What the combination missed by in each fold and bucket, weighted by the other folds.
    fn misses(&self, folds: &[Fold], errors: &[Vec<Option<f64>>]) -> Vec<Vec<f64>> {
        let mut misses = vec![Vec::new(); BUCKETS_H.len()];
        for (index, fold) in folds.iter().enumerate() {
            let but = (folds.len() > 1).then_some(index);
            let weights = weights(errors, but);
            let expected = combined(&fold.ahead, &weights, fold.came.len(), self.level());
            for (step, (came, expected)) in fold.came.iter().zip(expected).enumerate() {
                if came.is_finite() {
                    misses[bucket(self.step_ms, step)].push(came - expected);
                }
            }
        }
        // Farther than was ever forecast it is no better than the farthest.
        for bucket in 1..misses.len() {
            if misses[bucket].is_empty() {
                misses[bucket] = misses[bucket - 1].clone();
            }
        }
        misses
    }

    /// How far each value of the window was from what was usual at its time, or from their average: by
    /// whatever explains most of them.
    fn strays(&self) -> Vec<f64> {
        let begin = self.values.len().saturating_sub(self.window);
        let window = &self.values[begin..];
        let Some(level) = mean(known(window)) else {
            return Vec::new();
        };
        let off: Vec<f64> = known(window).map(|v| v - level).collect();
        let by_profile = self.unusual.iter().flatten();
        let by_profile = by_profile.map(|all| known(&all[begin..]).collect::<Vec<f64>>());
        let enough = |all: &Vec<f64>| all.len() > 1 && 2 * all.len() >= off.len();
        let spread = |all: &Vec<f64>| mean(all.iter().map(|v| v.abs())).unwrap_or(0.0);
        let all = by_profile.chain([off.clone()]).filter(enough);
        all.min_by(|a, b| spread(a).total_cmp(&spread(b)))
            .unwrap_or_default()
    }
}

/// Adds `off`, of which so much is left after each step.
fn faded(mut values: Vec<f64>, mut off: f64, persistence: f64) -> Vec<f64> {
    for value in &mut values {
        off *= persistence;
        *value += off;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::stats::Draws;

    fn hourly(values: impl IntoIterator<Item = f64>) -> Series {
        let points: Vec<(i64, f64)> = (0..).map(|h: i64| h * HOUR_MS).zip(values).collect();
        Series::of(&points, Some(HOUR_MS)).unwrap()
    }

    /// From -1 to 1, about evenly.
    fn noise(seed: u64) -> impl Iterator<Item = f64> {
        let mut draws = Draws(seed);
        std::iter::repeat_with(move || draws.below(2001) as f64 / 1000.0 - 1.0)
    }

    /// Busy by day, more so on some weekdays, with noise.
    fn working(hours: usize, seed: u64) -> Vec<f64> {
        let shape = |h: usize| {
            let of_day = ((h % 24) as f64 / 24.0 * std::f64::consts::TAU)
                .sin()
                .max(0.0);
            let weekday = if h / 24 % 7 < 5 { 4.0 } else { 1.0 };
            2.0 + weekday * of_day
        };
        (0..hours)
            .zip(noise(seed))
            .map(|(h, noise)| shape(h) + 0.3 * noise)
            .collect()
    }

    fn off(forecast: &Forecast, came: &[f64]) -> f64 {
        let errors = forecast
            .points
            .iter()
            .zip(came)
            .map(|(p, c)| (p.value - c).abs());
        mean(errors).unwrap()
    }

    #[test]
    fn a_weekly_rhythm_is_followed() {
        let all = working(24 * 56, 1);
        let (past, came) = all.split_at(24 * 42);
        let forecast = forecast(&hourly(past.iter().copied()), 24 * 14, 0.8);
        let naive: Vec<f64> = (0..came.len())
            .map(|h| past[past.len() - 168 + h % 168])
            .collect();
        let errors = naive.iter().zip(came).map(|(n, c)| (n - c).abs());
        let naive = mean(errors).unwrap();
        // Averaging four weeks halves the noise of one.
        assert!(
            off(&forecast, came) < 0.85 * naive,
            "{} {naive}",
            off(&forecast, came)
        );
        let weekly = |m: &Method| matches!(m, Method::Weekly | Method::WeeklyFading);
        assert!(
            forecast.methods.iter().all(|(m, _)| weekly(m)),
            "{:?}",
            forecast.methods
        );
        let total: f64 = forecast.methods.iter().map(|(_, w)| w).sum();
        assert!((total - 1.0).abs() < 1e-9);
        assert_eq!(forecast.points[0].at_ms, 24 * 42 * HOUR_MS);
    }

    #[test]
    fn intervals_hold_about_as_often_as_they_say() {
        let (mut held, mut all) = (0, 0);
        for seed in 0..30 {
            let hours = working(24 * 56, seed);
            let (past, came) = hours.split_at(24 * 42);
            let forecast = forecast(&hourly(past.iter().copied()), came.len(), 0.8);
            for (point, came) in forecast.points.iter().zip(came) {
                let (low, high) = point.between.unwrap();
                assert!(low <= point.value && point.value <= high);
                held += usize::from((low..=high).contains(came));
                all += 1;
            }
        }
        let share = held as f64 / all as f64;
        assert!((0.75..0.97).contains(&share), "{share}");
    }

    #[test]
    fn a_shift_of_level_is_believed_at_once() {
        let before = noise(3).take(24 * 30).map(|n| 2.0 + 0.1 * n);
        let after = noise(4).take(24 * 2).map(|n| 8.0 + 0.1 * n);
        let forecast = forecast(&hourly(before.chain(after)), 24, 0.8);
        assert!(
            off(&forecast, &[8.0; 24]) < 1.5,
            "{:?}",
            forecast.points[23]
        );
    }

    #[test]
    fn little_is_known_of_little() {
        let one = forecast(&hourly([5.0]), 3, 0.8);
        assert_eq!(one.points.len(), 3);
        assert!(
            one.points
                .iter()
                .all(|p| p.between.is_none() && (p.value - 5.0).abs() < 1e-9)
        );
        assert_eq!(one.folds, 0);

        let three = forecast(&hourly([1.0, 2.0, 3.0]), 24 * 14, 0.8);
        for point in &three.points {
            let (low, high) = point.between.unwrap();
            assert!(
                low < high && (1.0..=3.0).contains(&point.value),
                "{point:?}"
            );
        }
    }

    #[test]
    fn what_never_moves_is_not_expected_to() {
        for value in [0.0, 7.5, -3.0] {
            let forecast = forecast(&hourly(vec![value; 24 * 30]), 48, 0.9);
            for point in &forecast.points {
                assert!((point.value - value).abs() < 1e-9, "{point:?}");
                let (low, high) = point.between.unwrap();
                assert!((low - value).abs() < 1e-9 && (high - value).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn gaps_are_not_zeros_and_use_is_never_negative() {
        let with_gaps = working(24 * 35, 5).into_iter().enumerate();
        let with_gaps = with_gaps.map(|(h, v)| if h % 5 == 0 { f64::NAN } else { v });
        let forecast = forecast(&hourly(with_gaps), 24 * 7, 0.95);
        assert!(forecast.points.iter().all(|p| p.value > 1.0));
        let bursts = noise(6)
            .take(24 * 35)
            .map(|n| if n > 0.9 { 50.0 } else { 0.0 });
        let forecast = super::forecast(&hourly(bursts), 24, 0.99);
        let positive = |p: &Point| p.between.is_some_and(|(low, _)| low >= 0.0);
        assert!(forecast.points.iter().all(positive));
    }

    #[test]
    fn days_have_weeks() {
        let days = (0..120).map(|d| (d * DAY_MS, if d % 7 < 5 { 10.0 } else { 1.0 }));
        let series = Series::of(&days.collect::<Vec<_>>(), None).unwrap();
        let forecast = forecast(&series, 14, 0.8);
        for (day, point) in (120..).zip(&forecast.points) {
            let came = if day % 7 < 5 { 10.0 } else { 1.0 };
            assert!((point.value - came).abs() < 0.5, "{day} {point:?}");
        }
    }
}
