//! `POST /commit`: an image of an own container.

use std::time::Duration;

use http::{Method, Response, StatusCode};
use plimsoll_host::engine::empty;
use plimsoll_host::request::dockerfile;
use plimsoll_host::request::query::QueryBuilder;
use serde_json::json;

use super::arrive::Arrival;
use super::target;
use crate::gateway::answer::{self, Body};
use crate::gateway::refused::Refused;
use crate::gateway::route::Call;
use crate::gateway::{resolve, upstream};
use crate::images;
use crate::labels;

/// How long the engine may take: it writes the container's whole layer anew.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(3600);

/// The longest comment or author.
const WORDS_MAX: usize = 1024;

pub(in crate::gateway) async fn commit(mut call: Call) -> Result<Response<Body>, Refused> {
    let container = call.query.str("container").unwrap_or_default();
    let owned = resolve::container(&call.app, &call.user, &container)?;
    let (repo, tag) = (call.query.str("repo"), call.query.str("tag"));
    let wanted = target(repo.as_deref(), tag.as_deref())?;
    let (comment, author) = (call.query.str("comment"), call.query.str("author"));
    for text in [&comment, &author].into_iter().flatten() {
        if text.len() > WORDS_MAX {
            return Err(Refused::bad(
                "query",
                format!("a comment or author has at most {WORDS_MAX} bytes"),
            ));
        }
    }
    let pause = call.query.opt_bool("pause")?.unwrap_or(true);
    let asked = call.query.all("changes");
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let mut changes = changes(&asked)?;

    let path = format!("/containers/{}/json?size=1", owned.id);
    let seen = upstream::get(&call.app, &path).await?;
    // What the engine would copy from the container as ours.
    let ours = seen["Config"]["Labels"].as_object().into_iter().flatten();
    changes.extend(
        ours.filter(|(key, value)| key.starts_with(labels::PREFIX) && *value != "")
            .map(|(key, _)| format!("LABEL {key}=\"\"")),
    );
    let layer = seen["SizeRw"].as_u64().unwrap_or(0);
    if let Some(message) = images::would_fit(&call.app, call.user.id, layer)? {
        return Err(no_room(&message));
    }
    let (app, user) = (call.app, call.user);
    let done = tokio::spawn(async move {
        let arrival = Arrival::begin(&app, &user)?;
        let query = QueryBuilder::new()
            .str("container", &owned.id)
            .str("repo", arrival.repository())
            .str("tag", &arrival.tag(0))
            .opt_str("comment", comment.as_deref())
            .opt_str("author", author.as_deref())
            .bool("pause", pause)
            .str("changes", &changes.join("\n"))
            .finish();
        let sent = app
            .engine
            .send(
                Method::POST,
                &format!("/commit{query}"),
                &[],
                empty(),
                Some(COMMIT_TIMEOUT),
            )
            .await?;
        answer::engine_json(sent).await?;
        let names = wanted.into_iter().collect();
        let ids = arrival.settle(&app, &user, vec![names]).await?;
        Ok(answer::json(
            StatusCode::CREATED,
            &json!({"Id": ids.first()}),
        ))
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}

/// Changes of an image, judged and written anew.
pub(super) fn changes(asked: &[String]) -> Result<Vec<String>, Refused> {
    dockerfile::changes(asked).map_err(|error| Refused::bad("query changes", error.0))
}

/// The refusal of what would not fit, in the ledger's words.
pub(super) fn no_room(message: &str) -> Refused {
    let message = message.strip_prefix("plimsoll: ").unwrap_or(message);
    Refused::denied("quota_exceeded", message)
}
