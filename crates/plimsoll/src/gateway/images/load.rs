//! `docker load`, `docker import` and `docker save`.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use plimsoll_host::engine::BoxError;
use plimsoll_host::request::archive;
use plimsoll_host::request::image_reference::Standing;
use plimsoll_host::request::query::QueryBuilder;
use plimsoll_store::User;
use serde_json::{Value, json};
use tokio::sync::{OwnedMutexGuard, SemaphorePermit};

use super::arrive::Arrival;
use super::commit::{changes, no_room};
use super::find::{By, find};
use super::pipe::{self, converted, converted_within, uploaded};
use super::target;
use crate::gateway::Connection;
use crate::gateway::answer::{self, Body};
use crate::gateway::refused::Refused;
use crate::gateway::route::Call;
use crate::gateway::upstream;
use crate::images::{self, Eyes};
use crate::state::App;

const TAR: (http::HeaderName, &str) = (CONTENT_TYPE, "application/x-tar");

/// The most images of one `docker save`.
const SAVED_MAX: usize = 64;

/// How many bytes may come in: what is left of the caller's storage, and what they and everybody have
/// on this host already, since an archive brings that along.
pub(in crate::gateway) async fn most(app: &App, user: &User) -> Result<u64, Refused> {
    if let Some(message) = images::would_fit(app, user.id, 1)? {
        return Err(no_room(&message));
    }
    let Some(room) = images::room(app, user.id)? else {
        return Ok(u64::MAX >> 1);
    };
    let taken = images::taken(app, user.id).await?;
    Ok(room.saturating_add(taken.own).saturating_add(taken.public))
}

/// A user's uploads, one after the other: each may bring as much as there is room for.
async fn turn<'a>(
    app: &App,
    user: &User,
    connection: &'a Connection,
) -> (OwnedMutexGuard<()>, Option<SemaphorePermit<'a>>) {
    let lock = format!("upload {}", user.id);
    let turn = app.container_locks.lock(&lock).await;
    (turn, connection.place.large_body().await)
}

pub(in crate::gateway) async fn load(mut call: Call) -> Result<Response<Body>, Refused> {
    call.query.bool("quiet")?;
    if call.query.str("platform").is_some() {
        return Err(Refused::denied(
            "policy",
            "images are loaded as they are: leave --platform out",
        ));
    }
    call.query.finish()?;
    let upload = call.upload.ok_or(Refused::EngineNonsense)?;
    let (app, user, connection) = (call.app, call.user, call.connection);
    let done = tokio::spawn(async move {
        let _turn = turn(&app, &user, &connection).await;
        let (most, upload) = pipe::or_drained(most(&app, &user).await, upload).await?;
        let arrival = Arrival::begin(&app, &user)?;
        let names: Vec<String> = (0..archive::IMAGES_MAX)
            .map(|n| arrival.reference(n))
            .collect();
        let (body, work) = converted(upload, move |from, to| {
            archive::load(from, to, most, |number| names[number].clone())
        });
        let sent = app
            .engine
            .send(Method::POST, "/images/load?quiet=1", &[TAR], body, None)
            .await;
        let loaded = async {
            let (response, asked) = uploaded(sent, work, pipe::TO_FIT).await?;
            lines(&answer::engine_bytes(response).await?)?;
            Ok(asked)
        };
        let asked = match loaded.await {
            Ok(asked) => asked,
            Err(refused) => {
                // As many as an archive may hold may have come.
                arrival.clear(&app, archive::IMAGES_MAX).await;
                return Err(refused);
            }
        };
        let ids = arrival.settle(&app, &user, asked.clone()).await?;
        let mut text = String::new();
        for (id, names) in ids.iter().zip(asked) {
            for name in &names {
                let line = json!({"stream": format!("Loaded image: {}\n", name.short())});
                text.push_str(&format!("{line}\n"));
            }
            if names.is_empty() {
                let line = json!({"stream": format!("Loaded image ID: {id}\n")});
                text.push_str(&format!("{line}\n"));
            }
        }
        Ok(plain_json(text))
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}

/// The engine's progress, all of it; an error among it is a refusal.
pub(super) fn lines(bytes: &[u8]) -> Result<Vec<Value>, Refused> {
    let items = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let lines: Vec<Value> = items.map_while(Result::ok).collect();
    let failed = lines.iter().find_map(|line| {
        line["errorDetail"]["message"]
            .as_str()
            .or(line["error"].as_str())
    });
    match failed {
        Some(message) => Err(Refused::Engine {
            status: StatusCode::BAD_REQUEST,
            message: message.to_owned(),
        }),
        None => Ok(lines),
    }
}

fn plain_json(text: String) -> Response<Body> {
    let mut response = Response::new(answer::whole(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `POST /images/create?fromSrc=-`: a file system becomes an image.
pub(in crate::gateway) async fn import(
    mut call: Call,
    source: &str,
) -> Result<Response<Body>, Refused> {
    let upload = call.upload.take().ok_or(Refused::EngineNonsense)?;
    let judged = async {
        if source != "-" {
            return Err(Refused::denied(
                "policy",
                "the host fetches nothing for an import: fetch it yourself and pipe it into `docker import -`",
            ));
        }
        let (repo, tag) = (call.query.str("repo"), call.query.str("tag"));
        let wanted = target(repo.as_deref(), tag.as_deref())?;
        let message = call.query.str("message").filter(|m| m.len() <= 1024);
        if call.query.str("platform").is_some() {
            return Err(Refused::denied(
                "policy",
                "images run as they are on this host: leave --platform out",
            ));
        }
        let changes = changes(&call.query.all("changes"))?;
        std::mem::take(&mut call.query).finish()?;
        let most = most(&call.app, &call.user).await?;
        Ok((wanted, message, changes, most))
    };
    let (judged, upload) = pipe::or_drained(judged.await, upload).await?;
    let (wanted, message, changes, most) = judged;
    let (app, user, connection) = (call.app, call.user, call.connection);
    let done = tokio::spawn(async move {
        let _turn = turn(&app, &user, &connection).await;
        let arrival = Arrival::begin(&app, &user)?;
        let query = QueryBuilder::new()
            .str("fromSrc", "-")
            .str("repo", arrival.repository())
            .str("tag", &arrival.tag(0))
            .opt_str("message", message.as_deref());
        let query = match changes.as_slice() {
            [] => query,
            lines => query.str("changes", &lines.join("\n")),
        };
        let path = format!("/images/create{}", query.finish());
        let (body, work) = converted(upload, move |from, to| archive::layer(from, to, most));
        let sent = app
            .engine
            .send(Method::POST, &path, &[TAR], body, None)
            .await;
        let imported = async {
            let (response, ()) = uploaded(sent, work, pipe::TO_FIT).await?;
            lines(&answer::engine_bytes(response).await?)
        };
        if let Err(refused) = imported.await {
            arrival.clear(&app, 1).await;
            return Err(refused);
        }
        let ids = arrival
            .settle(&app, &user, vec![wanted.into_iter().collect()])
            .await?;
        Ok(plain_json(format!("{}\n", json!({"status": ids.first()}))))
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}

pub(in crate::gateway) async fn save(
    mut call: Call,
    name: Option<&str>,
) -> Result<Response<Body>, Refused> {
    let wanted = match name {
        Some(name) => vec![name.to_owned()],
        None => call.query.all("names"),
    };
    call.query.finish()?;
    if wanted.is_empty() || wanted.len() > SAVED_MAX {
        return Err(Refused::bad(
            "query names",
            format!("must name 1 to {SAVED_MAX} images"),
        ));
    }
    let eyes = Eyes::of(&call.app, call.user.id)?;
    let mut query = QueryBuilder::new();
    for name in &wanted {
        let found = find(&call.app, &call.user, name).await?;
        let upstream = match &found.by {
            Some(By::Own(reference)) => eyes.space.place(reference),
            Some(By::Public(reference)) => reference.to_string(),
            None => found.id,
        };
        query = query.str("names", &upstream);
    }
    let path = format!("/images/get{}", query.finish());
    let response = upstream::follow(&call.app, &path).await?;
    let body = BodyExt::map_err(response.into_body(), BoxError::from);
    let body = converted_within(call.connection, body, move |from, to| {
        archive::save(from, to, |name| match eyes.space.standing(name) {
            Standing::Own(reference) if reference.tag().is_some() => Some(reference.short()),
            Standing::Outside(reference) if eyes.is_public(&reference) => Some(reference.short()),
            _ => None,
        })
    })
    .await?;
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(response)
}
