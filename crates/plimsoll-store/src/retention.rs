//! What is old is forgotten: decisions, and reservations that have ended.
//!
//! Tables are walked in the order of their ids, which is the order in time: no index is needed for it,
//! and a walk ends at the first row that is young. A step is a transaction's share of the walk, short
//! enough that no admission waits for it. Balances, totals and the audit log do not rest on what goes.

use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::error::Result;
use crate::{Store, rows};

/// At most this many rows are looked at, and so deleted, in one transaction.
pub const FORGET_MAX: usize = 500;

/// What a step of a walk did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Rows deleted.
    pub rows: usize,
    /// Where the next step goes on; `None` at the end of the walk.
    pub next: Option<Uuid>,
}

impl Store {
    /// Deletes decisions made before `before_ms`, in one step that begins after `after`. The decision
    /// behind a reservation stays while that is live, or while its caller may repeat the request and
    /// must get the same answer.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn forget_decisions(&self, before_ms: i64, after: Option<Uuid>) -> Result<Forgotten> {
        self.charge(move |books| {
            let old = "SELECT id, at FROM decision WHERE id > ?1 ORDER BY id LIMIT ?2";
            forget(books.connection, old, before_ms, after, |db, from, to| {
                db.prepare_cached(
                    "UPDATE reservation SET decision_id = NULL
                     WHERE id IN (SELECT reservation_id FROM decision WHERE id > ?1 AND id <= ?2)
                       AND decision_id > ?1 AND decision_id <= ?2
                       AND (state = 'released' OR state = 'void') AND idem_key IS NULL",
                )?
                .execute([from, to])?;
                db.prepare_cached(
                    "DELETE FROM decision
                     WHERE id > ?1 AND id <= ?2 AND NOT EXISTS
                       (SELECT 1 FROM reservation r
                        WHERE r.id = decision.reservation_id AND r.decision_id = decision.id)",
                )?
                .execute([from, to])
            })
        })
        .await
    }

    /// Deletes what people were told before `before_ms`, in one step that begins after `after`. What is
    /// still on its way stays.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn forget_notices(&self, before_ms: i64, after: Option<Uuid>) -> Result<Forgotten> {
        self.charge(move |books| {
            let old = "SELECT id, at FROM notice WHERE id > ?1 ORDER BY id LIMIT ?2";
            forget(books.connection, old, before_ms, after, |db, from, to| {
                db.prepare_cached(
                    "DELETE FROM notice WHERE id > ?1 AND id <= ?2 AND spread AND NOT EXISTS
                       (SELECT 1 FROM delivery d
                        WHERE d.notice_id = notice.id AND d.state = 'waiting')",
                )?
                .execute([from, to])
            })
        })
        .await
    }

    /// Deletes violations that closed before `before_ms`, in one step that begins after `after`.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn forget_violations(
        &self,
        before_ms: i64,
        after: Option<Uuid>,
    ) -> Result<Forgotten> {
        self.charge(move |books| {
            let old = "SELECT id, opened_at FROM violation WHERE id > ?1 ORDER BY id LIMIT ?2";
            forget(books.connection, old, before_ms, after, |db, from, to| {
                db.prepare_cached(
                    "DELETE FROM violation WHERE id > ?1 AND id <= ?2 AND closed_at < ?3",
                )?
                .execute(params![from, to, before_ms])
            })
        })
        .await
    }

    /// Deletes reservations that ended before `before_ms`, in one step that begins after `after`. An
    /// idempotency key is free again when its reservation is gone.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn forget_reservations(
        &self,
        before_ms: i64,
        after: Option<Uuid>,
    ) -> Result<Forgotten> {
        self.charge(move |books| {
            let old = "SELECT id, created_at FROM reservation WHERE id > ?1 ORDER BY id LIMIT ?2";
            forget(books.connection, old, before_ms, after, |db, from, to| {
                db.prepare_cached(
                    "DELETE FROM reservation WHERE id > ?1 AND id <= ?2 AND changed_at < ?3
                       AND (state = 'released' OR state = 'void')",
                )?
                .execute(params![from, to, before_ms])
            })
        })
        .await
    }
}

/// Runs `delete` over the next rows of `old` that were made before `before_ms`: those with an id above
/// its first and up to its second argument.
fn forget(
    db: &Connection,
    old: &str,
    before_ms: i64,
    after: Option<Uuid>,
    delete: impl Fn(&Connection, &str, &str) -> rusqlite::Result<usize>,
) -> Result<Forgotten> {
    let from = after.map(|id| id.to_string()).unwrap_or_default();
    let walked = rows::all(db, old, params![from, FORGET_MAX as i64], |row| {
        Ok((rows::uuid(row, 0)?, row.get::<_, i64>(1)?))
    })?;
    let old = walked
        .iter()
        .take_while(|(_, made_ms)| *made_ms < before_ms);
    let old: Vec<Uuid> = old.map(|(id, _)| *id).collect();
    let Some(to) = old.last() else {
        return Ok(Forgotten {
            rows: 0,
            next: None,
        });
    };
    Ok(Forgotten {
        rows: delete(db, &from, &to.to_string())?,
        next: (old.len() == FORGET_MAX).then_some(*to),
    })
}
