//! Additions to a quota for a time.

use plimsoll_core::Limit;
use plimsoll_core::entity::{GrantId, TeamId, UserId};
use plimsoll_core::notice::{About, EventKind};
use plimsoll_core::quota::{Additions, added_up};
use rusqlite::{Row, params};
use serde_json::json;

use super::{checked, in_words, redistributions, requests, states};
use crate::Store;
use crate::audit::{self, Change};
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::notices;
use crate::quotas::{self, follow_entity, reshape};
use crate::records::Actor;
use crate::rows;

states! {
    /// Where a grant stands.
    GrantState {
        /// Has not begun.
        Planned = "planned",
        /// Counts.
        Active = "active",
        /// Its time is over.
        Ended = "ended",
        /// Was taken back.
        Revoked = "revoked",
    }
}

/// What a grant adds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantTo {
    /// A user's own quota, outside teams.
    User(UserId),
    /// A team's pool.
    Team(TeamId),
    /// A member's allotment, out of the pool.
    Member(TeamId, UserId),
}

impl GrantTo {
    const fn team(self) -> Option<TeamId> {
        match self {
            Self::User(_) => None,
            Self::Team(team) | Self::Member(team, _) => Some(team),
        }
    }

    const fn user(self) -> Option<UserId> {
        match self {
            Self::Team(_) => None,
            Self::User(user) | Self::Member(_, user) => Some(user),
        }
    }
}

/// An addition to a quota for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Id.
    pub id: GrantId,
    /// What it adds to.
    pub to: GrantTo,
    /// The team's name.
    pub team_name: Option<String>,
    /// The user's name.
    pub user_name: Option<String>,
    /// How much.
    pub added: Additions,
    /// When it begins, Unix milliseconds.
    pub from_ms: i64,
    /// When it ends; `None` until it is revoked.
    pub until_ms: Option<i64>,
    /// Where it stands.
    pub state: GrantState,
    /// Who gave it.
    pub given_by: String,
    /// Why.
    pub reason: Option<String>,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// When it ended or was revoked.
    pub ended_ms: Option<i64>,
}

impl Grant {
    /// Whom or what it adds to, in a word.
    #[must_use]
    pub fn whose(&self) -> String {
        match (&self.team_name, &self.user_name) {
            (Some(team), Some(user)) => format!("{team}/{user}"),
            (Some(name), None) | (None, Some(name)) => name.clone(),
            (None, None) => String::new(),
        }
    }
}

/// A grant to be given.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// Id, made by the caller.
    pub id: GrantId,
    /// What it adds to.
    pub to: GrantTo,
    /// How much.
    pub added: Additions,
    /// When it begins, Unix milliseconds; not in the past counts as now.
    pub from_ms: i64,
    /// When it ends.
    pub until_ms: Option<i64>,
}

/// Something that began or ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// What: `grant.begin`, `grant.end`, `request.expire`, `redistribution.expire`.
    pub what: &'static str,
    /// Whose.
    pub whose: String,
}

const GRANT: &str = "SELECT g.id, g.team_id, g.user_id, t.name, u.name, g.added, g.from_at, g.until_at, \
     g.state, g.given_by, g.reason, g.created_at, g.ended_at FROM quota_grant g \
     LEFT JOIN team t ON t.id = g.team_id LEFT JOIN user u ON u.id = g.user_id";

fn grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    let team = rows::opt_uuid(row, 1)?.map(TeamId);
    let user = rows::opt_uuid(row, 2)?.map(UserId);
    Ok(Grant {
        id: GrantId(rows::uuid(row, 0)?),
        to: match (team, user) {
            (Some(team), Some(user)) => GrantTo::Member(team, user),
            (Some(team), None) => GrantTo::Team(team),
            (None, user) => GrantTo::User(user.unwrap_or(UserId(uuid::Uuid::nil()))),
        },
        team_name: row.get(3)?,
        user_name: row.get(4)?,
        added: rows::parse(row, 5)?,
        from_ms: row.get(6)?,
        until_ms: row.get(7)?,
        state: rows::named(row, 8, GrantState::from_name)?,
        given_by: row.get(9)?,
        reason: row.get(10)?,
        created_ms: row.get(11)?,
        ended_ms: row.get(12)?,
    })
}

fn find(books: &Books<'_>, id: GrantId) -> Result<Grant> {
    let sql = format!("{GRANT} WHERE g.id = ?1");
    rows::one(books.connection, &sql, [id.to_string()], grant, "grant", id)
}

/// Gives a grant, within a transaction.
pub(super) fn give(books: &mut Books<'_>, new: &NewGrant, actor: &Actor) -> Result<Grant> {
    checked(&new.added, new.to.team().is_some())?;
    let now_ms = actor.at_ms;
    if new
        .until_ms
        .is_some_and(|until| until <= new.from_ms.max(now_ms))
    {
        return Err(StoreError::Invalid(
            "a grant must end after it begins, and in the future".into(),
        ));
    }
    if let GrantTo::Member(team, user) = new.to
        && books.place(team, user)?.is_none()
    {
        return Err(StoreError::NotFound {
            what: "member",
            name: user.to_string(),
        });
    }
    let state = if new.from_ms <= now_ms {
        GrantState::Active
    } else {
        GrantState::Planned
    };
    if state == GrantState::Active {
        room_in_pool(books, new.to, &new.added)?;
    }
    books.connection.execute(
        "INSERT INTO quota_grant (id, team_id, user_id, added, from_at, until_at, state, given_by,
                                  reason, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            new.id.to_string(),
            new.to.team().map(|t| t.to_string()),
            new.to.user().map(|u| u.to_string()),
            rows::json(&new.added),
            new.from_ms.max(now_ms),
            new.until_ms,
            state.name(),
            actor.name,
            actor.reason,
            now_ms
        ],
    )?;
    if state == GrantState::Active {
        recount(books, new.to, now_ms)?;
    }
    let given = find(books, new.id)?;
    note(books, actor, "grant.give", &given)?;
    Ok(given)
}

/// A member's grant comes out of the pool, which must hold it.
fn room_in_pool(books: &mut Books<'_>, to: GrantTo, added: &Additions) -> Result<()> {
    let GrantTo::Member(team, _) = to else {
        return Ok(());
    };
    let team = rows::team_by_id(books.connection, team)?;
    for (d, amount) in added {
        match team.pool[*d] {
            Limit::AtMost(free) if free < *amount => {
                return Err(quotas::short(&team, *d, free, *amount));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The sum of the grants that count, to a user, a team's pool or (both) a member.
fn active(books: &Books<'_>, team: Option<&str>, user: Option<&str>) -> Result<Additions> {
    let parts: Vec<Additions> = rows::all(
        books.connection,
        "SELECT added FROM quota_grant
         WHERE team_id IS ?1 AND user_id IS ?2 AND state = 'active'",
        params![team, user],
        |row| rows::parse(row, 0),
    )?;
    Ok(added_up(&parts))
}

/// Writes what grants add to `to` now, and what follows from it.
fn recount(books: &mut Books<'_>, to: GrantTo, now_ms: i64) -> Result<()> {
    let (team, user) = (
        to.team().map(|t| t.to_string()),
        to.user().map(|u| u.to_string()),
    );
    let sum = rows::json(&active(books, team.as_deref(), user.as_deref())?);
    match to {
        GrantTo::Member(..) => books.connection.execute(
            "UPDATE member SET granted = ?3 WHERE team_id = ?1 AND user_id = ?2",
            params![team, user, sum],
        )?,
        GrantTo::Team(_) | GrantTo::User(_) => books.connection.execute(
            "UPDATE quota SET granted = ?2, version = version + 1, updated_at = ?3
             WHERE entity_id = ?1",
            params![team.or(user), sum, now_ms],
        )?,
    };
    books.flush()?;
    books.forget();
    match to {
        GrantTo::Team(team) | GrantTo::Member(team, _) => {
            reshape(books, team)?;
            quotas::follow_team(books, team, "a grant changed", now_ms)
        }
        GrantTo::User(user) => follow_entity(
            books,
            plimsoll_core::entity::EntityKind::User,
            user.0,
            now_ms,
        ),
    }
}

/// Where what is kept as granted is not the sum of the grants that count.
pub(crate) fn differences(books: &Books<'_>) -> Result<Vec<String>> {
    type Held = (Option<String>, Option<String>, Additions);
    let read = |row: &Row<'_>| -> rusqlite::Result<Held> {
        Ok((row.get(0)?, row.get(1)?, rows::parse(row, 2)?))
    };
    let kept: Vec<Held> = rows::all(
        books.connection,
        "SELECT team_id, user_id, granted FROM member UNION ALL
         SELECT CASE WHEN kind = 'team' THEN entity_id END,
                CASE WHEN kind <> 'team' THEN entity_id END, granted FROM quota",
        [],
        read,
    )?;
    let mut found = Vec::new();
    for (team, user, kept) in kept {
        let sum = active(books, team.as_deref(), user.as_deref())?;
        if sum != kept {
            found.push(format!(
                "{} has {} granted, its grants sum to {}",
                team.iter()
                    .chain(&user)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("/"),
                in_words(&kept),
                in_words(&sum)
            ));
        }
    }
    Ok(found)
}

fn end(books: &mut Books<'_>, grant: &Grant, state: GrantState, now_ms: i64) -> Result<()> {
    books.connection.execute(
        "UPDATE quota_grant SET state = ?2, ended_at = ?3 WHERE id = ?1",
        params![grant.id.to_string(), state.name(), now_ms],
    )?;
    if grant.state == GrantState::Active {
        recount(books, grant.to, now_ms)?;
    }
    Ok(())
}

/// A member's grants end with their place.
pub(crate) fn member_left(
    books: &Books<'_>,
    team: TeamId,
    user: UserId,
    now_ms: i64,
) -> Result<()> {
    books.connection.execute(
        "UPDATE quota_grant SET state = 'revoked', ended_at = ?3
         WHERE team_id = ?1 AND user_id = ?2 AND (state = 'planned' OR state = 'active')",
        params![team.to_string(), user.to_string(), now_ms],
    )?;
    Ok(())
}

fn note(books: &Books<'_>, actor: &Actor, action: &str, grant: &Grant) -> Result<()> {
    let state = json!({
        "id": grant.id, "add": in_words(&grant.added), "from": grant.from_ms,
        "until": grant.until_ms, "state": grant.state,
    });
    let whose = grant.whose();
    let change = Change {
        action,
        kind: "grant",
        entity: &whose,
        before: None,
        after: Some(state.to_string()),
    };
    audit::record(books, actor, &change)
}

/// Tells whom it concerns what became of a grant.
fn tell(books: &Books<'_>, actor: &Actor, what: &str, grant: &Grant) -> Result<()> {
    let whose = grant.whose();
    let about = match grant.to {
        GrantTo::User(user) => About::user(user, &whose),
        GrantTo::Team(team) => About::team(team, &whose),
        GrantTo::Member(team, user) => {
            let name = grant.user_name.clone().unwrap_or_default();
            About::member(team, user, name)
        }
    };
    let link = about.link();
    let title = format!("A grant to {whose} {what}: {}", in_words(&grant.added));
    let event = notices::change(EventKind::GrantChanged, about, title, link, actor);
    notices::tell(books, &event, actor)
}

impl Store {
    /// Gives a grant. One to a member comes out of the team's pool.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` when it adds nothing, is over already, or the pool does not hold it.
    pub async fn give_grant(&self, new: NewGrant, actor: Actor) -> Result<Grant> {
        self.write(move |books| {
            let given = give(books, &new, &actor)?;
            let what = match given.state {
                GrantState::Planned => "will begin",
                _ => "counts now",
            };
            tell(books, &actor, what, &given)?;
            Ok(given)
        })
        .await
    }

    /// Takes back a grant that has not ended.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when it has ended.
    pub async fn revoke_grant(&self, id: GrantId, actor: Actor) -> Result<Grant> {
        self.write(move |books| {
            let old = find(books, id)?;
            if !matches!(old.state, GrantState::Planned | GrantState::Active) {
                return Err(StoreError::Conflict(format!(
                    "the grant has {} already",
                    if old.state == GrantState::Ended {
                        "ended"
                    } else {
                        "been revoked"
                    }
                )));
            }
            end(books, &old, GrantState::Revoked, actor.at_ms)?;
            let ended = find(books, id)?;
            note(books, &actor, "grant.revoke", &ended)?;
            tell(books, &actor, "was taken back", &ended)?;
            Ok(ended)
        })
        .await
    }

    /// A grant.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn grant(&self, id: GrantId) -> Result<Grant> {
        self.read(|books| find(books, id))
    }

    /// Grants, newest first; those that are planned or count only, unless `ended` are asked for too.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn grants(&self, ended: bool, most: u32) -> Result<Vec<Grant>> {
        self.read_list(move |books| {
            let sql = format!(
                "{GRANT} WHERE ?1 OR g.state = 'planned' OR g.state = 'active'
                 ORDER BY g.id DESC LIMIT ?2"
            );
            rows::all(books.connection, &sql, params![ended, most], grant)
        })
        .await
    }

    /// Begins and ends what is due: grants, requests that nobody answered in time, loans within teams.
    /// A grant that its pool cannot give when it should begin waits until it can.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn turn(&self, now_ms: i64) -> Result<Vec<Turn>> {
        if !self.read(|books| is_due(books, now_ms))? {
            return Ok(Vec::new());
        }
        let actor = Actor {
            name: "plimsoll".into(),
            at_ms: now_ms,
            reason: None,
        };
        self.write(move |books| {
            let mut turns = Vec::new();
            let sql = format!(
                "{GRANT} WHERE g.state = 'active' AND g.until_at <= ?1
                 OR g.state = 'planned' AND (g.from_at <= ?1 OR g.until_at <= ?1) ORDER BY g.until_at"
            );
            for grant in rows::all(books.connection, &sql, [now_ms], grant)? {
                let over = grant.until_ms.is_some_and(|until| until <= now_ms);
                let (what, told) = if over {
                    end(books, &grant, GrantState::Ended, now_ms)?;
                    ("grant.end", "has ended")
                } else if room_in_pool(books, grant.to, &grant.added).is_ok() {
                    books.connection.execute(
                        "UPDATE quota_grant SET state = 'active' WHERE id = ?1",
                        [grant.id.to_string()],
                    )?;
                    recount(books, grant.to, now_ms)?;
                    ("grant.begin", "counts now")
                } else {
                    continue;
                };
                note(books, &actor, what, &find(books, grant.id)?)?;
                tell(books, &actor, told, &grant)?;
                let whose = grant.whose();
                turns.push(Turn { what, whose });
            }
            requests::expire(books, &actor, &mut turns)?;
            redistributions::expire(books, &actor, &mut turns)?;
            Ok(turns)
        })
        .await
    }
}

fn is_due(books: &Books<'_>, now_ms: i64) -> Result<bool> {
    let mut statement = books.connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM quota_grant WHERE state = 'active' AND until_at <= ?1
                        OR state = 'planned' AND (from_at <= ?1 OR until_at <= ?1))
             OR EXISTS (SELECT 1 FROM quota_request WHERE state = 'open' AND until_at <= ?1)
             OR EXISTS (SELECT 1 FROM redistribution
                        WHERE state = 'made' AND expires_at IS NOT NULL AND expires_at <= ?1)",
    )?;
    Ok(statement.query_row([now_ms], |row| row.get(0))?)
}
