//! Whose images are whose, and what they take.
//!
//! An image is a tenant's when it has a reference in their space on the engine. Each owned image has one
//! that is not shown, its *holder*, which keeps it when its names move on. An image with a reference in
//! nobody's space is everybody's, unless that reference is marked private in the ledger.
//!
//! What a tenant's images take is one reservation: the sum of the layers that no public image has, each
//! counted once. Layers are told apart by their chain, as the engine stores them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::entity::{ReservationId, UserId};
use plimsoll_core::{Limit, State};
use plimsoll_host::engine::{EngineError, ImageHistory, ImageInspect, ImageSummary};
use plimsoll_host::request::image_reference::{Reference, Space, Standing};
use plimsoll_store::{
    Claim, Decision, NewReservation, ObjectKind, Push, Reservation, StoreError, TeamChoice, User,
};
use sha2::{Digest, Sha256};

use crate::clock::new_id;
use crate::state::App;

/// What the one reservation for a tenant's images is called.
pub const RESERVATION_NAME: &str = "images";

/// Images whose layers are remembered.
const REMEMBERED_MAX: usize = 4096;

/// The images could not be looked at or charged.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The engine did not say.
    #[error("the engine could not be asked about images")]
    Engine(#[from] EngineError),
    /// The ledger did not take it.
    #[error("the ledger could not be asked about images")]
    Store(#[from] StoreError),
}

/// A layer and its bytes. The key names the layer together with all below it.
type Layer = (String, u64);

/// The layers of images that were looked at; they never change.
#[derive(Debug, Default)]
pub struct Layers {
    known: Mutex<HashMap<String, Arc<[Layer]>>>,
}

/// How one tenant sees the engine's references.
#[derive(Debug)]
pub struct Eyes {
    /// Where theirs are.
    pub space: Space,
    private: HashSet<String>,
}

/// What an image is to a tenant.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Their names for it.
    pub own: Vec<Reference>,
    /// Names everybody has for it.
    pub public: Vec<Reference>,
    /// It is kept for them, with a name or without.
    pub held: bool,
}

impl Seen {
    /// Whether it is theirs.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.held || !self.own.is_empty()
    }

    /// Whether they may look at it and run it.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        self.is_own() || !self.public.is_empty()
    }
}

impl Eyes {
    /// A tenant's view, with the ledger's marks as they are now.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn of(app: &App, user: UserId) -> Result<Self, StoreError> {
        Ok(Self {
            space: Space::new(app.instance.as_str(), &user.hex()),
            private: app.store.private_images()?,
        })
    }

    /// What an image with these references is to the tenant.
    #[must_use]
    pub fn see(&self, repo_tags: &[String]) -> Seen {
        let mut seen = Seen::default();
        for tag in repo_tags {
            match self.space.standing(tag) {
                Standing::Own(reference) => seen.own.push(reference),
                Standing::Held => seen.held = true,
                Standing::Outside(reference) if self.is_public(&reference) => {
                    seen.public.push(reference);
                }
                Standing::Outside(_) | Standing::Coming | Standing::Foreign => {}
            }
        }
        seen
    }

    /// Whether a reference outside every space is everybody's.
    #[must_use]
    pub fn is_public(&self, reference: &Reference) -> bool {
        !self.private.contains(&reference.to_string())
    }
}

/// The lock under which a tenant's images come, go and are charged.
pub async fn lock(app: &App, user: UserId) -> tokio::sync::OwnedMutexGuard<()> {
    app.container_locks.lock(&format!("images {user}")).await
}

/// The reservation for a user's images.
///
/// # Errors
/// When the ledger cannot be read.
pub fn reservation(app: &App, user: UserId) -> Result<Option<Reservation>, StoreError> {
    let found = app
        .store
        .by_name(user, ObjectKind::Image, RESERVATION_NAME)?;
    Ok(found.filter(|r| r.host == app.lease.host))
}

/// What a tenant's images take.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Images of theirs.
    pub images: usize,
    /// Bytes that only they take.
    pub own: u64,
    /// Bytes of everybody's images.
    pub public: u64,
}

/// Adds up what a user's images take now.
///
/// # Errors
/// When the engine or the ledger cannot be asked.
pub async fn taken(app: &App, user: UserId) -> Result<Taken, ImageError> {
    let listed = app.engine.images().await?;
    taken_of(app, user, &listed).await
}

/// [`taken`], by a list at hand.
///
/// # Errors
/// As [`taken`].
pub async fn taken_of(
    app: &App,
    user: UserId,
    listed: &[ImageSummary],
) -> Result<Taken, ImageError> {
    let eyes = Eyes::of(app, user)?;
    let (mut own, mut public) = (HashMap::new(), HashMap::new());
    let mut images = 0;
    for image in listed {
        let seen = eyes.see(&image.repo_tags);
        if !seen.is_visible() {
            continue;
        }
        images += usize::from(seen.is_own());
        let layers = layers(app, &image.id).await?;
        let into = if seen.public.is_empty() {
            &mut own
        } else {
            &mut public
        };
        into.extend(layers.iter().cloned());
    }
    own.retain(|key, _| !public.contains_key(key));
    let sum =
        |layers: &HashMap<String, u64>| layers.values().fold(0, |a: u64, b| a.saturating_add(*b));
    Ok(Taken {
        images,
        own: sum(&own),
        public: sum(&public),
    })
}

/// Bytes that one image of a user's takes alone: layers that neither another of theirs nor one of
/// everybody's has, by image.
///
/// # Errors
/// As [`taken`].
pub async fn alone(
    app: &App,
    user: UserId,
    listed: &[ImageSummary],
) -> Result<HashMap<String, u64>, ImageError> {
    let eyes = Eyes::of(app, user)?;
    let mut own = Vec::new();
    let mut users: HashMap<String, usize> = HashMap::new();
    for image in listed {
        let seen = eyes.see(&image.repo_tags);
        if !seen.is_visible() {
            continue;
        }
        let layers = layers(app, &image.id).await?;
        for (key, _) in layers.iter() {
            *users.entry(key.clone()).or_default() += 1;
        }
        own.extend(seen.is_own().then(|| (image.id.clone(), layers)));
    }
    let alone = own.into_iter().map(|(id, layers)| {
        let only = layers.iter().filter(|(key, _)| users[key] == 1);
        (
            id,
            only.fold(0u64, |sum, (_, size)| sum.saturating_add(*size)),
        )
    });
    Ok(alone.collect())
}

async fn layers(app: &App, id: &str) -> Result<Arc<[Layer]>, EngineError> {
    let known = || {
        app.layers
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    };
    if let Some(layers) = known().get(id) {
        return Ok(Arc::clone(layers));
    }
    let (Some(image), Some(history)) = (
        app.engine.image_inspect(id).await?,
        app.engine.image_history(id).await?,
    ) else {
        // Gone since it was listed.
        return Ok(Arc::default());
    };
    let layers: Arc<[Layer]> = layers_of(&image, &history).into();
    let mut known = known();
    if known.len() >= REMEMBERED_MAX {
        known.clear();
    }
    known.insert(id.to_owned(), Arc::clone(&layers));
    Ok(layers)
}

fn layers_of(image: &ImageInspect, history: &[ImageHistory]) -> Vec<Layer> {
    let digests = &image.root_fs.layers;
    let sizes = sizes(digests.len(), history, image.size);
    let mut chain = String::new();
    digests
        .iter()
        .zip(sizes)
        .map(|(digest, size)| {
            chain = if chain.is_empty() {
                digest.clone()
            } else {
                let below = Sha256::digest(format!("{chain} {digest}"));
                let hex: String = below.iter().map(|b| format!("{b:02x}")).collect();
                format!("sha256:{hex}")
            };
            (chain.clone(), size)
        })
        .collect()
}

/// The sizes of an image's layers, lowest first. Its history also has steps that made no layer, and does
/// not say which: those of no bytes that look like it are left out first.
fn sizes(layers: usize, history: &[ImageHistory], total: u64) -> Vec<u64> {
    let mut steps: Vec<&ImageHistory> = history.iter().rev().collect();
    let writes = |step: &ImageHistory| {
        let by = step.created_by.as_str();
        !by.contains("#(nop)") || by.contains("#(nop) ADD") || by.contains("#(nop) COPY")
    };
    for sure in [true, false] {
        let mut more = steps.len().saturating_sub(layers);
        steps.retain(|step| {
            let empty = more > 0 && step.size == 0 && !(sure && writes(step));
            more -= usize::from(empty);
            !empty
        });
    }
    let mut sizes: Vec<u64> = steps.iter().map(|step| step.size).collect();
    sizes.resize(layers, 0);
    // Whatever the history left out is somewhere.
    let told = sizes.iter().fold(0u64, |a, b| a.saturating_add(*b));
    if let Some(last) = sizes.last_mut() {
        *last = last.saturating_add(total.saturating_sub(told));
    }
    sizes
}

fn claim_of(app: &App, user: UserId, bytes: u64) -> Claim {
    Claim {
        user,
        team: TeamChoice::Default,
        project: None,
        host: app.lease.host.clone(),
        amounts: Amounts::ZERO.with(Dimension::Storage, bytes),
    }
}

fn new_reservation(app: &App, user: UserId, bytes: u64) -> (NewReservation, String) {
    let id = ReservationId(new_id());
    let space = Space::new(app.instance.as_str(), &user.hex());
    let alone = app.new_reservation(id, ObjectKind::Image, claim_of(app, user, bytes));
    let new = NewReservation {
        container_name: Some(RESERVATION_NAME.to_owned()),
        expires_ms: alone.now_ms + 60_000,
        ..alone
    };
    // Each reservation's own, since the ledger never uses one twice.
    (new, format!("{}{}", space.prefix(), id.0.simple()))
}

/// Asks whether what the user's images take now fits, and charges it if it does. The caller holds
/// [`lock`]. Returns the refusal.
///
/// # Errors
/// When the engine or the ledger cannot be asked.
pub async fn admit(app: &App, user: &User) -> Result<Option<Box<Decision>>, ImageError> {
    let taken = taken(app, user.id).await?;
    let admission = match own_reservation(app, user.id).await? {
        Some(r) if r.claim.get(Dimension::Storage) == taken.own => return Ok(None),
        Some(r) => {
            let mut claim = r.claim;
            claim[Dimension::Storage] = taken.own;
            app.store.resize(r.id, claim, app.deed()).await?
        }
        None if taken.own == 0 => return Ok(None),
        None => {
            let (new, container) = new_reservation(app, user.id, taken.own);
            let id = new.id;
            let admission = app.store.reserve(new).await?;
            if admission.reservation.is_some() {
                app.store.commit(id, container, app.deed()).await?
            } else {
                admission
            }
        }
    };
    Ok(match admission.reservation {
        Some(_) => None,
        None => Some(Box::new(admission.decision)),
    })
}

/// The user's reservation, bound: a commit that was lost is made up for.
async fn own_reservation(app: &App, user: UserId) -> Result<Option<Reservation>, ImageError> {
    let Some(r) = reservation(app, user)? else {
        return Ok(None);
    };
    if r.container.is_some() {
        return Ok(Some(r));
    }
    let space = Space::new(app.instance.as_str(), &user.hex());
    let container = format!("{}{}", space.prefix(), r.id.0.simple());
    let now_ms = app.clock.now_ms();
    let bound = app.store.bound(r.id, container, State::Active, now_ms);
    Ok(Some(bound.await?))
}

/// Records what the user's images take, as a fact. The caller holds [`lock`]. Says whether the ledger
/// changed.
///
/// # Errors
/// When the engine or the ledger cannot be asked.
pub async fn settle(app: &App, user: UserId, taken: Taken) -> Result<bool, ImageError> {
    let now_ms = app.clock.now_ms();
    let mut known = own_reservation(app, user).await?;
    let team = app.store.user(&user.to_string())?.default_team;
    let mut changed = false;
    // It goes where the user's claims go; one who left a team takes their images along.
    if let Some(r) = known.as_ref().filter(|r| taken.own == 0 || r.team != team) {
        app.store.release(r.id, now_ms).await?;
        known = None;
        changed = true;
    }
    match known {
        Some(r) => {
            let mut claim = r.claim;
            claim[Dimension::Storage] = taken.own;
            changed |= claim != r.claim;
            app.store.resized(r.id, claim, now_ms).await?;
        }
        None if taken.own > 0 => {
            let (new, container) = new_reservation(app, user, taken.own);
            app.store.adopt(new, container, State::Active).await?;
            changed = true;
        }
        None => {}
    }
    Ok(changed)
}

/// Would this many bytes more fit? Returns the refusal in words if not.
///
/// # Errors
/// When the ledger cannot be read.
pub fn would_fit(app: &App, user: UserId, more: u64) -> Result<Option<String>, StoreError> {
    let evaluation = app.store.evaluate(&claim_of(app, user, more))?;
    Ok(evaluation.message)
}

/// The bytes of storage that are left to a user; `None` without a limit.
///
/// # Errors
/// When the ledger cannot be read.
pub fn room(app: &App, user: UserId) -> Result<Option<u64>, StoreError> {
    use plimsoll_core::admit::{Level, Owner};
    use plimsoll_core::quota::Mode;
    let path = app.store.path(user, TeamChoice::Default, &app.lease.host)?;
    let left = |level: &Level| match level.limits[Dimension::Storage] {
        Limit::AtMost(most) if level.mode == Mode::Enforce => {
            Some(most.saturating_sub(level.reserved.get(Dimension::Storage)))
        }
        _ => None,
    };
    let owner = match &path.owner {
        Owner::User(user) => left(user),
        Owner::Team(place) => {
            let reach = place.reach()[Dimension::Storage].at_most();
            let own =
                reach.map(|r| r.saturating_sub(place.member_reserved.get(Dimension::Storage)));
            [left(&place.team), own].into_iter().flatten().min()
        }
    };
    let levels = [left(&path.host), left(&path.system), owner];
    Ok(levels.into_iter().flatten().min())
}

/// The lock under which something goes through the engine under this name: a digest that is pulled, or a
/// tag that is pushed. A registry gives a pushed image digests in its repository, so that is locked whole.
#[must_use]
pub fn passing_lock(reference: &str) -> String {
    match reference.rsplit_once(':') {
        Some((repository, _)) if !reference.contains('@') => format!("passing {repository}"),
        _ => format!("passing {reference}"),
    }
}

/// Ends a push or a pull: takes its reference from the engine, with the digests that a registry gave it
/// but for those in `keep`, and then from the ledger. The caller holds [`passing_lock`].
///
/// # Errors
/// When the engine or the ledger cannot be asked; it is then still to be ended.
pub async fn end_passing(app: &App, passing: &Push, keep: &[String]) -> Result<(), ImageError> {
    let reference = &passing.reference;
    if reference.contains('@') {
        app.engine.image_untag(reference).await?;
    } else if let Some(image) = app.engine.image_inspect(reference).await?
        && image.id == passing.image
    {
        let repository = reference.rsplit_once(':').map_or("", |(r, _)| r);
        let in_it = |name: &str| Reference::parse(name).is_ok_and(|n| n.repository() == repository);
        // With another tag of everybody's in that repository, the digests are that one's, too.
        let shared = |tag: &String| {
            in_it(tag) && Reference::parse(tag).is_ok_and(|t| t.to_string() != *reference)
        };
        if !image.repo_tags.iter().any(shared) {
            let new = |digest: &&String| in_it(digest) && !keep.contains(digest);
            for digest in image.repo_digests.iter().filter(new) {
                app.engine.image_untag(digest).await?;
            }
        }
        app.engine.image_untag(reference).await?;
    }
    app.store.end_push(reference.clone()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(by: &str, size: u64) -> ImageHistory {
        ImageHistory {
            created_by: by.to_owned(),
            size,
        }
    }

    #[test]
    fn every_layer_gets_its_bytes() {
        let nop = |what: &str| step(&format!("/bin/sh -c #(nop)  {what}"), 0);
        for (layers, history, total, expected) in [
            (1, vec![step("", 7)], 7, vec![7]),
            (
                2,
                vec![
                    nop("ENV A=1"),
                    step("/bin/sh -c #(nop) COPY a", 2),
                    nop("CMD x"),
                    step("", 7),
                ],
                9,
                vec![7, 2],
            ),
            // A step that ran and wrote nothing is a layer all the same.
            (
                2,
                vec![nop("ENV A=1"), step("/bin/sh -c true", 0), step("", 7)],
                7,
                vec![7, 0],
            ),
            (1, vec![step("/bin/sh -c true", 0), step("", 7)], 7, vec![7]),
            // Tools that write no history.
            (2, vec![], 9, vec![0, 9]),
            (0, vec![nop("ENV A=1")], 0, vec![]),
        ] {
            assert_eq!(sizes(layers, &history, total), expected, "{history:?}");
        }
    }

    #[test]
    fn a_layer_is_known_by_all_that_is_below_it() {
        let image = |layers: &[&str]| ImageInspect {
            root_fs: plimsoll_host::engine::RootFs {
                layers: layers.iter().map(|l| (*l).to_owned()).collect(),
            },
            ..ImageInspect::default()
        };
        let history = [step("b", 2), step("a", 1)];
        let (one, two) = (
            layers_of(&image(&["sha256:a", "sha256:b"]), &history),
            layers_of(&image(&["sha256:c", "sha256:b"]), &history),
        );
        assert_eq!(one[0], ("sha256:a".to_owned(), 1));
        assert_ne!(one[1].0, two[1].0);
    }
}
