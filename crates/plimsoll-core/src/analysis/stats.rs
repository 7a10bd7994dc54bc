//! Small sums. `NaN` is a gap everywhere.

/// The known ones.
pub(super) fn known(values: &[f64]) -> impl Iterator<Item = f64> + '_ {
    values.iter().copied().filter(|v| v.is_finite())
}

/// The average; `None` of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0_u32), |(sum, n), v| (sum + v, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

/// The value below which this share of the others is, between neighbours by their distance; reorders
/// them. `None` of nothing.
pub(super) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let at = share.clamp(0.0, 1.0) * last as f64;
    let below = at.floor() as usize;
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    Some(low + (high - low) * (at - below as f64))
}

/// The middle one; reorders them.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// Like [`quantile`], where each value counts by its weight. `None` of nothing, or of no weight.
pub(super) fn weighted_quantile(values: &mut [(f64, f64)], share: f64) -> Option<f64> {
    values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = values.iter().map(|v| v.1).sum();
    if total <= 0.0 {
        return None;
    }
    let mut sum = 0.0;
    let reached = values.iter().find(|(_, weight)| {
        sum += weight;
        sum >= share * total
    });
    reached.or(values.last()).map(|v| v.0)
}

/// How much of one value's distance from `mean` is in the next one: the autocorrelation at one step,
/// from 0 to just under 1.
pub(super) fn persistence(values: &[f64], mean: f64) -> f64 {
    let (mut with_next, mut alone) = (0.0, 0.0);
    for pair in values.windows(2) {
        let (one, next) = (pair[0] - mean, pair[1] - mean);
        if one.is_finite() && next.is_finite() {
            with_next += one * next;
            alone += one * one;
        }
    }
    if alone <= 0.0 {
        return 0.0;
    }
    (with_next / alone).clamp(0.0, 0.999)
}

/// The line that leaves the least squares: where it is one step beyond the last value, and its slope.
/// `None` of fewer than two values.
pub(super) fn line(values: &[f64]) -> Option<(f64, f64)> {
    let known = || values.iter().enumerate().filter(|(_, v)| v.is_finite());
    let at = mean(known().map(|(at, _)| at as f64))?;
    let level = mean(known().map(|(_, v)| *v))?;
    let (mut together, mut alone) = (0.0, 0.0);
    for (step, value) in known() {
        let off = step as f64 - at;
        together += off * (value - level);
        alone += off * off;
    }
    if alone <= 0.0 {
        return None;
    }
    let slope = together / alone;
    Some((level + slope * (values.len() as f64 - at), slope))
}

/// Pseudo-random numbers of which the same seed gives the same ones: `SplitMix64` (Steele, Lea, Flood,
/// "Fast splittable pseudorandom number generators", 2014).
pub(super) struct Draws(pub(super) u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `0..count`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&mut values, 0.0), Some(1.0));
        assert_eq!(quantile(&mut values, 0.5), Some(2.5));
        assert_eq!(quantile(&mut values, 1.0), Some(4.0));
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(quantile(&mut [7.0], 0.9), Some(7.0));
    }

    #[test]
    fn weights_move_a_quantile() {
        let mut values = [(3.0, 1.0), (1.0, 8.0), (2.0, 1.0)];
        assert_eq!(weighted_quantile(&mut values, 0.5), Some(1.0));
        assert_eq!(weighted_quantile(&mut values, 0.95), Some(3.0));
        assert_eq!(weighted_quantile(&mut [(1.0, 0.0)], 0.5), None);
    }

    #[test]
    fn persistence_tells_noise_from_memory() {
        let alternating = [1.0, -1.0, 1.0, -1.0];
        assert!(persistence(&alternating, 0.0) < 0.01);
        let slow: Vec<f64> = (0..100).map(|i| (f64::from(i) / 10.0).sin()).collect();
        assert!(persistence(&slow, 0.0) > 0.95);
        assert!(persistence(&[2.0, 2.0], 2.0) < 0.01);
        assert!(persistence(&[1.0, f64::NAN, 1.0], 0.0) < 0.01);
    }

    #[test]
    fn a_line_goes_on() {
        let (next, slope) = line(&[1.0, f64::NAN, 5.0, 7.0]).unwrap();
        assert!((next - 9.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9);
        assert_eq!((line(&[]), line(&[3.0, f64::NAN])), (None, None));
    }

    #[test]
    fn draws_repeat() {
        let ten = || {
            let mut draws = Draws(1);
            (0..10).map(move |_| draws.below(6)).collect::<Vec<_>>()
        };
        assert_eq!(ten(), ten());
        assert!(ten().iter().all(|d| *d < 6));
    }
}
