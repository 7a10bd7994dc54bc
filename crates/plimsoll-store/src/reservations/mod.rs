//! Charges: reserve, commit, stop, start, resize, release, void.
//!
//! Two kinds of step, never mixed up. *Requests* ([`requests`]) are admitted and may be refused.
//! *Facts* ([`facts`]) are recorded: what the engine shows is charged even over a limit and opens a
//! violation. Either is `Fenced` where this store does not own the host: see [`crate::hosts`]. Here is
//! what both do to the books: a row and every balance it is part of change together.

mod facts;
mod judge;
mod read;
mod requests;

use std::sync::LazyLock;

use plimsoll_core::admit::LevelKind;
use plimsoll_core::dimension::Amounts;
use plimsoll_core::entity::{DecisionId, ReservationId, TeamId, UserId};
use plimsoll_core::reservation::State;
use rusqlite::{OptionalExtension, params};

use crate::books::Books;
use crate::changes::Change;
use crate::error::{Result, StoreError};
use crate::records::{NewReservation, ObjectKind, Reservation, Shared, Team, charge};
use crate::{quotas, rows, violations};

/// How a step on an existing reservation is known.
#[derive(Debug, Clone, Copy)]
pub struct Deed {
    /// Id for the decision, should one be needed.
    pub decision: DecisionId,
    /// Now, Unix milliseconds.
    pub now_ms: i64,
}

pub(crate) fn find(books: &Books<'_>, id: ReservationId) -> Result<Reservation> {
    static SQL: LazyLock<String> =
        LazyLock::new(|| format!("{} WHERE r.id = ?1", rows::RESERVATION));
    rows::one(
        books.connection,
        &SQL,
        [id.to_string()],
        rows::reservation,
        "reservation",
        id,
    )
}

fn insert(
    books: &Books<'_>,
    new: &NewReservation,
    team: Option<&Team>,
    state: State,
    decision: Option<DecisionId>,
    container: Option<&str>,
) -> Result<()> {
    let idempotency = new.idempotency.as_ref();
    let name = new.container_name.as_deref();
    books
        .connection
        .prepare_cached(
            "INSERT INTO reservation (id, host, user_id, team_id, project, state, claim, origin,
                                      decision_id, caller, idem_key, fingerprint, container_id,
                                      container_name, image, expires_at, created_at, changed_at, kind,
                                      goes_with, host_mounts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?17,
                     ?18, ?19, ?20)",
        )?
        .execute(params![
            new.id.to_string(),
            new.claim.host,
            new.claim.user.to_string(),
            team.map(|t| t.id.to_string()),
            new.claim.project,
            state.name(),
            rows::json(&new.claim.amounts),
            new.origin.name(),
            decision.map(|d| d.to_string()),
            idempotency.map(|i| &i.caller),
            idempotency.map(|i| &i.key),
            idempotency.map(|i| &i.fingerprint),
            container,
            name,
            new.image,
            container.is_none().then_some(new.expires_ms),
            new.now_ms,
            new.kind.name(),
            new.goes_with.map(|r| r.to_string()),
            (!new.host_mounts.is_empty()).then(|| rows::json(&new.host_mounts))
        ])
        .map_err(|e| conflict(e, new.kind, new.id, name, container))?;
    note(books, new.id, new.claim.user, team.map(|t| t.id));
    Ok(())
}

/// Tells that a reservation is new or another one.
fn note(books: &Books<'_>, id: ReservationId, user: UserId, team: Option<TeamId>) {
    books.note(Change::Reservation { id, user, team });
}

/// Moves a reservation to another state and claim, and every balance with it.
fn change(
    books: &mut Books<'_>,
    r: &Reservation,
    state: State,
    claim: &Amounts,
    now_ms: i64,
) -> Result<Reservation> {
    let started = (state == State::Active && r.state != State::Active).then_some(now_ms);
    let changed = books
        .connection
        .prepare_cached(
            "UPDATE reservation SET state = ?3, claim = ?4, changed_at = ?5,
                                    started_at = coalesce(?6, started_at)
             WHERE id = ?1 AND state = ?2",
        )?
        .execute(params![
            r.id.to_string(),
            r.state.name(),
            state.name(),
            rows::json(claim),
            now_ms,
            started
        ])
        .map_err(|e| taken(e, r))?;
    if changed != 1 {
        return Err(StoreError::Conflict(format!(
            "reservation {} changed meanwhile",
            r.id
        )));
    }
    // What has ended shares nothing any more, and may be admitted again by itself.
    let shared = r.shared.filter(|_| !state.is_final());
    note(books, r.id, r.user, r.team);
    if shared != r.shared {
        set_shared(books, r.id, shared)?;
    }
    let (before, after) = (r.charge(), charge(state, claim, shared.as_ref()));
    books.charge(r.user, r.team, &r.host, &before, &after)?;
    // What this one charges no longer, the one in its place does.
    if let Some(other) = sharer(books, r.id)? {
        let left = lessened(other.shared, |amounts| amounts.within(&after));
        share(books, &other, left)?;
    }
    Ok(Reservation {
        state,
        claim: *claim,
        changed_ms: now_ms,
        started_ms: started.or(r.started_ms),
        shared,
        ..r.clone()
    })
}

/// The live reservation that takes the place of this one.
pub(crate) fn sharer(books: &Books<'_>, id: ReservationId) -> Result<Option<Reservation>> {
    static SQL: LazyLock<String> =
        LazyLock::new(|| format!("{} WHERE r.replaces = ?1", rows::RESERVATION));
    let mut statement = books.connection.prepare_cached(&SQL)?;
    Ok(statement
        .query_row([id.to_string()], rows::reservation)
        .optional()?)
}

/// A smaller share; none where nothing is left of it.
fn lessened(shared: Option<Shared>, less: impl Fn(Amounts) -> Amounts) -> Option<Shared> {
    let shared = shared.map(|shared| Shared {
        amounts: less(shared.amounts),
        ..shared
    });
    shared.filter(|shared| !shared.amounts.is_zero())
}

fn set_shared(books: &Books<'_>, id: ReservationId, shared: Option<Shared>) -> Result<()> {
    books
        .connection
        .prepare_cached("UPDATE reservation SET replaces = ?2, shared = ?3 WHERE id = ?1")?
        .execute(params![
            id.to_string(),
            shared.map(|s| s.with.to_string()),
            shared.map(|s| rows::json(&s.amounts))
        ])?;
    Ok(())
}

/// Changes what a reservation shares, and every balance with it.
fn share(books: &mut Books<'_>, r: &Reservation, shared: Option<Shared>) -> Result<Reservation> {
    if shared == r.shared {
        return Ok(r.clone());
    }
    set_shared(books, r.id, shared)?;
    note(books, r.id, r.user, r.team);
    let after = charge(r.state, &r.claim, shared.as_ref());
    books.charge(r.user, r.team, &r.host, &r.charge(), &after)?;
    Ok(Reservation {
        shared,
        ..r.clone()
    })
}

/// A fact: charged whatever the limits say, and held against them afterwards.
fn record(
    books: &mut Books<'_>,
    r: &Reservation,
    state: State,
    claim: &Amounts,
    cause: &str,
    now_ms: i64,
) -> Result<Reservation> {
    let before = r.charge();
    let changed = change(books, r, state, claim, now_ms)?;
    let grows = before.checked_sub(&changed.charge()).is_none();
    if grows || violations::any_open(books)? {
        follow(books, r, cause, now_ms)?;
    }
    Ok(changed)
}

/// Holds the path of a reservation against its limits. A user that was deleted has none left; their
/// team and the host still do.
fn follow(books: &mut Books<'_>, r: &Reservation, cause: &str, now_ms: i64) -> Result<()> {
    let (host, system) = books.machine(&r.host)?;
    violations::follow_whole(books, LevelKind::Host, &host, cause, now_ms)?;
    violations::follow_whole(books, LevelKind::System, &system, cause, now_ms)?;
    if let Some(team) = r.team {
        return quotas::follow_team(books, team, cause, now_ms);
    }
    match books.user(r.user) {
        Err(StoreError::NotFound { .. }) => Ok(()),
        user => {
            let level = books.user_level(&user?)?;
            violations::follow_whole(books, LevelKind::User, &level, cause, now_ms)
        }
    }
}

/// Which of a reservation's unique columns another one has already.
fn taken(error: rusqlite::Error, r: &Reservation) -> StoreError {
    conflict(
        error,
        r.kind,
        r.id,
        r.container_name.as_deref(),
        r.container.as_deref(),
    )
}

fn conflict(
    error: rusqlite::Error,
    kind: ObjectKind,
    id: ReservationId,
    name: Option<&str>,
    container: Option<&str>,
) -> StoreError {
    if error.sqlite_error_code() != Some(rusqlite::ErrorCode::ConstraintViolation) {
        return error.into();
    }
    // SQLite names the columns of the index: "UNIQUE constraint failed: reservation.host, ...".
    let columns = error.to_string();
    StoreError::Conflict(if columns.contains("container_name") {
        let name = name.unwrap_or_default();
        match kind {
            ObjectKind::Container => format!(
                "the container name \"/{name}\" is already in use: remove (or rename) that \
                 container to be able to reuse that name"
            ),
            other => format!("{} with name {name} already exists", other.name()),
        }
    } else if columns.contains("container_id") {
        format!(
            "{} {} is bound to another reservation",
            kind.name(),
            container.unwrap_or_default()
        )
    } else if columns.contains("reservation.id") {
        format!("reservation {id} exists")
    } else {
        return error.into();
    })
}
