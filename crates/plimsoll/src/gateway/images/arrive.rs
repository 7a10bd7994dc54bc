//! How an image becomes a tenant's: held, charged, and only then named.
//!
//! Images come in under a reference that nobody is shown. Where the charge does not fit, what came is
//! gone again and no name has moved.

use plimsoll_core::entity::ReservationId;
use plimsoll_host::request::image_reference::Reference;
use plimsoll_store::User;
use tokio::sync::OwnedMutexGuard;

use crate::clock::new_id;
use crate::gateway::refused::Refused;
use crate::images::{self, Eyes};
use crate::state::{App, InFlightGuard};
use crate::tasks::in_full;

/// The most names of images one user has: the engine reads and writes all names at once.
const NAMES_MAX: usize = 1000;

/// References for what is on its way in, until dropped. The reconciler leaves them alone meanwhile.
#[derive(Debug)]
pub(in crate::gateway) struct Arrival {
    repository: String,
    key: String,
    _in_flight: InFlightGuard,
}

impl Arrival {
    /// A new one for a user.
    pub(in crate::gateway) fn begin(app: &App, user: &User) -> Result<Self, Refused> {
        let id = ReservationId(new_id());
        Ok(Self {
            repository: Eyes::of(app, user.id)?.space.coming(),
            key: id.0.simple().to_string(),
            _in_flight: app.in_flight.enter(id),
        })
    }

    pub(in crate::gateway) fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag of the image with this number.
    pub(in crate::gateway) fn tag(&self, number: usize) -> String {
        format!("{}-{number}", self.key)
    }

    pub(in crate::gateway) fn reference(&self, number: usize) -> String {
        format!("{}:{}", self.repository, self.tag(number))
    }

    /// Makes the images that came the user's, under these names: all of them or none. Returns their ids.
    pub(in crate::gateway) async fn settle(
        &self,
        app: &App,
        user: &User,
        names: Vec<Vec<Reference>>,
    ) -> Result<Vec<String>, Refused> {
        let held = images::lock(app, user.id).await;
        let came = self.came(app, names).await;
        let taken = match &came {
            Ok(came) => take(app, user, came, &held).await,
            Err(_) => Ok(()),
        };
        // Held by now, or not wanted.
        self.clear(app, came.as_ref().map_or(1, Vec::len)).await;
        let came = came?;
        taken?;
        Ok(came.into_iter().map(|(id, _)| id).collect())
    }

    async fn came(
        &self,
        app: &App,
        names: Vec<Vec<Reference>>,
    ) -> Result<Vec<(String, Vec<Reference>)>, Refused> {
        let mut came = Vec::new();
        for (number, names) in names.into_iter().enumerate() {
            let image = app.engine.image_inspect(&self.reference(number)).await?;
            came.push((image.ok_or(Refused::EngineNonsense)?.id, names));
        }
        Ok(came)
    }

    /// Takes the references of the first so many images away.
    pub(in crate::gateway) async fn clear(&self, app: &App, images: usize) {
        for number in 0..images {
            untag(app, &self.reference(number)).await;
        }
    }
}

/// Makes images a user's, under these names, if what they take fits. The caller holds the user's lock.
pub(super) async fn take(
    app: &App,
    user: &User,
    images: &[(String, Vec<Reference>)],
    _held: &OwnedMutexGuard<()>,
) -> Result<(), Refused> {
    let eyes = Eyes::of(app, user.id)?;
    let space = &eyes.space;
    let listed = app.engine.images().await?;
    let names: usize = listed
        .iter()
        .map(|i| eyes.see(&i.repo_tags).own.len())
        .sum();
    if names >= NAMES_MAX {
        return Err(Refused::denied(
            "policy",
            format!("you have {NAMES_MAX} names of images: remove some first (docker rmi)"),
        ));
    }
    let mut new = Vec::new();
    let admitted = async {
        for (id, _) in images {
            let holder = space.holder(id);
            if app.engine.image_inspect(&holder).await?.is_none() {
                app.engine.image_tag(id, &holder).await?;
                new.push(holder);
            }
        }
        match images::admit(app, user).await? {
            None => Ok(()),
            Some(decision) => Err(Refused::Quota(decision)),
        }
    }
    .await;
    if let Err(refused) = admitted {
        for holder in new {
            untag(app, &holder).await;
        }
        return Err(refused);
    }
    for (id, names) in images {
        for name in names {
            app.engine.image_tag(id, &space.place(name)).await?;
        }
    }
    Ok(())
}

async fn untag(app: &App, reference: &str) {
    if let Err(error) = app.engine.image_untag(reference).await {
        tracing::warn!(
            reference,
            error = in_full(&error),
            "a reference stays until the reconciler comes by"
        );
        app.wake.reconcile.notify_one();
    }
}
