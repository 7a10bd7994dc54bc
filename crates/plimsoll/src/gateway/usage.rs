//! `docker system df`: what the caller's own things take.

use std::collections::HashMap;

use http::{Response, StatusCode};
use plimsoll_host::engine::UsageData;
use plimsoll_host::request::query::{Filters, QueryBuilder};
use plimsoll_store::User;
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::refused::Refused;
use super::route::Call;
use super::{images, view, volumes};
use crate::state::App;

/// The engine walks everybody's volumes for this. It rests this many times as long after each walk.
const REST: u32 = 10;

pub(super) async fn df(mut call: Call) -> Result<Response<Body>, Refused> {
    let kinds = ["container", "image", "volume", "build-cache"];
    let types = call.query.all("type");
    if let Some(other) = types.iter().find(|t| !kinds.contains(&t.as_str())) {
        return Err(Refused::bad(
            "query type",
            format!("{other:?} is none of {}", kinds.join(", ")),
        ));
    }
    // What newer clients ask for, and this version of the answer always has.
    call.query.bool("verbose")?;
    call.query.finish()?;
    let (app, user) = (&call.app, &call.user);
    let wanted = |kind: &str| types.is_empty() || types.iter().any(|t| t == kind);
    let mut body = json!({"Images": null, "Containers": null, "Volumes": null, "BuildCache": null,
                          "LayersSize": 0, "BuilderSize": 0});
    let query = QueryBuilder::new().bool("all", true).bool("size", true);
    if wanted("container") {
        body["Containers"] = json!(view::own_shown(app, user, query, Filters::new()).await?);
    }
    if wanted("image") {
        let listed = app.engine.images().await?;
        body["LayersSize"] = json!(crate::images::taken_of(app, user.id, &listed).await?.own);
        let alone = crate::images::alone(app, user.id, &listed).await?;
        body["Images"] = json!(own_images(app, user, &alone).await?);
    }
    if wanted("volume") {
        body["Volumes"] = json!(own_volumes(app, user).await?);
    }
    if wanted("build-cache") {
        body["BuildCache"] = json!([]);
    }
    Ok(answer::json(StatusCode::OK, &body))
}

/// The caller's images, with their containers counted. What an image shares is what it does not have
/// alone.
async fn own_images(
    app: &App,
    user: &User,
    alone: &HashMap<String, u64>,
) -> Result<Vec<Value>, Refused> {
    let using = images::users_of(app, user).await?;
    let listed = images::visible(app, user, &Filters::new(), None, &[]).await?;
    let own = listed.into_iter().filter(|(_, is_own)| *is_own);
    Ok(own
        .map(|(mut image, _)| {
            let id = image["Id"].as_str().unwrap_or_default().to_owned();
            let size = image["Size"].as_u64().unwrap_or_default();
            let alone = alone.get(&id).copied().unwrap_or_default();
            image["SharedSize"] = json!(size.saturating_sub(alone));
            image["Containers"] = json!(using.get(&id).map_or(0, |using| using.containers));
            image
        })
        .collect())
}

async fn own_volumes(app: &App, user: &User) -> Result<Vec<Value>, Refused> {
    let found = volumes::own_listed(app, user, Filters::new()).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut walked = app.walked.lock().await;
    let now = app.clock.monotonic();
    if walked.until <= now {
        let used = app.engine.volume_usage().await?;
        walked.volumes = used.into_iter().map(|v| (v.name, v.usage_data)).collect();
        let after = app.clock.monotonic();
        walked.until = after + (after - now) * REST;
    }
    Ok(found
        .into_iter()
        .map(|(owned, seen)| {
            let mut seen = volumes::shown(seen, &owned.reservation);
            let used = walked.volumes.get(&owned.id);
            let used = used.copied().unwrap_or(UsageData {
                size: -1,
                ref_count: -1,
            });
            seen["UsageData"] = json!({"Size": used.size, "RefCount": used.ref_count});
            seen
        })
        .collect())
}
