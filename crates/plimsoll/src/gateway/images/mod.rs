//! Images: a tenant's own, under names of their own, and everybody's, to look at and to run.
//!
//! The engine's references are global; a tenant's names are references in their space, mapped both ways
//! (see [`crate::images`]). A name means the tenant's own image first, then everybody's. What is
//! everybody's or another's is never replaced, untagged or deleted from here.

mod arrive;
mod commit;
mod find;
mod glob;
mod load;
mod look;
pub(super) mod pipe;
mod progress;
mod registry;
mod remove;

pub(super) use arrive::Arrival;
pub(super) use commit::commit;
pub(super) use find::find;
pub(super) use load::{load, most, save};
pub(super) use look::{history, inspect, list, visible};
pub(super) use progress::{Progress, progress};
pub(super) use registry::{bring, login, may_pull, push};
pub(super) use remove::{prune, remove, users_of};

use http::{Response, StatusCode};

use super::answer::{self, Body};
use super::refused::Refused;
use super::route::Call;
use crate::images::{self, ImageError};
use crate::state::App;
use plimsoll_host::request::image_reference::Reference;
use plimsoll_store::User;

/// The reference that a request's `repo` and `tag` make; `None` when it names none.
fn target(repo: Option<&str>, tag: Option<&str>) -> Result<Option<Reference>, Refused> {
    let Some(repo) = repo else {
        return match tag {
            None => Ok(None),
            Some(_) => Err(Refused::bad("query tag", "needs a repository".to_owned())),
        };
    };
    let text = match tag {
        Some(tag) => format!("{repo}:{tag}"),
        None => repo.to_owned(),
    };
    let reference = Reference::parse(&text)?;
    if reference.tag().is_none() {
        return Err(Refused::bad(
            "query repo",
            "an image cannot be given a digest".to_owned(),
        ));
    }
    Ok(Some(reference))
}

pub(super) async fn tag(mut call: Call, name: &str) -> Result<Response<Body>, Refused> {
    let (repo, tag) = (call.query.str("repo"), call.query.str("tag"));
    // docker-py's, from before API 1.24: a tag always moves.
    call.query.bool("force")?;
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let Some(wanted) = target(repo.as_deref(), tag.as_deref())? else {
        return Err(Refused::bad("query repo", "must name the image".to_owned()));
    };
    let found = find(&call.app, &call.user, name).await?;
    let (app, user) = (call.app, call.user);
    let done = tokio::spawn(async move {
        let held = images::lock(&app, user.id).await;
        arrive::take(&app, &user, &[(found.id, vec![wanted])], &held).await
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))?;
    Ok(answer::status(StatusCode::CREATED))
}

/// Brings the charge to what the tenant's images take now, after something went.
async fn settle(app: &App, user: &User) {
    let settled = async {
        let taken = images::taken(app, user.id).await?;
        images::settle(app, user.id, taken).await
    };
    if let Err(error) = settled.await {
        tracing::debug!(
            error = crate::tasks::in_full(&error),
            "left to the reconciler"
        );
        app.wake.reconcile.notify_one();
    }
}

impl From<ImageError> for Refused {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Engine(error) => error.into(),
            ImageError::Store(error) => error.into(),
        }
    }
}

/// `POST /images/create`: an import, or a pull.
pub(super) async fn create(mut call: Call) -> Result<Response<Body>, Refused> {
    if let Some(source) = call.query.str("fromSrc") {
        return load::import(call, &source).await;
    }
    // A pull has no body; what comes all the same is read, and not looked at.
    if let Some(upload) = call.upload.take() {
        pipe::drain(upload).await;
    }
    let from = call.query.str("fromImage").unwrap_or_default();
    registry::pull(call, &from).await
}
