//! Starting and restarting: what was freed by a stop is admitted again, and the kernel's caps are
//! asserted before the engine is asked.

use http::{Method, Response};
use plimsoll_core::Dimension;
use plimsoll_core::admit::Path;
use plimsoll_core::units::MilliCpu;
use plimsoll_host::engine::{EngineBody, empty};
use plimsoll_host::request::query::{Query, QueryBuilder};
use plimsoll_store::{Reservation, User};

use super::answer::{self, Body};
use super::create::{refused_mount, settle_own};
use super::refused::Refused;
use super::resolve::{self, Owned};
use super::route::Call;
use super::{lifecycle, names, networks};
use crate::budget;
use crate::caps;
use crate::engine_facts::engine_facts;
use crate::folders;
use crate::ladder;
use crate::settle::{runs, settle_locked};
use crate::state::App;
use crate::tasks::in_full;

pub(super) fn start_query(query: &mut Query) -> Result<String, Refused> {
    let keys = query.str("detachKeys");
    // Checkpoints are not open; clients send these empty.
    for name in ["checkpoint", "checkpoint-dir"] {
        if query.str(name).is_some() {
            return Err(Refused::denied(
                "policy",
                format!("{name} is not open here"),
            ));
        }
    }
    let query = QueryBuilder::new().opt_str("detachKeys", keys.as_deref());
    Ok(query.finish())
}

pub(super) async fn start(mut call: Call, reference: &str) -> Result<Response<Body>, Refused> {
    let owned = resolve::container(&call.app, &call.user, reference)?;
    let query = start_query(&mut call.query)?;
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
        let _starts = app.standstill.share(&user.id.to_string()).await;
        let _moves = app.standstill.share(&owned.id).await;
        // Held from the admission until the engine has answered and the ledger has followed: whoever
        // settled the container in between would free what it was admitted for.
        let _held = app.container_locks.lock(&owned.id).await;
        if let Err(refused) = prepared(&app, &user, &owned).await {
            take_back(&app, &owned).await;
            return Err(refused);
        }
        let path = format!("/containers/{}/{verb}", owned.id);
        let mut answered = asked(&app, &path).await;
        if let Err(refused) = &answered
            && networks::restored(&app, &user, &owned.id, refused)
                .await
                .unwrap_or(false)
        {
            answered = asked(&app, &path).await;
        }
        if let Err(error) = settle_locked(&app, &owned.id).await {
            tracing::debug!(error = in_full(&error), "left to the reconciler");
            app.wake.reconcile.notify_one();
        }
        app.wake.collect.notify_one();
        if answered.is_ok()
            && let Err(error) = ladder::restart_again(&app, &owned.reservation).await
        {
            tracing::warn!(
                container = owned.id,
                error = in_full(&error),
                "a container has lost its restart policy"
            );
        }
        match answered {
            Ok(response) => Ok(answer::status(response.status())),
            Err(refused) => {
                let refused = networks::explain(&app, &user, refused).await;
                // Its own name and its networks'.
                Err(refused.renamed(&names::in_engine(&user.name, user.id, ""), ""))
            }
        }
    })
    .await;
    done.unwrap_or(Err(Refused::EngineNonsense))
}

async fn asked(app: &App, path: &str) -> Result<Response<EngineBody>, Refused> {
    let patience = Some(app.engine.patience().order);
    let sent = app
        .engine
        .send(Method::POST, path, &[], empty(), patience)
        .await?;
    answer::accepted(sent).await
}

/// Everything that must hold before the engine is asked.
async fn prepared(app: &App, user: &User, owned: &Owned) -> Result<(), Refused> {
    may_start(app, &owned.reservation).await?;
    admit(app, user, owned).await?;
    assert_caps(app, owned).await?;
    let mounted = folders::mount_again(app, &owned.reservation).await;
    mounted.map_err(refused_mount)
}

/// Refuses what would set a container in motion that is paused or stopped because of a limit.
pub(super) fn may_move(app: &App, reservation: &Reservation) -> Result<(), Refused> {
    match ladder::kept_down(app, reservation)? {
        Some(why) => Err(Refused::denied("kept_down", why)),
        None => Ok(()),
    }
}

/// [`may_move`], and where nothing is left of a budget.
pub(super) async fn may_start(app: &App, reservation: &Reservation) -> Result<(), Refused> {
    may_move(app, reservation)?;
    match budget::spent(app, reservation).await? {
        Some(why) => Err(Refused::denied("budget", why)),
        None => Ok(()),
    }
}

/// Takes back what a start was admitted for that is not asked of the engine. It ends a container that
/// was to be removed at its end, as a start that the engine fails does: `docker run --rm` waits for it.
async fn take_back(app: &App, owned: &Owned) {
    if let Ok(Some(seen)) = app.engine.inspect(&owned.id).await
        && seen.host_config.auto_remove
        && seen.state.status == "created"
        && let Err(error) = app.engine.remove(&owned.id, false).await
    {
        tracing::warn!(
            container = owned.id,
            error = in_full(&error),
            "an unstarted container is left"
        );
    }
    if let Err(error) = settle_locked(app, &owned.id).await {
        tracing::debug!(error = in_full(&error), "left to the reconciler");
        app.wake.reconcile.notify_one();
    }
}

/// Settles the container and asks for its runtime dimensions, twice before it is refused. The caller
/// holds the container's lock.
async fn admit(app: &App, user: &User, owned: &Owned) -> Result<(), Refused> {
    let settled = settle_locked(app, &owned.id).await?;
    let Some(reservation) = settled.filter(|r| !r.state.is_final()) else {
        return Err(Refused::no_container(&names::shown(&owned.reservation)));
    };
    check_cpu(app, &reservation)?;
    stand_apart(app, &reservation).await?;
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

/// A container and the one that takes its place are charged once for what running takes. Where both are
/// about to run, that is asked for twice.
async fn stand_apart(app: &App, reservation: &Reservation) -> Result<(), Refused> {
    let beside = match reservation.runs_instead_of() {
        Some(old) => runs(app, old).await?.then_some(reservation.id),
        None => {
            let other = app.store.replacement_of(reservation.id)?;
            let shares = other.filter(|other| other.runs_instead_of().is_some());
            shares.map(|other| other.id)
        }
    };
    let Some(beside) = beside else { return Ok(()) };
    let admission = app.store.run_beside(beside, app.deed()).await?;
    match admission.reservation {
        Some(_) => Ok(()),
        None => Err(Refused::Quota(Box::new(admission.decision))),
    }
}

/// Refuses what the kernel would refuse: limits may have been lowered since the container was made, and
/// a level that promises more than it has still admits it.
fn check_cpu(app: &App, reservation: &Reservation) -> Result<(), Refused> {
    let path = app.store.path_of(reservation)?;
    let cpu = MilliCpu(reservation.claim.get(Dimension::Cpu));
    let most = caps::most_cpu(&path, app.capacity.cpu);
    if cpu <= most || !caps::admission_allows_more(&path) {
        return Ok(());
    }
    let name = names::shown(reservation);
    Err(Refused::denied(
        "policy",
        format!(
            "{name} has --cpus {cpu}, more than one container can get here now: at most {most}\n  \
             to fit: docker update --cpus {most} {name}"
        ),
    ))
}

/// Makes the caps above the container so. The engine makes missing parents without any.
pub(super) async fn assert_caps(app: &App, owned: &Owned) -> Result<(), Refused> {
    assert_caps_of(app, &app.store.path_of(&owned.reservation)?).await
}

/// Makes the caps of every level of a path so.
pub(super) async fn assert_caps_of(app: &App, path: &Path) -> Result<(), Refused> {
    let facts = engine_facts(app).await?;
    let tree = caps::tree(&caps::levels(&app.instance, path));
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
