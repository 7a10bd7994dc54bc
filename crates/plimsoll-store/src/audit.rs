//! The append-only log of every change.

use rusqlite::params;

use crate::Store;
use crate::books::Books;
use crate::changes;
use crate::error::Result;
use crate::records::{Actor, AuditEntry};
use crate::rows;

/// One change, as it is written into the log.
pub(crate) struct Change<'a> {
    pub(crate) action: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) entity: &'a str,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

pub(crate) fn record(books: &Books<'_>, actor: &Actor, change: &Change<'_>) -> Result<()> {
    books
        .connection
        .prepare_cached(
            "INSERT INTO audit (at, actor, action, entity_kind, entity, before, after, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            actor.at_ms,
            actor.name,
            change.action,
            change.kind,
            change.entity,
            change.before,
            change.after,
            actor.reason
        ])?;
    books.note(changes::Change::Audited {
        action: change.action.to_owned(),
        kind: change.kind.to_owned(),
        entity: change.entity.to_owned(),
        at_ms: actor.at_ms,
    });
    Ok(())
}

impl Store {
    /// The log, newest first, from before `before_seq` (exclusive), at most `most` lines.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn audit(&self, before_seq: Option<i64>, most: u32) -> Result<Vec<AuditEntry>> {
        self.read_list(move |books| {
            let sql = format!("{} WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2", rows::AUDIT);
            rows::all(
                books.connection,
                &sql,
                params![before_seq.unwrap_or(i64::MAX), most],
                rows::audit,
            )
        })
        .await
    }
}
