//! The engine's events, one by one: only those of the caller's containers, networks and names of images, with the
//! caller's names.

use http::Response;
use plimsoll_host::request::image_reference::{Space, Standing};
use plimsoll_host::request::query::QueryBuilder;
use plimsoll_store::{Reservation, User};
use serde_json::{Value, json};

use super::answer::Body;
use super::refused::Refused;
use super::route::Call;
use super::upstream;
use super::{names, networks, resolve, stream};
use crate::images::Eyes;
use crate::labels;
use crate::state::App;

pub(super) async fn events(mut call: Call) -> Result<Response<Body>, Refused> {
    let (since, until) = (call.query.str("since"), call.query.str("until"));
    let mut filters = call.query.filters(&[
        "container",
        "event",
        "image",
        "label",
        "network",
        "type",
        "scope",
    ])?;
    let query = std::mem::take(&mut call.query);
    query.finish()?;
    for value in filters.get_mut("container").into_iter().flatten() {
        *value = resolve::container(&call.app, &call.user, value)?.id;
    }
    for value in filters.get_mut("network").into_iter().flatten() {
        *value = networks::filter_value(&call.app, &call.user, value)?;
    }
    // The engine knows the image by its id alone.
    let images = filters.remove("image").unwrap_or_default();
    let wanted = |kind: &str| {
        let kinds = filters.get("type");
        kinds.is_none_or(|kinds| kinds.is_empty() || kinds.iter().any(|k| k == kind))
    };
    // What narrows to containers or networks leaves no image.
    let image_events = wanted("image")
        && images.is_empty()
        && !filters.contains_key("container")
        && !filters.contains_key("network");
    let mut image_filters = filters.clone();
    // Nothing but these and images has events for a tenant. Of a network they carry no labels.
    let mut kinds = vec!["container".to_owned(), "network".to_owned()];
    if filters.contains_key("label") || !images.is_empty() {
        kinds.truncate(1);
    }
    if let Some(wanted) = filters.get("type").filter(|wanted| !wanted.is_empty()) {
        kinds.retain(|kind| wanted.contains(kind));
    }
    let only_others = kinds.is_empty();
    if only_others {
        kinds.push("container".to_owned());
    }
    filters.insert("type".to_owned(), kinds);
    let query = QueryBuilder::new()
        .opt_str("since", since.as_deref())
        .opt_str("until", until.as_deref())
        .filters(&filters)
        .finish();
    let path = format!("/events{query}");
    let response = upstream::follow(&call.app, &path).await?;
    let named = if image_events {
        image_filters.insert("type".to_owned(), vec!["image".to_owned()]);
        let query = QueryBuilder::new()
            .opt_str("since", since.as_deref())
            .opt_str("until", until.as_deref())
            .filters(&image_filters)
            .finish();
        let response = upstream::follow(&call.app, &format!("/events{query}")).await?;
        let space = Eyes::of(&call.app, call.user.id)?.space;
        Some(stream::lines(response, move |event| named(event, &space)))
    } else {
        None
    };
    let (app, user) = (call.app, call.user);
    let of_containers = stream::lines(response, move |event| {
        if only_others {
            return None;
        }
        let prefix = names::in_engine(&user.name, user.id, "");
        if event["Type"] == "network" {
            return networks::event(&app, &user, &prefix, event);
        }
        let id = event["Actor"]["ID"].as_str()?.to_owned();
        let reservation = resolve::by_id(&app, &user, &id).ok().flatten();
        let reservation = reservation.or_else(|| being_created(&app, &user, &event))?;
        let named = reservation.image.as_deref().unwrap_or_default();
        if !images.is_empty() && !images.iter().any(|wanted| image_fits(named, wanted)) {
            return None;
        }
        Some(show(event, &prefix, &reservation))
    });
    Ok(match named {
        Some(named) => stream::merged(of_containers, named),
        None => of_containers,
    })
}

/// An image's event: a name of the caller's was given. The engine tells of names that go, and of images,
/// by id alone; those are nobody's to be told of.
fn named(mut event: Value, space: &Space) -> Option<Value> {
    let attributes = &mut event["Actor"]["Attributes"];
    let Standing::Own(name) = space.standing(attributes["name"].as_str()?) else {
        return None;
    };
    attributes["name"] = json!(name.short());
    names::clean_labels(attributes);
    Some(event)
}

/// The caller's reservation of a container whose `create` event comes before its commit. The label
/// names it; the ledger must know it as theirs, unbound and of this very name.
fn being_created(app: &App, user: &User, event: &Value) -> Option<Reservation> {
    let attributes = &event["Actor"]["Attributes"];
    let id = attributes[labels::RESERVATION].as_str()?.parse().ok()?;
    let reservation = app.store.reservation(id).ok()?;
    let theirs = reservation.user == user.id && reservation.container.is_none();
    (theirs && attributes["name"].as_str() == Some(&names::of(&reservation))).then_some(reservation)
}

fn show(mut event: Value, prefix: &str, reservation: &Reservation) -> Value {
    names::clean_labels(&mut event["Actor"]["Attributes"]);
    // The name it had then; a later rename does not rewrite the past.
    let then = event["Actor"]["Attributes"]["name"]
        .as_str()
        .and_then(|n| n.strip_prefix(prefix));
    let name = then.map_or_else(|| names::shown(reservation), str::to_owned);
    event["Actor"]["Attributes"]["name"] = json!(name);
    if let Some(image) = &reservation.image {
        event["Actor"]["Attributes"]["image"] = json!(image);
        if event.get("from").is_some() {
            event["from"] = json!(image);
        }
    }
    if let Some(old) = event["Actor"]["Attributes"]["oldName"].as_str() {
        // A rename tells the engine's old name.
        let shown = old
            .trim_start_matches('/')
            .strip_prefix(prefix)
            .unwrap_or_default();
        event["Actor"]["Attributes"]["oldName"] = json!(format!("/{shown}"));
    }
    event
}

/// Whether an image as its owner named it is the one asked for, with its tag or without.
fn image_fits(named: &str, wanted: &str) -> bool {
    let untagged = match named.rsplit_once(':') {
        // A colon before a slash begins a port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => named,
    };
    wanted == named || wanted == untagged || wanted.strip_suffix(":latest") == Some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_asked_for_with_its_tag_or_without() {
        for (named, wanted, fits) in [
            ("busybox", "busybox", true),
            ("busybox", "busybox:latest", true),
            ("busybox:1", "busybox", true),
            ("busybox:1", "busybox:2", false),
            ("reg:5000/bb", "reg", false),
            ("reg:5000/bb:1", "reg:5000/bb", true),
        ] {
            assert_eq!(image_fits(named, wanted), fits, "{named} {wanted}");
        }
    }
}
