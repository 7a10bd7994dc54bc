//! `/api/reservations`: for platforms that call the engine themselves.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use plimsoll_core::State as Stands;
use plimsoll_core::entity::{DecisionId, Name, ReservationId};
use plimsoll_host::ids::ContainerId;
use plimsoll_host::request::path::container_name;
use plimsoll_store::{Claim, Idempotency, NewReservation, Origin, Reservation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Caller, hash};
use super::input::{Body, found};
use super::output;
use super::problem::{Answer, Problem};
use super::validate::{ResourceRequest, team_choice};
use crate::clock::new_id;
use crate::state::App;

/// The longest time a reservation may wait for its container: a day.
const TTL_MAX_S: u64 = 86_400;

/// The longest idempotency key.
const KEY_LEN_MAX: usize = 128;

/// The longest image name.
const IMAGE_LEN_MAX: usize = 255;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct New {
    user: String,
    team: Option<String>,
    project: Option<Name>,
    resource_request: ResourceRequest,
    idempotency_key: Option<String>,
    ttl_seconds: Option<u64>,
    container_name: Option<String>,
    image: Option<String>,
}

impl New {
    fn check(&self) -> Result<(), Problem> {
        if self
            .ttl_seconds
            .is_some_and(|ttl| !(1..=TTL_MAX_S).contains(&ttl))
        {
            let why = format!("must be from 1 to {TTL_MAX_S}");
            return Err(Problem::field("ttlSeconds", why));
        }
        let key = self.idempotency_key.as_deref();
        if key.is_some_and(|key| key.is_empty() || key.len() > KEY_LEN_MAX) {
            let why = format!("must be 1 to {KEY_LEN_MAX} bytes long");
            return Err(Problem::field("idempotencyKey", why));
        }
        if let Some(name) = &self.container_name {
            container_name(name).map_err(|e| Problem::field("containerName", e.reason))?;
        }
        let image = self.image.as_deref();
        if image.is_some_and(|image| image.len() > IMAGE_LEN_MAX) {
            let why = format!("must be {IMAGE_LEN_MAX} bytes long at most");
            return Err(Problem::field("image", why));
        }
        Ok(())
    }

    /// What makes two requests the same one: what is asked, not how the JSON is spaced. A team that
    /// is not named is not the same as the team that is the default now.
    fn fingerprint(&self, claim: &Claim) -> String {
        let asked = json!([
            claim.user,
            self.team,
            claim.project,
            claim.amounts,
            self.ttl_seconds,
            self.container_name,
            self.image
        ]);
        hash(&asked.to_string())
    }
}

pub(super) async fn reserve(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Answer {
    new.check()?;
    let amounts = new.resource_request.amounts()?;
    let user = caller.user(&app, &new.user).await?;
    caller.acts_for(&user)?;
    let claim = Claim {
        user: user.id,
        team: team_choice(&app, &caller, new.team.as_deref())?,
        project: new.project.as_ref().map(ToString::to_string),
        host: app.lease.host.clone(),
        amounts,
    };
    let idempotency = new.idempotency_key.as_ref().map(|key| Idempotency {
        caller: caller.key.clone(),
        key: key.clone(),
        fingerprint: new.fingerprint(&claim),
    });
    let now_ms = app.clock.now_ms();
    let ttl_s = new.ttl_seconds.unwrap_or(app.config.reservations.api_ttl_s);
    let ttl_ms = i64::try_from(ttl_s * 1000).unwrap_or(i64::MAX / 2);
    let reservation = NewReservation {
        id: ReservationId(new_id()),
        kind: plimsoll_store::ObjectKind::Container,
        goes_with: None,
        host_mounts: Vec::new(),
        replaces: None,
        decision: DecisionId(new_id()),
        claim,
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

/// The reservation of this id, if the caller may see it.
fn seen(app: &App, caller: &Caller, id: &str) -> Answer<Reservation> {
    let reservation = found("reservation", id, |id| app.store.reservation(id))?;
    if caller.sees_charge(app, reservation.user, reservation.team)? {
        Ok(reservation)
    } else {
        Err(Problem::not_found("reservation", id))
    }
}

/// The reservation of this id, if the caller may end it. What the gateway reserved ends with its
/// container, and by nothing else; so does what is bound to one, unless an administrator says so.
fn ending(app: &App, caller: &Caller, id: &str) -> Answer<Reservation> {
    let reservation = seen(app, caller, id)?;
    if caller.is_admin() {
        return Ok(reservation);
    }
    if !caller.rights.change || !caller.is(reservation.user) {
        return Err(Problem::forbidden(
            "only its user and administrators may end a reservation",
        ));
    }
    if reservation.origin != Origin::Api || reservation.container.is_some() {
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
    Ok(Json(output::reservation(&seen(&app, &caller, &id)?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Commit {
    container_id: String,
}

/// Binding a container makes it its user's, who may then enter it through the gateway. Only who may
/// use the engine directly can have made the container, so only administrators bind.
pub(super) async fn commit(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(commit): Body<Commit>,
) -> Answer<Json<Value>> {
    let reservation = seen(&app, &caller, &id)?;
    caller.admin()?;
    let container: ContainerId = commit.container_id.parse().map_err(|_| {
        Problem::field(
            "containerId",
            "must be the engine's full id: 64 lower-case hex digits",
        )
    })?;
    let deed = app.deed();
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
    let reservation = ending(&app, &caller, &id)?;
    let voided = app.store.void(reservation.id, app.clock.now_ms()).await?;
    if voided.state != Stands::Void {
        let (id, state) = (voided.id, voided.state.name());
        return Err(Problem::conflict(format!(
            "reservation {id} is {state}: only one that waits for its container can be voided"
        )));
    }
    Ok(Json(output::reservation(&voided)))
}

pub(super) async fn release(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let reservation = ending(&app, &caller, &id)?;
    if let Some(container) = reservation.container.as_deref()
        && !reservation.state.is_final()
    {
        match app.engine.inspect(container).await {
            Ok(None) => {}
            Ok(Some(_)) => {
                return Err(Problem::conflict(format!(
                    "container {container} still exists: remove it first"
                )));
            }
            // A platform that made the container knows; of the gateway's, only the engine does.
            Err(error) if reservation.origin == Origin::Api => {
                tracing::warn!(%error, container, "released without asking the engine");
            }
            Err(_) => {
                return Err(Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "unavailable",
                    "the engine does not say whether the container is gone: try again",
                ));
            }
        }
    }
    let released = app
        .store
        .release(reservation.id, app.clock.now_ms())
        .await?;
    Ok(Json(output::reservation(&released)))
}
