//! Values at equal steps of time, made of points as they come.

/// One hour.
pub const HOUR_MS: i64 = 3_600_000;

/// One day.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// The most steps a series may have; at a step of a minute, nearly four years.
pub const STEPS_MAX: usize = 2_000_000;

/// Why points make no series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// There is no finite value.
    #[error("there is no value in it")]
    Empty,
    /// The times are too far apart for their step.
    #[error("it spans {steps} steps of {} s, and {STEPS_MAX} is the most", step_ms / 1000)]
    TooLong {
        /// How many steps.
        steps: i64,
        /// Their length.
        step_ms: i64,
    },
}

/// Values at equal steps; a gap is `NaN`.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    start_ms: i64,
    step_ms: i64,
    values: Vec<f64>,
}

impl Series {
    /// Of points in any order: Unix milliseconds and a value each. Values that are not finite are gaps;
    /// several within a step are averaged. The step is `step_ms`, or what lies between most neighbours;
    /// a single point has steps of an hour.
    ///
    /// # Errors
    /// [`SeriesError`].
    pub fn of(points: &[(i64, f64)], step_ms: Option<i64>) -> Result<Self, SeriesError> {
        let mut points: Vec<(i64, f64)> =
            points.iter().copied().filter(|p| p.1.is_finite()).collect();
        points.sort_unstable_by_key(|p| p.0);
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return Err(SeriesError::Empty);
        };
        let step_ms = step_ms.unwrap_or_else(|| usual_step(&points)).max(1);
        let slot = |at: i64| at.div_euclid(step_ms);
        let begin = slot(first.0);
        let steps = slot(last.0) - begin + 1;
        let count = usize::try_from(steps).unwrap_or(usize::MAX);
        if count > STEPS_MAX {
            return Err(SeriesError::TooLong { steps, step_ms });
        }
        let mut sums = vec![(0.0, 0_u32); count];
        for (at, value) in points {
            let sum = &mut sums[usize::try_from(slot(at) - begin).unwrap_or(0)];
            *sum = (sum.0 + value, sum.1 + 1);
        }
        let mean = |(sum, n): (f64, u32)| if n == 0 { f64::NAN } else { sum / f64::from(n) };
        Ok(Self {
            start_ms: begin * step_ms,
            step_ms,
            values: sums.into_iter().map(mean).collect(),
        })
    }

    /// When the first step begins, Unix milliseconds.
    #[must_use]
    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// The length of a step.
    #[must_use]
    pub fn step_ms(&self) -> i64 {
        self.step_ms
    }

    /// The values, gaps as `NaN`.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// When the step of this number begins, also beyond the end.
    #[must_use]
    pub fn at_ms(&self, step: usize) -> i64 {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.start_ms
            .saturating_add(self.step_ms.saturating_mul(step))
    }

    /// How many values there are, gaps not counted.
    #[must_use]
    pub fn known(&self) -> usize {
        self.values.iter().filter(|v| v.is_finite()).count()
    }

    /// Averages over longer steps, where this one's are shorter.
    #[must_use]
    pub fn coarsened(&self, step_ms: i64) -> Self {
        self.gathered(step_ms, |values| {
            let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
            sum / n
        })
    }

    /// The most of each longer step.
    #[must_use]
    pub fn maxima(&self, step_ms: i64) -> Self {
        self.gathered(step_ms, |values| values.fold(f64::NAN, f64::max))
    }

    fn gathered(&self, step_ms: i64, of: impl Fn(&mut dyn Iterator<Item = f64>) -> f64) -> Self {
        if step_ms <= self.step_ms {
            return self.clone();
        }
        let slot = |step: usize| self.at_ms(step).div_euclid(step_ms);
        let begin = slot(0);
        let mut values = Vec::new();
        let mut from = 0;
        while from < self.values.len() {
            let end = (from..self.values.len())
                .find(|step| slot(*step) != slot(from))
                .unwrap_or(self.values.len());
            let mut known = self.values[from..end]
                .iter()
                .copied()
                .filter(|v| v.is_finite());
            values.push(of(&mut known));
            from = end;
        }
        Self {
            start_ms: begin * step_ms,
            step_ms,
            values,
        }
    }

    /// The last so many steps.
    #[must_use]
    pub fn tail(&self, steps: usize) -> Self {
        let skipped = self.values.len().saturating_sub(steps);
        Self {
            start_ms: self.at_ms(skipped),
            step_ms: self.step_ms,
            values: self.values[skipped..].to_vec(),
        }
    }

    /// Steps in a span; `None` where it is not a whole number of at least two.
    #[must_use]
    pub fn period(&self, span_ms: i64) -> Option<usize> {
        let steps = span_ms / self.step_ms;
        (span_ms % self.step_ms == 0 && steps >= 2).then_some(usize::try_from(steps).ok()?)
    }
}

/// The median of what lies between neighbours at different times.
fn usual_step(sorted: &[(i64, f64)]) -> i64 {
    let gaps = sorted.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let mut gaps: Vec<i64> = gaps.filter(|gap| *gap > 0).collect();
    if gaps.is_empty() {
        return HOUR_MS;
    }
    let middle = gaps.len() / 2;
    *gaps.select_nth_unstable(middle).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_any_order_make_the_same_series() {
        let points = [
            (7_200_000, 3.0),
            (0, 1.0),
            (3_600_000, 2.0),
            (3_600_000, 4.0),
        ];
        let series = Series::of(&points, None).unwrap();
        assert_eq!((series.start_ms(), series.step_ms()), (0, HOUR_MS));
        assert_eq!(series.values(), [1.0, 3.0, 3.0]);
        assert_eq!(series.at_ms(3), 3 * HOUR_MS);
    }

    #[test]
    fn a_gap_is_no_zero() {
        let points = [
            (0, 1.0),
            (1, f64::NAN),
            (2, f64::INFINITY),
            (3, 5.0),
            (4, 6.0),
        ];
        let series = Series::of(&points, Some(1)).unwrap();
        assert_eq!(series.known(), 3);
        assert!(series.values()[1].is_nan() && series.values()[2].is_nan());
        let coarse = series.coarsened(2);
        assert_eq!(coarse.values(), [1.0, 5.0, 6.0]);
        let most = series.maxima(5);
        assert_eq!(most.values(), [6.0]);
    }

    #[test]
    fn what_makes_no_series_is_said() {
        assert_eq!(Series::of(&[], None), Err(SeriesError::Empty));
        assert_eq!(Series::of(&[(0, f64::NAN)], None), Err(SeriesError::Empty));
        let far = [(0, 1.0), (1, 1.0), (2, 1.0), (i64::MAX / 2, 1.0)];
        assert!(matches!(
            Series::of(&far, None),
            Err(SeriesError::TooLong { .. })
        ));
    }

    #[test]
    fn longer_steps_begin_where_they_would_for_everybody() {
        let points: Vec<(i64, f64)> = (0..48).map(|h| ((h + 30) * HOUR_MS, h as f64)).collect();
        let days = Series::of(&points, None).unwrap().maxima(DAY_MS);
        assert_eq!(days.start_ms(), DAY_MS);
        assert_eq!(days.values(), [17.0, 41.0, 47.0]);
        assert_eq!(days.tail(2).values(), [41.0, 47.0]);
        assert_eq!(days.tail(2).start_ms(), 2 * DAY_MS);
        assert_eq!(days.period(7 * DAY_MS), Some(7));
        assert_eq!(days.period(DAY_MS), None);
    }
}
