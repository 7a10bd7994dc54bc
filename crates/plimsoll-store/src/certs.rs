//! Client certificates. What is kept is whom each names and how long it counts; no key ever was here.

use plimsoll_core::entity::{CertId, UserId};
use rusqlite::{OptionalExtension, params};

use crate::Store;
use crate::audit::{self, Change};
use crate::error::{Result, StoreError};
use crate::records::{Actor, Cert, User};
use crate::rows;

impl Store {
    /// Keeps a certificate that is about to be handed out.
    ///
    /// # Errors
    /// `NotFound` for an unknown user.
    pub async fn add_cert(
        &self,
        serial: CertId,
        user: UserId,
        expires_ms: i64,
        actor: Actor,
    ) -> Result<Cert> {
        self.write(move |books| {
            let named = books.user(user)?;
            books.connection.execute(
                "INSERT INTO cert (serial, user_id, issued_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
                params![
                    serial.to_string(),
                    user.to_string(),
                    actor.at_ms,
                    expires_ms
                ],
            )?;
            let entity = serial.to_string();
            let change = Change {
                action: "cert.issue",
                kind: "cert",
                entity: &entity,
                before: None,
                after: Some(serde_json::json!({"user": named.name}).to_string()),
            };
            audit::record(books, &actor, &change)?;
            Ok(Cert {
                serial,
                user,
                issued_ms: actor.at_ms,
                expires_ms,
                revoked_ms: None,
            })
        })
        .await
    }

    /// A certificate and whom it names, whether it counts or not; `None` for one that was never handed
    /// out here, or whose user is gone.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn cert(&self, serial: CertId) -> Result<Option<(Cert, User)>> {
        self.read(|books| {
            let sql = format!("{} WHERE serial = ?1", rows::CERT);
            let mut statement = books.connection.prepare_cached(&sql)?;
            let cert = statement
                .query_row([serial.to_string()], rows::cert)
                .optional()?;
            let Some(cert) = cert else {
                return Ok(None);
            };
            let user = books.user(cert.user)?;
            Ok(Some((cert, user)))
        })
    }

    /// A user's certificates, oldest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn certs(&self, user: UserId) -> Result<Vec<Cert>> {
        self.read_list(move |books| {
            let sql = format!("{} WHERE user_id = ?1 ORDER BY serial", rows::CERT);
            rows::all(books.connection, &sql, [user.to_string()], rows::cert)
        })
        .await
    }

    /// Ends a certificate at once.
    ///
    /// # Errors
    /// `NotFound` for one that was never handed out here.
    pub async fn revoke_cert(&self, serial: CertId, actor: Actor) -> Result<()> {
        self.write(move |books| {
            let entity = serial.to_string();
            let changed = books.connection.execute(
                "UPDATE cert SET revoked_at = coalesce(revoked_at, ?2) WHERE serial = ?1",
                params![entity, actor.at_ms],
            )?;
            if changed == 0 {
                return Err(StoreError::NotFound {
                    what: "certificate",
                    name: entity,
                });
            }
            let change = Change {
                action: "cert.revoke",
                kind: "cert",
                entity: &entity,
                before: None,
                after: None,
            };
            audit::record(books, &actor, &change)
        })
        .await
    }
}
