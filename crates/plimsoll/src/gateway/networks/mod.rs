//! Networks: each tenant's own, bridges in subnets that Plimsoll gives, called by the tenant's names.
//!
//! A tenant's default network stands where the engine has one bridge for everybody; they see it as
//! `bridge`. The engine keeps its bridges apart, so nobody reaches another's containers by address.

mod make;
mod place;
mod ports;
mod shown;

use std::collections::HashMap;
use std::sync::Arc;

use http::{Response, StatusCode};
use plimsoll_core::State;
use plimsoll_host::request::network::{ConnectRequest, DisconnectRequest, NetworkRequest};
use plimsoll_host::request::query::QueryBuilder;
use plimsoll_store::{ObjectKind, Reservation, ReservationFilter, User};
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::prune::Spared;
use super::refused::Refused;
use super::resolve::{self, Owned};
use super::route::Call;
use super::upstream;
use super::{names, view};
use crate::state::App;
pub(super) use place::{Joined, place, restored, standing};
pub(super) use ports::{explain, publish};
pub(super) use shown::{Shown, event};

/// What a tenant's default network is called in the ledger and to its owner.
pub(super) const DEFAULT: &str = "bridge";

/// The caller's network of this name, id or unambiguous id prefix.
fn own(app: &App, user: &User, reference: &str) -> Result<Owned, Refused> {
    resolve::object(app, user, ObjectKind::Network, reference)?.ok_or_else(|| absent(reference))
}

fn absent(reference: &str) -> Refused {
    Refused::NotFound(format!("network {reference} not found"))
}

/// Every live network of the caller on this host, by full id.
pub(super) async fn all(app: &App, user: &User) -> Result<HashMap<String, Reservation>, Refused> {
    let filter = ReservationFilter {
        kind: ObjectKind::Network,
        user: Some(user.id),
        host: Some(app.lease.host.clone()),
        states: vec![State::Active],
        ..Default::default()
    };
    let rows = app.store.reservations(filter).await?;
    let bound = |r: Reservation| Some((r.container.clone()?, r));
    Ok(rows.into_iter().filter_map(bound).collect())
}

/// What the engine calls the caller's network of this name or id; where there is none, what no network's
/// name begins with, so that a filter by it finds nothing.
pub(super) fn filter_value(app: &App, user: &User, reference: &str) -> Result<String, Refused> {
    let found = resolve::object(app, user, ObjectKind::Network, reference)?;
    Ok(found.map_or_else(|| "-".to_owned(), |o| o.id))
}

pub(super) async fn list(mut call: Call) -> Result<Response<Body>, Refused> {
    let allowed = ["dangling", "driver", "id", "label", "name", "scope", "type"];
    let mut filters = call.query.filters(&allowed)?;
    call.query.finish()?;
    let wanted_names = filters.remove("name").unwrap_or_default();
    let wanted_ids = filters.remove("id").unwrap_or_default();
    let kinds = filters.remove("type").unwrap_or_default();
    view::only_mine(&mut filters, &call.app, &call.user);
    let query = QueryBuilder::new().filters(&filters).finish();
    let Value::Array(listed) = upstream::get(&call.app, &format!("/networks{query}")).await? else {
        return Err(Refused::EngineNonsense);
    };
    let own = all(&call.app, &call.user).await?;
    let mut networks = Vec::new();
    for mut network in listed {
        let id = network["Id"].as_str().unwrap_or_default().to_owned();
        let Some(row) = own.get(&id) else { continue };
        let name = names::shown(row);
        let kind = if name == DEFAULT { "builtin" } else { "custom" };
        let fits = (wanted_names.is_empty()
            || wanted_names.iter().any(|w| view::name_fits(&name, w)))
            && (wanted_ids.is_empty() || wanted_ids.iter().any(|w| id.starts_with(w.as_str())))
            && (kinds.is_empty() || kinds.iter().any(|k| k == kind));
        if fits {
            shown::network(&mut network, row, &HashMap::new());
            networks.push(network);
        }
    }
    Ok(answer::json(StatusCode::OK, &networks))
}

pub(super) async fn inspect(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    // Clients send these, and a bridge has nothing more to tell.
    call.query.bool("verbose")?;
    call.query.str("scope");
    call.query.finish()?;
    let owned = match reference {
        // Whoever asks is about to use it.
        DEFAULT => make::default(&call.app, &call.user).await?,
        _ => own(&call.app, &call.user, reference)?,
    };
    let path = format!("/networks/{}", owned.id);
    let mut seen = match upstream::get(&call.app, &path).await {
        Err(Refused::Engine { status, .. }) if status == StatusCode::NOT_FOUND => {
            return Err(absent(reference));
        }
        seen => seen?,
    };
    let containers = resolve::all(&call.app, &call.user).await?;
    shown::network(&mut seen, &owned.reservation, &containers);
    Ok(answer::json(StatusCode::OK, &seen))
}

pub(super) async fn create(call: Call) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    let body = answer::read_json(&call.headers, call.body)?;
    let request = NetworkRequest::parse(&body)?;
    let (app, user) = (call.app, call.user);
    // Finished even if the client goes away.
    let made = tokio::spawn(async move {
        let made = make::named(&app, &user, &request).await?;
        let warning = request.warnings.join("\n");
        let answer = json!({"Id": made.id, "Warning": warning});
        Ok(answer::json(StatusCode::CREATED, &answer))
    })
    .await;
    made.unwrap_or(Err(Refused::EngineNonsense))
}

pub(super) async fn delete(call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let predefined = || {
        let message = format!("{reference} is a pre-defined network and cannot be removed");
        Refused::denied("policy", message)
    };
    if matches!(reference, DEFAULT | "host" | "none") {
        return Err(predefined());
    }
    let owned = own(&call.app, &call.user, reference)?;
    if names::shown(&owned.reservation) == DEFAULT {
        return Err(predefined());
    }
    let (app, user) = (call.app, call.user);
    let removed = tokio::spawn(async move {
        let _held = make::lock(&app, &user).await;
        remove(&app, &owned.id, &owned.reservation).await
    })
    .await;
    removed.unwrap_or(Err(Refused::EngineNonsense))?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

/// Removes a network from the engine, then from the ledger.
async fn remove(app: &App, id: &str, row: &Reservation) -> Result<(), Refused> {
    let removed = app.engine.remove_network(id).await.map_err(Refused::from);
    removed.map_err(|refused| refused.renamed(&names::of(row), &names::shown(row)))?;
    app.store.release(row.id, app.clock.now_ms()).await?;
    Ok(())
}

/// Every network of the caller's that no container is in, but the default one.
pub(super) async fn prune(mut call: Call) -> Result<Response<Body>, Refused> {
    let mut filters = call.query.filters(&["label", "label!", "until"])?;
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let spared = Spared::taken(&mut filters, call.app.clock.now_ms())?;
    filters.insert("dangling".to_owned(), vec!["true".to_owned()]);
    view::only_mine(&mut filters, &call.app, &call.user);
    let query = QueryBuilder::new().filters(&filters).finish();
    let listed = upstream::get(&call.app, &format!("/networks{query}")).await?;
    let (app, user) = (call.app, call.user);
    let pruned = tokio::spawn(async move {
        let _held = make::lock(&app, &user).await;
        let own = all(&app, &user).await?;
        let mut deleted = Vec::new();
        for network in listed.as_array().into_iter().flatten() {
            let Some((id, row)) = network["Id"].as_str().and_then(|id| own.get_key_value(id))
            else {
                continue;
            };
            let created = network["Created"].as_str().and_then(|t| t.parse().ok());
            if spared.spares(created, &network["Labels"]) {
                continue;
            }
            // One that a container has joined meanwhile stays.
            if names::shown(row) != DEFAULT && remove(&app, id, row).await.is_ok() {
                deleted.push(names::shown(row));
            }
        }
        Ok(answer::json(
            StatusCode::OK,
            &json!({"NetworksDeleted": deleted}),
        ))
    })
    .await;
    pruned.unwrap_or(Err(Refused::EngineNonsense))
}

pub(super) async fn connect(call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    let body = answer::read_json(&call.headers, call.body)?;
    let request = ConnectRequest::parse(&body)?;
    let (app, user) = (&call.app, &call.user);
    let network = joinable(app, user, reference).await?;
    let container = resolve::container(app, user, &request.container)?;
    let name = names::shown(&container.reservation);
    let endpoint = place::endpoint(app, user, &network.id, &request.endpoint, &name).await?;
    let body = json!({"Container": container.id, "EndpointConfig": endpoint.body()});
    told(app, &network, &container, "connect", &body).await
}

pub(super) async fn disconnect(call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    let body = answer::read_json(&call.headers, call.body)?;
    let request = DisconnectRequest::parse(&body)?;
    let network = own(&call.app, &call.user, reference)?;
    let container = resolve::container(&call.app, &call.user, &request.container)?;
    let body = json!({"Container": container.id, "Force": request.force});
    told(&call.app, &network, &container, "disconnect", &body).await
}

/// A network to join: the default one is made when it is first asked for.
async fn joinable(app: &Arc<App>, user: &User, reference: &str) -> Result<Owned, Refused> {
    match reference {
        DEFAULT | "default" => make::default(app, user).await,
        _ => own(app, user, reference),
    }
}

async fn told(
    app: &App,
    network: &Owned,
    container: &Owned,
    verb: &str,
    body: &Value,
) -> Result<Response<Body>, Refused> {
    let path = format!("/networks/{}/{verb}", network.id);
    let done = upstream::post_json(app, &path, body.to_string()).await;
    let done = done.map_err(|refused| {
        [container, network]
            .into_iter()
            .fold(refused, |refused, o| {
                refused.renamed(&names::of(&o.reservation), &names::shown(&o.reservation))
            })
    })?;
    Ok(answer::status(done.status()))
}
