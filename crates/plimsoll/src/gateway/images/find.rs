//! From what a tenant calls an image to its id, once.

use plimsoll_host::engine::ImageInspect;
use plimsoll_host::request::image_reference::{Reference, Standing, Version, is_digest};
use plimsoll_store::User;

use crate::gateway::refused::Refused;
use crate::images::{Eyes, Seen};
use crate::state::App;

/// An image that the caller may look at.
#[derive(Debug)]
pub(in crate::gateway) struct Found {
    /// `sha256:` and 64 digits.
    pub(in crate::gateway) id: String,
    /// What the engine says about it.
    pub(in crate::gateway) image: ImageInspect,
    /// What it is to the caller.
    pub(in crate::gateway) seen: Seen,
    /// The caller's name for it that was asked for, if it was asked for by one.
    pub(in crate::gateway) by: Option<By>,
}

/// By what an image was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum By {
    /// A name of the caller's.
    Own(Reference),
    /// A name everybody has.
    Public(Reference),
}

/// The image of this name, id or unambiguous id prefix: the caller's own first, then everybody's. Any
/// other is the same as absent.
pub(in crate::gateway) async fn find(app: &App, user: &User, name: &str) -> Result<Found, Refused> {
    let eyes = Eyes::of(app, user.id)?;
    let absent = || Refused::NotFound(format!("No such image: {}", shown(name)));
    if !name.starts_with("sha256:")
        && let Ok(reference) = Reference::parse(name)
        && let Some(found) = by_name(app, &eyes, &reference).await?
    {
        return Ok(found);
    }
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(hex) {
        return Err(absent());
    }
    let mut id = format!("sha256:{digits}");
    if !is_digest(&id) {
        // Looked for among what the caller sees, so that others' images make nothing ambiguous.
        let listed = app.engine.images().await?;
        let mut fits = listed
            .into_iter()
            .filter(|i| i.id.starts_with(&id) && eyes.see(&i.repo_tags).is_visible());
        let Some(first) = fits.next() else {
            return Err(absent());
        };
        if fits.next().is_some() {
            return Err(Refused::bad(
                "image",
                format!("Multiple IDs found with provided prefix: {digits}"),
            ));
        }
        id = first.id;
    }
    let image = app.engine.image_inspect(&id).await?.ok_or_else(absent)?;
    let seen = eyes.see(&image.repo_tags);
    if !seen.is_visible() {
        return Err(absent());
    }
    Ok(Found {
        id: image.id.clone(),
        image,
        seen,
        by: None,
    })
}

async fn by_name(app: &App, eyes: &Eyes, reference: &Reference) -> Result<Option<Found>, Refused> {
    let (place, plain) = (eyes.space.place(reference), reference.to_string());
    // Both at once: each is a good part of what a create adds to the engine's own time.
    let (own, outside) = tokio::join!(
        app.engine.image_inspect(&place),
        app.engine.image_inspect(&plain)
    );
    let found = |image: ImageInspect, by| Found {
        id: image.id.clone(),
        seen: eyes.see(&image.repo_tags),
        image,
        by,
    };
    if let Some(image) = own? {
        return Ok(Some(found(image, Some(By::Own(reference.clone())))));
    }
    let Some(image) = outside? else {
        return Ok(None);
    };
    if let Version::Digest(_) = reference.version {
        // It names the same image for everybody who may see that.
        let found = found(image, None);
        return Ok(found.seen.is_visible().then_some(found));
    }
    // By this very name, and not by something the engine made of it.
    let by_it = image
        .repo_tags
        .iter()
        .any(|tag| eyes.space.standing(tag) == Standing::Outside(reference.clone()));
    let everybodys = eyes.is_public(reference) && by_it;
    Ok(everybodys.then(|| found(image, Some(By::Public(reference.clone())))))
}

/// A name as the engine would show it in a refusal.
pub(super) fn shown(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.short())
}
