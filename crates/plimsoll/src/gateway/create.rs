//! `POST /containers/create`: judge, reserve, create, commit.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Response, StatusCode};
use plimsoll_core::State;
use plimsoll_core::admit::{Owner, Path};
use plimsoll_core::entity::{DecisionId, ReservationId, TeamId};
use plimsoll_core::units::MilliCpu;
use plimsoll_host::engine::{EngineError, ImageInspect, full};
use plimsoll_host::request::create::{CreateRequest, ImageFacts, Judged, Policy, judge};
use plimsoll_host::request::path::container_name;
use plimsoll_host::request::query::QueryBuilder;
use plimsoll_store::{
    Admission, Claim, NewReservation, ObjectKind, Origin, Reservation, ReservationFilter,
    StoreError, TeamChoice, User,
};
use serde_json::json;

use super::answer::{self, Body};
use super::refused::Refused;
use super::route::Call;
use super::{images, lifecycle, names};
use crate::caps;
use crate::clock::new_id;
use crate::engine_facts::engine_facts;
use crate::settle::settle;
use crate::state::App;
use crate::tasks::in_full;

/// How long the engine may take to create a container.
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the caller's containers are looked at again before a claim is refused.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(200);

pub(super) async fn create(mut call: Call) -> Result<Response<Body>, Refused> {
    let name = call.query.str("name");
    if let Some(platform) = call.query.str("platform") {
        return Err(Refused::denied(
            "policy",
            format!("--platform {platform} is not open here: images run as they are on this host"),
        ));
    }
    call.query.finish()?;
    let name = match name {
        Some(name) => container_name(&name)?.to_owned(),
        None => free_name(&call.app, &call.user)?,
    };
    let body = answer::read_json(&call.headers, call.body)?;
    let request = CreateRequest::parse(&body)?;
    let (app, user) = (call.app, call.user);
    let image = images::find(&app, &user, &request.image).await?.image;
    let team = team_choice(&app, request.team.as_deref(), &call.headers)?;
    let project = request
        .project
        .clone()
        .or_else(|| header(&call.headers, "x-plimsoll-project"));
    let path = app.store.path(user.id, team, &app.lease.host)?;
    let id = ReservationId(new_id());
    let judged = judged(&app, &user, &path, &request, &image, project.as_deref(), id).await?;

    // The very team whose cgroup the body names, whatever the default becomes meanwhile.
    let team = match &path.owner {
        Owner::Team(place) => TeamChoice::Team(TeamId(place.team.entity)),
        Owner::User(_) => TeamChoice::NoTeam,
    };
    let claim = Claim {
        user: user.id,
        team,
        project,
        host: app.lease.host.clone(),
        amounts: judged.claim,
    };
    let intent = Intent {
        id,
        claim,
        judged,
        name,
        image: request.image,
        user,
    };
    // The client may go away at any moment; what was begun is finished all the same.
    let finished = tokio::spawn(finish(app, intent)).await;
    finished.unwrap_or_else(|_| Err(Refused::EngineNonsense))
}

/// Everything that is needed to reserve and create.
struct Intent {
    id: ReservationId,
    claim: Claim,
    judged: Judged,
    name: String,
    image: String,
    user: User,
}

async fn finish(app: Arc<App>, intent: Intent) -> Result<Response<Body>, Refused> {
    let _in_flight = app.in_flight.enter(intent.id);
    let reservation = reserve(&app, &intent).await?;
    let engine_name = names::of(&reservation);
    let query = QueryBuilder::new().str("name", &engine_name).finish();
    let sent = app
        .engine
        .send(
            Method::POST,
            &format!("/containers/create{query}"),
            &[(CONTENT_TYPE, "application/json")],
            full(intent.judged.body.to_string()),
            Some(CREATE_TIMEOUT),
        )
        .await;
    let answered = match sent {
        Ok(response) => answer::engine_json(response).await,
        Err(error) => Err(unknown_outcome(&app, &intent, error).await),
    };
    let created = match answered {
        Ok(created) => created,
        Err(refused @ Refused::Engine { .. }) => {
            app.store.void(intent.id, app.clock.now_ms()).await?;
            return Err(refused.renamed(&engine_name, &intent.name));
        }
        Err(other) => return Err(other),
    };
    let Some(container) = created["Id"].as_str() else {
        return Err(Refused::EngineNonsense);
    };
    let deed = app.deed();
    let committed = app
        .store
        .commit(intent.id, container.to_owned(), deed)
        .await;
    let committed = match committed {
        Ok(admission) if admission.reservation.is_none() => {
            // Voided meanwhile and no longer fitting: a container that nobody pays for goes.
            if let Err(error) = app.engine.remove(container, true).await {
                tracing::error!(
                    container,
                    error = in_full(&error),
                    "a container that could not be charged is still there"
                );
                app.wake.reconcile.notify_one();
            }
            return Err(Refused::Quota(Box::new(admission.decision)));
        }
        committed => committed,
    };
    if let Err(error) = committed {
        // The container is there and carries its key: the reconciler binds it.
        tracing::error!(
            container,
            error = in_full(&error),
            "a container could not be committed"
        );
        app.wake.reconcile.notify_one();
        return Err(error.into());
    }
    let mut warnings = intent.judged.warnings;
    let theirs = created["Warnings"].as_array().into_iter().flatten();
    warnings.extend(theirs.filter_map(|w| w.as_str()).map(str::to_owned));
    Ok(answer::json(
        StatusCode::CREATED,
        &json!({"Id": container, "Warnings": warnings}),
    ))
}

/// The engine did not answer. Where nothing can have happened the reservation is voided; where
/// something may have, the reconciler finds out, because the container would carry its key.
async fn unknown_outcome(app: &App, intent: &Intent, error: EngineError) -> Refused {
    if matches!(
        error,
        EngineError::Unreachable { .. } | EngineError::InvalidRequest(_)
    ) {
        if let Err(error) = app.store.void(intent.id, app.clock.now_ms()).await {
            tracing::error!(error = in_full(&error), "a reservation could not be voided");
        }
    } else {
        app.wake.reconcile.notify_one();
    }
    error.into()
}

/// Reserves. Before a refusal is given, what the caller's containers hold is looked at again, once:
/// one that has just ended must not be in the way, nor its name.
async fn reserve(app: &Arc<App>, intent: &Intent) -> Result<Reservation, Refused> {
    let again = match try_reserve(app, intent).await {
        Ok(admission) if admission.reservation.is_some() => Ok(admission),
        Ok(_) => {
            settle_own(app, &intent.user, None).await;
            try_reserve(app, intent).await
        }
        Err(StoreError::Conflict(_)) => {
            if let Some(holder) =
                app.store
                    .by_name(intent.user.id, ObjectKind::Container, &intent.name)?
                && let Some(container) = holder.container
            {
                lifecycle::settle_soon(app, &container).await;
            }
            try_reserve(app, intent).await
        }
        Err(error) => Err(error),
    };
    let admission = again?;
    admission
        .reservation
        .ok_or_else(|| Refused::Quota(Box::new(admission.decision)))
}

async fn try_reserve(app: &App, intent: &Intent) -> Result<Admission, StoreError> {
    let now_ms = app.clock.now_ms();
    let ttl_ms =
        i64::try_from(app.config.reservations.gateway_ttl_s * 1000).unwrap_or(i64::MAX / 2);
    let new = NewReservation {
        id: intent.id,
        kind: ObjectKind::Container,
        decision: DecisionId(new_id()),
        claim: intent.claim.clone(),
        origin: Origin::Gateway,
        idempotency: None,
        container_name: Some(intent.name.clone()),
        image: Some(intent.image.clone()),
        expires_ms: now_ms + ttl_ms,
        now_ms,
    };
    app.store.reserve(new).await
}

/// Settles every active container of a user, within [`SETTLE_TIMEOUT`], but for the one whose lock the
/// caller holds.
pub(super) async fn settle_own(app: &App, user: &User, held: Option<&str>) {
    let filter = ReservationFilter {
        user: Some(user.id),
        host: Some(app.lease.host.clone()),
        states: vec![State::Active],
        ..Default::default()
    };
    let Ok(rows) = app.store.reservations(filter).await else {
        return;
    };
    let settled = join_all(
        rows.iter()
            .filter_map(|r| r.container.as_deref())
            .filter(|container| Some(*container) != held)
            .map(|c| settle(app, c)),
    );
    let _ = tokio::time::timeout(SETTLE_TIMEOUT, settled).await;
}

async fn judged(
    app: &App,
    user: &User,
    path: &Path,
    request: &CreateRequest,
    image: &ImageInspect,
    project: Option<&str>,
    id: ReservationId,
) -> Result<Judged, Refused> {
    let facts = engine_facts(app).await?;
    let effective = path.effective_limits();
    let mut defaults = app.store.container_defaults(user.id)?;
    defaults.cpu = defaults.cpu_under(&effective);
    defaults.memory = defaults.memory_under(&effective);
    let team = match &path.owner {
        Owner::Team(place) => Some((place.team.entity, place.team.name.as_str())),
        Owner::User(_) => None,
    };
    let team_id = team.map(|(id, _)| TeamId(id));
    let parent = caps::parent(&app.instance, team_id, user.id);
    let mut policy = Policy::new(facts.hierarchy.cgroup_parent(&parent));
    policy.storage_opt = facts.bounds_storage;
    let instance = app.instance.as_str();
    policy.labels =
        names::reserved_labels(instance, id, user.id, team.map(|(_, name)| name), project);
    let image = ImageFacts {
        id: image.id.clone(),
        labels: image.config.labels.clone(),
        env: image.config.env.clone(),
        exposed_ports: image.config.exposed_ports.keys().cloned().collect(),
        volumes: image.config.volumes.keys().cloned().collect(),
        health_interval_ns: image.config.healthcheck.interval,
    };
    let judged = judge(request, &policy, &image, &defaults)?;
    // On cgroup v1 a container with more CPU than a level above it may use does not start.
    let lowest = caps::desired(&app.instance, path)
        .into_iter()
        .filter_map(|(_, c)| c.cpu)
        .min();
    let lowest = lowest.map_or(app.capacity.cpu, |cap: MilliCpu| cap.min(app.capacity.cpu));
    if path_allows_more(path) && judged.requested.cpu > lowest {
        return Err(Refused::denied(
            "policy",
            format!(
                "--cpus {} is more than one container can get here: at most {lowest}",
                judged.requested.cpu
            ),
        ));
    }
    Ok(judged)
}

/// Whether admission could let a container through that the kernel's caps would not: only where a
/// level promises more than it has, or does not refuse at all.
fn path_allows_more(path: &Path) -> bool {
    let owner = match &path.owner {
        Owner::User(user) => user,
        Owner::Team(place) => &place.team,
    };
    [&path.host, &path.system, owner].iter().any(|level| {
        level.overcommit_permille > plimsoll_core::quota::OVERCOMMIT_NONE
            || level.mode != plimsoll_core::quota::Mode::Enforce
    })
}

/// The team a claim goes to: by label, by header, else the user's default; `-` is none.
pub(super) fn team_choice(
    app: &App,
    label: Option<&str>,
    headers: &HeaderMap,
) -> Result<TeamChoice, Refused> {
    let header = header(headers, "x-plimsoll-team");
    match label.or(header.as_deref()).filter(|text| !text.is_empty()) {
        None => Ok(TeamChoice::Default),
        Some("-") => Ok(TeamChoice::NoTeam),
        // Whether the caller is a member is asked with the claim; an unknown team reads the same.
        Some(name) => match app.store.team(name) {
            Ok(team) => Ok(TeamChoice::Team(team.id)),
            Err(StoreError::NotFound { .. }) => Err(Refused::denied(
                "forbidden",
                format!("you are not a member of a team named {name}"),
            )),
            Err(error) => Err(error.into()),
        },
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .map(|v| v.trim().to_owned())
}

/// A name no live container of the user has.
fn free_name(app: &App, user: &User) -> Result<String, Refused> {
    loop {
        let random = new_id().as_u64_pair().1;
        let name = names::invented(random);
        if app
            .store
            .by_name(user.id, ObjectKind::Container, &name)?
            .is_none()
        {
            return Ok(name);
        }
    }
}
