//! Teams.

use plimsoll_core::dimension::Limits;
use plimsoll_core::entity::{EntityKind, Name, TeamId};
use plimsoll_core::quota::DEFAULT_CLASS;
use rusqlite::params;
use serde_json::json;

use super::{as_stored, live_reservations, taken};
use crate::Store;
use crate::audit::{self, Change};
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::records::{Actor, Team};
use crate::{quotas, rows, violations};

impl Store {
    /// Adds a team: aggregate, with an empty pool; percentages, runtime and idle from its class.
    ///
    /// # Errors
    /// `Conflict` when the name is taken, `NotFound` for an unknown class.
    pub async fn add_team(
        &self,
        id: TeamId,
        name: Name,
        class: Option<String>,
        actor: Actor,
    ) -> Result<Team> {
        self.write(move |books| {
            let class = class.as_deref().unwrap_or(DEFAULT_CLASS);
            let class = quotas::class(books.connection, class)?;
            let nothing = Limits::nothing();
            let own = class
                .limits
                .map(|d, limit| if d.is_summed() { nothing[d] } else { limit });
            let own_json = rows::json(&own);
            books
                .connection
                .execute(
                    "INSERT INTO team (id, name, mode, total, pool, created_at)
                     VALUES (?1, ?2, 'aggregate', ?3, ?3, ?4)",
                    params![id.to_string(), name.as_str(), own_json, actor.at_ms],
                )
                .map_err(|e| taken(e, &format!("the team name {name}")))?;
            quotas::insert(
                books,
                id.0,
                EntityKind::Team,
                &class.name,
                &own,
                actor.at_ms,
            )?;
            let change = Change {
                action: "team.add",
                kind: "team",
                entity: name.as_str(),
                before: None,
                after: Some(json!({"class": class.name}).to_string()),
            };
            audit::record(books, &actor, &change)?;
            rows::team_by_id(books.connection, id)
        })
        .await
    }

    /// The team with this id or name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn team(&self, id_or_name: &str) -> Result<Team> {
        self.read(|books| {
            let sql = format!("{} WHERE id = ?1 OR name = ?1", rows::TEAM);
            rows::one(
                books.connection,
                &sql,
                [as_stored(id_or_name)],
                rows::team,
                "team",
                id_or_name,
            )
        })
    }

    /// Every team, by name.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn teams(&self) -> Result<Vec<Team>> {
        self.read_list(|books| {
            let sql = format!("{} ORDER BY name", rows::TEAM);
            rows::all(books.connection, &sql, [], rows::team)
        })
        .await
    }

    /// Deletes a team; like [`delete_user`](Self::delete_user).
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when it holds something and `drain` is not asked.
    pub async fn delete_team(&self, id: TeamId, drain: bool, actor: Actor) -> Result<bool> {
        self.write(move |books| {
            let team = rows::team_by_id(books.connection, id)?;
            let live = live_reservations(books.connection, "team_id", &id.to_string())?;
            if live > 0 && !drain {
                return Err(StoreError::Conflict(format!(
                    "team {} still holds {live} reservations: remove its containers first, or drain",
                    team.name
                )));
            }
            let gone = live == 0;
            if gone {
                remove(books, id, actor.at_ms)?;
            } else {
                books
                    .connection
                    .execute("UPDATE team SET draining = 1 WHERE id = ?1", [id.to_string()])?;
            }
            let change = Change {
                action: if gone { "team.delete" } else { "team.drain" },
                kind: "team",
                entity: &team.name,
                before: None,
                after: None,
            };
            audit::record(books, &actor, &change)?;
            Ok(gone)
        })
        .await
    }
}

pub(super) fn remove(books: &mut Books<'_>, team: TeamId, now_ms: i64) -> Result<()> {
    // A balance still to be written must not come back after its row is deleted.
    books.flush()?;
    books.forget();
    let id = team.to_string();
    books
        .connection
        .execute("DELETE FROM team WHERE id = ?1", [&id])?;
    books
        .connection
        .execute("DELETE FROM quota WHERE entity_id = ?1", [&id])?;
    books.connection.execute(
        "DELETE FROM account WHERE key = 'team:' || ?1 OR key GLOB 'member:' || ?1 || ':*'",
        [&id],
    )?;
    violations::close_all(books, team.0, now_ms)
}
