//! Moving parts of a team's limit between its members and its pool.
//!
//! What the team has in sum never changes: every part that somebody gets, somebody gave.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dimension::{Amounts, Dimension, Limit, Limits};
use crate::entity::UserId;

/// Who gives or gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holder {
    /// What no allotment takes.
    Pool,
    /// A member's allotment.
    Member(UserId),
}

impl Holder {
    /// The member, if it is one.
    #[must_use]
    pub const fn member(self) -> Option<UserId> {
        match self {
            Self::Pool => None,
            Self::Member(user) => Some(user),
        }
    }
}

/// One part that changes hands. Amounts are in ledger units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Who gives.
    pub from: Holder,
    /// Who gets.
    pub to: Holder,
    /// How much of which summed dimensions.
    pub amounts: Vec<(Dimension, u64)>,
}

impl Move {
    /// The move that takes this one back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            amounts: self.amounts.clone(),
        }
    }
}

/// What a team's limit consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// What no allotment takes.
    pub pool: Limits,
    /// Members' allotments: a bound in every summed dimension.
    pub allotments: BTreeMap<UserId, Limits>,
}

/// Why a move cannot be made. Nothing of the moves before it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// Not in the team.
    #[error("{0} is not a member of the team")]
    Stranger(UserId),
    /// The giver has less.
    #[error("{} of {dimension} are to be given, {} are there", dimension.show(*asked), dimension.show(*held))]
    TooMuch {
        /// Who gives.
        from: Holder,
        /// In which dimension.
        dimension: Dimension,
        /// What is asked of them.
        asked: u64,
        /// What they have.
        held: u64,
    },
    /// Not a dimension that allotments are made of.
    #[error("{0} is not shared out: it comes from the team's class")]
    NotSummed(Dimension),
    /// From somebody to themselves, or nothing at all.
    #[error("a move needs two different holders and an amount above zero")]
    Idle,
}

impl Shares {
    /// Makes every move, in order, or none of them.
    ///
    /// # Errors
    /// [`MoveError`], of the first move that cannot be made.
    pub fn moved(&self, moves: &[Move]) -> Result<Self, MoveError> {
        let mut shares = self.clone();
        for step in moves {
            if step.from == step.to || !step.amounts.iter().any(|(_, amount)| *amount > 0) {
                return Err(MoveError::Idle);
            }
            for (dimension, amount) in &step.amounts {
                shares.give(step.from, *dimension, *amount)?;
                shares.get(step.to, *dimension, *amount)?;
            }
        }
        Ok(shares)
    }

    /// Makes as much of every move as its giver has by now. For the end of a loan, which nobody is there
    /// to correct.
    #[must_use]
    pub fn moved_as_far_as_it_goes(&self, moves: &[Move]) -> (Self, Vec<Move>) {
        let mut shares = self.clone();
        let mut made = Vec::new();
        for step in moves {
            let amounts = step.amounts.iter().filter_map(|(dimension, amount)| {
                let held = shares.held(step.from, *dimension)?;
                let amount = held.at_most().map_or(*amount, |held| held.min(*amount));
                (amount > 0).then_some((*dimension, amount))
            });
            let part = Move {
                amounts: amounts.collect(),
                ..step.clone()
            };
            if let Ok(after) = shares.moved(std::slice::from_ref(&part)) {
                shares = after;
                made.push(part);
            }
        }
        (shares, made)
    }

    fn held(&self, holder: Holder, dimension: Dimension) -> Option<Limit> {
        match holder {
            Holder::Pool => Some(self.pool[dimension]),
            Holder::Member(user) => Some(self.allotments.get(&user)?[dimension]),
        }
    }

    fn slot(&mut self, holder: Holder, dimension: Dimension) -> Result<&mut Limit, MoveError> {
        if !dimension.is_summed() {
            return Err(MoveError::NotSummed(dimension));
        }
        match holder {
            Holder::Pool => Ok(&mut self.pool[dimension]),
            Holder::Member(user) => self
                .allotments
                .get_mut(&user)
                .map(|allotment| &mut allotment[dimension])
                .ok_or(MoveError::Stranger(user)),
        }
    }

    fn give(&mut self, from: Holder, dimension: Dimension, amount: u64) -> Result<(), MoveError> {
        let slot = self.slot(from, dimension)?;
        if let Limit::AtMost(held) = *slot {
            let left = held.checked_sub(amount).ok_or(MoveError::TooMuch {
                from,
                dimension,
                asked: amount,
                held,
            })?;
            *slot = Limit::AtMost(left);
        }
        Ok(())
    }

    fn get(&mut self, to: Holder, dimension: Dimension, amount: u64) -> Result<(), MoveError> {
        let slot = self.slot(to, dimension)?;
        *slot = slot.plus(amount);
        Ok(())
    }
}

/// A member who would hold more than their allotment after moves: they would borrow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// Who.
    pub user: UserId,
    /// In which dimension.
    pub dimension: Dimension,
    /// Charged now.
    pub reserved: u64,
    /// The allotment afterwards.
    pub allotment: u64,
}

/// Who would hold more than their allotment. `reserved` is what each member charges in the team,
/// `permille` the team's overcommit factor.
#[must_use]
pub fn over(shares: &Shares, reserved: &BTreeMap<UserId, Amounts>, permille: u32) -> Vec<Over> {
    let mut found = Vec::new();
    for (user, allotment) in &shares.allotments {
        let Some(reserved) = reserved.get(user) else {
            continue;
        };
        for dimension in Dimension::CHARGED {
            let limit = allotment[dimension].times_permille(permille);
            let held = reserved.get(dimension);
            if !limit.allows(held) {
                found.push(Over {
                    user: *user,
                    dimension,
                    reserved: held,
                    allotment: limit.at_most().unwrap_or(u64::MAX),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    fn shares(pool: u64, allotments: &[u64]) -> Shares {
        let of = |amount| Limits::nothing().with(Dimension::Cpu, Limit::AtMost(amount));
        Shares {
            pool: of(pool),
            allotments: (0..)
                .zip(allotments)
                .map(|(n, amount)| (user(n), of(*amount)))
                .collect(),
        }
    }

    fn cpu(from: Holder, to: Holder, amount: u64) -> Move {
        Move {
            from,
            to,
            amounts: vec![(Dimension::Cpu, amount)],
        }
    }

    fn sum(shares: &Shares) -> u64 {
        let of = |limits: &Limits| limits[Dimension::Cpu].at_most().unwrap();
        of(&shares.pool) + shares.allotments.values().map(of).sum::<u64>()
    }

    const POOL: Holder = Holder::Pool;

    #[test]
    fn all_moves_or_none() {
        let (a, b) = (Holder::Member(user(0)), Holder::Member(user(1)));
        let before = shares(100, &[50, 0]);
        let both = [cpu(POOL, b, 100), cpu(a, b, 50)];
        assert_eq!(before.moved(&both), Ok(shares(0, &[0, 150])));
        let too_much = [cpu(POOL, b, 100), cpu(a, b, 51)];
        assert_eq!(
            before.moved(&too_much),
            Err(MoveError::TooMuch {
                from: a,
                dimension: Dimension::Cpu,
                asked: 51,
                held: 50
            })
        );
        // What was just given can be given on.
        assert_eq!(
            before.moved(&[cpu(POOL, b, 100), cpu(b, a, 100)]),
            Ok(shares(0, &[150, 0]))
        );
        for (moves, why) in [
            (cpu(a, a, 1), MoveError::Idle),
            (cpu(a, b, 0), MoveError::Idle),
            (
                cpu(POOL, Holder::Member(user(9)), 1),
                MoveError::Stranger(user(9)),
            ),
            (
                Move {
                    amounts: vec![(Dimension::CpuPercent, 1)],
                    ..cpu(a, b, 1)
                },
                MoveError::NotSummed(Dimension::CpuPercent),
            ),
        ] {
            assert_eq!(before.moved(&[moves]), Err(why));
        }
    }

    #[test]
    fn a_loan_ends_as_far_as_it_can() {
        let (a, b) = (Holder::Member(user(0)), Holder::Member(user(1)));
        // 30 were lent to b, who has given 20 of them away.
        let now = shares(20, &[50, 10]);
        let (after, made) = now.moved_as_far_as_it_goes(&[cpu(b, a, 30)]);
        assert_eq!(after, shares(20, &[60, 0]));
        assert_eq!(made, [cpu(b, a, 10)]);
        let gone = [cpu(Holder::Member(user(9)), a, 30)];
        assert_eq!(now.moved_as_far_as_it_goes(&gone), (now.clone(), vec![]));
    }

    #[test]
    fn who_would_borrow_is_told() {
        let held = BTreeMap::from([(user(0), Amounts::ZERO.with(Dimension::Cpu, 40))]);
        assert!(over(&shares(0, &[40]), &held, 1000).is_empty());
        assert_eq!(over(&shares(0, &[39]), &held, 1000).len(), 1);
        assert!(over(&shares(0, &[39]), &held, 1100).is_empty());
    }

    proptest! {
        #[test]
        fn the_sum_stays_and_a_move_undoes_itself(
            pool in 0u64..1000,
            allotments in prop::collection::vec(0u64..1000, 1..5),
            steps in prop::collection::vec((0u128..6, 0u128..6, 0u64..600), 1..20),
        ) {
            let before = shares(pool, &allotments);
            let holder = |n| if n == 5 { POOL } else { Holder::Member(user(n)) };
            let moves: Vec<Move> = steps
                .iter()
                .map(|(from, to, amount)| cpu(holder(*from), holder(*to), *amount))
                .collect();
            if let Ok(after) = before.moved(&moves) {
                prop_assert_eq!(sum(&after), sum(&before));
                let back: Vec<Move> = moves.iter().rev().map(Move::reversed).collect();
                prop_assert_eq!(after.moved(&back), Ok(before.clone()));
            }
            let (after, made) = before.moved_as_far_as_it_goes(&moves);
            prop_assert_eq!(sum(&after), sum(&before));
            prop_assert_eq!(before.moved(&made).unwrap_or(before), after);
        }
    }
}
