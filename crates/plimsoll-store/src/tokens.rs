//! API tokens. Only a hash is kept.

use plimsoll_core::entity::{TokenId, UserId};
use rusqlite::{OptionalExtension, params};

use crate::Store;
use crate::audit::{self, Change};
use crate::error::{Result, StoreError};
use crate::records::{Actor, Role, Token};
use crate::rows;

/// A token to be kept.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Id, made by the caller.
    pub id: TokenId,
    /// Hash of the secret; the secret itself never reaches the store.
    pub hash: String,
    /// Whose; `None` for the first administrator's.
    pub user: Option<UserId>,
    /// At most this role.
    pub role: Role,
    /// What it is for.
    pub label: String,
    /// Unix milliseconds.
    pub expires_ms: Option<i64>,
}

impl Store {
    /// Keeps a token.
    ///
    /// # Errors
    /// `NotFound` for an unknown user.
    pub async fn add_token(&self, token: NewToken, actor: Actor) -> Result<Token> {
        self.write(move |books| {
            if let Some(user) = token.user {
                books.user(user)?;
            }
            books.connection.execute(
                "INSERT INTO token (id, hash, user_id, role, label, created_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    token.id.to_string(),
                    token.hash,
                    token.user.map(|u| u.to_string()),
                    token.role.name(),
                    token.label,
                    actor.at_ms,
                    token.expires_ms
                ],
            )?;
            let id = token.id.to_string();
            let change = Change {
                action: "token.add",
                kind: "token",
                entity: &id,
                before: None,
                after: Some(format!("{{\"role\":\"{}\"}}", token.role.name())),
            };
            audit::record(books, &actor, &change)?;
            let sql = format!("{} WHERE id = ?1", rows::TOKEN);
            rows::one(books.connection, &sql, [id], rows::token, "token", token.id)
        })
        .await
    }

    /// The valid token with this hash, at `now_ms`.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn token_by_hash(&self, hash: &str, now_ms: i64) -> Result<Option<Token>> {
        self.read(|books| {
            let sql = format!(
                "{} WHERE hash = ?1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)",
                rows::TOKEN
            );
            let mut statement = books.connection.prepare_cached(&sql)?;
            Ok(statement.query_row(params![hash, now_ms], rows::token).optional()?)
        })
    }

    /// Tokens of `user`, or all.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn tokens(&self, user: Option<UserId>) -> Result<Vec<Token>> {
        self.read_list(move |books| {
            let sql = format!(
                "{} WHERE ?1 IS NULL OR user_id = ?1 ORDER BY id",
                rows::TOKEN
            );
            rows::all(
                books.connection,
                &sql,
                [user.map(|u| u.to_string())],
                rows::token,
            )
        })
        .await
    }

    /// Ends a token at once.
    ///
    /// # Errors
    /// `NotFound` for an unknown token.
    pub async fn revoke_token(&self, id: TokenId, actor: Actor) -> Result<()> {
        self.write(move |books| {
            let changed = books.connection.execute(
                "UPDATE token SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1",
                params![id.to_string(), actor.at_ms],
            )?;
            if changed == 0 {
                return Err(StoreError::NotFound {
                    what: "token",
                    name: id.to_string(),
                });
            }
            let entity = id.to_string();
            let change = Change {
                action: "token.revoke",
                kind: "token",
                entity: &entity,
                before: None,
                after: None,
            };
            audit::record(books, &actor, &change)
        })
        .await
    }
}
