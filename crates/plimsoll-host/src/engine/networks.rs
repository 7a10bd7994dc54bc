//! What Plimsoll itself asks of the engine about networks.

use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::calls::{absent, encode, named};
use super::types::null_default;
use super::{Engine, EngineError};
use crate::subnet::Subnet;

/// A network, as far as Plimsoll reads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// Full id.
    pub id: String,
    /// The engine's name for it.
    pub name: String,
    /// Its labels.
    #[serde(default, deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, rename = "IPAM", deserialize_with = "null_default")]
    ipam: Ipam,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    #[serde(default, deserialize_with = "null_default")]
    config: Vec<Addresses>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Addresses {
    #[serde(default, deserialize_with = "null_default")]
    subnet: String,
}

impl Network {
    /// Its IPv4 subnets.
    pub fn subnets(&self) -> impl Iterator<Item = Subnet> {
        self.ipam
            .config
            .iter()
            .filter_map(|c| c.subnet.parse().ok())
    }
}

impl Engine {
    /// The networks that carry every one of `labels`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn networks(&self, labels: &[&str]) -> Result<Vec<Network>, EngineError> {
        let mut path = String::from("/networks");
        if !labels.is_empty() {
            let filters = json!({ "label": labels }).to_string();
            path.push_str("?filters=");
            path.push_str(&encode(&filters));
        }
        self.ask("its networks", &path).await
    }

    /// A network by its full id or name; `None` when there is none.
    ///
    /// # Errors
    /// [`EngineError`]; an absent network is not one.
    pub async fn network(&self, name: &str) -> Result<Option<Network>, EngineError> {
        let path = format!("/networks/{}", named("a network", name)?);
        absent(self.ask("a network", &path).await)
    }

    /// Removes a network; one that is gone already is no error.
    ///
    /// # Errors
    /// [`EngineError`], 403 when a container is in it.
    pub async fn remove_network(&self, id: &str) -> Result<(), EngineError> {
        let path = format!("/networks/{}", named("a network", id)?);
        let removed = self.order("a removed network", Method::DELETE, &path);
        absent(removed.await).map(drop)
    }
}
