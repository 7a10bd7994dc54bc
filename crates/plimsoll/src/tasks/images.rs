//! Holds the images in tenants' spaces against the ledger: what a crash left half done is ended, and what
//! images take is what is charged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_core::entity::{ReservationId, UserId};
use plimsoll_host::engine::ImageSummary;
use plimsoll_host::request::image_reference::{DOMAIN, Standing};
use plimsoll_store::{ObjectKind, ReservationFilter, StoreError, User};
use uuid::Uuid;

use crate::images::{self, Eyes, ImageError};
use crate::state::App;
use crate::tasks::in_full;

/// How long a lock is waited for that a request may hold for as long as a registry takes.
const LOCK_PATIENCE: Duration = Duration::from_millis(10);

/// What was mended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Mended {
    /// Users whose charge followed their images.
    pub charged: usize,
    /// References that were taken away: of uploads that never ended, and of users that are gone.
    pub removed: usize,
    /// Pushes and pulls that were ended.
    pub pushes: usize,
}

impl Mended {
    /// Everything together.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.charged + self.removed + self.pushes
    }
}

/// Compares and mends, once.
///
/// # Errors
/// When the engine or the ledger cannot be asked.
pub async fn reconcile(app: &App) -> Result<Mended, ImageError> {
    let mut mended = Mended::default();
    end_pushes(app, &mut mended).await?;
    let listed = app.engine.images().await?;
    let mut spaces: BTreeMap<UserId, Vec<&str>> = BTreeMap::new();
    for tag in listed.iter().flat_map(|image| &image.repo_tags) {
        if let Some(user) = owner(app, tag) {
            spaces.entry(user).or_default().push(tag);
        }
    }
    let filter = ReservationFilter {
        kind: ObjectKind::Image,
        host: Some(app.lease.host.clone()),
        ..Default::default()
    };
    let charged = app.store.reservations(filter).await?;
    let mut users: BTreeSet<UserId> = spaces.keys().copied().collect();
    users.extend(charged.iter().map(|r| r.user));
    // What is wrong with one user's images is in nobody else's way.
    let mut failed = None;
    for id in users {
        let references = spaces.get(&id).map(Vec::as_slice).unwrap_or_default();
        let done = match app.store.user(&id.to_string()) {
            Ok(user) => mend(app, &user, &listed, references, &mut mended).await,
            Err(StoreError::NotFound { .. }) => {
                remove(app, references, &mut mended).await;
                Ok(())
            }
            Err(error) => Err(error.into()),
        };
        failed = failed.or(done.err());
    }
    failed.map_or(Ok(mended), Err)
}

/// Whose space a reference is in, if it is one of this server's.
fn owner(app: &App, tag: &str) -> Option<UserId> {
    let rest = tag.strip_prefix(DOMAIN)?.strip_prefix('/')?;
    let rest = rest
        .strip_prefix(app.instance.as_str())?
        .strip_prefix("/u")?;
    let (hex, _) = rest.split_once('/')?;
    Uuid::try_parse(hex).ok().map(UserId)
}

async fn end_pushes(app: &App, mended: &mut Mended) -> Result<(), ImageError> {
    for push in app.store.pushes()? {
        let key = images::passing_lock(&push.reference);
        let lock = app.container_locks.lock(&key);
        // Held by whoever is at it.
        let Ok(_held) = tokio::time::timeout(LOCK_PATIENCE, lock).await else {
            continue;
        };
        if app.store.pushes()?.contains(&push) {
            images::end_passing(app, &push, &[]).await?;
            mended.pushes += 1;
        }
    }
    Ok(())
}

async fn mend(
    app: &App,
    user: &User,
    listed: &[ImageSummary],
    references: &[&str],
    mended: &mut Mended,
) -> Result<(), ImageError> {
    let space = Eyes::of(app, user.id)?.space;
    let abandoned: Vec<&str> = references
        .iter()
        .copied()
        .filter(|tag| space.standing(tag) == Standing::Coming && !is_in_flight(app, tag))
        .collect();
    remove(app, &abandoned, mended).await;
    if user.draining && holds_nothing(app, user).await? {
        remove(app, references, mended).await;
    }
    let agrees = charge(app, user.id)? == images::taken_of(app, user.id, listed).await?.own;
    if agrees && abandoned.is_empty() && !user.draining && all_held(app, user.id, listed)? {
        return Ok(());
    }
    // Looked at again under the lock: somebody may be at it.
    let _held = images::lock(app, user.id).await;
    let eyes = Eyes::of(app, user.id)?;
    for image in app.engine.images().await? {
        let seen = eyes.see(&image.repo_tags);
        if seen.is_own() && !seen.held {
            app.engine
                .image_tag(&image.id, &eyes.space.holder(&image.id))
                .await?;
        }
    }
    let taken = images::taken(app, user.id).await?;
    mended.charged += usize::from(images::settle(app, user.id, taken).await?);
    Ok(())
}

fn charge(app: &App, user: UserId) -> Result<u64, StoreError> {
    let storage = |r: plimsoll_store::Reservation| r.claim.get(plimsoll_core::Dimension::Storage);
    Ok(images::reservation(app, user)?.map_or(0, storage))
}

fn all_held(app: &App, user: UserId, listed: &[ImageSummary]) -> Result<bool, StoreError> {
    let eyes = Eyes::of(app, user)?;
    Ok(listed.iter().all(|image| {
        let seen = eyes.see(&image.repo_tags);
        seen.held || !seen.is_own()
    }))
}

/// Whether the request that a reference is on its way in with is still under way.
fn is_in_flight(app: &App, tag: &str) -> bool {
    let key = tag
        .rsplit_once(':')
        .and_then(|(_, tag)| tag.rsplit_once('-'));
    let id = key.and_then(|(key, _)| Uuid::try_parse(key).ok());
    id.is_some_and(|id| app.in_flight.contains(ReservationId(id)))
}

async fn holds_nothing(app: &App, user: &User) -> Result<bool, StoreError> {
    let filter = ReservationFilter {
        user: Some(user.id),
        ..Default::default()
    };
    Ok(app.store.reservations(filter).await?.is_empty())
}

async fn remove(app: &App, references: &[&str], mended: &mut Mended) {
    for reference in references {
        match app.engine.image_untag(reference).await {
            Ok(gone) => mended.removed += usize::from(gone),
            // In use, most likely: another time.
            Err(error) => {
                tracing::warn!(
                    reference,
                    error = in_full(&error),
                    "a reference cannot be removed"
                );
            }
        }
    }
}
