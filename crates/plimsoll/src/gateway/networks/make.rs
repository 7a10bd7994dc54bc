//! Making networks: a subnet nobody has, then reserve, create, commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use plimsoll_core::Amounts;
use plimsoll_core::entity::ReservationId;
use plimsoll_host::engine::Network;
use plimsoll_host::request::network::NetworkRequest;
use plimsoll_host::subnet::{Subnet, routes};
use plimsoll_store::{Claim, NewReservation, ObjectKind, Reservation, TeamChoice, User};
use tokio::sync::OwnedMutexGuard;

use super::{DEFAULT, all};
use crate::clock::new_id;
use crate::gateway::refused::Refused;
use crate::gateway::resolve::Owned;
use crate::gateway::{answer, names, upstream};
use crate::labels;
use crate::state::App;
use crate::tasks::{in_full, networks};

/// The host's routes: where an address already means something else.
const ROUTES: &str = "/proc/net/route";

/// How many subnets are tried that somebody takes in the same moment.
const TRIES: usize = 16;

/// One at a time may make or remove a user's networks.
pub(super) async fn lock(app: &App, user: &User) -> OwnedMutexGuard<()> {
    networks::lock(app, user.id).await
}

/// The caller's default network, made when it is first needed.
pub(super) async fn default(app: &Arc<App>, user: &User) -> Result<Owned, Refused> {
    let (app, user) = (Arc::clone(app), user.clone());
    // Finished even if the client goes away.
    let made = tokio::spawn(async move {
        let _held = lock(&app, &user).await;
        match settled(&app, &user).await? {
            Some(standing) => Ok(standing),
            None => make(&app, &user, &NetworkRequest::plain(DEFAULT)).await,
        }
    })
    .await;
    made.unwrap_or(Err(Refused::EngineNonsense))
}

/// The caller's default network, if it is there.
pub(super) async fn standing(app: &App, user: &User) -> Result<Option<Owned>, Refused> {
    let _held = lock(app, user).await;
    settled(app, user).await
}

/// One that was removed past Plimsoll, or whose commit was lost, is known for what it is.
async fn settled(app: &App, user: &User) -> Result<Option<Owned>, Refused> {
    match app.store.by_name(user.id, ObjectKind::Network, DEFAULT)? {
        Some(row) => Ok(owned(networks::settle(app, &row).await?)),
        None => Ok(None),
    }
}

/// A network the caller asks for by name.
pub(super) async fn named(
    app: &App,
    user: &User,
    request: &NetworkRequest,
) -> Result<Owned, Refused> {
    let _held = lock(app, user).await;
    if let Some(row) = app
        .store
        .by_name(user.id, ObjectKind::Network, &request.name)?
        && owned(networks::settle(app, &row).await?).is_some()
    {
        return Err(Refused::Engine {
            status: StatusCode::CONFLICT,
            message: format!("network with name {} already exists", request.name),
        });
    }
    let most = app.config.networks.per_user_max;
    let mine = all(app, user).await?;
    let count = mine.values().filter(|r| names::shown(r) != DEFAULT).count();
    if u64::try_from(count).unwrap_or(u64::MAX) >= most {
        return Err(Refused::denied(
            "policy",
            format!(
                "you have {count} networks, and {most} is the most here: remove one \
                 (docker network prune removes those without containers), or ask {}",
                contact(app)
            ),
        ));
    }
    make(app, user, request).await
}

fn owned(row: Reservation) -> Option<Owned> {
    let id = row.container.clone().filter(|_| !row.state.is_final())?;
    Some(Owned {
        id,
        reservation: row,
    })
}

/// Reserve, create, commit. The caller holds the lock.
async fn make(app: &App, user: &User, request: &NetworkRequest) -> Result<Owned, Refused> {
    let id = ReservationId(new_id());
    let _in_flight = app.in_flight.enter(id);
    // Nothing is charged for it, and a team's end is not in its way.
    let claim = Claim {
        user: user.id,
        team: TeamChoice::NoTeam,
        project: None,
        host: app.lease.host.clone(),
        amounts: Amounts::ZERO,
    };
    let new = NewReservation {
        container_name: Some(request.name.clone()),
        ..app.new_reservation(id, ObjectKind::Network, claim)
    };
    let admission = app.store.reserve(new).await?;
    let Some(reservation) = admission.reservation else {
        return Err(Refused::Quota(Box::new(admission.decision)));
    };
    let engine_name = names::of(&reservation);
    let network = match create(app, user, id, request, &engine_name).await {
        Ok(network) => network,
        Err(refused @ (Refused::Engine { .. } | Refused::Denied { .. })) => {
            app.store.void(id, app.clock.now_ms()).await?;
            return Err(refused.renamed(&engine_name, &request.name));
        }
        // It may be there: the next who needs it looks, or the reconciler.
        Err(unknown) => {
            app.wake.reconcile.notify_one();
            return Err(unknown);
        }
    };
    let committed = app.store.commit(id, network.clone(), app.deed()).await;
    match committed.map(|admission| admission.reservation) {
        Ok(Some(reservation)) => Ok(Owned {
            id: network,
            reservation,
        }),
        outcome => {
            if let Err(error) = &outcome {
                tracing::error!(
                    network,
                    error = in_full(error),
                    "a network is not committed"
                );
            }
            // It carries its key: the reconciler binds or removes it.
            app.wake.reconcile.notify_one();
            Err(outcome.err().map_or(Refused::EngineNonsense, Refused::from))
        }
    }
}

/// Has the engine make it in the first subnet of the pool that nobody has. Where to begin is different
/// each time, so that many at once seldom meet.
async fn create(
    app: &App,
    user: &User,
    id: ReservationId,
    request: &NetworkRequest,
    engine_name: &str,
) -> Result<String, Refused> {
    let reserved = BTreeMap::from([
        (
            labels::INSTANCE.to_owned(),
            app.instance.as_str().to_owned(),
        ),
        (labels::RESERVATION.to_owned(), id.to_string()),
        (labels::USER.to_owned(), user.id.to_string()),
    ]);
    let taken = taken(app).await?;
    let pool: Subnet = match app.config.networks.pool.parse() {
        Ok(pool) => pool,
        Err(error) => return Err(Refused::denied("policy", format!("networks.pool {error}"))),
    };
    let free = pool
        .blocks(app.config.networks.prefix, id.0.as_u64_pair().1)
        .filter(|block| !taken.iter().any(|other| other.overlaps(*block)))
        .take(TRIES);
    for subnet in free {
        let body = request.body(engine_name, subnet, &reserved).to_string();
        let answered = match upstream::post_json(app, "/networks/create", body).await {
            Ok(response) => answer::engine_json(response).await,
            Err(refused) => Err(refused),
        };
        match answered {
            Ok(created) => {
                let network = created["Id"].as_str().ok_or(Refused::EngineNonsense)?;
                return Ok(network.to_owned());
            }
            Err(Refused::Engine { message, .. }) if is_overlap(&message) => {}
            Err(refused) => return Err(refused),
        }
    }
    tracing::warn!(%pool, "no subnet is left for a tenant's network");
    Err(Refused::denied(
        "policy",
        format!(
            "no addresses are left for one more network here: remove one of yours, or ask {}",
            contact(app)
        ),
    ))
}

/// Every subnet that the engine or the host has in use.
async fn taken(app: &App) -> Result<Vec<Subnet>, Refused> {
    let listed = app.engine.networks(&[]).await?;
    let mut taken: Vec<Subnet> = listed.iter().flat_map(Network::subnets).collect();
    taken.extend(routes(&std::fs::read_to_string(ROUTES).unwrap_or_default()));
    Ok(taken)
}

/// The words of the engine's address management and of its bridge driver.
fn is_overlap(message: &str) -> bool {
    message.to_ascii_lowercase().contains("overlap")
}

/// Whom a refused person should turn to.
pub(super) fn contact(app: &App) -> &str {
    let contact = app.config.tenants.contact.as_deref();
    contact.unwrap_or("an administrator of this host")
}
