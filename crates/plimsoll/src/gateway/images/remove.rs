//! `docker rmi` and `docker image prune`: own names and own images, and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Method, Response, StatusCode};
use jiff::Timestamp;
use plimsoll_host::engine::empty;
use plimsoll_host::request::image_reference::Reference;
use plimsoll_host::request::query::{Filters, QueryBuilder};
use plimsoll_store::User;
use serde_json::{Value, json};

use super::find::{By, Found, find, shown};
use super::settle;
use crate::gateway::answer::{self, Body};
use crate::gateway::prune::{Spared, has_label};
use crate::gateway::refused::Refused;
use crate::gateway::route::Call;
use crate::gateway::{resolve, view};
use crate::images::{self, Eyes};
use crate::state::App;

pub(in crate::gateway) async fn remove(
    mut call: Call,
    name: &str,
) -> Result<Response<Body>, Refused> {
    let force = call.query.bool("force")?;
    let noprune = call.query.bool("noprune")?;
    call.query.finish()?;
    let (app, user, name) = (call.app, call.user, name.to_owned());
    let done = tokio::spawn(async move {
        let _held = images::lock(&app, user.id).await;
        let found = find(&app, &user, &name).await?;
        let gone = remove_found(&app, &user, &found, &name, force, noprune).await?;
        settle(&app, &user).await;
        Ok(answer::json(StatusCode::OK, &gone))
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}

async fn remove_found(
    app: &Arc<App>,
    user: &User,
    found: &Found,
    name: &str,
    force: bool,
    noprune: bool,
) -> Result<Vec<Value>, Refused> {
    if matches!(found.by, Some(By::Public(_))) || !found.seen.is_own() {
        return Err(Refused::denied(
            "policy",
            format!(
                "{} is everybody's on this host: only an administrator removes it",
                shown(name)
            ),
        ));
    }
    let names: Vec<Reference> = match &found.by {
        Some(By::Own(one)) => vec![one.clone()],
        _ => found.seen.own.clone(),
    };
    let id = found.id.strip_prefix("sha256:").unwrap_or(&found.id);
    let short = id.get(..12).unwrap_or(id);
    let mut repositories: Vec<String> = names.iter().map(Reference::repository).collect();
    repositories.dedup();
    if repositories.len() > 1 && !force {
        return Err(conflict(&format!(
            "unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )));
    }
    let last = found.seen.own.iter().all(|own| names.contains(own));
    let using = users_of(app, user).await?;
    let mut keep = false;
    let goes = last && found.seen.public.is_empty();
    if goes && let Some(used) = using.get(&found.id) {
        let container = used.container.get(..12).unwrap_or(&used.container);
        if used.running && found.by.is_none() {
            return Err(conflict(&format!(
                "unable to delete {short} (cannot be forced) - image is being used by running container {container}"
            )));
        }
        if !force {
            return Err(conflict(&match &found.by {
                Some(By::Own(one)) => format!(
                    "unable to remove repository reference \"{}\" (must force) - container {container} is \
                     using its referenced image {short}",
                    one.short()
                ),
                _ => format!(
                    "unable to delete {short} (must be forced) - image is being used by stopped container {container}"
                ),
            }));
        }
        // Its container goes on having it, and its owner goes on paying for it.
        keep = used.running || found.by.is_some();
    }
    let space = Eyes::of(app, user.id)?.space;
    let mut gone = Vec::new();
    for one in &names {
        let place = space.place(one);
        let said = untag(app, &place, noprune).await?;
        gone.push(json!({"Untagged": one.short()}));
        gone.extend(said);
    }
    if last && !keep {
        gone.extend(untag(app, &space.holder(&found.id), noprune).await?);
    }
    Ok(gone)
}

fn conflict(message: &str) -> Refused {
    Refused::Engine {
        status: StatusCode::CONFLICT,
        message: format!("conflict: {message}"),
    }
}

/// Takes one of the caller's references away; tells what the engine deleted with it.
async fn untag(app: &App, place: &str, noprune: bool) -> Result<Vec<Value>, Refused> {
    let query = QueryBuilder::new().bool("noprune", noprune).finish();
    let sent = app
        .engine
        .send(
            Method::DELETE,
            &format!("/images/{place}{query}"),
            &[],
            empty(),
            Some(app.engine.patience().call),
        )
        .await?;
    match answer::engine_json(sent).await {
        Ok(Value::Array(items)) => Ok(items
            .into_iter()
            .filter(|item| item.get("Deleted").is_some())
            .collect()),
        Ok(_) => Err(Refused::EngineNonsense),
        Err(Refused::Engine { status, .. }) if status == StatusCode::NOT_FOUND => Ok(Vec::new()),
        // By somebody else's container: theirs were looked at before.
        Err(Refused::Engine { status, .. }) if status == StatusCode::CONFLICT => {
            Err(conflict("the image is in use on this host"))
        }
        Err(refused) => Err(refused),
    }
}

/// Who uses an image.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Used {
    /// One of its containers, one that runs where there is any.
    container: String,
    running: bool,
    pub(in crate::gateway) containers: usize,
}

/// The caller's containers by the image they use.
pub(in crate::gateway) async fn users_of(
    app: &App,
    user: &User,
) -> Result<HashMap<String, Used>, Refused> {
    let own = resolve::all(app, user).await?;
    let query = QueryBuilder::new().bool("all", true);
    let listed = view::listed(app, user, &own, query, Filters::new()).await?;
    let mut using: HashMap<String, Used> = HashMap::new();
    for container in &listed {
        let (Some(id), Some(image)) = (container["Id"].as_str(), container["ImageID"].as_str())
        else {
            continue;
        };
        if !own.contains_key(id) {
            continue;
        }
        let running = matches!(
            container["State"].as_str(),
            Some("running" | "paused" | "restarting")
        );
        let known = using.entry(image.to_owned()).or_default();
        if known.containers == 0 || running {
            known.container = id.to_owned();
        }
        known.running |= running;
        known.containers += 1;
    }
    Ok(using)
}

pub(in crate::gateway) async fn prune(mut call: Call) -> Result<Response<Body>, Refused> {
    let mut filters = call
        .query
        .filters(&["dangling", "label", "label!", "until"])?;
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let spared = Spared::taken(&mut filters, call.app.clock.now_ms())?;
    let like = filters.remove("label").unwrap_or_default();
    let all = match filters.get("dangling").map(Vec::as_slice) {
        None => false,
        Some([one]) => matches!(one.as_str(), "0" | "false"),
        Some(_) => {
            return Err(Refused::bad(
                "query filters",
                "dangling must be true or false".to_owned(),
            ));
        }
    };
    let (app, user) = (call.app, call.user);
    let done = tokio::spawn(async move {
        let _held = images::lock(&app, user.id).await;
        let eyes = Eyes::of(&app, user.id)?;
        let using = users_of(&app, &user).await?;
        let listed = app.engine.images().await?;
        let before = images::taken_of(&app, user.id, &listed).await?;
        let mut gone = Vec::new();
        for image in &listed {
            let seen = eyes.see(&image.repo_tags);
            let unused = seen.is_own() && !using.contains_key(&image.id);
            if !unused || !(all || seen.own.is_empty()) {
                continue;
            }
            let labels = json!(image.labels);
            let created = Timestamp::from_second(image.created).ok();
            if spared.spares(created, &labels) || !like.iter().all(|l| has_label(&labels, l)) {
                continue;
            }
            for one in &seen.own {
                let place = eyes.space.place(one);
                gone.push(json!({"Untagged": one.short()}));
                gone.extend(untag(&app, &place, false).await?);
            }
            gone.extend(untag(&app, &eyes.space.holder(&image.id), false).await?);
        }
        settle(&app, &user).await;
        let after = images::taken(&app, user.id).await?;
        let body = json!({
            "ImagesDeleted": if gone.is_empty() { Value::Null } else { json!(gone) },
            "SpaceReclaimed": before.own.saturating_sub(after.own),
        });
        Ok(answer::json(StatusCode::OK, &body))
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}
