//! Published ports: each user has a span of the host's, and containers get ports of it that none of
//! the user's other containers has.

use std::fmt::Write as _;

use plimsoll_host::listening;
use plimsoll_host::request::create::{Judged, NetworkMode, PortPairs};
use plimsoll_host::request::query::{Filters, QueryBuilder};
use plimsoll_store::User;
use serde_json::json;
use tokio::sync::OwnedMutexGuard;

use super::make::contact;
use crate::gateway::refused::Refused;
use crate::gateway::{names, resolve, view};
use crate::labels;
use crate::state::App;

/// What programs on the host listen on, containers' ports included.
const SOCKETS: [&str; 4] = [
    "/proc/net/tcp",
    "/proc/net/tcp6",
    "/proc/net/udp",
    "/proc/net/udp6",
];

/// Gives a container its ports. What is returned is held until the engine has the container: whoever
/// chooses next must see them.
pub(in crate::gateway) async fn publish(
    app: &App,
    user: &User,
    judged: &mut Judged,
) -> Result<Option<OwnedMutexGuard<()>>, Refused> {
    if judged.ports.is_empty() {
        return Ok(None);
    }
    match &judged.network.mode {
        // As the engine does: there is nobody to reach.
        NetworkMode::None => return Ok(None),
        NetworkMode::Container(other) => {
            let reason = format!("publish the ports on {other}: its network is used");
            return Err(Refused::bad("HostConfig.PortBindings", reason));
        }
        NetworkMode::Default | NetworkMode::Named(_) => {}
    }
    let Some(range) = app.config.ports.of_slot(user.port_slot) else {
        return Err(Refused::denied(
            "policy",
            format!(
                "no ports of this host are left for you: run without -p and -P, or ask {}",
                contact(app)
            ),
        ));
    };
    let held = app
        .container_locks
        .lock(&format!("ports:{}", user.id))
        .await;
    let instance = app.instance_label();
    let owner = format!("{}={}", labels::USER, user.id);
    let listed = app.engine.list(true, &[&instance, &owner]).await?;
    let texts = listed.iter().filter_map(|c| c.labels.get(labels::PORTS));
    let mut taken: PortPairs = texts.flat_map(|text| parse(text)).collect();
    for table in SOCKETS {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        for port in listening::ports(&text) {
            taken.entry(port).or_insert(0);
        }
    }
    let strict = app.config.ports.outside == "refuse";
    let given = judged.ports.give(range, &taken, strict)?;
    judged.publish(&given);
    judged.body["Labels"][labels::PORTS] = json!(write(&given.pairs));
    Ok(Some(held))
}

/// `20030:8080,20001:0`, for a label: the engine's list shows the ports only of what runs.
fn write(pairs: &PortPairs) -> String {
    let mut text = String::new();
    for (given, asked) in pairs {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{given}:{asked}");
    }
    text
}

fn parse(text: &str) -> impl Iterator<Item = (u16, u16)> {
    text.split(',').filter_map(|pair| {
        let (given, asked) = pair.split_once(':')?;
        Some((given.parse().ok()?, asked.parse().ok()?))
    })
}

/// A start that failed because a port was taken says by whom.
pub(in crate::gateway) async fn explain(app: &App, user: &User, refused: Refused) -> Refused {
    let Refused::Engine { status, message } = &refused else {
        return refused;
    };
    let Some(port) = clash(message) else {
        return refused;
    };
    let message = match holder(app, user, port).await {
        Some(name) => format!(
            "plimsoll: port {port} is held by your container `{name}`: stop it first (docker stop \
             {name}), or create this one with another port"
        ),
        None => format!(
            "plimsoll: port {port} is taken by a program on this host: create the container with \
             another port{}, or ask {}",
            app.config
                .ports
                .of_slot(user.port_slot)
                .map_or_else(String::new, |range| format!(" of yours, {range}")),
            contact(app)
        ),
    };
    Refused::Engine {
        status: *status,
        message,
    }
}

/// The running container of the caller's that publishes this port.
async fn holder(app: &App, user: &User, port: u16) -> Option<String> {
    let mut filters = Filters::new();
    for protocol in ["tcp", "udp", "sctp"] {
        let publish = filters.entry("publish".to_owned()).or_default();
        publish.push(format!("{port}/{protocol}"));
    }
    let own = resolve::all(app, user).await.ok()?;
    let listed = view::listed(app, user, &own, QueryBuilder::new(), filters)
        .await
        .ok()?;
    let mut ids = listed.iter().filter_map(|c| c["Id"].as_str());
    ids.find_map(|id| own.get(id)).map(names::shown)
}

/// The port the engine could not have: `Bind for 0.0.0.0:20030 failed: port is already allocated`, or
/// `listen tcp4 0.0.0.0:20030: bind: address already in use`.
fn clash(message: &str) -> Option<u16> {
    let before = message
        .find(" failed: port is already allocated")
        .or_else(|| message.find(": bind: address already in use"))?;
    message[..before].rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_label_keeps_is_read_again() {
        let pairs = PortPairs::from([(20_001, 0), (20_030, 8080)]);
        assert_eq!(write(&pairs), "20001:0,20030:8080");
        assert_eq!(parse(&write(&pairs)).collect::<PortPairs>(), pairs);
        assert_eq!(parse("x,20001,1:y,:,99999:1").count(), 0);
    }

    #[test]
    fn the_port_of_a_clash_is_read_from_the_engines_words() {
        for (message, port) in [
            (
                "driver failed programming external connectivity on endpoint a.b.web (39): Bind for \
                 0.0.0.0:25017 failed: port is already allocated",
                Some(25_017),
            ),
            (
                "Error starting userland proxy: listen tcp4 0.0.0.0:20030: bind: address already in use",
                Some(20_030),
            ),
            (
                "Bind for :::20031 failed: port is already allocated",
                Some(20_031),
            ),
            ("network x not found", None),
        ] {
            assert_eq!(clash(message), port, "{message}");
        }
    }
}
