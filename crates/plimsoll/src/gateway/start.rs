//! Starting and restarting: what was freed by a stop is admitted again, and the kernel's caps are
//! asserted before the engine is asked.

use std::time::Duration;

use http::{Method, Response};
use plimsoll_core::admit::Path;
use plimsoll_host::engine::empty;
use plimsoll_host::request::query::QueryBuilder;
use plimsoll_store::User;

use super::answer::{self, Body};
use super::create::settle_own;
use super::refused::Refused;
use super::resolve::{self, Owned};
use super::route::Call;
use super::{lifecycle, names};
use crate::caps;
use crate::engine_facts::engine_facts;
use crate::settle::settle_locked;
use crate::state::App;
use crate::tasks::in_full;

/// How long the engine may take to start a container.
const START_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) async fn start(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let keys = call.query.str("detachKeys");
    // Checkpoints are not open; clients send these empty.
    for name in ["checkpoint", "checkpoint-dir"] {
        if call.query.str(name).is_some() {
            return Err(Refused::denied(
                "policy",
                format!("{name} is not open here"),
            ));
        }
    }
    let query = QueryBuilder::new()
        .opt_str("detachKeys", keys.as_deref())
        .finish();
    admitted(call, owned, &format!("start{query}")).await
}

pub(super) async fn restart(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = lifecycle::stop_query(&mut call.query)?;
    admitted(call, owned, &format!("restart{query}")).await
}

/// Admits, asserts the caps and asks the engine, under the container's lock.
async fn admitted(call: Call, owned: Owned, verb: &str) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    answer::read_nothing(call.body)?;
    let (app, user) = (call.app, call.user);
    let verb = verb.to_owned();
    // Finished even if the client goes away: a start that was admitted is either done or taken back.
    let done = tokio::spawn(async move {
        // Held from the admission until the engine has answered and the ledger has followed: whoever
        // settled the container in between would free what it was admitted for.
        let _held = app.container_locks.lock(&owned.id).await;
        admit(&app, &user, &owned).await?;
        assert_caps(&app, &owned).await?;
        let path = format!("/containers/{}/{verb}", owned.id);
        let sent = app
            .engine
            .send(Method::POST, &path, &[], empty(), Some(START_TIMEOUT))
            .await;
        let answered = match sent {
            Ok(response) => answer::accepted(response).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = settle_locked(&app, &owned.id).await {
            tracing::debug!(error = in_full(&error), "left to the reconciler");
            app.wake.reconcile.notify_one();
        }
        app.wake.collect.notify_one();
        let response = answered.map_err(|refused| {
            refused.renamed(
                &names::of(&owned.reservation),
                &names::shown(&owned.reservation),
            )
        })?;
        Ok(answer::status(response.status()))
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}

/// Settles the container and asks for its runtime dimensions, twice before it is refused. The caller
/// holds the container's lock.
async fn admit(app: &App, user: &User, owned: &Owned) -> Result<(), Refused> {
    let settled = settle_locked(app, &owned.id).await?;
    if settled.is_none_or(|r| r.state.is_final()) {
        return Err(Refused::no_container(&names::shown(&owned.reservation)));
    }
    let start = || {
        let deed = app.deed();
        app.store.start(owned.reservation.id, deed)
    };
    let mut admission = start().await?;
    if admission.reservation.is_none() {
        settle_own(app, user, Some(&owned.id)).await;
        admission = start().await?;
    }
    match admission.reservation {
        Some(_) => Ok(()),
        None => Err(Refused::Quota(Box::new(admission.decision))),
    }
}

/// Makes the caps above the container so. The engine makes missing parents without any.
async fn assert_caps(app: &App, owned: &Owned) -> Result<(), Refused> {
    assert_caps_of(app, &app.store.path_of(&owned.reservation)?).await
}

/// Makes the caps of every level of a path so.
pub(super) async fn assert_caps_of(app: &App, path: &Path) -> Result<(), Refused> {
    let facts = engine_facts(app).await?;
    let tree = caps::desired(&app.instance, path);
    let hierarchy = facts.hierarchy.clone();
    let outcomes = tokio::task::spawn_blocking(move || hierarchy.apply_tree(&tree))
        .await
        .map_err(|_| Refused::EngineNonsense)?;
    for (cgroup, outcome) in outcomes {
        match outcome {
            // A cap that cannot be lowered yet is the reconciler's; the start is not in its way.
            Ok(applied) => {
                for refused in applied.refused {
                    tracing::warn!(%cgroup, error = in_full(&refused), "a kernel cap was refused");
                }
            }
            Err(error) => {
                tracing::error!(%cgroup, error = in_full(&error), "a cgroup cannot be made");
                return Err(Refused::EngineAway(format!(
                    "the cgroup of your containers cannot be set up: {error}"
                )));
            }
        }
    }
    Ok(())
}
