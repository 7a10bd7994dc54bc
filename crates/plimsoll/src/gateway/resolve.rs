//! From what a tenant calls a container to its full id, once, by the ledger.

use plimsoll_core::State;
use plimsoll_store::{ObjectKind, Reservation, User};

use super::refused::Refused;
use crate::state::App;

/// A tenant's container, volume or network.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    /// The engine's id, all 64 digits; of a volume its name there.
    pub(super) id: String,
    pub(super) reservation: Reservation,
}

/// The caller's container of this name, id or unambiguous id prefix. Not theirs is the same as absent.
pub(super) fn container(app: &App, user: &User, reference: &str) -> Result<Owned, Refused> {
    let wanted = reference.strip_prefix('/').unwrap_or(reference);
    object(app, user, ObjectKind::Container, wanted)?
        .ok_or_else(|| Refused::no_container(reference))
}

/// The caller's object of this kind with this name, id or unambiguous id prefix. A volume has no id: of
/// its name on the engine, which begins like its owner's, no part means anything.
pub(super) fn object(
    app: &App,
    user: &User,
    kind: ObjectKind,
    wanted: &str,
) -> Result<Option<Owned>, Refused> {
    let found = match app.store.by_name(user.id, kind, wanted)? {
        Some(reservation) => Some(reservation),
        None if kind != ObjectKind::Volume && is_hex(wanted) => {
            let mut candidates = app.store.by_id_prefix(user.id, kind, wanted)?;
            if candidates.len() > 1 {
                return Err(Refused::bad(
                    kind.name(),
                    format!("Multiple IDs found with provided prefix: {wanted}"),
                ));
            }
            candidates.pop()
        }
        None => None,
    };
    let here = found.filter(|r| r.host == app.lease.host && r.user == user.id);
    Ok(here.and_then(|reservation| {
        let id = reservation.container.clone()?;
        Some(Owned { id, reservation })
    }))
}

/// The reservation behind a full id, if it is the caller's, ended or not.
pub(super) fn by_id(app: &App, user: &User, id: &str) -> Result<Option<Reservation>, Refused> {
    let found = app.store.by_container(&app.lease.host, id)?;
    Ok(found.filter(|r| r.user == user.id))
}

/// Every live container of the caller on this host, by full id.
pub(super) async fn all(
    app: &App,
    user: &User,
) -> Result<std::collections::HashMap<String, Reservation>, Refused> {
    let filter = plimsoll_store::ReservationFilter {
        user: Some(user.id),
        host: Some(app.lease.host.clone()),
        states: vec![State::Active, State::Stopped],
        ..Default::default()
    };
    let rows = app.store.reservations(filter).await?;
    Ok(rows
        .into_iter()
        .filter_map(|r| Some((r.container.clone()?, r)))
        .collect())
}

fn is_hex(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
