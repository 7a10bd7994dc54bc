//! What changed in the ledger, in order and by number: the last few thousand changes, for whoever follows
//! them. Nobody waits for a follower: one that falls behind is told how much it missed.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use plimsoll_core::entity::{DecisionId, ReservationId, TeamId, UserId};
use tokio::sync::watch;
use uuid::Uuid;

/// Changes that are remembered.
pub const CHANGES_KEPT: usize = 4096;

/// A row that is new or another one. What it holds now is for its readers to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A reservation, or what it is bound to.
    Reservation {
        /// Its id.
        id: ReservationId,
        /// Whose it is.
        user: UserId,
        /// The team it is charged to.
        team: Option<TeamId>,
    },
    /// A claim was decided.
    Decision {
        /// Its id.
        id: DecisionId,
        /// Who claimed.
        user: UserId,
        /// In which team.
        team: Option<TeamId>,
    },
    /// A violation was opened or closed.
    Violation {
        /// Its id.
        id: Uuid,
        /// Against whom.
        entity: Uuid,
    },
    /// Something that the audit log tells: a quota, a member, a grant, a token.
    Audited {
        /// What was done.
        action: String,
        /// To what kind of thing.
        kind: String,
        /// To which.
        entity: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// The last changes.
#[derive(Debug, Default)]
pub struct Changes {
    past: Mutex<VecDeque<Change>>,
    newest: watch::Sender<u64>,
}

/// What came after a number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct After {
    /// So many are forgotten already.
    pub missed: u64,
    /// The oldest of those that are not, with their numbers.
    pub changes: Vec<(u64, Change)>,
}

impl Changes {
    /// Adds what a transaction changed.
    pub(crate) fn publish(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let count = changes.len() as u64;
        past.extend(changes);
        let over = past.len().saturating_sub(CHANGES_KEPT);
        past.drain(..over);
        self.newest.send_modify(|newest| *newest += count);
    }

    /// The number of the newest change, which tells when there is another.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// At most so many changes after this number.
    #[must_use]
    pub fn after(&self, number: u64, most: usize) -> After {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = *self.newest.borrow();
        let gone = newest - past.len() as u64;
        let from = number.max(gone);
        let skipped = usize::try_from(from - gone).unwrap_or(usize::MAX);
        let changes = (from + 1..).zip(past.iter().skip(skipped).take(most).cloned());
        After {
            missed: gone.saturating_sub(number),
            changes: changes.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(number: u64) -> Change {
        Change::Violation {
            id: Uuid::from_u128(number.into()),
            entity: Uuid::nil(),
        }
    }

    #[test]
    fn changes_have_numbers_and_what_is_forgotten_is_counted() {
        let changes = Changes::default();
        assert_eq!(changes.after(0, 9), After::default());
        let mut newest = changes.newest();
        changes.publish(vec![violation(1), violation(2)]);
        assert!(newest.has_changed().unwrap());
        assert_eq!(*newest.borrow_and_update(), 2);
        let found = changes.after(1, 9);
        assert_eq!((found.missed, found.changes), (0, vec![(2, violation(2))]));
        assert_eq!(changes.after(0, 1).changes, [(1, violation(1))]);
        assert_eq!(changes.after(2, 9), After::default());

        let kept = CHANGES_KEPT as u64;
        changes.publish((3..=kept + 5).map(violation).collect());
        let found = changes.after(2, 1);
        assert_eq!((found.missed, found.changes), (3, vec![(6, violation(6))]));
        // A number that was never given out is as good as the newest.
        assert_eq!(changes.after(kept * 9, 1), After::default());
    }
}
