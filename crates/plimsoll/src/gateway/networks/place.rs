//! The network of a new container: names become ids of the caller's own networks and containers.

use std::sync::Arc;

use plimsoll_host::engine::Network;
use plimsoll_host::request::create::{Attachment, Endpoint, Judged, Link, NetworkMode};
use plimsoll_store::{ObjectKind, Origin, User};
use serde_json::json;

use super::{DEFAULT, make};
use crate::gateway::names;
use crate::gateway::refused::Refused;
use crate::gateway::resolve::{self, Owned};
use crate::gateway::upstream;
use crate::state::App;

/// A network that a container joins beside its first.
pub(in crate::gateway) struct Joined {
    network: Owned,
    endpoint: Endpoint,
}

impl Joined {
    /// Has the engine's container join it.
    pub(in crate::gateway) async fn connect(
        &self,
        app: &App,
        container: &str,
    ) -> Result<(), Refused> {
        let path = format!("/networks/{}/connect", self.network.id);
        let body = json!({"Container": container, "EndpointConfig": self.endpoint.body()});
        let done = upstream::post_json(app, &path, body.to_string()).await;
        let row = &self.network.reservation;
        let done = done.map_err(|refused| refused.renamed(&names::of(row), &names::shown(row)));
        done.map(drop)
    }
}

/// The network a container will be in, as far as it is known before the container is judged: the
/// caller's default one, if it is there.
pub(in crate::gateway) async fn standing(
    app: &App,
    user: &User,
    asked: &NetworkMode,
) -> Result<Option<Owned>, Refused> {
    match asked {
        NetworkMode::Default => make::standing(app, user).await,
        _ => Ok(None),
    }
}

/// Gives a container the network it asks for, which may be `standing`, and says which it is to join
/// beside it. What is not there is a bad request and no 404, which would have clients pull the image.
pub(in crate::gateway) async fn place(
    app: &Arc<App>,
    user: &User,
    name: &str,
    judged: &mut Judged,
    standing: Option<Owned>,
) -> Result<Vec<Joined>, Refused> {
    let field = "HostConfig.NetworkMode";
    let network = match &judged.network.mode {
        NetworkMode::None => {
            judged.attach(&Attachment::None);
            return Ok(Vec::new());
        }
        NetworkMode::Container(reference) => {
            let other = other(app, user, field, reference)?;
            // What the gateway made has a network of the caller's. A platform may have given its own
            // the host's.
            if other.reservation.origin != Origin::Gateway {
                return Err(Refused::denied(
                    "policy",
                    format!(
                        "--network container:{reference} is not allowed here: that container was not \
                         made through this socket; run both through it"
                    ),
                ));
            }
            judged.attach(&Attachment::Container(other.id));
            return Ok(Vec::new());
        }
        mode => match standing {
            Some(network) => network,
            None => named(app, user, field, mode).await?,
        },
    };
    let first = endpoint(app, user, &network.id, &judged.network.endpoint, name).await?;
    let field = "NetworkingConfig.EndpointsConfig";
    let mut ids = vec![network.id.clone()];
    let mut more = Vec::new();
    for (mode, asked) in &judged.network.more {
        let network = named(app, user, field, mode).await?;
        if ids.contains(&network.id) {
            let shown = names::shown(&network.reservation);
            return Err(Refused::bad(field, format!("{shown} is there twice")));
        }
        ids.push(network.id.clone());
        let endpoint = endpoint(app, user, &network.id, asked, name).await?;
        more.push(Joined { network, endpoint });
    }
    judged.attach(&Attachment::Network {
        name: names::of(&network.reservation),
        endpoint: first,
    });
    Ok(more)
}

/// The caller's network of this name, or their default one.
async fn named(
    app: &Arc<App>,
    user: &User,
    field: &str,
    mode: &NetworkMode,
) -> Result<Owned, Refused> {
    let NetworkMode::Named(reference) = mode else {
        return make::default(app, user).await;
    };
    resolve::object(app, user, ObjectKind::Network, reference)?.ok_or_else(|| {
        let reason = format!("network {reference} not found: make it with docker network create");
        Refused::bad(field, reason)
    })
}

/// Mends a start that did not find a network: an administrator's `docker network prune` takes those
/// that no running container is in, and the engine remembers their ids. Networks of the same names take
/// their places, the default one made anew. Returns whether anything was mended.
pub(in crate::gateway) async fn restored(
    app: &Arc<App>,
    user: &User,
    container: &str,
    refused: &Refused,
) -> Result<bool, Refused> {
    let missed = |text: &str| text.contains("network ") && text.ends_with(" not found");
    if !matches!(refused, Refused::Engine { message, .. } if missed(message)) {
        return Ok(false);
    }
    let seen = upstream::get(app, &format!("/containers/{container}/json")).await?;
    let joined = seen["NetworkSettings"]["Networks"].as_object();
    let prefix = names::in_engine(&user.name, user.id, "");
    let mut mended = false;
    for (engine_name, endpoint) in joined.into_iter().flatten() {
        let network = match engine_name.strip_prefix(&prefix) {
            Some(DEFAULT) => Some(make::default(app, user).await?),
            Some(name) => resolve::object(app, user, ObjectKind::Network, name)?,
            None => None,
        };
        let Some(network) = network.filter(|n| endpoint["NetworkID"] != n.id.as_str()) else {
            continue;
        };
        let path = format!("/networks/{}", network.id);
        let body = json!({"Container": container, "Force": true}).to_string();
        upstream::post_json(app, &format!("{path}/disconnect"), body).await?;
        // As it was, but for an address, which was of the subnet that is gone.
        let endpoint = json!({"Aliases": endpoint["Aliases"], "Links": endpoint["Links"]});
        let body = json!({"Container": container, "EndpointConfig": endpoint}).to_string();
        upstream::post_json(app, &format!("{path}/connect"), body).await?;
        mended = true;
    }
    Ok(mended)
}

/// Another container of the caller's.
fn other(app: &App, user: &User, field: &str, reference: &str) -> Result<Owned, Refused> {
    resolve::container(app, user, reference).map_err(|refused| match refused {
        Refused::NotFound(_) => Refused::bad(
            field,
            format!("no container of yours is called {reference}"),
        ),
        refused => refused,
    })
}

/// How a container joins a network: found by its owner's name for it, which the engine does not know,
/// and by what was asked.
pub(super) async fn endpoint(
    app: &App,
    user: &User,
    network: &str,
    asked: &Endpoint,
    name: &str,
) -> Result<Endpoint, Refused> {
    let mut endpoint = asked.clone();
    if !endpoint.aliases.iter().any(|alias| alias == name) {
        endpoint.aliases.insert(0, name.to_owned());
    }
    for link in &mut endpoint.links {
        let other = other(app, user, "Links", &link.name)?;
        *link = Link {
            name: names::shown(&other.reservation),
            alias: std::mem::take(&mut link.alias),
        };
    }
    if let Some(address) = endpoint.address {
        let seen = app.engine.network(network).await?;
        let subnets: Vec<_> = seen.iter().flat_map(Network::subnets).collect();
        if !subnets.iter().any(|subnet| subnet.has_host(address)) {
            let shown: Vec<String> = subnets.iter().map(ToString::to_string).collect();
            return Err(Refused::bad(
                "IPv4Address",
                format!(
                    "{address} is not an address for a container in this network ({}): leave it \
                     out, and use names",
                    shown.join(", ")
                ),
            ));
        }
    }
    Ok(endpoint)
}
