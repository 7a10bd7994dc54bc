//! Exec in own containers. Whose an exec is, the engine says: it belongs to its container.

use http::{Response, StatusCode};
use plimsoll_host::request::exec::{ExecRequest, ExecStart};
use plimsoll_store::User;
use serde_json::Value;

use super::answer::{self, Body};
use super::refused::Refused;
use super::route::Call;
use super::upstream;
use super::{lifecycle, names, resolve, stream};
use crate::folders;
use crate::state::App;

pub(super) async fn create(call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    call.query.finish()?;
    let body = answer::read_json(&call.headers, call.body)?;
    let mut request = ExecRequest::parse(&body)?;
    if owned.reservation.host_mounts.iter().any(|m| m.as_owner) {
        let path = format!("/containers/{}/json", owned.id);
        let seen = upstream::get(&call.app, &path).await?;
        let owner = seen["Config"]["User"].as_str();
        request.run_as(owner.ok_or(Refused::EngineNonsense)?)?;
        if folders::beyond_home(&call.app.config) {
            let own = seen["Config"]["WorkingDir"].as_str().unwrap_or_default();
            let mounts = seen["Mounts"].as_array().into_iter().flatten();
            let tmpfs = seen["HostConfig"]["Tmpfs"]
                .as_object()
                .into_iter()
                .flatten();
            let mounted_at: Vec<&str> = mounts
                .filter_map(|mount| mount["Destination"].as_str())
                .chain(tmpfs.map(|(path, _)| path.as_str()))
                .collect();
            request.check_working_dir(own, &mounted_at)?;
        }
    }
    let path = format!("/containers/{}/exec", owned.id);
    let made = upstream::post_json(&call.app, &path, request.body().to_string()).await;
    let made = made.map_err(|refused| {
        refused.renamed(
            &names::of(&owned.reservation),
            &names::shown(&owned.reservation),
        )
    })?;
    let created = answer::engine_json(made).await?;
    Ok(answer::json(StatusCode::CREATED, &created))
}

pub(super) async fn start(call: Call, id: &str) -> Result<Response<Body>, Refused> {
    let seen = own(&call.app, &call.user, id).await?;
    call.query.finish()?;
    let body = answer::read_json(&call.headers, call.body)?;
    let request = ExecStart::parse(&body)?;
    let path = format!("/exec/{id}/start");
    let body = request.body().to_string();
    if request.detach {
        let done = upstream::post_json(&call.app, &path, body).await?;
        return Ok(answer::status(done.status()));
    }
    let ends = (call.upgrade, call.connection);
    let container = seen["ContainerID"].as_str().unwrap_or_default();
    stream::hijack(&call.app, &call.headers, ends, container, &path, Some(body)).await
}

pub(super) async fn resize(mut call: Call, id: &str) -> Result<Response<Body>, Refused> {
    own(&call.app, &call.user, id).await?;
    let query = lifecycle::size_query(&mut call.query)?;
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let path = format!("/exec/{id}/resize{query}");
    let done = upstream::post(&call.app, &path).await?;
    Ok(answer::status(done.status()))
}

pub(super) async fn inspect(call: Call, id: &str) -> Result<Response<Body>, Refused> {
    let seen = own(&call.app, &call.user, id).await?;
    call.query.finish()?;
    Ok(answer::json(StatusCode::OK, &seen))
}

/// The engine's view of an exec in one of the caller's containers; anything else is not there.
pub(super) async fn own(app: &App, user: &User, id: &str) -> Result<Value, Refused> {
    let absent = || Refused::NotFound(format!("No such exec instance: {id}"));
    if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(absent());
    }
    let path = format!("/exec/{id}/json");
    let seen = match upstream::get(app, &path).await {
        Err(Refused::Engine { status, .. }) if status == StatusCode::NOT_FOUND => {
            return Err(absent());
        }
        seen => seen?,
    };
    let container = seen["ContainerID"].as_str().unwrap_or_default();
    match resolve::by_id(app, user, container)? {
        Some(_) => Ok(seen),
        None => Err(absent()),
    }
}
