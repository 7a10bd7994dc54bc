//! Looking at images: list, inspect, history. Names are the caller's; what others call an image is not
//! told.

use std::collections::HashSet;

use http::{Response, StatusCode};
use plimsoll_host::request::image_reference::{Reference, Standing};
use plimsoll_host::request::query::{Filters, QueryBuilder};
use plimsoll_store::User;
use serde_json::{Value, json};

use super::find::find;
use super::glob;
use crate::gateway::answer::{self, Body};
use crate::gateway::names;
use crate::gateway::refused::Refused;
use crate::gateway::route::Call;
use crate::gateway::upstream;
use crate::images::{Eyes, Seen};
use crate::state::App;

pub(in crate::gateway) async fn list(mut call: Call) -> Result<Response<Body>, Refused> {
    // Steps of a build are nobody's, and in no list.
    call.query.bool("all")?;
    call.query.bool("digests")?;
    // Newer clients ask for figures that this version of the API does not have.
    call.query.bool("shared-size")?;
    // docker-py asks, and picks the ids itself.
    call.query.bool("only_ids")?;
    call.query.bool("manifests")?;
    let mut filters = call
        .query
        .filters(&["before", "dangling", "label", "reference", "since"])?;
    call.query.finish()?;
    let patterns = filters.remove("reference").unwrap_or_default();
    let dangling = match filters.remove("dangling").unwrap_or_default().as_slice() {
        [] => None,
        [one] if matches!(one.as_str(), "1" | "true") => Some(true),
        [one] if matches!(one.as_str(), "0" | "false") => Some(false),
        _ => {
            return Err(Refused::bad(
                "query filters",
                "dangling must be true or false".to_owned(),
            ));
        }
    };
    for key in ["before", "since"] {
        for value in filters.get_mut(key).into_iter().flatten() {
            *value = find(&call.app, &call.user, value).await?.id;
        }
    }
    let listed = visible(&call.app, &call.user, &filters, dangling, &patterns).await?;
    let shown: Vec<Value> = listed.into_iter().map(|(image, _)| image).collect();
    Ok(answer::json(StatusCode::OK, &shown))
}

/// The images that the engine lists under these filters and a tenant may see, as they see them, and
/// whether each is theirs.
pub(in crate::gateway) async fn visible(
    app: &App,
    user: &User,
    filters: &Filters,
    dangling: Option<bool>,
    patterns: &[String],
) -> Result<Vec<(Value, bool)>, Refused> {
    let query = QueryBuilder::new().filters(filters).finish();
    let listed = upstream::get(app, &format!("/images/json{query}")).await?;
    let Value::Array(listed) = listed else {
        return Err(Refused::EngineNonsense);
    };
    let eyes = Eyes::of(app, user.id)?;
    let seen: Vec<(Value, Seen)> = listed
        .into_iter()
        .map(|image| {
            let seen = eyes.see(&texts(&image["RepoTags"]));
            (image, seen)
        })
        .collect();
    // A name of one's own hides the same name of everybody's.
    let own: HashSet<Reference> = seen.iter().flat_map(|(_, seen)| seen.own.clone()).collect();
    let mut shown = Vec::new();
    for (mut image, seen) in seen {
        let names = names_of(&seen, Some(&own));
        let dangles = names.is_empty() && seen.is_own();
        if names.is_empty() && !dangles {
            continue;
        }
        let (mut tags, pinned) = parted(names);
        if dangling.is_some_and(|wanted| wanted != dangles) {
            continue;
        }
        if !patterns.is_empty() {
            tags.retain(|tag| patterns.iter().any(|p| pattern_fits(p, tag)));
            if tags.is_empty() {
                continue;
            }
        }
        let digests = digests_of(&image["RepoDigests"], &eyes, &tags, &pinned);
        image["RepoTags"] = if dangles {
            json!(["<none>:<none>"])
        } else {
            shorts(&tags)
        };
        image["RepoDigests"] = if dangles && digests.is_empty() {
            json!(["<none>@<none>"])
        } else {
            json!(digests)
        };
        image["ParentId"] = json!("");
        names::clean_labels(&mut image["Labels"]);
        shown.push((image, seen.is_own()));
    }
    Ok(shown)
}

fn pattern_fits(pattern: &str, tag: &Reference) -> bool {
    let (name, whole) = (tag.short_repository(), tag.short());
    [name.as_str(), whole.as_str()]
        .iter()
        .any(|text| glob::fits(pattern, text))
}

/// The names of an image as its viewer knows them, own ones first.
fn names_of(seen: &Seen, own_anywhere: Option<&HashSet<Reference>>) -> Vec<Reference> {
    let mut names = seen.own.clone();
    let others = seen.public.iter().filter(|name| {
        !seen.own.contains(name) && own_anywhere.is_none_or(|own| !own.contains(name))
    });
    names.extend(others.cloned());
    names
}

/// Names by tag, and names by digest.
fn parted(names: Vec<Reference>) -> (Vec<Reference>, Vec<Reference>) {
    names.into_iter().partition(|name| name.tag().is_some())
}

fn shorts(names: &[Reference]) -> Value {
    json!(names.iter().map(Reference::short).collect::<Vec<_>>())
}

/// The digests an image is known by: pinned ones, and those that belong to shown names.
fn digests_of(
    digests: &Value,
    eyes: &Eyes,
    tags: &[Reference],
    pinned: &[Reference],
) -> Vec<String> {
    let mut known: Vec<String> = pinned.iter().map(Reference::short).collect();
    let theirs = texts(digests);
    let theirs = theirs
        .iter()
        .filter_map(|digest| match eyes.space.standing(digest) {
            Standing::Outside(reference) => Some(reference),
            _ => None,
        })
        .filter(|digest| {
            tags.iter()
                .any(|tag| tag.repository() == digest.repository())
        })
        .map(|digest| digest.short());
    known.extend(theirs);
    known.sort();
    known.dedup();
    known
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str())
        .map(str::to_owned)
        .collect()
}

pub(in crate::gateway) async fn inspect(
    mut call: Call,
    name: &str,
) -> Result<Response<Body>, Refused> {
    call.query.bool("manifests")?;
    call.query.finish()?;
    let found = find(&call.app, &call.user, name).await?;
    let mut image = upstream::get(&call.app, &format!("/images/{}/json", found.id)).await?;
    let eyes = Eyes::of(&call.app, call.user.id)?;
    let (tags, pinned) = parted(names_of(&found.seen, None));
    image["RepoDigests"] = json!(digests_of(&image["RepoDigests"], &eyes, &tags, &pinned));
    image["RepoTags"] = shorts(&tags);
    image["Parent"] = json!("");
    for config in ["Config", "ContainerConfig"] {
        names::clean_labels(&mut image[config]["Labels"]);
    }
    if image["GraphDriver"].get("Data").is_some() {
        image["GraphDriver"]["Data"] = json!(null);
    }
    Ok(answer::json(StatusCode::OK, &image))
}

pub(in crate::gateway) async fn history(call: Call, name: &str) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    let found = find(&call.app, &call.user, name).await?;
    let mut steps = upstream::get(&call.app, &format!("/images/{}/history", found.id)).await?;
    let eyes = Eyes::of(&call.app, call.user.id)?;
    for step in steps.as_array_mut().into_iter().flatten() {
        let (tags, _) = parted(names_of(&eyes.see(&texts(&step["Tags"])), None));
        step["Tags"] = match tags.as_slice() {
            [] => Value::Null,
            tags => shorts(tags),
        };
    }
    Ok(answer::json(StatusCode::OK, &steps))
}
