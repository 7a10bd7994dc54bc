//! How long to wait before another try.

/// The wait after so many failures: twice as long each time, up to `max_ms`, of which half to all is
/// taken, as `random` says, so that what failed together does not come back together.
#[must_use]
pub fn wait_ms(failures: u32, first_ms: u64, max_ms: u64, random: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(63);
    let whole = u128::from(first_ms) << doublings;
    let whole = u64::try_from(whole).unwrap_or(u64::MAX).min(max_ms);
    let half = whole / 2;
    let part = u128::from(whole - half) * u128::from(random) / u128::from(u32::MAX);
    half + u64::try_from(part).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_differ() {
        for (failures, whole) in [(0, 1000), (1, 1000), (2, 2000), (4, 8000), (99, 60_000)] {
            assert_eq!(wait_ms(failures, 1000, 60_000, u32::MAX), whole);
            assert_eq!(wait_ms(failures, 1000, 60_000, 0), whole / 2);
        }
        assert_eq!(wait_ms(u32::MAX, u64::MAX, u64::MAX, u32::MAX), u64::MAX);
    }
}
