//! The life of a charge: reserve, act, commit or void.

use serde::{Deserialize, Serialize};

use crate::dimension::Amounts;

/// Where a reservation stands. What it charges follows from this and from its claim alone, so a
/// counter can always be explained by the rows behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Charged; the engine call is under way, or a platform holds it until it commits.
    Pending,
    /// Bound to a container that runs or may run.
    Active,
    /// The container exists and will not run by itself: only what exists is charged.
    Stopped,
    /// The container is gone. Final.
    Released,
    /// The container never came to be. Final.
    Void,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Active,
        Self::Stopped,
        Self::Released,
        Self::Void,
    ];

    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Stopped => "stopped",
            Self::Released => "released",
            Self::Void => "void",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Whether nothing can change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Released | Self::Void)
    }

    /// What a reservation in this state charges for `claim`.
    #[must_use]
    pub fn charge(self, claim: &Amounts) -> Amounts {
        match self {
            Self::Pending | Self::Active => *claim,
            Self::Stopped => claim.without_runtime(),
            Self::Released | Self::Void => Amounts::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dimension::Dimension;

    #[test]
    fn charges_follow_the_state() {
        let claim = Amounts::ZERO
            .with(Dimension::Memory, 5)
            .with(Dimension::Storage, 3);
        assert_eq!(State::Pending.charge(&claim), claim);
        assert_eq!(State::Active.charge(&claim), claim);
        assert_eq!(
            State::Stopped.charge(&claim),
            Amounts::ZERO.with(Dimension::Storage, 3)
        );
        assert_eq!(State::Released.charge(&claim), Amounts::ZERO);
        assert_eq!(State::Void.charge(&claim), Amounts::ZERO);
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
        }
    }
}
