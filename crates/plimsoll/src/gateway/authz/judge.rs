//! What may pass the engine's own door.
//!
//! A plugin says yes or no. So what the gateway would rewrite is denied, unless it already says what
//! Plimsoll would have written; what shows everybody's things is denied, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use plimsoll_core::entity::{Name, ReservationId};
use plimsoll_core::{Dimension, State};
use plimsoll_host::request::create::{CreateRequest, difference};
use plimsoll_host::request::exec::{ExecRequest, ExecStart};
use plimsoll_host::request::path::{RequestPath, container_name};
use plimsoll_host::request::query::Query;
use plimsoll_store::{ObjectKind, Reservation, StoreError, TeamChoice, User};
use serde_json::Value;

use super::asked::Asked;
use crate::gateway::refused::Refused;
use crate::gateway::resolve::Owned;
use crate::gateway::{
    create, exec, identity, images, lifecycle, names, route, start, stream, view,
};
use crate::labels;
use crate::limits::Who;
use crate::settle::settle;
use crate::state::App;
use crate::tasks::in_full;

/// The fewest digits of an id that stand for it: of fewer, a container of somebody else could come to
/// be the one that is meant.
const ID_DIGITS_MIN: usize = 12;

/// How long the engine may take between its question and its answer about a create.
const CREATE_TIMEOUT: Duration = Duration::from_secs(600);

/// Reservations whose container the engine is making: each is good for one.
#[derive(Debug, Default)]
pub(super) struct Creating(Mutex<HashMap<ReservationId, Duration>>);

impl Creating {
    fn begin(&self, id: ReservationId, now: Duration) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, began| now.saturating_sub(*began) < CREATE_TIMEOUT);
        all.insert(id, now).is_none()
    }

    fn end(&self, id: ReservationId) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&id).is_some()
    }
}

/// Judges a request before the engine does anything.
pub(super) async fn request(
    app: &Arc<App>,
    creating: &Creating,
    asked: &Asked,
) -> Result<(), Refused> {
    let Some(user) = caller(app, asked)? else {
        return Ok(());
    };
    let now = app.clock.monotonic();
    app.limits.share(Who::User(user.id), now).request(now)?;
    let (path, query) = asked.uri.split_once('?').unwrap_or((&asked.uri, ""));
    let path = RequestPath::parse(path)?;
    let mut query = Query::parse(query)?;
    let method: Method = asked
        .method
        .parse()
        .map_err(|_| Refused::bad("method", "is not one".to_owned()))?;
    let parts = path.parts();
    let query = &mut query;
    match (&method, parts.as_slice()) {
        (&Method::GET | &Method::HEAD, ["_ping"]) | (&Method::GET, ["version"]) => {}
        (&Method::GET, ["images", name @ .., "json"]) if !name.is_empty() => {
            query.bool("manifests")?;
        }
        (&Method::GET, ["images", name @ .., "history"]) if !name.is_empty() => {}
        (&Method::GET, ["exec", id, "json"]) => {
            exec::own(app, &user, id).await?;
        }
        (&Method::POST, ["exec", id, "start"]) => {
            exec::own(app, &user, id).await?;
            ExecStart::parse(asked.json()?)?;
            return finish(query);
        }
        (&Method::POST, ["exec", id, "resize"]) => {
            exec::own(app, &user, id).await?;
            lifecycle::size_query(query)?;
        }
        (&Method::POST, ["containers", "create"]) => {
            return created(app, creating, &user, asked, query).await;
        }
        (&Method::GET, ["containers", id, what]) => {
            owned(app, &user, id)?;
            match *what {
                "json" => view::inspect_query(query)?,
                "top" => view::top_query(query)?,
                "logs" => view::logs_query(query)?,
                "stats" => view::stats_query(query)?,
                "changes" => String::new(),
                "archive" => return Err(only_there("cp")),
                "export" => return Err(only_there(what)),
                _ => return Err(route::closed(&method, &parts)),
            };
        }
        (&Method::POST, ["containers", id, what]) => {
            let owned = owned(app, &user, id)?;
            match *what {
                "stop" => lifecycle::stop_query(query)?,
                "kill" => lifecycle::kill_query(query)?,
                "pause" => String::new(),
                "unpause" => {
                    start::may_move(app, &owned.reservation)?;
                    String::new()
                }
                "wait" => lifecycle::wait_query(query)?,
                "resize" => lifecycle::size_query(query)?,
                "attach" => stream::attach_query(query)?,
                "start" => {
                    let query = start::start_query(query)?;
                    started(app, &owned).await?;
                    query
                }
                "exec" => {
                    ExecRequest::parse(asked.json()?)?;
                    return finish(query);
                }
                "restart" | "update" | "rename" => return Err(only_there(what)),
                _ => return Err(route::closed(&method, &parts)),
            };
        }
        (&Method::DELETE, ["containers", id]) => {
            owned(app, &user, id)?;
            lifecycle::remove_query(query)?;
        }
        (
            &Method::GET,
            ["containers" | "images", "json"]
            | ["events" | "info" | "networks" | "volumes" | "tasks" | "services" | "nodes"]
            | ["system", "df"],
        ) => {
            return Err(Refused::denied(
                "shows_everybody",
                format!(
                    "GET /{} shows what is everybody's: use Plimsoll's own endpoint, which shows \
                     what is yours",
                    parts.join("/")
                ),
            ));
        }
        _ => return Err(route::closed(&method, &parts)),
    }
    asked.nothing()?;
    finish(query)
}

/// Whatever a query holds beyond what was taken from it is not understood.
fn finish(query: &mut Query) -> Result<(), Refused> {
    Ok(std::mem::take(query).finish()?)
}

fn only_there(what: &str) -> Refused {
    Refused::denied(
        "only_at_the_gateway",
        format!(
            "{what} is not judged here: use Plimsoll's own endpoint, where the same command works"
        ),
    )
}

/// Who asks; `None` for Plimsoll itself, and for those whom the configuration lets pass unseen.
fn caller(app: &App, asked: &Asked) -> Result<Option<User>, Refused> {
    let authz = &app.config.authz;
    if asked.user.is_empty() {
        if authz.allow_anonymous {
            return Ok(None);
        }
        return Err(Refused::denied(
            "unknown_caller",
            "the engine does not know who asks: use Plimsoll's own endpoint, or a client \
             certificate (docker --tlsverify)",
        ));
    }
    if asked.authenticated_by != "TLS" {
        return Err(Refused::denied(
            "unknown_caller",
            format!("{:?} is no way to be known here", asked.authenticated_by),
        ));
    }
    // A certificate of ours says more than a name, and may have been revoked.
    if let Some(named) = asked.certificate() {
        return identity::by_certificate(app, named).map(Some);
    }
    if asked.user == authz.self_name {
        return Ok(None);
    }
    let unknown = || {
        Refused::denied(
            "unknown_user",
            format!("no user is named {}, as your certificate says", asked.user),
        )
    };
    // Ids would be taken for themselves; a certificate has a name.
    let name: Name = asked.user.parse().map_err(|_| unknown())?;
    match app.store.user(name.as_str()) {
        Ok(user) => Ok(Some(user)),
        Err(StoreError::NotFound { .. }) => Err(unknown()),
        Err(error) => Err(error.into()),
    }
}

/// The caller's container, by the engine's name for it or by at least [`ID_DIGITS_MIN`] digits of its
/// id. The engine looks it up once more, so what stands for it must be its for good.
fn owned(app: &App, user: &User, reference: &str) -> Result<Owned, Refused> {
    let absent = || Refused::no_container(reference);
    let is_id = (ID_DIGITS_MIN..=64).contains(&reference.len())
        && reference
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let found = if is_id {
        let container = ObjectKind::Container;
        let mut found = app.store.by_id_prefix(user.id, container, reference)?;
        (found.len() == 1).then(|| found.remove(0))
    } else {
        let own = names::in_engine(&user.name, user.id, "");
        let name = reference.strip_prefix(own.as_str()).ok_or_else(absent)?;
        app.store.by_name(user.id, ObjectKind::Container, name)?
    };
    let here = found.filter(|r| r.host == app.lease.host && r.user == user.id);
    match here.and_then(|r| Some((r.container.clone()?, r))) {
        Some((id, reservation)) => Ok(Owned { id, reservation }),
        None => Err(absent()),
    }
}

/// A start of what is charged as running already: a container that was just created. Another start is
/// admitted under a lock that is held until the engine has answered, and only the gateway can do that.
async fn started(app: &App, owned: &Owned) -> Result<(), Refused> {
    start::may_start(app, &owned.reservation).await?;
    match settle(app, &owned.id).await? {
        Some(reservation) if reservation.state == State::Active => {
            start::assert_caps(app, owned).await
        }
        _ => Err(only_there("starting a container that was stopped")),
    }
}

/// A create passes when its claim was reserved before, its body is what Plimsoll would have written for
/// that reservation, and the reservation has made no container yet.
async fn created(
    app: &Arc<App>,
    creating: &Creating,
    user: &User,
    asked: &Asked,
    query: &mut Query,
) -> Result<(), Refused> {
    let name = query.str("name");
    finish(query)?;
    let body = asked.json()?;
    let request = CreateRequest::parse(body)?;
    let reservation = reservation_of(app, user, body)?;
    let id = reservation.id;
    named(user, name.as_deref(), &reservation)?;
    let image = images::find(app, user, &request.image).await?.image;
    let team = reservation
        .team
        .map_or(TeamChoice::NoTeam, TeamChoice::Team);
    let path = app.store.path(user.id, team, &app.lease.host)?;
    let project = reservation.project.as_deref();
    let asks = create::Asks {
        request: &request,
        image: &image,
        project,
        os_user: None,
    };
    let judged = create::judged(app, user, &path, &asks, id).await?;
    // Volumes, folders and networks are made first and named by ours, which only the gateway can do.
    if !judged.volumes.is_empty() {
        return Err(to_be_rewritten("it mounts a volume"));
    }
    if judged.body["HostConfig"]["NetworkMode"] != "none" {
        return Err(to_be_rewritten("HostConfig.NetworkMode must be \"none\""));
    }
    if let Some(difference) = difference(body, &request, &judged.body) {
        return Err(to_be_rewritten(&difference));
    }
    let short = |d: &Dimension| judged.claim[*d] > reservation.claim[*d];
    if let Some(dimension) = Dimension::CHARGED.into_iter().find(short) {
        return Err(Refused::denied(
            "not_reserved",
            format!("the container takes more {dimension} than reservation {id} holds"),
        ));
    }
    let label = format!("{}={id}", labels::RESERVATION);
    let used = !app.engine.list(true, &[&label]).await?.is_empty();
    if used || !creating.begin(id, app.clock.monotonic()) {
        return Err(Refused::denied(
            "not_reserved",
            format!("reservation {id} is for one container, and it was made"),
        ));
    }
    Ok(())
}

fn to_be_rewritten(difference: &str) -> Refused {
    Refused::denied(
        "to_be_rewritten",
        format!(
            "this container must be created through Plimsoll's own endpoint, which fills in what is \
             missing; here the request must say it all already: {difference}"
        ),
    )
}

/// The pending reservation a body names in its label.
fn reservation_of(app: &App, user: &User, body: &[u8]) -> Result<Reservation, Refused> {
    let Some(id) = reservation_label(body) else {
        let what = format!("Labels.{} must name a reservation", labels::RESERVATION);
        return Err(to_be_rewritten(&what));
    };
    let own = |r: &Reservation| {
        let live = r.expires_ms.is_none_or(|at| at > app.clock.now_ms());
        r.user == user.id && r.host == app.lease.host && r.state == State::Pending && live
    };
    match app.store.reservation(id) {
        Ok(reservation) if own(&reservation) => Ok(reservation),
        Ok(_) | Err(StoreError::NotFound { .. }) => Err(Refused::denied(
            "not_reserved",
            format!("no reservation {id} of yours waits for its container"),
        )),
        Err(error) => Err(error.into()),
    }
}

fn reservation_label(body: &[u8]) -> Option<ReservationId> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["Labels"][labels::RESERVATION].as_str()?.parse().ok()
}

/// A container has the name its reservation says, as the engine holds it, or one the engine invents.
fn named(user: &User, name: Option<&str>, reservation: &Reservation) -> Result<(), Refused> {
    let Some(name) = name else {
        return Ok(());
    };
    let own = names::in_engine(&user.name, user.id, "");
    let short = name.strip_prefix(own.as_str());
    let fits = match (&reservation.container_name, short) {
        (Some(reserved), Some(short)) => reserved == short,
        (None, Some(short)) => container_name(short)? == short,
        (_, None) => false,
    };
    if fits {
        return Ok(());
    }
    let wanted = reservation.container_name.as_deref().unwrap_or("NAME");
    Err(to_be_rewritten(&format!("the name must be {own}{wanted}")))
}

/// Follows a create that was let pass: its container is bound to its reservation before the client hears
/// of it. Everything else was judged when it was asked.
pub(super) async fn response(
    app: &Arc<App>,
    creating: &Creating,
    asked: &Asked,
) -> Result<(), Refused> {
    let path = asked.uri.split('?').next().unwrap_or_default();
    let is_create = asked.method == "POST" && path.ends_with("/containers/create");
    let Some(id) = is_create
        .then(|| reservation_label(asked.json().ok()?))
        .flatten()
    else {
        return Ok(());
    };
    if !creating.end(id) || asked.status != 201 {
        return Ok(());
    }
    let answer: Value = serde_json::from_slice(&asked.answer).unwrap_or_default();
    let Some(container) = answer["Id"].as_str() else {
        return Err(Refused::EngineNonsense);
    };
    let refused = match app.store.commit(id, container.to_owned(), app.deed()).await {
        Ok(admission) if admission.reservation.is_some() => return Ok(()),
        // Voided meanwhile and no longer fitting.
        Ok(admission) => Refused::Quota(Box::new(admission.decision)),
        Err(error) => error.into(),
    };
    // A container that nobody pays for goes.
    if let Err(error) = app.engine.remove(container, true).await {
        let error = in_full(&error);
        tracing::error!(
            container,
            error,
            "a container that could not be charged is still there"
        );
        app.wake.reconcile.notify_one();
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use plimsoll_core::entity::UserId;
    use plimsoll_store::{Actor, NewUser, Role};
    use serde_json::json;

    use super::*;
    use crate::clock::{Clock, new_id};
    use crate::config::{Authz, Config};

    #[tokio::test]
    async fn whoever_is_not_known_is_denied_before_anything_is_looked_at() {
        let ada = NewUser {
            id: UserId(new_id()),
            name: "ada".parse().unwrap(),
            email: None,
            os_uid: None,
            role: Role::Member,
            class: None,
        };
        for allow_anonymous in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let config = Config {
                data_dir: dir.path().to_owned(),
                authz: Authz {
                    allow_anonymous,
                    ..Authz::default()
                },
                ..Config::default()
            };
            let app = crate::serve::build(config, Clock::default()).await.unwrap();
            let actor = Actor {
                name: "test".into(),
                at_ms: 0,
                reason: None,
            };
            app.store.add_user(ada.clone(), actor).await.unwrap();
            let id = ada.id.to_string();
            for (user, by, path, passes) in [
                ("", "", "/v1.41/containers/json", allow_anonymous),
                ("plimsoll-server", "TLS", "/v1.41/containers/json", true),
                ("plimsoll-server", "", "/v1.41/version", false),
                ("ada", "TLS", "/v1.41/version", true),
                ("ada", "TLS", "/v1.41/version?more=1", false),
                ("ada", "TLS", "/v1.41/containers/json", false),
                ("ada", "TLS", "/v1.41/containers/x/archive", false),
                ("ada", "TLS", "/v1.41/./version", false),
                ("ada", "Basic", "/v1.41/version", false),
                ("Ada", "TLS", "/v1.41/version", false),
                ("ben", "TLS", "/v1.41/version", false),
                (id.as_str(), "TLS", "/v1.41/version", false),
            ] {
                let question = json!({
                    "User": user, "UserAuthNMethod": by, "RequestMethod": "GET", "RequestUri": path,
                });
                let asked = Asked::parse(question.to_string().as_bytes()).unwrap();
                let judged = request(&app, &Creating::default(), &asked).await;
                assert_eq!(judged.is_ok(), passes, "{user:?} {by} {path}: {judged:?}");
            }
        }
    }

    #[test]
    fn a_reservation_makes_one_container_at_a_time() {
        let creating = Creating::default();
        let id = ReservationId(new_id());
        assert!(creating.begin(id, Duration::ZERO));
        assert!(!creating.begin(id, Duration::from_secs(1)));
        assert!(creating.end(id) && !creating.end(id));
        assert!(creating.begin(id, Duration::from_secs(2)));
        // The engine never said how it went.
        assert!(creating.begin(id, CREATE_TIMEOUT * 2));
    }
}
