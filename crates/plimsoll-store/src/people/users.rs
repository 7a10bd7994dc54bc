//! Users.

use plimsoll_core::entity::{EntityKind, UserId};
use plimsoll_core::quota::DEFAULT_CLASS;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::{as_stored, exists, live_reservations, members, taken};
use crate::Store;
use crate::audit::{self, Change};
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::quotas::{self, reshape};
use crate::records::{Actor, NewUser, User, UserChange};
use crate::{rows, violations};

impl Store {
    /// Adds a user with the quota of their class and the first free span of host ports, in one
    /// transaction.
    ///
    /// # Errors
    /// `Conflict` when the name or uid is taken, `NotFound` for an unknown class.
    pub async fn add_user(&self, new: NewUser, actor: Actor) -> Result<User> {
        self.write(move |books| {
            let class = new.class.as_deref().unwrap_or(DEFAULT_CLASS);
            let class = quotas::class(books.connection, class)?;
            let db = books.connection;
            if exists(
                db,
                "SELECT EXISTS (SELECT 1 FROM user WHERE name = ?1)",
                [new.name.as_str()],
            )? {
                return Err(StoreError::Conflict(format!(
                    "a user named {} exists",
                    new.name
                )));
            }
            db.execute(
                "INSERT INTO user (id, name, email, os_uid, role, created_at, port_slot)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, min(slot)
                 FROM (SELECT 0 AS slot UNION ALL SELECT port_slot + 1 FROM user)
                 WHERE slot NOT IN (SELECT port_slot FROM user)",
                params![
                    new.id.to_string(),
                    new.name.as_str(),
                    new.email,
                    new.os_uid,
                    new.role.name(),
                    actor.at_ms
                ],
            )
            .map_err(|e| taken(e, &format!("uid {}", new.os_uid.unwrap_or_default())))?;
            quotas::insert(
                books,
                new.id.0,
                EntityKind::User,
                &class.name,
                &class.limits,
                actor.at_ms,
            )?;
            let after = json!({"class": class.name, "osUid": new.os_uid, "role": new.role.name()});
            let change = Change {
                action: "user.add",
                kind: "user",
                entity: new.name.as_str(),
                before: None,
                after: Some(after.to_string()),
            };
            audit::record(books, &actor, &change)?;
            rows::user_by_id(books.connection, new.id)
        })
        .await
    }

    /// The user with this id or name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn user(&self, id_or_name: &str) -> Result<User> {
        self.read(|books| find_user(books.connection, id_or_name))
    }

    /// The user the gateway knows by this uid.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn user_by_uid(&self, uid: u32) -> Result<Option<User>> {
        self.read(|books| {
            let sql = format!("{} WHERE os_uid = ?1", rows::USER);
            let mut statement = books.connection.prepare_cached(&sql)?;
            Ok(statement.query_row([uid], rows::user).optional()?)
        })
    }

    /// Every user, by name.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn users(&self) -> Result<Vec<User>> {
        self.read_list(|books| {
            let sql = format!("{} ORDER BY name", rows::USER);
            rows::all(books.connection, &sql, [], rows::user)
        })
        .await
    }

    /// Suspends a user or lets them go on, and changes what is known of them.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when the uid is taken.
    pub async fn change_user(&self, id: UserId, change: UserChange, actor: Actor) -> Result<User> {
        self.write(move |books| {
            let user = rows::user_by_id(books.connection, id)?;
            let after = User {
                email: change.email.unwrap_or_else(|| user.email.clone()),
                mail: change.mail.unwrap_or(user.mail),
                os_uid: change.os_uid.unwrap_or(user.os_uid),
                suspended: change.suspended.unwrap_or(user.suspended),
                ..user.clone()
            };
            books
                .connection
                .execute(
                    "UPDATE user SET suspended = ?2, email = ?3, os_uid = ?4, mail = ?5 WHERE id = ?1",
                    params![id.to_string(), after.suspended, after.email, after.os_uid, after.mail],
                )
                .map_err(|e| taken(e, &format!("uid {}", after.os_uid.unwrap_or_default())))?;
            let state = |user: &User| {
                json!({"suspended": user.suspended, "email": user.email, "mail": user.mail,
                       "osUid": user.os_uid})
                .to_string()
            };
            let change = Change {
                action: "user.change",
                kind: "user",
                entity: &user.name,
                before: Some(state(&user)),
                after: Some(state(&after)),
            };
            audit::record(books, &actor, &change)?;
            rows::user_by_id(books.connection, id)
        })
        .await
    }

    /// Deletes a user. With `drain`, somebody who still holds something makes no new claims and is
    /// deleted when the last of it is released. Returns whether they are gone.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when they hold something and `drain` is not asked.
    pub async fn delete_user(&self, id: UserId, drain: bool, actor: Actor) -> Result<bool> {
        self.write(move |books| {
            let user = rows::user_by_id(books.connection, id)?;
            let live = live_reservations(books.connection, "user_id", &id.to_string())?;
            if live > 0 && !drain {
                return Err(StoreError::Conflict(format!(
                    "{} still holds {live} reservations: remove their containers first, or drain",
                    user.name
                )));
            }
            let gone = live == 0;
            if gone {
                remove(books, &user, actor.at_ms)?;
            } else {
                books.connection.execute(
                    "UPDATE user SET draining = 1, suspended = 1 WHERE id = ?1",
                    [id.to_string()],
                )?;
            }
            let change = Change {
                action: if gone { "user.delete" } else { "user.drain" },
                kind: "user",
                entity: &user.name,
                before: None,
                after: None,
            };
            audit::record(books, &actor, &change)?;
            Ok(gone)
        })
        .await
    }
}

pub(super) fn remove(books: &mut Books<'_>, user: &User, now_ms: i64) -> Result<()> {
    let id = user.id.to_string();
    let places = members(books.connection, None, Some(user.id))?;
    books
        .connection
        .execute("DELETE FROM user WHERE id = ?1", [&id])?;
    books
        .connection
        .execute("DELETE FROM quota WHERE entity_id = ?1", [&id])?;
    books
        .connection
        .execute("DELETE FROM account WHERE key = 'user:' || ?1", [&id])?;
    for place in places {
        reshape(books, place.team)?;
        quotas::follow_team(books, place.team, "a member left", now_ms)?;
    }
    violations::close_all(books, user.id.0, now_ms)
}

fn find_user(connection: &Connection, id_or_name: &str) -> Result<User> {
    let sql = format!("{} WHERE id = ?1 OR name = ?1", rows::USER);
    rows::one(
        connection,
        &sql,
        [as_stored(id_or_name)],
        rows::user,
        "user",
        id_or_name,
    )
}
