//! Users, teams, members and projects, and how those that drain come to go. Every quota a person needs
//! is written in the transaction that makes them.

mod members;
mod projects;
mod teams;
mod users;

use rusqlite::Connection;
use uuid::Uuid;

pub use members::NewMember;
pub(crate) use members::members;

use crate::Store;
use crate::audit::{self, Change};
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::records::Actor;
use crate::rows;

impl Store {
    /// Deletes who was draining and holds nothing any more. Returns their names.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn finish_drains(&self, actor: Actor) -> Result<Vec<String>> {
        self.write(move |books| {
            let mut gone = Vec::new();
            let db = books.connection;
            let drained = |table: &str, column: &str| {
                format!(
                    "WHERE draining = 1 AND NOT EXISTS (SELECT 1 FROM reservation r \
                     WHERE r.{column} = {table}.id AND {})",
                    rows::LIVE
                )
            };
            let sql = format!("{} {}", rows::USER, drained("user", "user_id"));
            for user in rows::all(db, &sql, [], rows::user)? {
                users::remove(books, &user, actor.at_ms)?;
                record_gone(books, &actor, "user", &user.name)?;
                gone.push(user.name);
            }
            let sql = format!("{} {}", rows::TEAM, drained("team", "team_id"));
            for team in rows::all(db, &sql, [], rows::team)? {
                teams::remove(books, team.id, actor.at_ms)?;
                record_gone(books, &actor, "team", &team.name)?;
                gone.push(team.name);
            }
            Ok(gone)
        })
        .await
    }
}

fn record_gone(books: &Books<'_>, actor: &Actor, kind: &str, name: &str) -> Result<()> {
    let action = format!("{kind}.delete");
    let change = Change {
        action: &action,
        kind,
        entity: name,
        before: None,
        after: None,
    };
    audit::record(books, actor, &change)
}

fn taken(error: rusqlite::Error, what: &str) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => {
            StoreError::Conflict(format!("{what} is taken"))
        }
        _ => error.into(),
    }
}

fn exists(connection: &Connection, sql: &str, by: impl rusqlite::Params) -> Result<bool> {
    Ok(connection
        .prepare_cached(sql)?
        .query_row(by, |row| row.get(0))?)
}

fn live_reservations(connection: &Connection, column: &str, id: &str) -> Result<i64> {
    let sql = format!(
        "SELECT count(*) FROM reservation r WHERE r.{column} = ?1 AND {}",
        rows::LIVE
    );
    Ok(connection
        .prepare_cached(&sql)?
        .query_row([id], |row| row.get(0))?)
}

/// An id as the ledger writes it, whichever way it was spelled; a name as it is.
fn as_stored(id_or_name: &str) -> String {
    id_or_name
        .parse::<Uuid>()
        .map_or_else(|_| id_or_name.to_owned(), |id| id.to_string())
}
