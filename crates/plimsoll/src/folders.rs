//! Folders of the host in tenants' containers: whose rights they are opened with, and the mounts that
//! are all the engine hears of.
//!
//! The mounts must be in the engine's mount namespace, and a hardened server has one of its own. So a
//! process of its own makes them there: this program again, by `nsenter`, told what to do on its
//! standard input. See [`plimsoll_host::folders`] for what it does and why it is safe.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::Stdio;

use plimsoll_core::entity::ReservationId;
use plimsoll_host::folders::{self, Folder, FolderError};
use plimsoll_host::os_user::OsUser;
use plimsoll_store::{HostMount, ObjectKind, Reservation, ReservationFilter, User};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::config::{Config, socket_path};
use crate::state::App;
use crate::tasks::in_full;

/// A folder was not mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The tenant may not mount it, in words for them.
    #[error("{0}")]
    Refused(String),
    /// The host did not do it.
    #[error("folders of the host cannot be mounted: {0}")]
    Failed(String),
}

/// What the process in the engine's namespace is to do.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    clear: Vec<PathBuf>,
    mount: Vec<Folder>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Outcome {
    refused: Option<String>,
    failed: Option<String>,
}

/// Does one order from standard input and says on standard output what came of it.
///
/// # Errors
/// When either cannot be used.
pub fn obey() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let order: Order = serde_json::from_str(&text)?;
    let outcome = match done(&order) {
        Ok(()) => Outcome::default(),
        Err(error @ FolderError::Io { .. }) => Outcome {
            failed: Some(in_full(&error)),
            ..Outcome::default()
        },
        Err(refused) => Outcome {
            refused: Some(refused.to_string()),
            ..Outcome::default()
        },
    };
    io::stdout().write_all(serde_json::to_string(&outcome)?.as_bytes())
}

fn done(order: &Order) -> Result<(), FolderError> {
    for dir in &order.clear {
        folders::clear_all(dir)?;
    }
    order.mount.iter().try_for_each(folders::mount)
}

async fn send(config: &Config, order: &Order) -> Result<(), MountError> {
    let failed = |error: &dyn std::error::Error| MountError::Failed(in_full(error));
    let pid = engine_pid(config).await;
    let mut child = Command::new("nsenter")
        .arg(format!("--mount=/proc/{pid}/ns/mnt"))
        .arg("--")
        .arg(format!("/proc/{}/exe", std::process::id()))
        .arg("folders")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| MountError::Failed(format!("nsenter (of util-linux): {error}")))?;
    let text = serde_json::to_string(order).map_err(|e| failed(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(text.as_bytes())
            .await
            .map_err(|e| failed(&e))?;
    }
    let output = child.wait_with_output().await.map_err(|e| failed(&e))?;
    let outcome: Outcome = serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        MountError::Failed(said.trim().to_owned())
    })?;
    match outcome {
        Outcome {
            refused: Some(words),
            ..
        } => Err(MountError::Refused(words)),
        Outcome {
            failed: Some(words),
            ..
        } => Err(MountError::Failed(words)),
        Outcome { .. } => Ok(()),
    }
}

/// The process whose mounts the engine sees; before the engine runs, the first one's.
async fn engine_pid(config: &Config) -> i32 {
    let Ok(stream) = UnixStream::connect(socket_path(&config.engine)).await else {
        return 1;
    };
    let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
    peer.filter(|pid| *pid > 0).unwrap_or(1)
}

/// Under which folders `user` may mount: as configured, with `~` their home and `{user}` their name.
fn roots(config: &Config, user: &OsUser) -> Vec<PathBuf> {
    let roots = config
        .mounts
        .roots
        .iter()
        .filter_map(|root| match root.as_str() {
            "~" => home(user),
            other => Some(PathBuf::from(other.replace("{user}", &user.name))),
        });
    roots.collect()
}

/// Whether folders beyond people's own homes may be mounted.
pub(crate) fn beyond_home(config: &Config) -> bool {
    config.mounts.roots.iter().any(|root| root != "~")
}

/// The user's home, unless it is a place that system accounts have in common.
pub(crate) fn home(user: &OsUser) -> Option<PathBuf> {
    let home = &user.home;
    (home.is_absolute() && home.components().count() > 2).then(|| home.clone())
}

/// The account of the host whose rights a tenant's mounts have. Root's would be everybody's.
///
/// # Errors
/// When the name service cannot be asked.
pub async fn os_user(user: &User) -> io::Result<Option<OsUser>> {
    let Some(uid) = user.os_uid.filter(|uid| *uid != 0) else {
        return Ok(None);
    };
    tokio::task::spawn_blocking(move || OsUser::by_uid(uid))
        .await
        .map_err(io::Error::other)?
}

/// The folder under which everything of this instance is mounted.
#[must_use]
pub fn stash(config: &Config) -> PathBuf {
    config.mounts.stash.join(&config.instance)
}

fn dir_of(config: &Config, reservation: ReservationId) -> PathBuf {
    stash(config).join(reservation.0.simple().to_string())
}

/// Mounts what a container mounts of the host; what is mounted already stays, or follows its path.
///
/// # Errors
/// [`MountError`].
pub async fn mount(
    config: &Config,
    reservation: ReservationId,
    mounts: &[HostMount],
    user: Option<OsUser>,
) -> Result<(), MountError> {
    if mounts.is_empty() {
        return Ok(());
    }
    let user = user.ok_or_else(|| {
        MountError::Refused("your account has no uid on this host any more".to_owned())
    })?;
    let dir = dir_of(config, reservation);
    let mount = mounts
        .iter()
        .enumerate()
        .map(|(n, mount)| Folder {
            path: PathBuf::from(&mount.path),
            // Who reads as root reads in their own home alone.
            roots: if mount.as_owner {
                roots(config, &user)
            } else {
                home(&user).into_iter().collect()
            },
            user: user.clone(),
            at: dir.join(n.to_string()),
        })
        .collect();
    let order = Order {
        mount,
        ..Order::default()
    };
    send(config, &order).await
}

/// [`mount`] for a container that exists.
///
/// # Errors
/// [`MountError`].
pub async fn mount_again(app: &App, reservation: &Reservation) -> Result<(), MountError> {
    if reservation.host_mounts.is_empty() {
        return Ok(());
    }
    let user = app.store.user(&reservation.user.to_string());
    let user = user.map_err(|error| MountError::Failed(in_full(&error)))?;
    let user = os_user(&user).await;
    let user = user.map_err(|error| MountError::Failed(in_full(&error)))?;
    mount(&app.config, reservation.id, &reservation.host_mounts, user).await
}

/// Takes a container's mounts away. Those of a container that still runs stay for it.
///
/// # Errors
/// [`MountError::Failed`].
pub async fn clear(config: &Config, reservation: ReservationId) -> Result<(), MountError> {
    let order = Order {
        clear: vec![dir_of(config, reservation)],
        ..Order::default()
    };
    send(config, &order).await
}

/// Takes away what no live container mounts, and mounts what one should have and has not, as after a
/// boot. Returns how many containers' mounts changed.
///
/// # Errors
/// In words.
pub async fn reconcile(app: &App, began_ms: i64) -> Result<usize, String> {
    let mut changed = 0;
    for entry in std::fs::read_dir(stash(&app.config))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let id = ReservationId(id);
        let over = match app.store.reservation(id) {
            Ok(row) => row.state.is_final() && row.changed_ms < began_ms,
            Err(plimsoll_store::StoreError::NotFound { .. }) => true,
            Err(error) => return Err(in_full(&error)),
        };
        if over && !app.in_flight.contains(id) {
            clear(&app.config, id).await.map_err(|e| in_full(&e))?;
            changed += 1;
        }
    }
    let filter = ReservationFilter {
        kind: ObjectKind::Container,
        host: Some(app.lease.host.clone()),
        ..Default::default()
    };
    let rows = app.store.reservations(filter).await;
    for row in rows.map_err(|e| in_full(&e))? {
        if row.container.is_none() || has_its_mounts(&app.config, &row) {
            continue;
        }
        match mount_again(app, &row).await {
            Ok(()) => changed += 1,
            // Its owner is told when they start it.
            Err(MountError::Refused(why)) => {
                tracing::debug!(reservation = %row.id, why, "a folder is not mounted");
            }
            Err(error) => return Err(in_full(&error)),
        }
    }
    Ok(changed)
}

fn has_its_mounts(config: &Config, row: &Reservation) -> bool {
    let dir = dir_of(config, row.id);
    (0..row.host_mounts.len()).all(|n| dir.join(n.to_string()).exists())
}

/// Mounts everything that live containers of this host mount, before the engine starts them.
///
/// # Errors
/// In words, everything that failed.
pub async fn restore(config: &Config, store: &plimsoll_store::Store) -> Result<usize, String> {
    let filter = ReservationFilter {
        host: Some(config.host.clone()),
        ..Default::default()
    };
    let rows = store.reservations(filter).await;
    let (mut restored, mut failures) = (0, Vec::new());
    for row in rows.map_err(|e| in_full(&e))? {
        if row.host_mounts.is_empty() {
            continue;
        }
        let user = match store.user(&row.user.to_string()) {
            Ok(user) => os_user(&user).await.unwrap_or_default(),
            Err(_) => None,
        };
        match mount(config, row.id, &row.host_mounts, user).await {
            Ok(()) => restored += 1,
            Err(error) => failures.push(format!("{}: {}", row.user_name, in_full(&error))),
        }
    }
    if failures.is_empty() {
        Ok(restored)
    } else {
        Err(failures.join("; "))
    }
}
