//! Which container a new one takes the place of, as Compose makes a changed service anew.
//!
//! Labels are a tenant's own words. All they can do here is to have two containers of that tenant's
//! charged as one for a while, which only one of them uses: see `Reservation::shared`.

use std::collections::BTreeMap;

use plimsoll_core::entity::ReservationId;
use plimsoll_store::{ObjectKind, User};

use super::refused::Refused;
use super::resolve::{self, Owned};
use crate::state::App;

/// What Compose 2 says it replaces: an id or a name.
const REPLACE: &str = "com.docker.compose.replace";

/// What two containers of one service have alike.
const SERVICE: [&str; 2] = ["com.docker.compose.project", "com.docker.compose.service"];

/// Digits of an id that Compose puts before a name.
const SHORT: usize = 12;

/// The reservation of the caller's container that one of this name and these labels replaces.
pub(super) async fn replaced(
    app: &App,
    user: &User,
    labels: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<ReservationId>, Refused> {
    if !SERVICE.iter().all(|label| labels.contains_key(*label)) {
        return Ok(None);
    }
    let old = match labels.get(REPLACE) {
        Some(old) => resolve::object(app, user, ObjectKind::Container, old)?,
        None => renamed(app, user, name).await?,
    };
    let Some(old) = old else { return Ok(None) };
    let Some(seen) = app.engine.inspect(&old.id).await? else {
        return Ok(None);
    };
    let theirs = &seen.config.labels;
    let alike = SERVICE.iter().all(|l| theirs.get(*l) == labels.get(*l));
    Ok(alike.then_some(old.reservation.id))
}

/// Compose 1 renames the old container first: `web_1` becomes `0123456789ab_web_1`, with its own id.
async fn renamed(app: &App, user: &User, name: &str) -> Result<Option<Owned>, Refused> {
    let own = resolve::all(app, user).await?;
    let found = own.into_iter().find(|(id, reservation)| {
        let rest = reservation.container_name.as_deref();
        let rest = rest.and_then(|text| text.strip_prefix(id.get(..SHORT)?)?.strip_prefix('_'));
        rest == Some(name)
    });
    Ok(found.map(|(id, reservation)| Owned { id, reservation }))
}
