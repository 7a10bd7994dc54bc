//! Decisions kept, found and counted. How they come to be is in [`crate::reservations`].

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_core::entity::{DecisionId, UserId};
use rusqlite::params;

use crate::books::Books;
use crate::changes::Change;
use crate::error::Result;
use crate::records::{Admission, Decision};
use crate::writer::Manner;
use crate::{Store, rows};

/// How many claims were decided since the ledger was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecisionCount {
    /// Claims that were admitted.
    pub allowed: u64,
    /// Claims that were refused.
    pub refused: u64,
}

/// Counts decisions as their callers learn of them.
#[derive(Default)]
pub(crate) struct Counters {
    allowed: AtomicU64,
    refused: AtomicU64,
}

impl Store {
    /// Runs a job that decides under `id`, or finds what was decided before, in the next transaction.
    pub(crate) async fn decide<F>(&self, id: DecisionId, job: F) -> Result<Admission>
    where
        F: FnOnce(&mut Books<'_>) -> Result<Admission> + Send + 'static,
    {
        self.decide_in(Manner::Shared, id, job).await
    }

    /// [`decide`](Self::decide), run and answered in this manner.
    pub(crate) async fn decide_in<F>(
        &self,
        manner: Manner,
        id: DecisionId,
        job: F,
    ) -> Result<Admission>
    where
        F: FnOnce(&mut Books<'_>) -> Result<Admission> + Send + 'static,
    {
        let admission = self.inner.writer.write(manner, job).await?;
        if admission.decision.id == id {
            let counters = &self.inner.decided;
            let counter = if admission.decision.allowed {
                &counters.allowed
            } else {
                &counters.refused
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(admission)
    }

    /// How many claims were decided since the ledger was opened.
    #[must_use]
    pub fn decision_count(&self) -> DecisionCount {
        let counters = &self.inner.decided;
        DecisionCount {
            allowed: counters.allowed.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
        }
    }

    /// A decision.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn decision(&self, id: DecisionId) -> Result<Decision> {
        self.read(|books| find(books, id))
    }

    /// Decisions, newest first; of one user, of one outcome.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn decisions(
        &self,
        user: Option<UserId>,
        allowed: Option<bool>,
        most: u32,
    ) -> Result<Vec<Decision>> {
        self.read_list(move |books| {
            let sql = format!(
                "{} WHERE (?1 IS NULL OR d.user_id = ?1) AND (?2 IS NULL OR d.allowed = ?2)
                 ORDER BY d.id DESC LIMIT ?3",
                rows::DECISION
            );
            let by = params![user.map(|u| u.to_string()), allowed, most];
            rows::all(books.connection, &sql, by, rows::decision)
        })
        .await
    }

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
}

pub(crate) fn keep(books: &Books<'_>, d: &Decision) -> Result<()> {
    books
        .connection
        .prepare_cached(
            "INSERT INTO decision (id, at, action, user_id, team_id, project, host, requested,
                                   allowed, violations, remedies, message, reservation_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            d.id.to_string(),
            d.at_ms,
            d.action,
            d.user.to_string(),
            d.team.map(|t| t.to_string()),
            d.project,
            d.host,
            rows::json(&d.requested),
            d.allowed,
            rows::json(&d.violations),
            rows::json(&d.remedies),
            d.message,
            d.reservation.map(|r| r.to_string())
        ])?;
    books.note(Change::Decision {
        id: d.id,
        user: d.user,
        team: d.team,
    });
    Ok(())
}

pub(crate) fn find(books: &Books<'_>, id: DecisionId) -> Result<Decision> {
    static SQL: LazyLock<String> = LazyLock::new(|| format!("{} WHERE d.id = ?1", rows::DECISION));
    rows::one(
        books.connection,
        &SQL,
        [id.to_string()],
        rows::decision,
        "decision",
        id,
    )
}
