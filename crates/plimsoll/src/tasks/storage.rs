//! Measures what containers and volumes hold on disk: writable layers and logs, folder by folder.
//!
//! A walk asks the disk for every file, so it is made seldom, with pauses, and for those first who are
//! nearest to their limit. What images take is known without one. What runs past Plimsoll is not
//! walked.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::Dimension;
use plimsoll_core::entity::{EntityKind, UserId};
use plimsoll_host::engine::EngineError;
use plimsoll_host::storage::{Held, walk, with_siblings};
use plimsoll_store::{ObjectKind, Reservation, ReservationFilter, StoreError};

use crate::meter::{Storage, Whose};
use crate::state::App;
use crate::tasks::collect::{answers_for, follow};
use crate::tasks::in_full;

/// The name under which the task reports.
pub const NAME: &str = "storage";

/// The disk has this long for others after every thousand files.
const PAUSE: Duration = Duration::from_millis(10);

/// Something could not be looked up; the next walk will.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("the engine could not be asked where it is")]
    Engine(#[from] EngineError),
    #[error("its folder could not be walked")]
    Walk(#[from] std::io::Error),
}

/// One walk through everything that is charged here.
///
/// # Errors
/// In words, when the ledger cannot be asked.
pub async fn run(app: Arc<App>) -> Result<String, String> {
    measure(&app).await.map_err(|e| in_full(&e))
}

async fn measure(app: &Arc<App>) -> Result<String, StoreError> {
    let mut rows = of_kind(app, ObjectKind::Container).await?;
    rows.extend(of_kind(app, ObjectKind::Volume).await?);
    let nearness = nearness(app, &rows);
    rows.sort_by_key(|row| Reverse(nearness.get(&row.user).copied()));
    let mut storage = Storage::default();
    // By whose limits hold for it.
    let mut charged: HashMap<Whose, u64> = HashMap::new();
    let mut add = |storage: &mut Storage, row: &Reservation, bytes| {
        *charged
            .entry(answers_for((row.team, row.user)))
            .or_default() += bytes;
        add(storage, row, bytes);
    };
    for row in of_kind(app, ObjectKind::Image).await? {
        add(&mut storage, &row, row.claim.get(Dimension::Storage));
    }
    let (mut all, mut failed) = (Held::default(), 0);
    for row in &rows {
        let Some(object) = row.container.clone() else {
            continue;
        };
        match held(app, row.kind, &object).await {
            Ok(held) => {
                all += held;
                add(&mut storage, row, held.bytes);
                storage.objects.insert(object, held.bytes);
            }
            Err(error) => {
                failed += 1;
                tracing::debug!(object, error = in_full(&error), "not measured");
            }
        }
    }
    app.meter.publish_storage(storage);
    let measured = charged.into_iter();
    let measured = measured.map(|(whose, bytes)| (whose, vec![(Dimension::Storage, bytes)]));
    follow(app, &[Dimension::Storage], measured.collect()).await?;
    let objects = rows.len() - failed;
    Ok(format!(
        "{objects} containers and volumes, {} files, {failed} not measured",
        all.files
    ))
}

async fn of_kind(app: &App, kind: ObjectKind) -> Result<Vec<Reservation>, StoreError> {
    let host = Some(app.lease.host.clone());
    let filter = ReservationFilter {
        kind,
        host,
        ..Default::default()
    };
    app.store.reservations(filter).await
}

/// How much of a storage limit each user took when last measured, thousandths.
fn nearness(app: &App, rows: &[Reservation]) -> HashMap<UserId, u64> {
    let mut known = HashMap::new();
    for row in rows {
        known.entry(row.user).or_insert_with(|| {
            let standing = app.store.standing(EntityKind::User, row.user.0).ok();
            let limit = standing.and_then(|s| s.limits[Dimension::Storage].at_most());
            let used = app.meter.usage(Whose::User(row.user)).storage_bytes;
            let permille = |limit: u64| used.unwrap_or(0) / (limit / 1000).max(1);
            limit.map_or(0, permille)
        });
    }
    known
}

fn add(storage: &mut Storage, row: &Reservation, bytes: u64) {
    let whose = [Whose::System, Whose::User(row.user)];
    for whose in whose.into_iter().chain(row.team.map(Whose::Team)) {
        *storage.entities.entry(whose).or_default() += bytes;
    }
}

/// What an object holds; nothing where the engine no longer has it.
async fn held(app: &App, kind: ObjectKind, object: &str) -> Result<Held, LookError> {
    let (folder, log) = match kind {
        ObjectKind::Volume => {
            let volume = app.engine.volume(object).await?;
            (volume.map(|volume| volume.mountpoint), None)
        }
        _ => {
            let seen = app.engine.inspect(object).await?;
            let log = seen.as_ref().map(|seen| PathBuf::from(&seen.log_path));
            let mut data = seen.map(|seen| seen.graph_driver.data).unwrap_or_default();
            (data.remove("UpperDir"), log)
        }
    };
    let folder = folder.filter(|folder| !folder.is_empty());
    let log = log.filter(|log| log.is_absolute());
    let walked = tokio::task::spawn_blocking(move || sizes(folder.as_deref(), log.as_deref()));
    Ok(walked.await.map_err(std::io::Error::other)??)
}

fn sizes(folder: Option<&str>, log: Option<&Path>) -> std::io::Result<Held> {
    let mut held = Held::default();
    if let Some(folder) = folder {
        held += walk(Path::new(folder), || std::thread::sleep(PAUSE))?;
    }
    if let Some(log) = log {
        // A container that never ran has none.
        held += with_siblings(log).unwrap_or_default();
    }
    Ok(held)
}
