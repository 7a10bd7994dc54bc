//! `/api/reservations`: for platforms that call the engine themselves.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use plimsoll_core::entity::{DecisionId, ReservationId};
use plimsoll_host::ids::ContainerId;
use plimsoll_store::{Claim, Deed, Idempotency, NewReservation, Origin, Reservation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Caller, hash};
use super::input::{Body, BodyAndBytes};
use super::output;
use super::problem::{Answer, Problem};
use super::validate::{ResourceRequest, team_choice};
use crate::clock::new_id;
use crate::state::App;

/// The longest time a reservation may wait for its container: a day.
const TTL_MAX_S: u64 = 86_400;

/// The longest idempotency key.
const KEY_LEN_MAX: usize = 128;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct New {
    user: String,
    team: Option<String>,
    project: Option<String>,
    resource_request: ResourceRequest,
    idempotency_key: Option<String>,
    ttl_seconds: Option<u64>,
    container_name: Option<String>,
    image: Option<String>,
}

pub(super) async fn reserve(
    State(app): State<Arc<App>>,
    caller: Caller,
    BodyAndBytes(new, bytes): BodyAndBytes<New>,
) -> Answer {
    let user = app.store.user(&new.user)?;
    caller.acts_for(&user)?;
    let amounts = new.resource_request.amounts()?;
    let ttl_s = new.ttl_seconds.unwrap_or(app.config.reservations.api_ttl_s);
    if !(1..=TTL_MAX_S).contains(&ttl_s) {
        return Err(Problem::field(
            "ttlSeconds",
            format!("must be from 1 to {TTL_MAX_S}"),
        ));
    }
    if new
        .idempotency_key
        .as_ref()
        .is_some_and(|k| k.is_empty() || k.len() > KEY_LEN_MAX)
    {
        let why = format!("must be 1 to {KEY_LEN_MAX} bytes long");
        return Err(Problem::field("idempotencyKey", why));
    }
    let idempotency = new.idempotency_key.map(|key| Idempotency {
        caller: caller.name.clone(),
        key,
        fingerprint: hash(&String::from_utf8_lossy(&bytes)),
    });
    let now_ms = app.clock.now_ms();
    let ttl_ms = i64::try_from(ttl_s * 1000).unwrap_or(i64::MAX / 2);
    let reservation = NewReservation {
        id: ReservationId(new_id()),
        decision: DecisionId(new_id()),
        claim: Claim {
            user: user.id,
            team: team_choice(&app, new.team.as_deref())?,
            project: new.project,
            host: app.lease.host.clone(),
            amounts,
        },
        origin: Origin::Api,
        idempotency,
        container_name: new.container_name,
        image: new.image,
        expires_ms: now_ms + ttl_ms,
        now_ms,
    };
    let admission = app.store.reserve(reservation).await?;
    match admission.reservation {
        Some(reservation) => {
            let status = if admission.replayed {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            Ok((status, Json(output::reservation(&reservation))).into_response())
        }
        None => Err(Problem::refused(&admission.decision)),
    }
}

/// The reservation of this id, if the caller may act on it.
fn own(app: &App, caller: &Caller, id: &str) -> Answer<Reservation> {
    let absent = || Problem::not_found("reservation", id);
    let parsed: ReservationId = id.parse().map_err(|_| absent())?;
    let reservation = app.store.reservation(parsed)?;
    if caller.is_admin() {
        return Ok(reservation);
    }
    if !caller.is(reservation.user) {
        return Err(absent());
    }
    caller.acts_for(&app.store.user(&reservation.user.to_string())?)?;
    // What the gateway reserved ends with its container, and by nothing else.
    if reservation.origin != Origin::Api {
        return Err(Problem::forbidden(
            "this reservation follows its container: remove that",
        ));
    }
    Ok(reservation)
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let absent = || Problem::not_found("reservation", &id);
    let reservation = app.store.reservation(id.parse().map_err(|_| absent())?)?;
    let owner = app.store.user(&reservation.user.to_string());
    match owner {
        Ok(owner) => caller
            .reads_user(&app, &owner)
            .await
            .map_err(|_| absent())?,
        Err(_) => caller.reads_all()?,
    }
    Ok(Json(output::reservation(&reservation)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Commit {
    container_id: String,
}

pub(super) async fn commit(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(commit): Body<Commit>,
) -> Answer<Json<Value>> {
    let reservation = own(&app, &caller, &id)?;
    let container: ContainerId = commit.container_id.parse().map_err(|_| {
        Problem::field(
            "containerId",
            "must be the engine's full id: 64 lower-case hex digits",
        )
    })?;
    let deed = Deed {
        decision: DecisionId(new_id()),
        now_ms: app.clock.now_ms(),
    };
    let admission = app
        .store
        .commit(reservation.id, container.to_string(), deed)
        .await?;
    match admission.reservation {
        Some(reservation) => {
            app.wake.reconcile.notify_one();
            Ok(Json(output::reservation(&reservation)))
        }
        None => Err(Problem::refused(&admission.decision)),
    }
}

pub(super) async fn void(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let reservation = own(&app, &caller, &id)?;
    let voided = app.store.void(reservation.id, app.clock.now_ms()).await?;
    Ok(Json(output::reservation(&voided)))
}

pub(super) async fn release(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let reservation = own(&app, &caller, &id)?;
    if let Some(container) = &reservation.container
        && let Ok(Some(_)) = app.engine.inspect(container).await
    {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "conflict",
            format!("container {container} still exists: remove it first"),
        ));
    }
    let released = app
        .store
        .release(reservation.id, app.clock.now_ms())
        .await?;
    Ok(Json(json!(output::reservation(&released))))
}
