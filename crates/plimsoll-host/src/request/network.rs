//! `POST /networks/create`, `/connect` and `/disconnect`: bridges of a tenant's own, in subnets that
//! Plimsoll gives.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::create::{Endpoint, RESERVED_LABELS};
use super::json::{Fields, Json, decode_object, fold, short};
use super::path::looks_like_id;
use super::refusal::{BadRequest, Refusal};
use crate::subnet::Subnet;

/// Options of the bridge driver that concern this network alone.
const OPTIONS: [&str; 2] = [MTU, ICC];
const MTU: &str = "com.docker.network.driver.mtu";
const ICC: &str = "com.docker.network.bridge.enable_icc";

/// Names that mean something else to the engine or to a client.
const RESERVED_NAMES: [&str; 5] = ["bridge", "default", "host", "none", "ingress"];

/// A network a tenant asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRequest {
    /// The tenant's name for it.
    pub name: String,
    /// Containers in it reach each other and nothing else.
    pub internal: bool,
    /// For the `Warning` of the answer.
    pub warnings: Vec<String>,
    attachable: bool,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

/// Checks a name for a new network.
///
/// # Errors
/// [`BadRequest`] when it is not a name, could be taken for an id, or means something else.
pub fn network_name(name: &str) -> Result<&str, BadRequest> {
    let bad = |reason: &str| BadRequest::new("Name", reason);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let first = name.bytes().next();
    if !first.is_some_and(|b| b.is_ascii_alphanumeric()) || !name.bytes().all(plain) {
        return Err(bad(
            "must be of [a-zA-Z0-9_.-] and begin with a letter or digit",
        ));
    }
    if name.len() > 128 {
        return Err(bad("must be at most 128 characters"));
    }
    if looks_like_id(name) {
        return Err(bad("looks like an id: 12 to 64 hex digits are not a name"));
    }
    if RESERVED_NAMES.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(bad("is the name of a network that is always there"));
    }
    Ok(name)
}

impl NetworkRequest {
    /// A network that nobody asked for: a tenant's default one.
    #[must_use]
    pub fn plain(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            internal: false,
            warnings: Vec::new(),
            attachable: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// [`Refusal`] for what is malformed, unknown or not open to a tenant.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = decode_object(body)?;
        let name = fields.str("Name")?.unwrap_or_default();
        let name = network_name(&name)?.to_owned();
        // It is checked in any case.
        fields.bool("CheckDuplicate")?;
        let driver = fields.str("Driver")?.unwrap_or_default();
        if !matches!(driver.as_str(), "" | "default" | "bridge") {
            return Err(Refusal::policy(
                "Driver",
                format!("--driver {}", short(&driver)),
                "other drivers reach the host's own network",
                "leave the driver out, or use bridge",
            ));
        }
        deny(&mut fields)?;
        // Unsaid, or what every network here is.
        if fields.bool("EnableIPv4")? == Some(false) {
            return Err(ipv6("EnableIPv4"));
        }
        if let Some(ipam) = fields.object("IPAM")? {
            no_subnets(ipam)?;
        }
        let scope = fields.str("Scope")?.unwrap_or_default();
        if !matches!(scope.as_str(), "" | "local") {
            return Err(Refusal::policy(
                "Scope",
                format!("--scope {}", short(&scope)),
                "a tenant's networks are on this host alone",
                "leave the option out",
            ));
        }
        let options = options(&mut fields)?;
        let mut warnings = Vec::new();
        let mut labels = fields.string_map("Labels")?.unwrap_or_default();
        labels.retain(|key, value| {
            let reserved = fold(key).starts_with(RESERVED_LABELS);
            if reserved && !value.is_empty() {
                warnings.push(format!(
                    "plimsoll: label {} was left out: labels under {RESERVED_LABELS} are reserved",
                    short(key)
                ));
            }
            !reserved
        });
        let internal = fields.bool("Internal")?.unwrap_or(false);
        let attachable = fields.bool("Attachable")?.unwrap_or(false);
        fields.finish(&[], &mut warnings)?;
        Ok(Self {
            name,
            internal,
            warnings,
            attachable,
            options,
            labels,
        })
    }

    /// The body for the engine.
    #[must_use]
    pub fn body(
        &self,
        engine_name: &str,
        subnet: Subnet,
        reserved: &BTreeMap<String, String>,
    ) -> Value {
        let mut labels = self.labels.clone();
        labels.extend(reserved.clone());
        json!({
            "Name": engine_name, "CheckDuplicate": true, "Driver": "bridge", "EnableIPv6": false,
            "Internal": self.internal, "Attachable": self.attachable, "Ingress": false,
            "IPAM": {"Driver": "default", "Config": [{"Subnet": subnet.to_string()}]},
            "Options": self.options, "Labels": labels,
        })
    }
}

fn ipv6(field: &str) -> Refusal {
    Refusal::policy(
        field,
        "a network with IPv6 or without IPv4",
        "tenants' networks are IPv4",
        "leave the option out",
    )
}

fn deny(fields: &mut Fields) -> Result<(), Refusal> {
    if fields.bool("EnableIPv6")?.unwrap_or(false) {
        return Err(ipv6("EnableIPv6"));
    }
    for name in ["Ingress", "ConfigOnly"] {
        if fields.bool(name)?.unwrap_or(false) {
            return Err(Refusal::policy(
                name,
                format!("a network with {name}"),
                "it belongs to the host's administrator",
                "leave the option out",
            ));
        }
    }
    let Some(mut from) = fields.object("ConfigFrom")? else {
        return Ok(());
    };
    let network = from.str("Network")?.unwrap_or_default();
    from.finish(&[], &mut Vec::new())?;
    if network.is_empty() {
        return Ok(());
    }
    Err(Refusal::policy(
        "ConfigFrom.Network",
        "--config-from",
        "it copies another network's configuration",
        "leave the option out",
    ))
}

/// An IPAM section that asks for nothing, as the CLI and Compose write it.
fn no_subnets(mut ipam: Fields) -> Result<(), Refusal> {
    let driver = ipam.str("Driver")?.unwrap_or_default();
    let options = ipam.take("Options").is_some_and(|json| !json.is_zero());
    if !matches!(driver.as_str(), "" | "default") || options {
        return Err(Refusal::policy(
            ipam.name("Driver"),
            "--ipam-driver or --ipam-opt",
            "addresses are given by this host",
            "leave the option out",
        ));
    }
    let config = ipam.name("Config");
    let asks = |item: &Json| match item {
        Json::Object(map) => map.values().any(|value| !value.is_zero()),
        other => !other.is_zero(),
    };
    let asked = ipam.array("Config")?.unwrap_or_default().iter().any(asks);
    ipam.finish(&[], &mut Vec::new())?;
    if asked {
        return Err(Refusal::policy(
            config,
            "a subnet, range or gateway of one's own choice",
            "subnets are given by this host, so that no two networks overlap",
            "leave --subnet, --ip-range, --gateway and --aux-address (in Compose: ipam) out",
        ));
    }
    Ok(())
}

fn options(fields: &mut Fields) -> Result<BTreeMap<String, String>, Refusal> {
    let field = fields.name("Options");
    let options = fields.string_map("Options")?.unwrap_or_default();
    for (key, value) in &options {
        let fits = match key.as_str() {
            // Below, IPv4 does not work; above, no link carries it.
            MTU => value
                .parse::<u16>()
                .is_ok_and(|n| (576..=9216).contains(&n) && n.to_string() == *value),
            ICC => matches!(value.as_str(), "true" | "false"),
            _ => {
                return Err(Refusal::policy(
                    field,
                    format!("the network option {}", short(key)),
                    "it would change the host's own network",
                    format!("these can be set: {}", OPTIONS.join(" and ")),
                ));
            }
        };
        if !fits {
            return Err(Refusal::bad(
                format!("{field}.{key}"),
                format!("{} is not a value for it here", short(value)),
            ));
        }
    }
    Ok(options)
}

/// `POST /networks/{id}/connect`, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The container's name or id.
    pub container: String,
    /// How it joins.
    pub endpoint: Endpoint,
}

impl ConnectRequest {
    /// Decodes a body.
    ///
    /// # Errors
    /// [`Refusal`] for what is malformed, unknown or not open to a tenant.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = decode_object(body)?;
        let container = container(&mut fields)?;
        let endpoint = match fields.object("EndpointConfig")? {
            Some(endpoint) => Endpoint::take(endpoint)?,
            None => Endpoint::default(),
        };
        fields.finish(&[], &mut Vec::new())?;
        Ok(Self {
            container,
            endpoint,
        })
    }
}

/// `POST /networks/{id}/disconnect`, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisconnectRequest {
    /// The container's name or id.
    pub container: String,
    /// Also when the engine finds its end of the network broken.
    pub force: bool,
}

impl DisconnectRequest {
    /// Decodes a body.
    ///
    /// # Errors
    /// [`Refusal`] for what is malformed or unknown.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = decode_object(body)?;
        let container = container(&mut fields)?;
        let force = fields.bool("Force")?.unwrap_or(false);
        fields.finish(&[], &mut Vec::new())?;
        Ok(Self { container, force })
    }
}

fn container(fields: &mut Fields) -> Result<String, Refusal> {
    match fields.str("Container")?.filter(|text| !text.is_empty()) {
        Some(container) => Ok(container),
        None => Err(Refusal::bad("Container", "must name a container")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cli_and_compose_send_is_no_request_but_a_name() {
        for body in [
            r#"{"Name":"back"}"#,
            // docker network create back, of two ages.
            r#"{"CheckDuplicate":true,"Driver":"bridge","Scope":"","EnableIPv6":false,
                "IPAM":{"Driver":"default","Options":{},"Config":[]},"Internal":false,
                "Attachable":false,"Ingress":false,"ConfigOnly":false,"ConfigFrom":null,
                "Options":{},"Labels":{},"Name":"back"}"#,
            r#"{"Driver":"bridge","Scope":"","EnableIPv4":null,"EnableIPv6":null,"IPAM":null,
                "ConfigFrom":{"Network":""},"Options":null,"Labels":null,"Name":"back"}"#,
            // docker-compose 1.29.
            r#"{"Name":"back","Driver":null,"Options":null,"IPAM":{"Driver":"default","Config":[{}]},
                "CheckDuplicate":true,"Internal":false,"EnableIPv6":false}"#,
        ] {
            assert_eq!(
                NetworkRequest::parse(body.as_bytes()),
                Ok(NetworkRequest::plain("back")),
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_asked_and_open_reaches_the_engine_and_nothing_else() {
        let body = r#"{"Name":"back","Internal":true,"Attachable":true,
            "Labels":{"app":"x","Plimsoll.user":"eve"},
            "Options":{"com.docker.network.driver.mtu":"1400",
                       "com.docker.network.bridge.enable_icc":"false"}}"#;
        let request = NetworkRequest::parse(body.as_bytes()).unwrap();
        assert_eq!(request.warnings.len(), 1, "{:?}", request.warnings);
        let subnet = "10.201.4.0/26".parse().unwrap();
        let ours = BTreeMap::from([("plimsoll.user".to_owned(), "u1".to_owned())]);
        assert_eq!(
            request.body("ada.x.back", subnet, &ours),
            json!({
                "Name": "ada.x.back", "CheckDuplicate": true, "Driver": "bridge",
                "EnableIPv6": false, "Internal": true, "Attachable": true, "Ingress": false,
                "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.201.4.0/26"}]},
                "Options": {"com.docker.network.driver.mtu": "1400",
                            "com.docker.network.bridge.enable_icc": "false"},
                "Labels": {"app": "x", "plimsoll.user": "u1"},
            })
        );
    }

    #[test]
    fn what_reaches_past_a_network_of_ones_own_is_refused_with_its_field() {
        for (rest, field) in [
            (r#""Driver":"macvlan""#, "Driver"),
            (r#""Driver":"host""#, "Driver"),
            (r#""EnableIPv6":true"#, "EnableIPv6"),
            (r#""EnableIPv4":false"#, "EnableIPv4"),
            (r#""Ingress":true"#, "Ingress"),
            (r#""ConfigOnly":true"#, "ConfigOnly"),
            (r#""ConfigFrom":{"Network":"x"}"#, "ConfigFrom.Network"),
            (r#""Scope":"swarm""#, "Scope"),
            (r#""IPAM":{"Driver":"dhcp"}"#, "IPAM.Driver"),
            (r#""IPAM":{"Options":{"a":"b"}}"#, "IPAM.Driver"),
            (
                r#""IPAM":{"Config":[{"Subnet":"10.0.0.0/8"}]}"#,
                "IPAM.Config",
            ),
            (
                r#""IPAM":{"Config":[{"subnet":"10.0.0.0/8"}]}"#,
                "IPAM.Config",
            ),
            (r#""IPAM":{"Config":["10.0.0.0/8"]}"#, "IPAM.Config"),
            (
                r#""Options":{"com.docker.network.bridge.name":"docker0"}"#,
                "Options",
            ),
            (
                r#""Options":{"com.docker.network.driver.mtu":"65536"}"#,
                "Options.com.docker.network.driver.mtu",
            ),
            (
                r#""Options":{"com.docker.network.driver.mtu":"+1400"}"#,
                "Options.com.docker.network.driver.mtu",
            ),
            (r#""driver":"bridge""#, "driver"),
            (r#""Peers":[1]"#, "Peers"),
        ] {
            let body = format!(r#"{{"Name":"back",{rest}}}"#);
            let refusal = NetworkRequest::parse(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.field(), field, "{rest}: {refusal}");
        }
        for name in [
            "",
            "-a",
            "a b",
            "a/b",
            "bridge",
            "Host",
            "none",
            "deadbeefcafe",
        ] {
            assert!(network_name(name).is_err(), "{name:?}");
        }
        for name in ["b", "app_default", "my.net-1"] {
            assert!(network_name(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn joining_and_leaving_name_a_container() {
        let joined = ConnectRequest::parse(
            br#"{"Container":"web","EndpointConfig":{"Aliases":["db"],"Links":null}}"#,
        );
        assert_eq!(joined.unwrap().endpoint.aliases, ["db"]);
        let left = DisconnectRequest::parse(br#"{"Container":"web","Force":true}"#).unwrap();
        assert!(left.force && left.container == "web");
        for body in ["{}", r#"{"Container":""}"#, r#"{"Container":"web","X":1}"#] {
            assert!(ConnectRequest::parse(body.as_bytes()).is_err(), "{body}");
            assert!(DisconnectRequest::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
