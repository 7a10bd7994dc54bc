//! What may be used up in a day, a week or a month.

use crate::dimension::Dimension;

/// After what a budget begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// Midnight.
    Day,
    /// The midnight before a Monday.
    Week,
    /// The midnight before a first.
    Month,
}

/// The dimensions that are used up.
pub const BUDGETS: [Dimension; 8] = [
    Dimension::Runtime,
    Dimension::CoreHoursDay,
    Dimension::CoreHoursWeek,
    Dimension::CoreHoursMonth,
    Dimension::GibHoursDay,
    Dimension::GibHoursWeek,
    Dimension::GibHoursMonth,
    Dimension::TransferMonth,
];

/// The period of a budget; `None` of what is no budget.
#[must_use]
pub const fn period(dimension: Dimension) -> Option<Period> {
    use Dimension as D;
    match dimension {
        D::Runtime | D::CoreHoursDay | D::GibHoursDay => Some(Period::Day),
        D::CoreHoursWeek | D::GibHoursWeek => Some(Period::Week),
        D::CoreHoursMonth | D::GibHoursMonth | D::TransferMonth => Some(Period::Month),
        _ => None,
    }
}

/// The limit of a budget; a day that may be run through is none, however long the day is.
#[must_use]
pub fn limit(dimension: Dimension, limit: Option<u64>) -> Option<u64> {
    limit.filter(|most| dimension != Dimension::Runtime || *most < 24 * 3600)
}

/// What was used since counting began, or what is used in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Time in which anything ran, milliseconds.
    pub runtime_ms: u64,
    /// CPU time, nanoseconds.
    pub cpu_ns: u64,
    /// Working set over time, byte-milliseconds.
    pub memory_byte_ms: u128,
    /// Sent and received, bytes.
    pub transfer_bytes: u64,
}

impl Used {
    /// In a budget's dimension: an amount, and how much of it is one ledger unit.
    const fn parts(&self, dimension: Dimension) -> (u128, u128) {
        use Dimension as D;
        match dimension {
            D::Runtime => (self.runtime_ms as u128, 1000),
            D::CoreHoursDay | D::CoreHoursWeek | D::CoreHoursMonth => {
                (self.cpu_ns as u128, 3_600_000_000)
            }
            D::GibHoursDay | D::GibHoursWeek | D::GibHoursMonth => {
                (self.memory_byte_ms, 3600 << 30)
            }
            D::TransferMonth => (self.transfer_bytes as u128, 1),
            _ => (0, 1),
        }
    }

    /// Whole ledger units of a budget's dimension.
    #[must_use]
    pub fn amount(&self, dimension: Dimension) -> u64 {
        let (amount, unit) = self.parts(dimension);
        u64::try_from(amount / unit).unwrap_or(u64::MAX)
    }

    /// How many seconds `left` lasts where this is used in each; `None` where nothing is.
    #[must_use]
    pub fn lasts_s(&self, dimension: Dimension, left: u64) -> Option<u64> {
        let (each, unit) = self.parts(dimension);
        let lasts = (u128::from(left) * unit).checked_div(each)?;
        u64::try_from(lasts).ok()
    }
}

/// People are told when so many percent are used.
const TELLS: [u32; 2] = [90, 80];

/// How many percent people are to be told of, if any.
#[must_use]
pub fn tells(limit: u64, used: u64) -> Option<u32> {
    let reached =
        |percent: &u32| u128::from(used) * 100 >= u128::from(limit) * u128::from(*percent);
    TELLS.into_iter().find(reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Used = Used {
        runtime_ms: 3_600_000,
        cpu_ns: 3_600_000_000_000,
        memory_byte_ms: 3_600_000 << 30,
        transfer_bytes: 3600,
    };

    #[test]
    fn an_hour_is_an_hour_in_every_budget() {
        for d in BUDGETS {
            let (hour, left) = match d {
                Dimension::Runtime | Dimension::TransferMonth => (3600, 1800),
                _ => (1000, 500),
            };
            assert_eq!(HOUR.amount(d), hour, "{d}");
            let second = Used {
                runtime_ms: 1000,
                cpu_ns: 1_000_000_000,
                memory_byte_ms: 1000 << 30,
                transfer_bytes: 1,
            };
            assert_eq!(second.lasts_s(d, left), Some(1800), "{d}");
            assert_eq!(Used::default().lasts_s(d, left), None, "{d}");
            assert!(period(d).is_some(), "{d}");
        }
        let budgets = Dimension::ALL.into_iter().filter(|d| period(*d).is_some());
        assert_eq!(budgets.count(), BUDGETS.len());
    }

    #[test]
    fn a_whole_day_is_no_limit_and_the_ends_are_told() {
        assert_eq!(limit(Dimension::Runtime, Some(24 * 3600)), None);
        assert_eq!(limit(Dimension::Runtime, Some(3600)), Some(3600));
        assert_eq!(limit(Dimension::CoreHoursDay, Some(1 << 30)), Some(1 << 30));
        for (used, told) in [(79, None), (80, Some(80)), (89, Some(80)), (90, Some(90))] {
            assert_eq!(tells(100, used), told, "{used}");
        }
        assert_eq!(tells(0, 0), Some(90), "nothing is left of nothing");
    }
}
