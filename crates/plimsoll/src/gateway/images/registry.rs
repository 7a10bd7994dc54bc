//! `docker pull`, `docker push` and `docker login`, with registries that are on the list.
//!
//! A pull never moves a name on the host: the tag is resolved to a digest, the digest is pulled, and the
//! image is named in the caller's space. A push needs the name for as long as it takes: it is marked
//! private in the ledger first, so that whatever happens nobody finds it there.

use std::collections::HashMap;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, Response, StatusCode};
use plimsoll_host::engine::{empty, full};
use plimsoll_host::request::image_reference::Reference;
use plimsoll_host::request::query::QueryBuilder;
use plimsoll_host::request::registry::{Credentials, allows, allows_host};
use plimsoll_store::{Push, StoreError, User};
use serde_json::{Value, json};

use super::arrive::Arrival;
use super::find::{By, find};
use super::load::most;
use super::progress::{Progress, progress};
use crate::gateway::answer::{self, Body};
use crate::gateway::refused::Refused;
use crate::gateway::route::Call;
use crate::images::{self, Eyes};
use crate::state::App;
use crate::tasks::in_full;

const AUTH: HeaderName = HeaderName::from_static("x-registry-auth");

/// How long a registry may take to answer a question.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(60);

/// The caller's credentials, read from the request and written anew.
fn credentials(headers: &HeaderMap) -> Result<Credentials, Refused> {
    let text = headers.get(&AUTH).map_or(Ok(""), http::HeaderValue::to_str);
    let text = text.map_err(|_| Refused::bad("X-Registry-Auth", "must be base64".to_owned()))?;
    Ok(Credentials::from_header(text)?)
}

/// Refuses what is not on the list, and says who keeps it.
fn allowed(app: &App, reference: &Reference) -> Result<(), Refused> {
    let list = &app.config.registries.allow;
    if allows(list, reference) {
        return Ok(());
    }
    Err(not_listed(app, &reference.repository()))
}

fn not_listed(app: &App, what: &str) -> Refused {
    let who = app
        .config
        .tenants
        .contact
        .as_deref()
        .unwrap_or("an administrator of this host");
    let list = &app.config.registries.allow;
    let open = if list.is_empty() {
        "no registry is open to this host's users".to_owned()
    } else {
        format!("open here: {}", list.join(", "))
    };
    Refused::denied(
        "registry_closed",
        format!("{what} cannot be reached through this host ({open}); ask {who}"),
    )
}

pub(in crate::gateway) async fn login(call: Call) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    let body = answer::read_json(&call.headers, call.body)?;
    let credentials = Credentials::from_body(&body)?;
    if !allows_host(&call.app.config.registries.allow, credentials.server()) {
        return Err(not_listed(&call.app, credentials.server()));
    }
    let sent = call
        .app
        .engine
        .send(
            Method::POST,
            "/auth",
            &[(CONTENT_TYPE, "application/json")],
            full(credentials.body()),
            Some(REGISTRY_TIMEOUT),
        )
        .await?;
    let said = answer::engine_json(sent).await?;
    let body = json!({"Status": said["Status"], "IdentityToken": said["IdentityToken"]});
    Ok(answer::json(StatusCode::OK, &body))
}

pub(in crate::gateway) async fn pull(
    mut call: Call,
    from: &str,
) -> Result<Response<Body>, Refused> {
    if let Some(platform) = call.query.str("platform") {
        return Err(Refused::denied(
            "policy",
            format!("--platform {platform} is not open here: images are pulled for this host"),
        ));
    }
    let tag = call.query.str("tag");
    for name in ["repo", "message"] {
        call.query.str(name);
    }
    call.query.finish()?;
    let text = match &tag {
        Some(digest) if digest.contains(':') => format!("{from}@{digest}"),
        Some(tag) => format!("{from}:{tag}"),
        None => from.to_owned(),
    };
    let wanted = Reference::parse(&text)?;
    if tag.is_none() && from == wanted.short_repository() {
        return Err(Refused::denied(
            "policy",
            "--all-tags is not open here: pull one tag at a time",
        ));
    }
    allowed(&call.app, &wanted)?;
    let credentials = credentials(&call.headers)?;
    let most = most(&call.app, &call.user).await?;
    let digest = resolved(&call.app, &wanted, &credentials).await?;
    let (app, user) = (call.app, call.user);
    Ok(progress(move |told| async move {
        brought(&app, &user, &wanted, &digest, &credentials, most, &told).await
    }))
}

/// Whether this may be pulled here.
pub(in crate::gateway) fn may_pull(app: &App, wanted: &Reference) -> bool {
    allows(&app.config.registries.allow, wanted)
}

/// Pulls an image into a user's space.
pub(in crate::gateway) async fn bring(
    app: &App,
    user: &User,
    wanted: &Reference,
    credentials: &Credentials,
    told: &Progress,
) -> Result<(), Refused> {
    let most = most(app, user).await?;
    let digest = resolved(app, wanted, credentials).await?;
    brought(app, user, wanted, &digest, credentials, most, told).await
}

async fn brought(
    app: &App,
    user: &User,
    wanted: &Reference,
    digest: &str,
    credentials: &Credentials,
    most: u64,
    told: &Progress,
) -> Result<(), Refused> {
    let arrival = Arrival::begin(app, user)?;
    fetch(app, wanted, digest, credentials, most, &arrival, told).await?;
    arrival
        .settle(app, user, vec![vec![wanted.clone()]])
        .await?;
    for status in [
        format!("Digest: {digest}"),
        format!("Status: Downloaded image for {}", wanted.short()),
    ] {
        told.tell(json!({"status": status})).await;
    }
    Ok(())
}

/// The digest a registry has for a reference now. That it answers shows that the caller may have it.
async fn resolved(
    app: &App,
    wanted: &Reference,
    credentials: &Credentials,
) -> Result<String, Refused> {
    let auth = credentials.header();
    let path = format!("/distribution/{wanted}/json");
    let sent = app
        .engine
        .send(
            Method::GET,
            &path,
            &[(AUTH, &auth)],
            empty(),
            Some(REGISTRY_TIMEOUT),
        )
        .await?;
    let said = answer::engine_json(sent).await?;
    let digest = said["Descriptor"]["digest"].as_str().unwrap_or_default();
    if !plimsoll_host::request::image_reference::is_digest(digest) {
        return Err(Refused::EngineNonsense);
    }
    Ok(digest.to_owned())
}

/// Brings the image with a digest in. The digest's own reference is taken away again where it was not
/// there before: it would keep the image when its tenants have let go of it.
async fn fetch(
    app: &App,
    wanted: &Reference,
    digest: &str,
    credentials: &Credentials,
    most: u64,
    arrival: &Arrival,
    told: &Progress,
) -> Result<(), Refused> {
    let passing = Push {
        reference: format!("{}@{digest}", wanted.repository()),
        image: String::new(),
    };
    let _one_at_a_time = app
        .container_locks
        .lock(&images::passing_lock(&passing.reference))
        .await;
    if app
        .engine
        .image_inspect(&passing.reference)
        .await?
        .is_some()
    {
        let coming = arrival.reference(0);
        return Ok(app.engine.image_tag(&passing.reference, &coming).await?);
    }
    match app
        .store
        .begin_push(passing.clone(), app.clock.now_ms())
        .await
    {
        // Left by a crash; ended by this one.
        Ok(()) | Err(StoreError::Conflict(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let pulled = async {
        pull_digest(app, wanted, digest, credentials, most, &told.lossy()).await?;
        let coming = arrival.reference(0);
        app.engine.image_tag(&passing.reference, &coming).await?;
        Ok(())
    }
    .await;
    end(app, &passing, &[]).await;
    pulled
}

async fn pull_digest(
    app: &App,
    wanted: &Reference,
    digest: &str,
    credentials: &Credentials,
    most: u64,
    told: &Progress,
) -> Result<(), Refused> {
    let version = wanted.version.to_string();
    let line = json!({
        "status": format!("Pulling from {}", wanted.path),
        "id": version.trim_start_matches([':', '@']),
    });
    told.tell(line).await;
    let query = QueryBuilder::new()
        .str("fromImage", &wanted.repository())
        .str("tag", digest)
        .finish();
    let auth = credentials.header();
    let path = format!("/images/create{query}");
    let sent = app
        .engine
        .send(Method::POST, &path, &[(AUTH, &auth)], empty(), None)
        .await?;
    let response = answer::accepted(sent).await?;
    let mut sizes: HashMap<String, u64> = HashMap::new();
    let show = move |line: Value| {
        // Packed, so at most what they will take.
        let total = line["progressDetail"]["total"].as_u64();
        if line["status"] == "Downloading"
            && let (Some(layer), Some(total)) = (line["id"].as_str(), total)
        {
            sizes.insert(layer.to_owned(), total);
            if sizes.values().fold(0, |a: u64, b| a.saturating_add(*b)) > most {
                return Err(Refused::denied(
                    "quota_exceeded",
                    format!(
                        "the pull was stopped: the image is larger than the {} that your storage has room for",
                        plimsoll_core::Dimension::Storage.show(most)
                    ),
                ));
            }
        }
        // These name the digest; we say what came of it ourselves.
        let status = line["status"].as_str().unwrap_or_default();
        let theirs = ["Pulling from", "Digest:", "Status:"];
        Ok((!theirs.iter().any(|t| status.starts_with(t))).then_some(line))
    };
    told.relay(response.into_body(), show).await
}

/// Ends what went through the engine under a name of its own.
async fn end(app: &App, passing: &Push, keep: &[String]) {
    if let Err(error) = images::end_passing(app, passing, keep).await {
        tracing::warn!(
            reference = passing.reference,
            error = in_full(&error),
            "left to the reconciler"
        );
        app.wake.reconcile.notify_one();
    }
}

pub(in crate::gateway) async fn push(
    mut call: Call,
    name: &str,
) -> Result<Response<Body>, Refused> {
    let tag = call.query.str("tag");
    call.query.finish()?;
    // Clients send `{}` or their credentials once more.
    call.body?;
    let Some(tag) = tag else {
        return Err(Refused::denied(
            "policy",
            "--all-tags is not open here: push one tag at a time",
        ));
    };
    let wanted = Reference::parse(&format!("{name}:{tag}"))?;
    allowed(&call.app, &wanted)?;
    let credentials = credentials(&call.headers)?;
    let found = find(&call.app, &call.user, &wanted.short()).await?;
    if !matches!(found.by, Some(By::Own(_))) {
        return Err(Refused::denied(
            "policy",
            format!(
                "{} is everybody's on this host: give it a name of your own first (docker tag)",
                wanted.short()
            ),
        ));
    }
    let app = call.app;
    Ok(progress(move |told| async move {
        let push = Push {
            reference: wanted.to_string(),
            image: found.id,
        };
        // One at a time through one repository: what a push leaves behind is then its own.
        let _one_at_a_time = app
            .container_locks
            .lock(&images::passing_lock(&push.reference))
            .await;
        let taken = app.engine.image_inspect(&push.reference).await?;
        if taken.is_some_and(|image| image.id != push.image) {
            return Err(in_the_way(&wanted));
        }
        let Some(image) = app.engine.image_inspect(&push.image).await? else {
            return Err(Refused::NotFound(format!(
                "No such image: {}",
                wanted.short()
            )));
        };
        let eyes = Eyes::of(&app, call.user.id)?;
        if eyes.see(&image.repo_tags).public.contains(&wanted) {
            return send(&app, &wanted, &credentials, &told.lossy()).await;
        }
        app.store
            .begin_push(push.clone(), app.clock.now_ms())
            .await?;
        let sent = async {
            app.engine.image_tag(&push.image, &push.reference).await?;
            send(&app, &wanted, &credentials, &told.lossy()).await
        }
        .await;
        end(&app, &push, &image.repo_digests).await;
        sent
    }))
}

fn in_the_way(wanted: &Reference) -> Refused {
    Refused::Engine {
        status: StatusCode::CONFLICT,
        message: format!(
            "plimsoll: this host has another image under {}, and a push would have to replace it: push under \
             another tag",
            wanted.short()
        ),
    }
}

async fn send(
    app: &App,
    wanted: &Reference,
    credentials: &Credentials,
    told: &Progress,
) -> Result<(), Refused> {
    let query = QueryBuilder::new().opt_str("tag", wanted.tag()).finish();
    let path = format!("/images/{}/push{query}", wanted.repository());
    let auth = credentials.header();
    let sent = app
        .engine
        .send(Method::POST, &path, &[(AUTH, &auth)], empty(), None)
        .await?;
    let response = answer::accepted(sent).await?;
    let show = |line: Value| Ok(Some(line));
    told.relay(response.into_body(), show).await
}
