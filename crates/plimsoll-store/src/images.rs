//! References that are not everybody's: those an administrator keeps private, and those that are on the
//! engine only for as long as a push takes. Written before the engine learns of one, so that a crash in
//! between leaves nothing open.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};

use crate::Store;
use crate::audit::{self, Change};
use crate::error::{Result, StoreError};
use crate::records::Actor;
use crate::rows;

/// A push that was begun, or a pull by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The reference, in full.
    pub reference: String,
    /// Id of the image it names; empty for a pull, which learns it last.
    pub image: String,
}

impl Store {
    /// Every reference that tenants do not see.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn private_images(&self) -> Result<HashSet<String>> {
        self.read(|books| {
            let all = rows::all(
                books.connection,
                "SELECT reference FROM image_mark",
                [],
                |row| row.get(0),
            )?;
            Ok(all.into_iter().collect())
        })
    }

    /// The references that an administrator marked, in order.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn marked_images(&self) -> Result<Vec<String>> {
        self.read(|books| {
            rows::all(
                books.connection,
                "SELECT reference FROM image_mark WHERE kind = 'private' ORDER BY reference",
                [],
                |row| row.get(0),
            )
        })
    }

    /// Keeps a reference from tenants, or gives it to them. Doing it twice changes nothing.
    ///
    /// # Errors
    /// `Conflict` while a push goes through the reference.
    pub async fn mark_image(&self, reference: String, private: bool, actor: Actor) -> Result<()> {
        self.write(move |books| {
            let kind: Option<String> = books
                .connection
                .query_row(
                    "SELECT kind FROM image_mark WHERE reference = ?1",
                    [&reference],
                    |row| row.get(0),
                )
                .optional()?;
            let before = kind.as_deref() == Some("private");
            if kind.is_some() && !before {
                return Err(StoreError::Conflict(format!(
                    "a push goes through {reference} just now: try again when it is over"
                )));
            }
            if before == private {
                return Ok(());
            }
            if private {
                books.connection.execute(
                    "INSERT INTO image_mark (reference, kind, marked_at) VALUES (?1, 'private', ?2)",
                    params![reference, actor.at_ms],
                )?;
            } else {
                books
                    .connection
                    .execute("DELETE FROM image_mark WHERE reference = ?1", [&reference])?;
            }
            let shown = |private: bool| Some(format!("{{\"private\":{private}}}"));
            let change = Change {
                action: "image.mark",
                kind: "image",
                entity: &reference,
                before: shown(before),
                after: shown(private),
            };
            audit::record(books, &actor, &change)
        })
        .await
    }

    /// Keeps a reference from tenants while an image is pushed under it; durable when this returns.
    ///
    /// # Errors
    /// `Conflict` when it is marked already.
    pub async fn begin_push(&self, push: Push, now_ms: i64) -> Result<()> {
        self.write(move |books| {
            let added = books.connection.execute(
                "INSERT INTO image_mark (reference, kind, image, marked_at)
                 VALUES (?1, 'push', ?2, ?3) ON CONFLICT DO NOTHING",
                params![push.reference, push.image, now_ms],
            )?;
            if added == 0 {
                return Err(StoreError::Conflict(format!(
                    "{} is taken on this host: choose another tag",
                    push.reference
                )));
            }
            Ok(())
        })
        .await
    }

    /// Forgets a push whose reference is gone from the engine.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn end_push(&self, reference: String) -> Result<()> {
        self.write(move |books| {
            books.connection.execute(
                "DELETE FROM image_mark WHERE reference = ?1 AND kind = 'push'",
                [reference],
            )?;
            Ok(())
        })
        .await
    }

    /// The pushes that were begun and not ended.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn pushes(&self) -> Result<Vec<Push>> {
        self.read(|books| {
            rows::all(
                books.connection,
                "SELECT reference, coalesce(image, '') FROM image_mark WHERE kind = 'push'",
                [],
                |row| {
                    Ok(Push {
                        reference: row.get(0)?,
                        image: row.get(1)?,
                    })
                },
            )
        })
    }
}
