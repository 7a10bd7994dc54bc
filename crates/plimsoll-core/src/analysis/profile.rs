//! What is usual at this hour, or at this hour of this weekday.

/// By how much each older cycle counts less.
const FADE: f64 = 0.8;

/// The weighted average of the values that lie whole cycles before step `at`, of those before `end`; the
/// last `cycles` of them, each older one counting less. `at` may be before or beyond `end`. `NaN` where
/// none is known.
pub(super) fn usual(values: &[f64], end: usize, at: usize, period: usize, cycles: usize) -> f64 {
    // The first cycle back that is before the end, and before the step itself.
    let first = if at < end { 1 } else { (at - end) / period + 1 };
    let (mut sum, mut weights, mut weight) = (0.0, 0.0, 1.0);
    for back in first..first + cycles {
        let Some(then) = at.checked_sub(back * period) else {
            break;
        };
        let value = values[then];
        if value.is_finite() {
            sum += weight * value;
            weights += weight;
        }
        weight *= FADE;
    }
    if weights > 0.0 {
        sum / weights
    } else {
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_is_of_whole_cycles_before() {
        let values = [1.0, 10.0, 2.0, 20.0, 4.0, f64::NAN];
        // One cycle of two steps back, then two.
        assert!((usual(&values, 6, 6, 2, 1) - 4.0).abs() < 1e-9);
        assert!((usual(&values, 6, 6, 2, 2) - (4.0 + 0.8 * 2.0) / 1.8).abs() < 1e-9);
        // Far beyond the end the last known cycles count, gaps do not.
        assert!((usual(&values, 6, 107, 2, 2) - 20.0).abs() < 1e-9);
        // Within, only what was before.
        assert!((usual(&values, 6, 2, 2, 7) - 1.0).abs() < 1e-9);
        assert!(usual(&values, 6, 0, 2, 7).is_nan());
    }
}
