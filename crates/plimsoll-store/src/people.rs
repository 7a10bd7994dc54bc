//! Users, teams, members and projects. Every quota a person needs is written in the transaction that
//! makes them.

use plimsoll_core::dimension::Limits;
use plimsoll_core::entity::{EntityKind, MemberRole, Name, ProjectId, TeamId, UserId};
use plimsoll_core::quota::{DEFAULT_CLASS, TeamMode};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;
use uuid::Uuid;

use crate::Store;
use crate::audit::{self, Change};
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::quotas::{self, reshape};
use crate::records::{Actor, Member, NewUser, Project, Team, User};
use crate::rows;
use crate::violations;

/// Who joins a team, or how their place in it changes. What is `None` stays, or gets its default.
#[derive(Debug, Clone)]
pub struct NewMember {
    /// The team.
    pub team: TeamId,
    /// The user.
    pub user: UserId,
    /// Lead or member; `None` keeps, or makes a plain member.
    pub role: Option<MemberRole>,
    /// The allotments that change; see [`Store::put_member`].
    pub allotment: Option<Vec<(plimsoll_core::Dimension, u64)>>,
    /// How far they may reach into the pool.
    pub borrow: Option<Vec<(plimsoll_core::Dimension, plimsoll_core::Limit)>>,
    /// Make this their default team.
    pub default: Option<bool>,
    /// A lead's addition takes the allotment from the pool, so the team's limit stays.
    pub from_pool: bool,
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
    pub async fn change_user(
        &self,
        id: UserId,
        suspended: Option<bool>,
        email: Option<Option<String>>,
        os_uid: Option<Option<u32>>,
        actor: Actor,
    ) -> Result<User> {
        self.write(move |books| {
            let user = rows::user_by_id(books.connection, id)?;
            let email = email.unwrap_or_else(|| user.email.clone());
            let os_uid = os_uid.unwrap_or(user.os_uid);
            let suspended = suspended.unwrap_or(user.suspended);
            books
                .connection
                .execute(
                    "UPDATE user SET suspended = ?2, email = ?3, os_uid = ?4 WHERE id = ?1",
                    params![id.to_string(), suspended, email, os_uid],
                )
                .map_err(|e| taken(e, &format!("uid {}", os_uid.unwrap_or_default())))?;
            let state = |suspended: bool, email: &Option<String>, uid: Option<u32>| {
                json!({"suspended": suspended, "email": email, "osUid": uid}).to_string()
            };
            let change = Change {
                action: "user.change",
                kind: "user",
                entity: &user.name,
                before: Some(state(user.suspended, &user.email, user.os_uid)),
                after: Some(state(suspended, &email, os_uid)),
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
                remove_user(books, &user, actor.at_ms)?;
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
                remove_team(books, id, actor.at_ms)?;
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

    /// Puts a user into a team or changes their place in it.
    ///
    /// A new member's allotment, where none is given: a copy of their own quota if this is their
    /// first team and nobody takes it from the pool (the team then becomes their default), else
    /// nothing. Allotments taken from the pool may not exceed it.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` when the pool does not hold what is taken from it.
    pub async fn put_member(&self, new: NewMember, actor: Actor) -> Result<Member> {
        self.write(move |books| {
            let db = books.connection;
            let team = rows::team_by_id(db, new.team)?;
            let user = rows::user_by_id(db, new.user)?;
            let (team_id, user_id) = (new.team.to_string(), new.user.to_string());
            let old = member(db, new.team, new.user)?;
            let first_team = !exists(
                db,
                "SELECT EXISTS (SELECT 1 FROM member WHERE user_id = ?1)",
                [&user_id],
            )?;

            let mut allotment = match &old {
                Some(old) => old.allotment,
                None if new.allotment.is_none() && first_team && !new.from_pool => {
                    quotas::as_allotment(&rows::quota(db, new.user.0)?.limits)
                }
                None => Limits::nothing(),
            };
            for (d, amount) in new.allotment.iter().flatten() {
                if !d.is_summed() {
                    return Err(StoreError::Invalid(format!(
                        "an allotment has no {d}: it comes from the team's class"
                    )));
                }
                allotment[*d] = plimsoll_core::Limit::AtMost(*amount);
            }
            let mut borrow = old.as_ref().map_or(Limits::UNLIMITED, |m| m.borrow);
            for (d, limit) in new.borrow.iter().flatten() {
                borrow[*d] = *limit;
            }
            let role = new
                .role
                .or(old.as_ref().map(|m| m.role))
                .unwrap_or(MemberRole::Member);
            if new.from_pool && team.mode == TeamMode::Aggregate {
                let before = old.as_ref().map_or(Limits::nothing(), |m| m.allotment);
                quotas::take_from_pool(books, &team, &before, &allotment, actor.at_ms)?;
            }
            db.execute(
                "INSERT INTO member (team_id, user_id, role, allotment, borrow, joined_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (team_id, user_id) DO UPDATE SET role = ?3, allotment = ?4, borrow = ?5",
                params![
                    team_id,
                    user_id,
                    role.name(),
                    rows::json(&allotment),
                    rows::json(&borrow),
                    actor.at_ms
                ],
            )?;
            if new.default == Some(true) || (first_team && new.default.is_none()) {
                db.execute("UPDATE user SET default_team = ?2 WHERE id = ?1", [&user_id, &team_id])?;
            } else if new.default == Some(false) && user.default_team == Some(new.team) {
                db.execute("UPDATE user SET default_team = NULL WHERE id = ?1", [&user_id])?;
            }
            let shape = reshape(books, new.team)?;
            if new.from_pool && team.mode == TeamMode::Fixed {
                quotas::check_promises(&shape, &team.name)?;
            }
            let cause = "the allotments changed";
            quotas::follow_team(books, new.team, cause, actor.at_ms)?;
            let state = |role: MemberRole, allotment: &Limits, borrow: &Limits| {
                json!({"role": role.name(), "allotment": allotment, "borrow": borrow}).to_string()
            };
            let name = format!("{}/{}", team.name, user.name);
            let change = Change {
                action: "member.put",
                kind: "member",
                entity: &name,
                before: old.map(|m| state(m.role, &m.allotment, &m.borrow)),
                after: Some(state(role, &allotment, &borrow)),
            };
            audit::record(books, &actor, &change)?;
            member(books.connection, new.team, new.user)?
                .ok_or_else(|| StoreError::Corrupt("a member vanished while being added".into()))
        })
        .await
    }

    /// Takes a user out of a team. What they still hold there counts as borrowed until released,
    /// which needs `drain`.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when they hold something in it and `drain` is not asked.
    pub async fn remove_member(
        &self,
        team: TeamId,
        user: UserId,
        drain: bool,
        to_pool: bool,
        actor: Actor,
    ) -> Result<()> {
        self.write(move |books| {
            let db = books.connection;
            let old = member(db, team, user)?.ok_or_else(|| StoreError::NotFound {
                what: "member",
                name: user.to_string(),
            })?;
            if !old.reserved.is_zero() && !drain {
                return Err(StoreError::Conflict(format!(
                    "{} still holds reservations in team {}: remove their containers first, or drain",
                    old.user_name, old.team_name
                )));
            }
            let by = params![team.to_string(), user.to_string()];
            if to_pool {
                let team = rows::team_by_id(db, team)?;
                if team.mode == TeamMode::Aggregate {
                    let nothing = Limits::nothing();
                    quotas::take_from_pool(books, &team, &old.allotment, &nothing, actor.at_ms)?;
                }
            }
            db.execute("DELETE FROM member WHERE team_id = ?1 AND user_id = ?2", by)?;
            db.execute("UPDATE user SET default_team = NULL WHERE id = ?2 AND default_team = ?1", by)?;
            reshape(books, team)?;
            quotas::follow_team(books, team, "a member left", actor.at_ms)?;
            let name = format!("{}/{}", old.team_name, old.user_name);
            let change = Change {
                action: "member.remove",
                kind: "member",
                entity: &name,
                before: Some(json!({"role": old.role.name(), "allotment": old.allotment}).to_string()),
                after: None,
            };
            audit::record(books, &actor, &change)
        })
        .await
    }

    /// Members of a team, or the places of a user, by name.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn members(&self, team: Option<TeamId>, user: Option<UserId>) -> Result<Vec<Member>> {
        self.read_list(move |books| members(books.connection, team, user))
            .await
    }

    /// A user's place in a team.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn member(&self, team: TeamId, user: UserId) -> Result<Option<Member>> {
        self.read(|books| member(books.connection, team, user))
    }

    /// Adds a project to a team or to a user.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when its owner has one of that name.
    pub async fn add_project(&self, project: Project, actor: Actor) -> Result<Project> {
        self.write(move |books| {
            let owner = match (project.team, project.user) {
                (Some(team), None) => rows::team_by_id(books.connection, team)?.name,
                (None, Some(user)) => rows::user_by_id(books.connection, user)?.name,
                _ => return Err(StoreError::Invalid("a project has one owner".into())),
            };
            books
                .connection
                .execute(
                    "INSERT INTO project (id, name, team_id, user_id, created_at)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        project.id.to_string(),
                        project.name,
                        project.team.map(|t| t.to_string()),
                        project.user.map(|u| u.to_string()),
                        project.created_ms
                    ],
                )
                .map_err(|e| taken(e, &format!("the project name {}", project.name)))?;
            let name = format!("{owner}/{}", project.name);
            let change = Change {
                action: "project.add",
                kind: "project",
                entity: &name,
                before: None,
                after: None,
            };
            audit::record(books, &actor, &change)?;
            Ok(project)
        })
        .await
    }

    /// Every project, by name.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn projects(&self) -> Result<Vec<Project>> {
        self.read_list(|books| {
            let sql = format!("{} ORDER BY name, id", rows::PROJECT);
            rows::all(books.connection, &sql, [], rows::project)
        })
        .await
    }

    /// Deletes a project. What was counted under its name keeps the name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_project(&self, id: ProjectId, actor: Actor) -> Result<()> {
        self.write(move |books| {
            let sql = format!("{} WHERE id = ?1", rows::PROJECT);
            let project = rows::one(
                books.connection,
                &sql,
                [id.to_string()],
                rows::project,
                "project",
                id,
            )?;
            books
                .connection
                .execute("DELETE FROM project WHERE id = ?1", [id.to_string()])?;
            let change = Change {
                action: "project.delete",
                kind: "project",
                entity: &project.name,
                before: None,
                after: None,
            };
            audit::record(books, &actor, &change)
        })
        .await
    }

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
                remove_user(books, &user, actor.at_ms)?;
                record_gone(books, &actor, "user", &user.name)?;
                gone.push(user.name);
            }
            let sql = format!("{} {}", rows::TEAM, drained("team", "team_id"));
            for team in rows::all(db, &sql, [], rows::team)? {
                remove_team(books, team.id, actor.at_ms)?;
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

fn remove_user(books: &mut Books<'_>, user: &User, now_ms: i64) -> Result<()> {
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

fn remove_team(books: &mut Books<'_>, team: TeamId, now_ms: i64) -> Result<()> {
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

/// An id as the ledger writes it, whichever way it was spelled; a name as it is.
fn as_stored(id_or_name: &str) -> String {
    id_or_name
        .parse::<Uuid>()
        .map_or_else(|_| id_or_name.to_owned(), |id| id.to_string())
}

pub(crate) fn find_user(connection: &Connection, id_or_name: &str) -> Result<User> {
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

pub(crate) fn member(
    connection: &Connection,
    team: TeamId,
    user: UserId,
) -> Result<Option<Member>> {
    Ok(members(connection, Some(team), Some(user))?.pop())
}

pub(crate) fn members(
    connection: &Connection,
    team: Option<TeamId>,
    user: Option<UserId>,
) -> Result<Vec<Member>> {
    let (team, user) = (team.map(|t| t.to_string()), user.map(|u| u.to_string()));
    match (&team, &user) {
        (Some(team), None) => {
            let sql = format!("{} WHERE m.team_id = ?1 ORDER BY u.name", rows::MEMBER);
            rows::all(connection, &sql, [team], rows::member)
        }
        _ => {
            let sql = format!(
                "{} WHERE m.user_id = ?2 AND (?1 IS NULL OR m.team_id = ?1) ORDER BY t.name",
                rows::MEMBER
            );
            rows::all(connection, &sql, params![team, user], rows::member)
        }
    }
}
