//! What a member of a team could still reserve.
//!
//! The server decides, under the rules of `plimsoll_core::admit`; this only says beforehand what
//! that decision will be, from figures the API shows. It does not know the host's own limits.

use plimsoll_core::{Dimension, Limit};
use serde_json::Value;

use super::amounts::{charged, limit};

/// A member's place in a team, in one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Charged to the member here.
    pub(super) reserved: u64,
    /// Theirs alone.
    pub(super) allotment: Limit,
    /// How far they may reach into the pool.
    pub(super) borrow: Limit,
    /// What the whole team may reserve.
    pub(super) team_limit: Limit,
    /// What it has reserved.
    pub(super) team_reserved: u64,
    /// What no allotment takes.
    pub(super) pool: Limit,
    /// What all members together hold above their allotments.
    pub(super) borrowed: u64,
}

impl Place {
    /// Out of the API's member and the team's quota. The overcommit factor widens every limit.
    #[must_use]
    pub(super) fn read(member: &Value, quota: &Value, d: Dimension) -> Self {
        let permille = quota["overcommit"]
            .as_f64()
            .map_or(1000, |f| (f * 1000.0).round() as u32);
        let wide = |of: &Value| limit(of, d).times_permille(permille);
        Self {
            reserved: charged(&member["reserved"], "", d).unwrap_or(0),
            allotment: wide(&member["effectiveAllotment"]),
            borrow: wide(&member["borrowLimit"]),
            team_limit: wide(&quota["effective"]),
            team_reserved: charged(quota, "reserved", d).unwrap_or(0),
            pool: wide(&quota["sharedPool"]),
            borrowed: charged(&quota["borrowed"], "", d).unwrap_or(0),
        }
    }

    /// What a claim may ask at most: the rest of the allotment and what the pool still gives, within
    /// what the team has left.
    #[must_use]
    pub(super) fn free(&self) -> Limit {
        let left = |limit: Limit, taken: u64| match limit {
            Limit::Unlimited => Limit::Unlimited,
            Limit::AtMost(most) => Limit::AtMost(most.saturating_sub(taken)),
        };
        let own = left(self.allotment, self.reserved);
        let over = match self.allotment {
            Limit::Unlimited => 0,
            Limit::AtMost(most) => self.reserved.saturating_sub(most),
        };
        let from_pool = left(self.pool, self.borrowed).min(left(self.borrow, over));
        let reach = match (own, from_pool) {
            (Limit::AtMost(own), from_pool) => from_pool.plus(own),
            (Limit::Unlimited, _) => Limit::Unlimited,
        };
        reach.min(left(self.team_limit, self.team_reserved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_what_admission_would_allow() {
        let at = Limit::AtMost;
        let base = Place {
            reserved: 0,
            allotment: at(4),
            borrow: at(2),
            team_limit: at(10),
            team_reserved: 0,
            pool: at(6),
            borrowed: 0,
        };
        for (place, free) in [
            (base, 6),
            // Something of the allotment is taken.
            (
                Place {
                    reserved: 3,
                    team_reserved: 3,
                    ..base
                },
                3,
            ),
            // Over the allotment already.
            (
                Place {
                    reserved: 5,
                    team_reserved: 5,
                    borrowed: 1,
                    ..base
                },
                1,
            ),
            // The others have emptied the pool.
            (
                Place {
                    borrowed: 6,
                    team_reserved: 6,
                    ..base
                },
                4,
            ),
            // The pool is what bounds.
            (
                Place {
                    borrowed: 5,
                    team_reserved: 5,
                    ..base
                },
                5,
            ),
            // The team is full, whatever the allotment says.
            (
                Place {
                    team_limit: at(3),
                    team_reserved: 2,
                    ..base
                },
                1,
            ),
            (
                Place {
                    borrow: Limit::Unlimited,
                    ..base
                },
                10,
            ),
        ] {
            assert_eq!(place.free(), at(free), "{place:?}");
        }
        let open = Place {
            borrow: Limit::Unlimited,
            pool: Limit::Unlimited,
            team_limit: Limit::Unlimited,
            ..base
        };
        assert_eq!(open.free(), Limit::Unlimited);
    }
}
