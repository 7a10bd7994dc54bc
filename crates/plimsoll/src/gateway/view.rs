//! Looking at own containers: list, inspect, top, logs, stats. Names, images and labels are shown as
//! their owner knows them.

use std::collections::HashMap;

use http::{Response, StatusCode};
use plimsoll_host::request::query::{Filters, Query, QueryBuilder};
use plimsoll_store::{Origin, Reservation, User};
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::refused::Refused;
use super::route::Call;
use super::upstream;
use super::{images, mounts, names, networks, resolve, stream};
use crate::labels;
use crate::state::App;

/// Filters of a list that mean the same for a tenant as for the engine.
const PASSED: [&str; 9] = [
    "ancestor", "exited", "expose", "health", "is-task", "label", "publish", "status", "network",
];

pub(super) async fn list(mut call: Call) -> Result<Response<Body>, Refused> {
    let all = call.query.bool("all")?;
    let size = call.query.bool("size")?;
    let limit = call.query.i64("limit")?;
    // What the Python library sends and no engine has read for years.
    call.query.raw("trunc_cmd");
    let last = call.query.i64("last")?.or(limit).filter(|n| *n > 0);
    let mut allowed = PASSED.to_vec();
    allowed.extend(["name", "id", "before", "since"]);
    let mut filters = call.query.filters(&allowed)?;
    call.query.finish()?;

    let wanted_names = filters.remove("name").unwrap_or_default();
    let wanted_ids = filters.remove("id").unwrap_or_default();
    for key in ["before", "since"] {
        for value in filters.get_mut(key).into_iter().flatten() {
            *value = resolve::container(&call.app, &call.user, value)?.id;
        }
    }
    for value in filters.get_mut("network").into_iter().flatten() {
        *value = networks::filter_value(&call.app, &call.user, value)?;
    }
    if let Some(wanted) = filters.remove("ancestor") {
        let mut ids = Vec::new();
        for name in wanted {
            match images::find(&call.app, &call.user, &name).await {
                Ok(found) => ids.push(found.id),
                Err(Refused::NotFound(_)) => {}
                Err(refused) => return Err(refused),
            }
        }
        // Nothing is made of images that are not there.
        if ids.is_empty() {
            return Ok(answer::json(StatusCode::OK, &json!([])));
        }
        filters.insert("ancestor".to_owned(), ids);
    }
    let query = QueryBuilder::new()
        .bool("all", all || last.is_some())
        .bool("size", size);
    let mut shown = own_shown(&call.app, &call.user, query, filters).await?;
    shown.retain(|container| {
        let name = container["Names"][0].as_str().unwrap_or_default();
        let name = name.trim_start_matches('/');
        let id = container["Id"].as_str().unwrap_or_default();
        (wanted_names.is_empty() || wanted_names.iter().any(|w| name_fits(name, w)))
            && (wanted_ids.is_empty() || wanted_ids.iter().any(|w| id.starts_with(w.as_str())))
    });
    if let Some(last) = last.and_then(|last| usize::try_from(last).ok()) {
        shown.truncate(last);
    }
    Ok(answer::json(StatusCode::OK, &shown))
}

/// The caller's containers that the engine lists under these filters, as their owner sees them.
pub(super) async fn own_shown(
    app: &App,
    user: &User,
    query: QueryBuilder,
    filters: Filters,
) -> Result<Vec<Value>, Refused> {
    let (own, listed, shown_networks) = tokio::try_join!(
        resolve::all(app, user),
        labelled(app, user, query.clone(), filters.clone()),
        networks::Shown::to(app, user)
    )?;
    let listed = match all_labelled(&own) {
        true => listed,
        false => listed_by_id(app, &own, query, filters).await?,
    };
    let mut shown = Vec::new();
    for mut container in listed {
        let Some(reservation) = container["Id"].as_str().and_then(|id| own.get(id)) else {
            continue;
        };
        container["Names"] = json!([format!("/{}", names::shown(reservation))]);
        if let Some(image) = &reservation.image {
            container["Image"] = json!(image);
        }
        names::clean_labels(&mut container["Labels"]);
        shown_networks.container(&mut container);
        mounts::show(&mut container, reservation);
        shown.push(container);
    }
    Ok(shown)
}

/// More containers than this are not asked for one by one: their ids would not fit into a request.
const ASKED_BY_ID: usize = 500;

/// Narrows what the engine sends to what carries the caller's labels; the ledger decides.
pub(super) fn only_mine(filters: &mut Filters, app: &App, user: &User) {
    let label = filters.entry("label".to_owned()).or_default();
    label.push(app.instance_label());
    label.push(format!("{}={}", labels::USER, user.id));
}

/// Whose a container is says the ledger, not a label: one that did not come through the gateway has none.
fn all_labelled(own: &HashMap<String, Reservation>) -> bool {
    own.values().all(|r| r.origin == Origin::Gateway)
}

/// What the engine lists of `own` under these filters, and perhaps more.
pub(super) async fn listed(
    app: &App,
    user: &User,
    own: &HashMap<String, Reservation>,
    query: QueryBuilder,
    filters: Filters,
) -> Result<Vec<Value>, Refused> {
    if own.is_empty() {
        return Ok(Vec::new());
    }
    match all_labelled(own) {
        true => labelled(app, user, query, filters).await,
        false => listed_by_id(app, own, query, filters).await,
    }
}

/// What carries the caller's labels.
async fn labelled(
    app: &App,
    user: &User,
    query: QueryBuilder,
    mut filters: Filters,
) -> Result<Vec<Value>, Refused> {
    only_mine(&mut filters, app, user);
    ask(app, query, &filters).await
}

/// The engine compares each container with each of the ids, so this is for where labels do not tell.
async fn listed_by_id(
    app: &App,
    own: &HashMap<String, Reservation>,
    query: QueryBuilder,
    mut filters: Filters,
) -> Result<Vec<Value>, Refused> {
    if own.len() <= ASKED_BY_ID {
        filters.insert("id".to_owned(), own.keys().cloned().collect());
    }
    ask(app, query, &filters).await
}

async fn ask(app: &App, query: QueryBuilder, filters: &Filters) -> Result<Vec<Value>, Refused> {
    let path = format!("/containers/json{}", query.filters(filters).finish());
    match upstream::get(app, &path).await? {
        Value::Array(listed) => Ok(listed),
        _ => Err(Refused::EngineNonsense),
    }
}

/// Whether a name fits a filter: contained in it, or anchored with `^` and `$` as clients do.
pub(super) fn name_fits(name: &str, wanted: &str) -> bool {
    let start = wanted.strip_prefix('^');
    let rest = start.unwrap_or(wanted);
    let end = rest.strip_suffix('$');
    let text = end.unwrap_or(rest);
    let text = text
        .strip_prefix("/?")
        .or_else(|| text.strip_prefix('/'))
        .unwrap_or(text);
    match (start.is_some(), end.is_some()) {
        (true, true) => name == text,
        (true, false) => name.starts_with(text),
        (false, true) => name.ends_with(text),
        (false, false) => name.contains(text),
    }
}

pub(super) fn inspect_query(query: &mut Query) -> Result<String, Refused> {
    let size = query.bool("size")?;
    Ok(QueryBuilder::new().bool("size", size).finish())
}

pub(super) async fn inspect(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = inspect_query(&mut call.query)?;
    call.query.finish()?;
    let path = format!("/containers/{}/json{query}", owned.id);
    let mut seen = match upstream::get(&call.app, &path).await {
        Err(Refused::Engine { status, .. }) if status == StatusCode::NOT_FOUND => {
            return Err(Refused::no_container(reference));
        }
        seen => seen?,
    };
    show(&mut seen, &owned.reservation);
    let shown_networks = networks::Shown::to(&call.app, &call.user).await?;
    shown_networks.container(&mut seen);
    Ok(answer::json(StatusCode::OK, &seen))
}

/// An inspect answer as the owner sees it: their names, and no paths of the host.
fn show(seen: &mut Value, reservation: &Reservation) {
    seen["Name"] = json!(format!("/{}", names::shown(reservation)));
    if let Some(image) = &reservation.image {
        seen["Config"]["Image"] = json!(image);
    }
    names::clean_labels(&mut seen["Config"]["Labels"]);
    mounts::show(seen, reservation);
    seen["HostConfig"]["CgroupParent"] = json!("");
    for path in ["LogPath", "HostnamePath", "HostsPath", "ResolvConfPath"] {
        if seen.get(path).is_some() {
            seen[path] = json!("");
        }
    }
    if seen["GraphDriver"].get("Data").is_some() {
        seen["GraphDriver"]["Data"] = json!(null);
    }
}

pub(super) fn top_query(query: &mut Query) -> Result<String, Refused> {
    let args = query.str("ps_args");
    // They go to `ps` on the host, and the engine shows the rows whose column PID is one of the
    // container's. With `=` a column of another meaning could be called so: `-eouid=PID,args`.
    let plain = |a: &String| {
        a.len() <= 128
            && a.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b" ,_-".contains(&b))
    };
    if args.as_ref().is_some_and(|a| !plain(a)) {
        return Err(Refused::bad(
            "query ps_args",
            "may hold only letters, digits, spaces, commas, '_' and '-'".to_owned(),
        ));
    }
    let query = QueryBuilder::new().opt_str("ps_args", args.as_deref());
    Ok(query.finish())
}

pub(super) async fn top(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = top_query(&mut call.query)?;
    call.query.finish()?;
    let path = format!("/containers/{}/top{query}", owned.id);
    let seen = upstream::get(&call.app, &path).await?;
    Ok(answer::json(StatusCode::OK, &seen))
}

pub(super) fn logs_query(query: &mut Query) -> Result<String, Refused> {
    let mut out = QueryBuilder::new();
    for name in ["follow", "stdout", "stderr", "timestamps", "details"] {
        out = out.bool(name, query.bool(name)?);
    }
    for name in ["since", "until", "tail"] {
        out = out.opt_str(name, query.str(name).as_deref());
    }
    Ok(out.finish())
}

pub(super) async fn logs(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = logs_query(&mut call.query)?;
    call.query.finish()?;
    let path = format!("/containers/{}/logs{query}", owned.id);
    let followed = upstream::follow(&call.app, &path).await?;
    Ok(answer::relayed(followed))
}

pub(super) fn stats_query(query: &mut Query) -> Result<String, Refused> {
    let follow = query.opt_bool("stream")?.unwrap_or(true);
    let one_shot = query.bool("one-shot")?;
    let query = QueryBuilder::new()
        .bool("stream", follow)
        .bool("one-shot", one_shot);
    Ok(query.finish())
}

pub(super) async fn stats(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = stats_query(&mut call.query)?;
    call.query.finish()?;
    let path = format!("/containers/{}/stats{query}", owned.id);
    let response = upstream::follow(&call.app, &path).await?;
    let name = json!(format!("/{}", names::shown(&owned.reservation)));
    Ok(stream::lines(response, move |mut reading| {
        reading["name"] = name.clone();
        Some(reading)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filtered_as_clients_ask() {
        for (name, wanted, fits) in [
            ("web-1", "web", true),
            ("web-1", "^/web-1$", true),
            ("web-1", "^/?web-1$", true),
            ("web-10", "^web-1$", false),
            ("my-web", "^web", false),
            ("my-web", "web$", true),
            ("db", "web", false),
        ] {
            assert_eq!(name_fits(name, wanted), fits, "{name} {wanted}");
        }
    }

    #[test]
    fn an_inspected_container_shows_nothing_of_the_host() {
        let mut seen = json!({
            "Name": "/ada.x.web", "LogPath": "/var/lib/docker/x", "HostsPath": "/var/lib/docker/h",
            "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/var/lib/docker/o"}},
            "Config": {"Image": "sha256:1", "Labels": {"plimsoll.user": "u"}},
            "HostConfig": {"CgroupParent": "/plimsoll/u1"},
        });
        let reservation = Reservation {
            id: plimsoll_core::entity::ReservationId(uuid::Uuid::nil()),
            kind: plimsoll_store::ObjectKind::Container,
            host: "h".into(),
            user: plimsoll_core::entity::UserId(uuid::Uuid::nil()),
            user_name: "ada".into(),
            team: None,
            team_name: None,
            project: None,
            state: plimsoll_core::State::Active,
            claim: plimsoll_core::Amounts::ZERO,
            origin: Origin::Gateway,
            decision: None,
            container: None,
            container_name: Some("web".into()),
            image: Some("busybox".into()),
            clamp: None,
            expires_ms: None,
            created_ms: 0,
            changed_ms: 0,
            started_ms: None,
            goes_with: None,
            host_mounts: Vec::new(),
            shared: None,
        };
        show(&mut seen, &reservation);
        let text = seen.to_string();
        assert!(
            !text.contains("/var/lib/docker") && !text.contains("plimsoll"),
            "{text}"
        );
        assert_eq!(seen["Name"], "/web");
        assert_eq!(seen["Config"]["Image"], "busybox");
    }
}
