//! `POST /containers/create`: judge, reserve, create, commit.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Response, StatusCode};
use plimsoll_core::State;
use plimsoll_core::admit::{Owner, Path};
use plimsoll_core::entity::{ReservationId, TeamId};
use plimsoll_core::quota::Mode;
use plimsoll_core::remedy::watched;
use plimsoll_host::engine::{EngineError, ImageInspect, full};
use plimsoll_host::os_user::OsUser;
use plimsoll_host::request::create::{
    CreateRequest, ImageFacts, Judged, MountPolicy, Policy, judge,
};
use plimsoll_host::request::path::container_name;
use plimsoll_host::request::query::QueryBuilder;
use plimsoll_store::{
    Admission, Claim, HostMount, NewReservation, ObjectKind, Reservation, ReservationFilter,
    StoreError, TeamChoice, User,
};
use serde_json::json;
use tokio::sync::OwnedMutexGuard;

use super::answer::{self, Body};
use super::refused::Refused;
use super::route::Call;
use super::{images, lifecycle, names, networks, replace, volumes};
use crate::caps;
use crate::clock::new_id;
use crate::engine_facts::engine_facts;
use crate::folders::{self, MountError};
use crate::settle::settle;
use crate::state::App;
use crate::tasks::in_full;

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
    // Both at once: each is a good part of what a create adds to the engine's own time.
    let (image, network) = tokio::join!(
        Box::pin(images::find(&app, &user, &request.image)),
        Box::pin(networks::standing(&app, &user, &request.network.mode))
    );
    let image = image?.image;
    let team = team_choice(&app, request.team.as_deref(), &call.headers)?;
    let project = request
        .project
        .clone()
        .or_else(|| header(&call.headers, "x-plimsoll-project"));
    let path = app.store.path(user.id, team, &app.lease.host)?;
    let id = ReservationId(new_id());
    let os_user = if request.mounts_host() {
        let asked = folders::os_user(&user).await;
        asked.map_err(|error| Refused::no_accounts(&error))?
    } else {
        None
    };
    let asks = Asks {
        request: &request,
        image: &image,
        project: project.as_deref(),
        os_user: os_user.as_ref(),
    };
    let mut judged = judged(&app, &user, &path, &asks, id).await?;
    let joins = networks::place(&app, &user, &name, &mut judged, network?).await?;
    let ports = networks::publish(&app, &user, &mut judged).await?;
    let replaces = replace::replaced(&app, &user, &request.labels, &name).await?;

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
        _ports: ports,
        os_user,
        replaces,
        joins,
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
    /// Held until the engine has the container: see [`networks::publish`].
    _ports: Option<OwnedMutexGuard<()>>,
    os_user: Option<OsUser>,
    /// The container whose place it takes.
    replaces: Option<ReservationId>,
    /// What it joins beside its first network.
    joins: Vec<networks::Joined>,
}

impl Intent {
    fn host_mounts(&self) -> Vec<HostMount> {
        let as_owner = self.judged.as_owner;
        let mounts = self.judged.host_mounts.iter().map(|used| HostMount {
            path: used.path.clone(),
            read_only: used.read_only,
            as_owner,
        });
        mounts.collect()
    }
}

async fn finish(app: Arc<App>, intent: Intent) -> Result<Response<Body>, Refused> {
    let _in_flight = app.in_flight.enter(intent.id);
    let (reservation, watched) = reserve(&app, &intent).await?;
    let prepared = prepare(&app, &intent).await;
    let ensured = match prepared {
        Ok(ensured) => ensured,
        Err(refused) => {
            app.store.void(intent.id, app.clock.now_ms()).await?;
            return Err(refused);
        }
    };
    let engine_name = names::of(&reservation);
    let query = QueryBuilder::new().str("name", &engine_name).finish();
    let sent = app
        .engine
        .send(
            Method::POST,
            &format!("/containers/create{query}"),
            &[(CONTENT_TYPE, "application/json")],
            full(intent.judged.body.to_string()),
            Some(app.engine.patience().order),
        )
        .await;
    let answered = match sent {
        Ok(response) => answer::engine_json(response).await,
        Err(error) => Err(unknown_outcome(&app, &intent, error).await),
    };
    let created = match answered {
        Ok(created) => created,
        Err(refused @ Refused::Engine { .. }) => {
            give_up(&app, &intent, ensured).await;
            return Err(refused.renamed(&engine_name, &intent.name));
        }
        Err(other) => return Err(other),
    };
    let Some(container) = created["Id"].as_str() else {
        return Err(Refused::EngineNonsense);
    };
    if let Err(refused) = settled(&app, &intent, container).await {
        if removed(&app, container).await {
            give_up(&app, &intent, ensured).await;
        }
        return Err(refused.renamed(&engine_name, &intent.name));
    }
    let mut warnings = intent.judged.warnings;
    warnings.extend(watched);
    let theirs = created["Warnings"].as_array().into_iter().flatten();
    warnings.extend(theirs.filter_map(|w| w.as_str()).map(str::to_owned));
    Ok(answer::json(
        StatusCode::CREATED,
        &json!({"Id": container, "Warnings": warnings}),
    ))
}

/// Removes a container that could not be charged: its caller is told that there is none. One that stays
/// carries its key, and the reconciler binds it.
async fn removed(app: &App, container: &str) -> bool {
    let removed = app.engine.remove(container, true).await;
    if let Err(error) = &removed {
        tracing::error!(
            container,
            error = in_full(error),
            "a container that could not be charged is still there"
        );
        app.wake.reconcile.notify_one();
    }
    removed.is_ok()
}

/// Undoes what was done for a container that there is not.
async fn give_up(app: &App, intent: &Intent, ensured: volumes::Ensured) {
    if let Err(error) = app.store.void(intent.id, app.clock.now_ms()).await {
        tracing::warn!(error = in_full(&error), "a reservation is left to expire");
    }
    ensured.undo(app).await;
    clear_folders(app, intent).await;
}

/// What is left to do once the engine has the container: it joins the networks beside the first, and is
/// charged.
async fn settled(app: &App, intent: &Intent, container: &str) -> Result<(), Refused> {
    for joined in &intent.joins {
        joined.connect(app, container).await?;
    }
    let committed = app
        .store
        .commit_keyed(intent.id, container.to_owned(), app.deed())
        .await?;
    match committed.reservation {
        Some(_) => Ok(()),
        // Voided meanwhile, and no longer fitting.
        None => Err(Refused::Quota(Box::new(committed.decision))),
    }
}

/// Makes the volumes and mounts the folders that the container needs.
async fn prepare(app: &App, intent: &Intent) -> Result<volumes::Ensured, Refused> {
    let mounts = intent.host_mounts();
    let mounted = folders::mount(&app.config, intent.id, &mounts, intent.os_user.clone()).await;
    if let Err(error) = mounted {
        clear_folders(app, intent).await;
        return Err(refused_mount(error));
    }
    let maker = volumes::Maker {
        app,
        user: &intent.user,
        team: intent.claim.team,
        project: intent.claim.project.as_deref(),
    };
    let judged = &intent.judged;
    let ensured = maker
        .ensure(&judged.volumes, intent.id, judged.auto_remove)
        .await;
    if ensured.is_err() {
        clear_folders(app, intent).await;
    }
    ensured
}

/// What is left the reconciler clears.
async fn clear_folders(app: &App, intent: &Intent) {
    if intent.judged.host_mounts.is_empty() {
        return;
    }
    if let Err(error) = folders::clear(&app.config, intent.id).await {
        tracing::warn!(error = in_full(&error), "a mount is left behind");
    }
}

/// Why a folder of the host is not mounted, as a tenant hears it.
pub(super) fn refused_mount(error: MountError) -> Refused {
    match error {
        MountError::Refused(words) => Refused::denied("policy", words),
        MountError::Failed(words) => {
            tracing::error!(words, "folders of the host cannot be mounted");
            Refused::EngineAway(words)
        }
    }
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

/// Reserves; with it comes what a limit that only watches would have refused, in words. Before a
/// refusal is given, what the caller's containers hold is looked at again, once: one that has just
/// ended must not be in the way, nor its name.
async fn reserve(app: &Arc<App>, intent: &Intent) -> Result<(Reservation, Vec<String>), Refused> {
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
    let Admission {
        decision,
        reservation,
        ..
    } = again?;
    match reservation {
        Some(reservation) => Ok((reservation, watched(&decision.violations))),
        None => Err(Refused::Quota(Box::new(decision))),
    }
}

async fn try_reserve(app: &App, intent: &Intent) -> Result<Admission, StoreError> {
    let (id, claim) = (intent.id, intent.claim.clone());
    let new = NewReservation {
        host_mounts: intent.host_mounts(),
        replaces: intent.replaces,
        container_name: Some(intent.name.clone()),
        image: Some(intent.image.clone()),
        ..app.new_reservation(id, ObjectKind::Container, claim)
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

/// What is asked, and by whom.
pub(super) struct Asks<'a> {
    pub(super) request: &'a CreateRequest,
    pub(super) image: &'a ImageInspect,
    pub(super) project: Option<&'a str>,
    pub(super) os_user: Option<&'a OsUser>,
}

pub(super) async fn judged(
    app: &App,
    user: &User,
    path: &Path,
    asks: &Asks<'_>,
    id: ReservationId,
) -> Result<Judged, Refused> {
    let Asks {
        request,
        image,
        project,
        os_user,
    } = *asks;
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
    policy.fill_in = path.owner.level().mode == Mode::Enforce;
    policy.mounts = MountPolicy {
        volume_prefix: names::in_engine(&user.name, user.id, ""),
        key: id.0.simple().to_string(),
        stash: folders::stash(&app.config).display().to_string(),
        writes_as: os_user.map(|os_user| (os_user.uid, os_user.gid)),
        home: os_user
            .and_then(folders::home)
            .map(|home| home.display().to_string()),
        beyond_home: folders::beyond_home(&app.config),
    };
    let instance = app.instance.as_str();
    policy.labels =
        names::reserved_labels(instance, id, user.id, team.map(|(_, name)| name), project);
    let image = ImageFacts {
        id: image.id.clone(),
        labels: image.config.labels.clone(),
        env: image.config.env.clone(),
        exposed_ports: image.config.exposed_ports.keys().cloned().collect(),
        volumes: image.config.volumes.keys().cloned().collect(),
        working_dir: image.config.working_dir.clone(),
        health_interval_ns: image.config.healthcheck.interval,
    };
    let judged = judge(request, &policy, &image, &defaults)?;
    let most = caps::most_cpu(path, app.capacity.cpu);
    if caps::admission_allows_more(path) && judged.requested.cpu > most {
        return Err(Refused::too_much_cpu(judged.requested.cpu, most));
    }
    Ok(judged)
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

pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
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
