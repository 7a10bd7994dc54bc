//! Volumes: own ones only, under the owner's names. Each is charged by a reservation of its own, so
//! none comes to be that nobody pays for: also those a container's create would have made.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Method, Response, StatusCode};
use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::entity::ReservationId;
use plimsoll_host::engine::full;
use plimsoll_host::request::create::{VolumeRequest, VolumeSettings, VolumeUse, is_anonymous};
use plimsoll_host::request::path::looks_like_id;
use plimsoll_host::request::query::QueryBuilder;
use plimsoll_store::{
    Claim, NewReservation, ObjectKind, Reservation, ReservationFilter, TeamChoice, User,
};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use super::answer::{self, Body};
use super::create::{header, team_choice};
use super::names;
use super::prune::Spared;
use super::refused::Refused;
use super::resolve::{self, Owned};
use super::route::Call;
use super::upstream;
use crate::clock::new_id;
use crate::labels;
use crate::state::App;
use crate::tasks::volumes::{RemoveError, lock_name};
use crate::tasks::{self, in_full};

/// Who makes a volume, and where it is charged.
pub(super) struct Maker<'a> {
    pub(super) app: &'a App,
    pub(super) user: &'a User,
    pub(super) team: TeamChoice,
    pub(super) project: Option<&'a str>,
}

/// Volumes that are there and stay there for as long as this is held.
#[derive(Default)]
pub(super) struct Ensured {
    made: Vec<Owned>,
    _held: Vec<OwnedMutexGuard<()>>,
}

impl Ensured {
    /// Takes back the volumes that were made for a container which did not come to be.
    pub(super) async fn undo(self, app: &App) {
        for volume in &self.made {
            if let Err(refused) = remove(app, volume, false).await {
                tracing::warn!(volume = volume.id, ?refused, "a new volume is left behind");
            }
        }
    }
}

impl Maker<'_> {
    /// Makes what is not there of the volumes a container mounts. `container` is its reservation.
    pub(super) async fn ensure(
        &self,
        uses: &[VolumeUse],
        container: ReservationId,
        goes_with_it: bool,
    ) -> Result<Ensured, Refused> {
        let mut uses: Vec<&VolumeUse> = uses.iter().collect();
        // In one order for everybody, or two creates could wait for each other.
        uses.sort_by(|a, b| a.name.cmp(&b.name));
        let mut ensured = Ensured::default();
        for used in uses {
            let lock = lock_name(self.user.id, &used.name);
            ensured
                ._held
                .push(self.app.container_locks.lock(&lock).await);
            // A name like an id is one Plimsoll gave: such a volume is there, or it was.
            let theirs = |name| resolve::object(self.app, self.user, ObjectKind::Volume, name);
            if !used.anonymous && looks_like_id(&used.name) && theirs(&used.name)?.is_none() {
                ensured.undo(self.app).await;
                // Not 404: clients take that for the image's absence, and pull it.
                return Err(Refused::bad(
                    "HostConfig.Mounts",
                    format!("no such volume: {}", used.name),
                ));
            }
            let goes_with = (used.anonymous && goes_with_it).then_some(container);
            match self.make(&used.name, &used.settings, goes_with).await {
                Ok((owned, true)) => ensured.made.push(owned),
                Ok((_, false)) => {}
                Err(refused) => {
                    ensured.undo(self.app).await;
                    return Err(refused);
                }
            }
        }
        Ok(ensured)
    }

    /// The volume of this name, and whether it was made just now. The caller holds its lock.
    async fn make(
        &self,
        name: &str,
        settings: &VolumeSettings,
        goes_with: Option<ReservationId>,
    ) -> Result<(Owned, bool), Refused> {
        let app = self.app;
        if let Some(owned) = resolve::object(app, self.user, ObjectKind::Volume, name)? {
            return Ok((owned, false));
        }
        let size = match settings.size {
            Some(size) => size,
            None => app.store.container_defaults(self.user.id)?.writable,
        };
        let id = ReservationId(new_id());
        let _in_flight = app.in_flight.enter(id);
        let claim = Claim {
            user: self.user.id,
            team: self.team,
            project: self.project.map(str::to_owned),
            host: app.lease.host.clone(),
            amounts: Amounts::ZERO.with(Dimension::Storage, size.0),
        };
        let new = NewReservation {
            goes_with,
            container_name: Some(name.to_owned()),
            ..app.new_reservation(id, ObjectKind::Volume, claim)
        };
        let admission = app.store.reserve(new).await?;
        let Some(reservation) = admission.reservation else {
            return Err(Refused::Quota(Box::new(admission.decision)));
        };
        let engine_name = names::of(&reservation);
        let mut all = settings.labels.clone();
        all.extend(names::reserved_labels(
            app.instance.as_str(),
            id,
            self.user.id,
            reservation.team_name.as_deref(),
            self.project,
        ));
        let body = json!({"Name": engine_name, "Driver": "local", "Labels": all});
        let sent = app
            .engine
            .send(
                Method::POST,
                "/volumes/create",
                &[(CONTENT_TYPE, "application/json")],
                full(body.to_string()),
                Some(app.engine.patience().call),
            )
            .await;
        let made = match sent {
            Ok(response) => answer::accepted(response).await,
            Err(error) => {
                // Whether it came to be, the reconciler finds out.
                app.wake.reconcile.notify_one();
                return Err(error.into());
            }
        };
        if let Err(refused) = made {
            app.store.void(id, app.clock.now_ms()).await?;
            return Err(refused.renamed(&engine_name, name));
        }
        let committed = app.store.commit(id, engine_name.clone(), app.deed()).await;
        let admitted = committed.inspect_err(|error| {
            tracing::error!(
                volume = engine_name,
                error = in_full(error),
                "a volume could not be committed"
            );
            app.wake.reconcile.notify_one();
        })?;
        let reservation = Reservation {
            container: Some(engine_name.clone()),
            ..reservation
        };
        let owned = Owned {
            id: engine_name,
            reservation,
        };
        if admitted.reservation.is_none() {
            // Voided meanwhile and no longer fitting.
            remove(app, &owned, true).await?;
            return Err(Refused::Quota(Box::new(admitted.decision)));
        }
        Ok((owned, true))
    }
}

fn absent(name: &str) -> Refused {
    Refused::NotFound(format!("get {name}: no such volume"))
}

fn own(call: &Call, name: &str) -> Result<Owned, Refused> {
    resolve::object(&call.app, &call.user, ObjectKind::Volume, name)?.ok_or_else(|| absent(name))
}

fn path(owned: &Owned) -> String {
    format!("/volumes/{}", owned.id)
}

pub(super) async fn create(call: Call) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    let body = answer::read_json(&call.headers, call.body)?;
    let request = VolumeRequest::parse(&body)?;
    let team = team_choice(&call.app, request.team.as_deref(), &call.headers)?;
    let project = request
        .project
        .or_else(|| header(&call.headers, "x-plimsoll-project"));
    let name = request
        .name
        .unwrap_or_else(|| format!("{}{}", new_id().simple(), new_id().simple()));
    let (app, user) = (call.app, call.user);
    // What was begun is finished, also when the client goes away.
    let done = tokio::spawn(async move {
        let maker = Maker {
            app: &app,
            user: &user,
            team,
            project: project.as_deref(),
        };
        let _held = app.container_locks.lock(&lock_name(user.id, &name)).await;
        let (owned, _) = maker.make(&name, &request.settings, None).await?;
        let seen = upstream::get(&app, &path(&owned)).await?;
        Ok(answer::json(
            StatusCode::CREATED,
            &shown(seen, &owned.reservation),
        ))
    });
    done.await.unwrap_or(Err(Refused::EngineNonsense))
}

/// A volume as its owner sees it: their name, their labels, and no path of the host.
pub(super) fn shown(mut seen: Value, reservation: &Reservation) -> Value {
    seen["Name"] = json!(reservation.container_name);
    seen["Mountpoint"] = json!("");
    names::clean_labels(&mut seen["Labels"]);
    seen
}

pub(super) async fn inspect(call: Call, name: &str) -> Result<Response<Body>, Refused> {
    let owned = own(&call, name)?;
    call.query.finish()?;
    let seen = upstream::get(&call.app, &path(&owned)).await;
    let seen = seen.map_err(|refused| refused.renamed(&owned.id, name))?;
    Ok(answer::json(
        StatusCode::OK,
        &shown(seen, &owned.reservation),
    ))
}

pub(super) async fn list(mut call: Call) -> Result<Response<Body>, Refused> {
    let mut filters = call
        .query
        .filters(&["name", "dangling", "driver", "label"])?;
    call.query.finish()?;
    let wanted = filters.remove("name").unwrap_or_default();
    let found = own_listed(&call.app, &call.user, filters).await?;
    let shown: Vec<Value> = found
        .into_iter()
        .filter(|(owned, _)| {
            let name = owned
                .reservation
                .container_name
                .as_deref()
                .unwrap_or_default();
            wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()))
        })
        .map(|(owned, seen)| shown(seen, &owned.reservation))
        .collect();
    Ok(answer::json(
        StatusCode::OK,
        &json!({"Volumes": shown, "Warnings": null}),
    ))
}

/// The caller's volumes that the engine lists under these filters.
pub(super) async fn own_listed(
    app: &App,
    user: &User,
    mut filters: plimsoll_host::request::query::Filters,
) -> Result<Vec<(Owned, Value)>, Refused> {
    let label = filters.entry("label".to_owned()).or_default();
    label.push(app.instance_label());
    label.push(format!("{}={}", labels::USER, user.id));
    let query = QueryBuilder::new().filters(&filters).finish();
    let mut listed = upstream::get(app, &format!("/volumes{query}")).await?;
    let filter = ReservationFilter {
        kind: ObjectKind::Volume,
        user: Some(user.id),
        host: Some(app.lease.host.clone()),
        ..Default::default()
    };
    let mut own: std::collections::HashMap<String, Reservation> = app
        .store
        .reservations(filter)
        .await?
        .into_iter()
        .filter_map(|r| Some((r.container.clone()?, r)))
        .collect();
    let Value::Array(volumes) = listed["Volumes"].take() else {
        return Ok(Vec::new());
    };
    Ok(volumes
        .into_iter()
        .filter_map(|seen| {
            let id = seen["Name"].as_str()?.to_owned();
            let reservation = own.remove(&id)?;
            Some((Owned { id, reservation }, seen))
        })
        .collect())
}

pub(super) async fn delete(mut call: Call, name: &str) -> Result<Response<Body>, Refused> {
    let force = call.query.bool("force")?;
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let (app, user, name) = (call.app, call.user, name.to_owned());
    let done = tokio::spawn(async move { delete_own(&app, &user, &name, force).await });
    done.await.unwrap_or(Err(Refused::EngineNonsense))
}

async fn delete_own(
    app: &App,
    user: &User,
    name: &str,
    force: bool,
) -> Result<Response<Body>, Refused> {
    let _held = app.container_locks.lock(&lock_name(user.id, name)).await;
    match resolve::object(app, user, ObjectKind::Volume, name)? {
        Some(owned) => remove(app, &owned, force).await?,
        // As the engine takes it.
        None if force => {}
        None => return Err(absent(name)),
    }
    Ok(answer::status(StatusCode::NO_CONTENT))
}

/// Removes a volume and its charge, refusing in the owner's words.
async fn remove(app: &App, owned: &Owned, force: bool) -> Result<(), Refused> {
    let removed = tasks::volumes::remove(app, &owned.reservation, force).await;
    removed.map_err(|error| {
        let refused = match error {
            RemoveError::Engine(error) => Refused::from(error),
            RemoveError::Store(error) => error.into(),
        };
        refused.renamed(&owned.id, &names::shown(&owned.reservation))
    })
}

pub(super) async fn prune(mut call: Call) -> Result<Response<Body>, Refused> {
    let mut filters = call.query.filters(&["label", "label!", "all"])?;
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    filters.remove("all");
    filters.insert("dangling".to_owned(), vec!["true".to_owned()]);
    let spared = Spared::taken(&mut filters, call.app.clock.now_ms())?;
    let (app, user) = (Arc::clone(&call.app), call.user);
    let mut removed = Vec::new();
    for (owned, seen) in own_listed(&app, &user, filters).await? {
        if spared.spares(None, &seen["Labels"]) {
            continue;
        }
        let name = names::shown(&owned.reservation);
        // One that a container came to use meanwhile stays.
        if delete_own(&app, &user, &name, false).await.is_ok() {
            removed.push(name);
        }
    }
    Ok(answer::json(
        StatusCode::OK,
        &json!({"VolumesDeleted": removed, "SpaceReclaimed": 0}),
    ))
}

/// Anonymous volumes of a container that is about to be removed together with them (`rm --volumes`):
/// from now on they go when it does. Only those made for it: one that it mounts by name stays, whatever
/// the name. Returns them and what they went with before.
pub(super) async fn go_with(
    app: &App,
    user: &User,
    container: &Owned,
) -> Result<Vec<(ReservationId, Option<ReservationId>)>, Refused> {
    let seen = upstream::get(app, &format!("/containers/{}/json", container.id)).await?;
    let key = container.reservation.id.0.simple().to_string();
    let made_for_it = |name: &str| is_anonymous(name) && name.starts_with(&key);
    let mut going = Vec::new();
    for mount in seen["Mounts"].as_array().into_iter().flatten() {
        let Some(engine_name) = mount["Name"].as_str() else {
            continue;
        };
        let volume = app
            .store
            .by_engine_name(&app.lease.host, ObjectKind::Volume, engine_name)?;
        if let Some(volume) = volume.filter(|v| v.user == user.id)
            && volume.container_name.as_deref().is_some_and(made_for_it)
        {
            app.store
                .goes_with(volume.id, Some(container.reservation.id))
                .await?;
            going.push((volume.id, volume.goes_with));
        }
    }
    Ok(going)
}
