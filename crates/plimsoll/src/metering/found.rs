//! Which containers run on this host, whoever made them: by the engine's events, each of which is a
//! reason to inspect, and by its list, from time to time.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use plimsoll_core::entity::ProjectId;
use plimsoll_host::cgroup::{CgroupDirs, Hierarchy};
use plimsoll_host::engine::{ContainerInspect, ContainerSummary, EngineError};
use plimsoll_store::{Project, Reservation, StoreError};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::unix::pipe;

use super::held::Owner;
use crate::caps::parent_of;
use crate::engine_facts::{FactsError, engine_facts};
use crate::state::App;

/// Where processes are.
pub const PROC: &str = "/proc";

/// A container could not be looked at; the next list will tell.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The engine is not known yet.
    #[error("the engine's cgroups are not known")]
    Facts(#[from] FactsError),
    /// The engine did not say.
    #[error("the engine could not be asked")]
    Engine(#[from] EngineError),
    /// The ledger did not say whose it is.
    #[error("the ledger could not be asked")]
    Store(#[from] StoreError),
}

/// A container that runs.
#[derive(Debug, Clone)]
pub struct Running {
    /// The engine's id.
    pub id: String,
    /// The engine's name for it.
    pub name: String,
    /// The image as it was named at create.
    pub image: String,
    /// Its first process.
    pub pid: u32,
    /// Its cgroup.
    pub dirs: CgroupDirs,
    /// It has a network of its own: neither the host's nor another container's.
    pub has_network: bool,
    /// When it started, Unix milliseconds.
    pub started_ms: i64,
    /// The same, monotonic milliseconds.
    pub from_ms: u64,
}

/// Looks at one container: meters it from now on, or no longer.
///
/// # Errors
/// [`LookError`].
pub async fn look(app: &Arc<App>, id: &str) -> Result<(), LookError> {
    let Some(collecting) = app.collecting.get() else {
        return Ok(());
    };
    let hierarchy = &engine_facts(app).await?.hierarchy;
    // Of two looks the later one is the truth.
    let _one = app.looks.lock(id).await;
    let seen = app.engine.inspect(id).await?;
    let owner = owner_of(app, hierarchy, id).await?;
    let running = seen.as_ref().and_then(|seen| running(app, hierarchy, seen));
    let mut collecting = collecting.lock().await;
    let Some(running) = running else {
        let last = seen.as_ref().and_then(last_run);
        collecting.ended(app, id, owner.map(|(owner, _)| owner), last);
        if seen.is_none() {
            collecting.forget(id);
        }
        return Ok(());
    };
    let owner = owner.map(|(mut owner, dirs)| {
        owner.is_under_parent = dirs.is_some_and(|dirs| dirs == running.dirs);
        owner
    });
    let (pid, started_ms) = (running.pid, running.started_ms);
    if collecting.begin(app, hierarchy, running, owner)
        && let Some(end) = end_of(pid)
    {
        tokio::spawn(wait_for_end(
            Arc::clone(app),
            id.to_owned(),
            started_ms,
            end,
        ));
    }
    Ok(())
}

/// Holds the engine's whole list against what is metered.
///
/// # Errors
/// [`LookError`].
pub async fn confirm(app: &Arc<App>, listed: &[ContainerSummary]) -> Result<(), LookError> {
    let Some(collecting) = app.collecting.get() else {
        return Ok(());
    };
    let differing = collecting.lock().await.differing(app, listed);
    for id in differing {
        look(app, &id).await?;
    }
    Ok(())
}

/// The container as it runs; `None` when it does not, or not any more.
fn running(app: &App, hierarchy: &Hierarchy, seen: &ContainerInspect) -> Option<Running> {
    let (pid, started) = (seen.state.pid, seen.state.started_at?);
    if pid == 0 || !seen.state.occupies() {
        return None;
    }
    let dirs = hierarchy.dirs_of_process(Path::new(PROC), pid, &seen.id);
    let mode = seen.host_config.network_mode.as_str();
    let started_ms = started.as_millisecond();
    Some(Running {
        id: seen.id.to_string(),
        name: seen.name().to_owned(),
        image: seen.config.image.clone(),
        pid,
        dirs: dirs.ok().flatten()?,
        has_network: !matches!(mode, "host" | "none") && !mode.starts_with("container:"),
        started_ms,
        from_ms: app.clock.monotonic_ms_of(started_ms),
    })
}

/// When its last run began and ended, Unix milliseconds.
fn last_run(seen: &ContainerInspect) -> Option<(i64, i64)> {
    let (began, ended) = (seen.state.started_at?, seen.state.finished_at?);
    Some((began.as_millisecond(), ended.as_millisecond()))
}

/// Whose a container is by the ledger, and where it is expected to run.
async fn owner_of(
    app: &App,
    hierarchy: &Hierarchy,
    id: &str,
) -> Result<Option<(Owner, Option<CgroupDirs>)>, StoreError> {
    let Some(row) = app.store.by_container(&app.lease.host, id)? else {
        return Ok(None);
    };
    let project = match &row.project {
        Some(name) => project_of(&app.store.projects().await?, &row, name),
        None => None,
    };
    let owner = Owner {
        user: row.user,
        team: row.team,
        project,
        is_under_parent: false,
    };
    let id = id.parse().ok();
    let parent = parent_of(&app.instance, &row);
    let dirs = id.map(|id| hierarchy.container_dirs(&parent, &id));
    Ok(Some((owner, dirs)))
}

/// The project of this name that is the team's, or outside of teams the user's.
pub(crate) fn project_of(all: &[Project], row: &Reservation, name: &str) -> Option<ProjectId> {
    let is_owners = |project: &&Project| match row.team {
        Some(team) => project.team == Some(team),
        None => project.user == Some(row.user),
    };
    let mut named = all.iter().filter(|project| project.name == name);
    named.find(is_owners).map(|project| project.id)
}

/// Becomes readable when the process ends.
fn end_of(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed())?;
    pidfd_open(pid, PidfdFlags::NONBLOCK).ok()
}

/// Reads a container once more when its first process ends: the engine says so only after its cgroup
/// is gone.
async fn wait_for_end(app: Arc<App>, id: String, started_ms: i64, end: OwnedFd) {
    // No pipe, but nothing is read from it: of what tokio can wait for without unsafe code this asks
    // the least.
    let Ok(end) = pipe::Receiver::from_owned_fd_unchecked(end) else {
        return;
    };
    if end.readable().await.is_ok()
        && let Some(collecting) = app.collecting.get()
    {
        collecting.lock().await.last_look(&app, &id, started_ms);
    }
}
