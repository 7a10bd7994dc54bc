//! When a limit counts as exceeded, and by what.

/// Measured use opens a violation from this many thousandths of the limit on: readings of a container
/// held at its cap waver by a few percent. One that is open ends at the limit itself.
const OPENS_PERMILLE: u64 = 1050;

/// Whether measured use is over a limit, given that it was or was not when last measured.
#[must_use]
pub fn exceeds(limit: u64, used: u64, is_open: bool) -> bool {
    let permille = if is_open { 1000 } else { OPENS_PERMILLE };
    u128::from(used) * 1000 > u128::from(limit) * u128::from(permille)
}

/// What exceeds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ViolationKind {
    /// Charges.
    Reserved,
    /// Measured use.
    Used,
    /// The kernel's cap, which what is below it keeps up.
    Held,
    /// Nothing: the kernel throttles at the cap, or kills.
    Throttled,
}

impl ViolationKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Reserved, Self::Used, Self::Held, Self::Throttled];

    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Used => "used",
            Self::Held => "held",
            Self::Throttled => "throttled",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wavers_about_the_limit_neither_opens_nor_closes() {
        for (used, is_open, over) in [
            (1000, false, false),
            (1050, false, false),
            (1051, false, true),
            (1050, true, true),
            (1001, true, true),
            (1000, true, false),
        ] {
            assert_eq!(exceeds(1000, used, is_open), over, "{used} {is_open}");
        }
        assert!(!exceeds(u64::MAX, u64::MAX, true));
        assert!(exceeds(0, 1, false));
    }
}
