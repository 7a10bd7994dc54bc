//! Images: those on the engine were put there by its administrator and are everybody's to look at and
//! to run.

use http::{Response, StatusCode};
use plimsoll_host::request::query::QueryBuilder;

use super::answer::{self, Body};
use super::refused::Refused;
use super::route::Call;
use super::upstream;
use crate::state::App;

pub(super) async fn list(mut call: Call) -> Result<Response<Body>, Refused> {
    let all = call.query.bool("all")?;
    let digests = call.query.bool("digests")?;
    // Newer clients ask for figures that this version of the API does not have.
    call.query.bool("shared-size")?;
    call.query.bool("manifests")?;
    let filters = call
        .query
        .filters(&["before", "dangling", "label", "reference", "since"])?;
    call.query.finish()?;
    let query = QueryBuilder::new()
        .bool("all", all)
        .bool("digests", digests)
        .filters(&filters)
        .finish();
    let path = format!("/images/json{query}");
    let seen = upstream::get(&call.app, &path).await?;
    Ok(answer::json(StatusCode::OK, &seen))
}

pub(super) async fn inspect(mut call: Call, name: &str) -> Result<Response<Body>, Refused> {
    call.query.bool("manifests")?;
    call.query.finish()?;
    one(&call.app, name, "json").await
}

pub(super) async fn history(call: Call, name: &str) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    one(&call.app, name, "history").await
}

async fn one(app: &App, name: &str, what: &str) -> Result<Response<Body>, Refused> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/:@-".contains(&b);
    if name.len() > 512 || !name.bytes().all(plain) {
        return Err(Refused::NotFound(format!("No such image: {name}")));
    }
    let path = format!("/images/{name}/{what}");
    let seen = upstream::get(app, &path).await?;
    Ok(answer::json(StatusCode::OK, &seen))
}
