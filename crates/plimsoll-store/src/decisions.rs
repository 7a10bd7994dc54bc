//! Decisions as lists and in number. How they come to be is in [`crate::reservations`].

use plimsoll_core::entity::{DecisionId, UserId};
use rusqlite::params;

use crate::error::Result;
use crate::records::Decision;
use crate::{Store, rows};

/// How many decisions there were up to a point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecisionCount {
    /// Where counting goes on.
    next: i64,
    /// Claims that were admitted.
    pub allowed: u64,
    /// Claims that were refused.
    pub refused: u64,
}

impl Store {
    /// Decisions older than `before`, newest first; of one user, of one outcome.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn decisions_before(
        &self,
        before: Option<DecisionId>,
        user: Option<UserId>,
        allowed: Option<bool>,
        most: u32,
    ) -> Result<Vec<Decision>> {
        self.read_list(move |books| {
            let sql = format!(
                "{} WHERE (?1 IS NULL OR d.id < ?1) AND (?2 IS NULL OR d.user_id = ?2)
                 AND (?3 IS NULL OR d.allowed = ?3) ORDER BY d.id DESC LIMIT ?4",
                rows::DECISION
            );
            let (before, user) = (before.map(|d| d.to_string()), user.map(|u| u.to_string()));
            let by = params![before, user, allowed, most];
            rows::all(books.connection, &sql, by, rows::decision)
        })
        .await
    }

    /// `so_far` and the decisions made since then; counts from the beginning when it is the default.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn count_decisions(&self, so_far: DecisionCount) -> Result<DecisionCount> {
        self.read_list(move |books| {
            let mut count = so_far;
            let mut statement = books.connection.prepare_cached(
                "SELECT allowed, count(*), max(rowid) FROM decision WHERE rowid > ?1 GROUP BY allowed",
            )?;
            let mut rows = statement.query([so_far.next])?;
            while let Some(row) = rows.next()? {
                let (allowed, new): (bool, i64) = (row.get(0)?, row.get(1)?);
                let sum = if allowed {
                    &mut count.allowed
                } else {
                    &mut count.refused
                };
                *sum += new.unsigned_abs();
                count.next = count.next.max(row.get(2)?);
            }
            Ok(count)
        })
        .await
    }
}
