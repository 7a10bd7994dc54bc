//! Somebody's wish for a grant, and what came of it.

use plimsoll_core::entity::{GrantId, RequestId, TeamId, UserId};
use plimsoll_core::notice::{About, EventKind};
use plimsoll_core::quota::Additions;
use rusqlite::{Row, params};
use serde_json::json;

use super::grants::{self, Grant, GrantTo, NewGrant, Turn};
use super::{checked, in_words, states};
use crate::Store;
use crate::audit::{self, Change};
use crate::books::Books;
use crate::error::{Result, StoreError};
use crate::notices;
use crate::records::Actor;
use crate::rows;

states! {
    /// Where a request stands.
    RequestState {
        /// Nobody has answered.
        Open = "open",
        /// There is a grant.
        Approved = "approved",
        /// Somebody said no.
        Denied = "denied",
        /// Who asked took it back.
        Withdrawn = "withdrawn",
        /// Its time passed without an answer.
        Expired = "expired",
    }
}

/// Open requests of one user at most.
const OPEN_MAX: i64 = 20;

/// A wish for a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Id.
    pub id: RequestId,
    /// Who asks.
    pub user: UserId,
    /// Their name.
    pub user_name: String,
    /// For their place in this team; outside teams if `None`.
    pub team: Option<TeamId>,
    /// The team's name.
    pub team_name: Option<String>,
    /// How much more.
    pub added: Additions,
    /// Until when, Unix milliseconds.
    pub until_ms: Option<i64>,
    /// Why.
    pub reason: String,
    /// Where it stands.
    pub state: RequestState,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// When it was answered.
    pub answered_ms: Option<i64>,
    /// By whom.
    pub answered_by: Option<String>,
    /// In what words.
    pub answer: Option<String>,
    /// What it led to.
    pub grant: Option<GrantId>,
}

/// A request to be made.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// Id, made by the caller.
    pub id: RequestId,
    /// Who asks.
    pub user: UserId,
    /// For their place in this team.
    pub team: Option<TeamId>,
    /// How much more.
    pub added: Additions,
    /// Until when.
    pub until_ms: Option<i64>,
    /// Why.
    pub reason: String,
}

const REQUEST: &str = "SELECT q.id, q.user_id, u.name, q.team_id, t.name, q.added, q.until_at, q.reason, \
     q.state, q.created_at, q.answered_at, q.answered_by, q.answer, q.grant_id FROM quota_request q \
     JOIN user u ON u.id = q.user_id LEFT JOIN team t ON t.id = q.team_id";

fn request(row: &Row<'_>) -> rusqlite::Result<Request> {
    Ok(Request {
        id: RequestId(rows::uuid(row, 0)?),
        user: UserId(rows::uuid(row, 1)?),
        user_name: row.get(2)?,
        team: rows::opt_uuid(row, 3)?.map(TeamId),
        team_name: row.get(4)?,
        added: rows::parse(row, 5)?,
        until_ms: row.get(6)?,
        reason: row.get(7)?,
        state: rows::named(row, 8, RequestState::from_name)?,
        created_ms: row.get(9)?,
        answered_ms: row.get(10)?,
        answered_by: row.get(11)?,
        answer: row.get(12)?,
        grant: rows::opt_uuid(row, 13)?.map(GrantId),
    })
}

fn find(books: &Books<'_>, id: RequestId) -> Result<Request> {
    let sql = format!("{REQUEST} WHERE q.id = ?1");
    rows::one(
        books.connection,
        &sql,
        [id.to_string()],
        request,
        "request",
        id,
    )
}

fn open(books: &Books<'_>, id: RequestId) -> Result<Request> {
    let found = find(books, id)?;
    if found.state == RequestState::Open {
        return Ok(found);
    }
    let by = found.answered_by.as_deref().unwrap_or("plimsoll");
    Err(StoreError::Conflict(format!(
        "the request was {} already, by {by}",
        found.state.name()
    )))
}

/// Ends an open request and says so in the log.
fn answered(
    books: &Books<'_>,
    old: &Request,
    state: RequestState,
    grant: Option<GrantId>,
    actor: &Actor,
) -> Result<Request> {
    books.connection.execute(
        "UPDATE quota_request SET state = ?2, answered_at = ?3, answered_by = ?4, answer = ?5,
                                  grant_id = ?6 WHERE id = ?1",
        params![
            old.id.to_string(),
            state.name(),
            actor.at_ms,
            actor.name,
            actor.reason,
            grant.map(|g| g.to_string())
        ],
    )?;
    note(books, actor, &format!("request.{}", state.name()), old)?;
    let answered = find(books, old.id)?;
    tell(books, actor, &answered)?;
    Ok(answered)
}

fn note(books: &Books<'_>, actor: &Actor, action: &str, request: &Request) -> Result<()> {
    let state = json!({
        "id": request.id, "team": request.team_name, "add": in_words(&request.added),
        "until": request.until_ms, "reason": request.reason,
    });
    let change = Change {
        action,
        kind: "request",
        entity: &request.user_name,
        before: None,
        after: Some(state.to_string()),
    };
    audit::record(books, actor, &change)
}

/// Tells whom it concerns where a request stands.
fn tell(books: &Books<'_>, actor: &Actor, request: &Request) -> Result<()> {
    let (name, asked) = (&request.user_name, in_words(&request.added));
    let (kind, title) = match request.state {
        RequestState::Open => (EventKind::RequestAsked, format!("{name} asks for {asked}")),
        RequestState::Withdrawn => {
            let title = format!("{name} no longer asks for {asked}");
            (EventKind::RequestWithdrawn, title)
        }
        RequestState::Approved | RequestState::Denied => {
            let answer = request.state.name();
            let title = format!("The request of {name} for {asked} was {answer}");
            (EventKind::RequestAnswered, title)
        }
        RequestState::Expired => {
            let title = format!("Nobody answered the request of {name} for {asked} in time");
            (EventKind::RequestAnswered, title)
        }
    };
    let about = match request.team {
        Some(team) => About::member(team, request.user, name),
        None => About::user(request.user, name),
    };
    let link = format!("/requests/{}", request.id);
    let mut event = notices::change(kind, about, title, link, actor);
    if kind == EventKind::RequestAsked {
        event = event.figure("reason", &request.reason).advice(format!(
            "plimsoll quota approve {0}, or plimsoll quota deny {0}",
            request.id
        ));
    }
    notices::tell(books, &event, actor)
}

/// Closes requests whose time has passed.
pub(super) fn expire(books: &Books<'_>, actor: &Actor, turns: &mut Vec<Turn>) -> Result<()> {
    let sql = format!("{REQUEST} WHERE q.state = 'open' AND q.until_at <= ?1 ORDER BY q.id");
    for old in rows::all(books.connection, &sql, [actor.at_ms], request)? {
        answered(books, &old, RequestState::Expired, None, actor)?;
        turns.push(Turn {
            what: "request.expire",
            whose: old.user_name,
        });
    }
    Ok(())
}

impl Store {
    /// Asks for a grant.
    ///
    /// # Errors
    /// `NotFound` for a team the user has no place in, `Invalid` when nothing is asked or its time has
    /// passed, `Conflict` when too many requests of theirs are open.
    pub async fn ask(&self, new: NewRequest, actor: Actor) -> Result<Request> {
        self.write(move |books| {
            checked(&new.added, new.team.is_some())?;
            if new.until_ms.is_some_and(|until| until <= actor.at_ms) {
                return Err(StoreError::Invalid("`until` must be in the future".into()));
            }
            if let Some(team) = new.team
                && books.place(team, new.user)?.is_none()
            {
                return Err(StoreError::NotFound {
                    what: "member",
                    name: new.user.to_string(),
                });
            }
            let user = new.user.to_string();
            let open: i64 = books.connection.query_row(
                "SELECT count(*) FROM quota_request WHERE state = 'open' AND user_id = ?1",
                [&user],
                |row| row.get(0),
            )?;
            if open >= OPEN_MAX {
                return Err(StoreError::Conflict(format!(
                    "{open} of your requests are open: withdraw one first"
                )));
            }
            books.connection.execute(
                "INSERT INTO quota_request (id, user_id, team_id, added, until_at, reason, state,
                                            created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open', ?7)",
                params![
                    new.id.to_string(),
                    user,
                    new.team.map(|t| t.to_string()),
                    rows::json(&new.added),
                    new.until_ms,
                    new.reason,
                    actor.at_ms
                ],
            )?;
            let made = find(books, new.id)?;
            note(books, &actor, "request.ask", &made)?;
            tell(books, &actor, &made)?;
            Ok(made)
        })
        .await
    }

    /// Approves an open request: gives what it asks, until `until_ms` in place of its own time if that
    /// is given. Both happen, or neither.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when it is not open any more, `Invalid` when the team's pool does not hold
    /// it.
    pub async fn approve(
        &self,
        id: RequestId,
        grant: GrantId,
        until_ms: Option<i64>,
        actor: Actor,
    ) -> Result<(Request, Grant)> {
        self.write(move |books| {
            let old = open(books, id)?;
            let new = NewGrant {
                id: grant,
                to: old.team.map_or(GrantTo::User(old.user), |team| {
                    GrantTo::Member(team, old.user)
                }),
                added: old.added.clone(),
                from_ms: actor.at_ms,
                until_ms: until_ms.or(old.until_ms),
            };
            let given = grants::give(books, &new, &actor)?;
            let done = answered(books, &old, RequestState::Approved, Some(grant), &actor)?;
            Ok((done, given))
        })
        .await
    }

    /// Denies an open request.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when it is not open any more.
    pub async fn deny(&self, id: RequestId, actor: Actor) -> Result<Request> {
        self.write(move |books| {
            let old = open(books, id)?;
            answered(books, &old, RequestState::Denied, None, &actor)
        })
        .await
    }

    /// Takes an open request back.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when it is not open any more.
    pub async fn withdraw(&self, id: RequestId, actor: Actor) -> Result<Request> {
        self.write(move |books| {
            let old = open(books, id)?;
            answered(books, &old, RequestState::Withdrawn, None, &actor)
        })
        .await
    }

    /// A request.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn request(&self, id: RequestId) -> Result<Request> {
        self.read(|books| find(books, id))
    }

    /// Requests, newest first; the open ones only, unless `answered` are asked for too.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn requests(&self, answered: bool, most: u32) -> Result<Vec<Request>> {
        self.read_list(move |books| {
            let sql = format!("{REQUEST} WHERE ?1 OR q.state = 'open' ORDER BY q.id DESC LIMIT ?2");
            rows::all(books.connection, &sql, params![answered, most], request)
        })
        .await
    }
}
