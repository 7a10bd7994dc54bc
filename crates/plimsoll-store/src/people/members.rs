//! Users in teams: their roles, allotments and borrow limits.

use plimsoll_core::dimension::Limits;
use plimsoll_core::entity::{MemberRole, TeamId, UserId};
use plimsoll_core::notice::{About, EventKind};
use plimsoll_core::quota::TeamMode;
use rusqlite::{Connection, params};
use serde_json::json;

use super::exists;
use crate::Store;
use crate::audit::{self, Change};
use crate::error::{Result, StoreError};
use crate::notices;
use crate::quotas::{self, reshape};
use crate::records::{Actor, Member};
use crate::rows;
use crate::shares;

/// Who joins a team, or how their place in it changes. What is `None` stays, or gets its default.
#[derive(Debug, Clone)]
pub struct NewMember {
    /// The team.
    pub team: TeamId,
    /// The user.
    pub user: UserId,
    /// Lead or member; `None` keeps, or makes a plain member.
    pub role: Option<MemberRole>,
    /// The dimensions of the allotment that are named; see [`Store::put_member`].
    pub allotment: Option<Vec<(plimsoll_core::Dimension, u64)>>,
    /// How far they may reach into the pool.
    pub borrow: Option<Vec<(plimsoll_core::Dimension, plimsoll_core::Limit)>>,
    /// Make this their default team.
    pub default: Option<bool>,
    /// A lead's addition takes the allotment from the pool, so the team's limit stays.
    pub from_pool: bool,
}

impl Store {
    /// Puts a user into a team or changes their place in it.
    ///
    /// A new member's allotment starts from a copy of their own quota if this is their first team and
    /// nobody takes it from the pool, else from nothing; a known member's from what they have. The
    /// dimensions that are named replace it. A first team becomes their default. Allotments taken from
    /// the pool may not exceed it.
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
                None if first_team && !new.from_pool => {
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
                before: old.as_ref().map(|m| state(m.role, &m.allotment, &m.borrow)),
                after: Some(state(role, &allotment, &borrow)),
            };
            audit::record(books, &actor, &change)?;
            let before = old.map_or(Limits::nothing(), |m| m.allotment);
            if before != allotment {
                let about = About::member(new.team, new.user, &user.name);
                let title = format!("The allotment of {} in team {} has changed", user.name, team.name);
                let link = format!("/team/{}", team.name);
                let event = notices::change(EventKind::AllotmentChanged, about, title, link, &actor);
                let event = notices::with_changes(event, &before, &allotment);
                notices::tell(books, &event, &actor)?;
            }
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
            shares::member_left(books, team, user, actor.at_ms)?;
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
}

fn member(connection: &Connection, team: TeamId, user: UserId) -> Result<Option<Member>> {
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
