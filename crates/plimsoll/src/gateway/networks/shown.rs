//! What the engine says about networks, as their owner sees it.

use std::collections::HashMap;

use plimsoll_store::{ObjectKind, Reservation, User};
use serde_json::{Map, Value, json};

use super::all;
use crate::gateway::names;
use crate::gateway::refused::Refused;
use crate::gateway::resolve;
use crate::state::App;

/// Networks of the engine's own, which mean the same to everybody.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

/// The names a tenant knows their networks by.
#[derive(Debug)]
pub(in crate::gateway) struct Shown {
    /// By the engine's id.
    names: HashMap<String, String>,
    /// What the engine's names of the tenant's things begin with.
    prefix: String,
}

impl Shown {
    pub(in crate::gateway) async fn to(app: &App, user: &User) -> Result<Self, Refused> {
        let own = all(app, user).await?.into_iter();
        Ok(Self {
            names: own.map(|(id, row)| (id, names::shown(&row))).collect(),
            prefix: names::in_engine(&user.name, user.id, ""),
        })
    }

    /// A container, from a list or from inspect.
    pub(in crate::gateway) fn container(&self, seen: &mut Value) {
        let mode = seen["HostConfig"]["NetworkMode"].as_str();
        if let Some(name) = mode.and_then(|mode| mode.strip_prefix(&self.prefix)) {
            seen["HostConfig"]["NetworkMode"] = json!(name);
        }
        let settings = &mut seen["NetworkSettings"];
        if settings.get("SandboxKey").is_some() {
            // A path of the host.
            settings["SandboxKey"] = json!("");
        }
        if let Some(Value::Object(networks)) = settings.get_mut("Networks") {
            let theirs = std::mem::take(networks).into_iter();
            *networks = theirs
                .filter_map(|(key, endpoint)| {
                    let name = self.name(&key, endpoint["NetworkID"].as_str())?;
                    Some((name, self.endpoint(endpoint)))
                })
                .collect();
        }
    }

    /// What a container's network is called. One that is neither the tenant's nor the engine's own was
    /// joined by the host's administrator, and is not shown.
    fn name(&self, key: &str, id: Option<&str>) -> Option<String> {
        let known = id.and_then(|id| self.names.get(id));
        // Before its first start a container has no network's id.
        let own = || key.strip_prefix(&self.prefix);
        let predefined = || PREDEFINED.into_iter().find(|name| *name == key);
        let name = known.map(String::as_str).or_else(own).or_else(predefined);
        name.map(str::to_owned)
    }

    fn endpoint(&self, mut endpoint: Value) -> Value {
        for key in ["Aliases", "DNSNames"] {
            if let Some(Value::Array(names)) = endpoint.get_mut(key) {
                names.retain(|n| !n.as_str().is_some_and(|n| n.starts_with(&self.prefix)));
            }
        }
        endpoint
    }
}

/// A network, from a list or from inspect, with those of its containers that are the owner's.
pub(super) fn network(
    seen: &mut Value,
    row: &Reservation,
    containers: &HashMap<String, Reservation>,
) {
    seen["Name"] = json!(names::shown(row));
    names::clean_labels(&mut seen["Labels"]);
    if let Some(Value::Object(inside)) = seen.get_mut("Containers") {
        let theirs = std::mem::take(inside).into_iter();
        let shown: Map<String, Value> = theirs
            .filter_map(|(id, mut endpoint)| {
                endpoint["Name"] = json!(names::shown(containers.get(&id)?));
                Some((id, endpoint))
            })
            .collect();
        *inside = shown;
    }
}

/// An event of a network, if it is the caller's: it is theirs by the ledger, or has a name that only
/// theirs have and is not committed yet.
pub(in crate::gateway) fn event(
    app: &App,
    user: &User,
    prefix: &str,
    mut event: Value,
) -> Option<Value> {
    let name = event["Actor"]["Attributes"]["name"].as_str()?;
    let name = name.strip_prefix(prefix)?.to_owned();
    let known = resolve::by_id(app, user, event["Actor"]["ID"].as_str()?);
    let waits = || {
        let row = app.store.by_name(user.id, ObjectKind::Network, &name);
        row.ok().flatten().filter(|row| row.container.is_none())
    };
    known.ok().flatten().or_else(waits)?;
    if let Some(container) = event["Actor"]["Attributes"]["container"].as_str() {
        // The host's administrator may have put another one in.
        resolve::by_id(app, user, container).ok().flatten()?;
    }
    event["Actor"]["Attributes"]["name"] = json!(name);
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_shows_its_owners_names_and_nobody_elses() {
        let shown = Shown {
            names: HashMap::from([("1d".to_owned(), "back".to_owned())]),
            prefix: "ada.x.".to_owned(),
        };
        let mut seen = json!({
            "HostConfig": {"NetworkMode": "ada.x.back"},
            "NetworkSettings": {
                "SandboxKey": "/run/docker/netns/1",
                "Networks": {
                    "ada.x.back": {"NetworkID": "1d", "Aliases": ["web", "0123"],
                                   "DNSNames": ["ada.x.web", "web"]},
                    "ada.x.front": {"NetworkID": "", "Aliases": null},
                    "ben.y.back": {"NetworkID": "2e"},
                    "none": {"NetworkID": "3f"},
                }
            }
        });
        shown.container(&mut seen);
        assert_eq!(
            seen,
            json!({
                "HostConfig": {"NetworkMode": "back"},
                "NetworkSettings": {
                    "SandboxKey": "",
                    "Networks": {
                        "back": {"NetworkID": "1d", "Aliases": ["web", "0123"], "DNSNames": ["web"]},
                        "front": {"NetworkID": "", "Aliases": null},
                        "none": {"NetworkID": "3f"},
                    }
                }
            })
        );
    }
}
