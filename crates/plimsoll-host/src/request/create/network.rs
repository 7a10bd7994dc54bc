//! What a container asks of the network, and the part of the body that answers it.
//!
//! A body has no network until [`Judged::attach`](super::Judged::attach) gives it one: which network a
//! name means is the caller's to know.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::request::json::{Fields, Json, short};
use crate::request::refusal::Refusal;

/// The most aliases, and the most links, of one container in one network.
const NAMES_MAX: usize = 64;

/// The most networks of one create.
const NETWORKS_MAX: usize = 16;

/// The network a container asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// The tenant's own default network: `bridge`, `default` or nothing.
    #[default]
    Default,
    /// None.
    None,
    /// That of another container, by its name or id.
    Container(String),
    /// A network of the tenant's, by its name or id.
    Named(String),
}

/// `name` of a container, known in this one as `alias`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The other container's name or id.
    pub name: String,
    /// What it is called here.
    pub alias: String,
}

/// What a container asks of one network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoint {
    /// Names it wants to be found by.
    pub aliases: Vec<String>,
    /// Other containers it wants to find by other names.
    pub links: Vec<Link>,
    /// An address of its own choice.
    pub address: Option<Ipv4Addr>,
}

/// What a create request asks of the network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkAsk {
    /// Which.
    pub mode: NetworkMode,
    /// How it joins.
    pub endpoint: Endpoint,
    /// Further networks, and how it joins each.
    pub more: Vec<(NetworkMode, Endpoint)>,
}

/// The network a container is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// None.
    None,
    /// That of another container, by its full id.
    Container(String),
    /// A network, joined so. By the engine's name, which no two tenants' networks can share, and not by
    /// id: a network that was removed and made again can then be joined again.
    Network {
        /// The engine's name for it.
        name: String,
        /// How it joins, with every name as the engine is to know it.
        endpoint: Endpoint,
    },
}

impl Endpoint {
    /// Takes an `EndpointSettings`.
    ///
    /// # Errors
    /// [`Refusal`] for what no tenant may choose.
    pub fn take(mut fields: Fields) -> Result<Self, Refusal> {
        // What the engine found out, which clients send back when they copy a container.
        for told in [
            "NetworkID",
            "EndpointID",
            "Gateway",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "DNSNames",
        ] {
            fields.take(told);
        }
        for (name, asked, why, instead) in [
            (
                "DriverOpts",
                "a driver option of a network",
                "options of the driver reach the host's network",
                "leave the option out",
            ),
            (
                "MacAddress",
                "--mac-address",
                "hardware addresses are the engine's to give",
                "leave the option out",
            ),
            (
                "GwPriority",
                "a gateway priority",
                "the engine chooses the gateway",
                "leave the option out",
            ),
        ] {
            if fields.take(name).is_some_and(|json| !json.is_zero()) {
                return Err(Refusal::policy(fields.name(name), asked, why, instead));
            }
        }
        let aliases = fields.strings("Aliases")?.unwrap_or_default();
        let field = fields.name("Aliases");
        if aliases.len() > NAMES_MAX || !aliases.iter().all(|a| is_host_name(a)) {
            return Err(Refusal::bad(
                field,
                format!("must be at most {NAMES_MAX} names of [a-zA-Z0-9_.-]"),
            ));
        }
        let links = links(&mut fields)?;
        let address = match fields.object("IPAMConfig")? {
            Some(ipam) => address(ipam)?,
            None => None,
        };
        fields.finish(&[], &mut Vec::new())?;
        Ok(Self {
            aliases,
            links,
            address,
        })
    }

    /// The `EndpointSettings` for the engine.
    #[must_use]
    pub fn body(&self) -> Value {
        let links: Vec<String> = self
            .links
            .iter()
            .map(|link| format!("{}:{}", link.name, link.alias))
            .collect();
        let mut body = json!({"Aliases": self.aliases, "Links": links});
        if let Some(address) = self.address {
            body["IPAMConfig"] = json!({"IPv4Address": address});
        }
        body
    }
}

impl Attachment {
    /// `HostConfig.NetworkMode` and `NetworkingConfig` for the engine.
    pub(super) fn body(&self) -> (String, Value) {
        match self {
            Self::None => ("none".to_owned(), json!({})),
            Self::Container(id) => (format!("container:{id}"), json!({})),
            Self::Network { name, endpoint } => (
                name.clone(),
                json!({"EndpointsConfig": {name.clone(): endpoint.body()}}),
            ),
        }
    }
}

/// An address asked for. Whether the network has it is the caller's to know.
fn address(mut fields: Fields) -> Result<Option<Ipv4Addr>, Refusal> {
    for name in ["IPv6Address", "LinkLocalIPs"] {
        if fields.take(name).is_some_and(|json| !json.is_zero()) {
            return Err(Refusal::policy(
                fields.name(name),
                "an IPv6 or link-local address",
                "tenants' networks are IPv4",
                "leave the option out",
            ));
        }
    }
    let field = fields.name("IPv4Address");
    let text = fields.str("IPv4Address")?.unwrap_or_default();
    fields.finish(&[], &mut Vec::new())?;
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(Refusal::bad(field, "must be an IPv4 address")),
    }
}

/// `Links`: `name:alias`, or `name` alone.
fn links(fields: &mut Fields) -> Result<Vec<Link>, Refusal> {
    let field = fields.name("Links");
    let texts = fields.strings("Links")?.unwrap_or_default();
    if texts.len() > NAMES_MAX {
        return Err(Refusal::bad(field, format!("at most {NAMES_MAX} links")));
    }
    texts
        .iter()
        .map(|text| {
            let text = text.strip_prefix('/').unwrap_or(text);
            let (name, alias) = text.split_once(':').unwrap_or((text, text));
            // `/web/db`, as inspect shows a link, ends in the alias.
            let alias = alias.rsplit('/').next().unwrap_or(alias);
            if !is_host_name(name) || !is_host_name(alias) {
                return Err(Refusal::bad(
                    &field,
                    format!("{} is not a link like name:alias", short(text)),
                ));
            }
            Ok(Link {
                name: name.to_owned(),
                alias: alias.to_owned(),
            })
        })
        .collect()
}

fn is_host_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Takes `NetworkMode` and `Links` of a `HostConfig`, and the endpoints beside it.
pub(super) fn take(fields: &mut Fields, config: Option<Fields>) -> Result<NetworkAsk, Refusal> {
    let mode_field = fields.name("NetworkMode");
    let mode = fields.str("NetworkMode")?.unwrap_or_default();
    let mode = mode_of(&mode_field, &mode)?;
    let legacy = links(fields)?;
    let mut ask = NetworkAsk {
        mode,
        endpoint: Endpoint::default(),
        more: Vec::new(),
    };
    if let Some(mut config) = config {
        let name = config.name("EndpointsConfig");
        let endpoints = config.map("EndpointsConfig")?.unwrap_or_default();
        config.finish(&[], &mut Vec::new())?;
        if endpoints.len() > NETWORKS_MAX {
            return Err(Refusal::bad(
                name,
                format!("at most {NETWORKS_MAX} networks"),
            ));
        }
        let mut joined = Vec::new();
        for (network, endpoint) in endpoints {
            let field = format!("{name}.{}", short(&network));
            let mode = mode_of(&field, &network)?;
            let endpoint = match endpoint {
                Json::Null => Endpoint::default(),
                Json::Object(map) => Endpoint::take(Fields::new(field.clone(), map))?,
                _ => return Err(Refusal::bad(field, "must be an object")),
            };
            joined.push((field, mode, endpoint));
        }
        // No mode is how some libraries leave it to the endpoints.
        let named = |mode: &NetworkMode| matches!(mode, NetworkMode::Named(_));
        if ask.mode == NetworkMode::Default
            && joined.iter().all(|(_, mode, _)| named(mode))
            && let Some((_, first, _)) = joined.first()
        {
            ask.mode = first.clone();
        }
        let several = joined.len() > 1 && joined.iter().any(|(_, mode, _)| *mode == ask.mode);
        for (field, mode, endpoint) in joined {
            if mode == ask.mode {
                ask.endpoint = endpoint;
            } else if several && matches!(mode, NetworkMode::Default | NetworkMode::Named(_)) {
                ask.more.push((mode, endpoint));
            } else {
                // The same network by its name here and its id there would pass, too; nobody asks so.
                return Err(Refusal::bad(field, "is not the network of NetworkMode"));
            }
        }
    }
    for link in legacy {
        // The CLI writes a link in both places.
        if !ask.endpoint.links.contains(&link) {
            ask.endpoint.links.push(link);
        }
    }
    let joins = matches!(ask.mode, NetworkMode::Default | NetworkMode::Named(_));
    if !joins && (ask.endpoint != Endpoint::default() || !ask.more.is_empty()) {
        return Err(Refusal::bad(
            mode_field,
            "has no network to have an alias, a link or an address in",
        ));
    }
    Ok(ask)
}

fn mode_of(field: &str, text: &str) -> Result<NetworkMode, Refusal> {
    Ok(match text {
        "" | "default" | "bridge" => NetworkMode::Default,
        "none" => NetworkMode::None,
        _ if text.eq_ignore_ascii_case("host") => {
            return Err(Refusal::policy(
                field,
                format!("--network {text}"),
                "it is the host's network, with everything that listens there",
                "publish ports with -p in place of it",
            ));
        }
        other => match other.split_once(':') {
            Some(("container", name)) if is_host_name(name) => {
                NetworkMode::Container(name.to_owned())
            }
            None if is_host_name(other) => NetworkMode::Named(other.to_owned()),
            _ => {
                return Err(Refusal::policy(
                    field,
                    format!("--network {}", short(other)),
                    "it is neither a network nor a container of yours",
                    "use --network NAME with a network of docker network ls, or none",
                ));
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::json::decode_object;

    fn ask(host: &str, config: &str) -> Result<NetworkAsk, Refusal> {
        let mut fields = decode_object(host.as_bytes()).unwrap();
        let config = decode_object(config.as_bytes()).unwrap();
        take(&mut fields, Some(config))
    }

    #[test]
    fn each_way_of_naming_a_network_is_understood() {
        use NetworkMode::{Container, Default, Named, None};
        for (host, config, mode) in [
            ("{}", "{}", Default),
            (
                r#"{"NetworkMode":"default"}"#,
                r#"{"EndpointsConfig":{"default":{}}}"#,
                Default,
            ),
            (
                r#"{"NetworkMode":"bridge"}"#,
                r#"{"EndpointsConfig":{"default":null}}"#,
                Default,
            ),
            (
                r#"{"NetworkMode":"none"}"#,
                r#"{"EndpointsConfig":{"none":{"Aliases":null}}}"#,
                None,
            ),
            (
                r#"{"NetworkMode":"container:web"}"#,
                "{}",
                Container("web".into()),
            ),
            (
                r#"{"NetworkMode":"app_default"}"#,
                r#"{"EndpointsConfig":{"app_default":{"Aliases":["db"],"IPAMConfig":{}}}}"#,
                Named("app_default".into()),
            ),
            (
                "{}",
                r#"{"EndpointsConfig":{"back":{}}}"#,
                Named("back".into()),
            ),
        ] {
            assert_eq!(ask(host, config).unwrap().mode, mode, "{host} {config}");
        }
    }

    #[test]
    fn links_of_both_places_are_one() {
        let found = ask(
            r#"{"NetworkMode":"back","Links":["db","/cache:redis"]}"#,
            r#"{"EndpointsConfig":{"back":{"Links":["db:db"],"Aliases":["web"]}}}"#,
        )
        .unwrap();
        let names: Vec<_> = found
            .endpoint
            .links
            .iter()
            .map(|l| (l.name.as_str(), l.alias.as_str()))
            .collect();
        assert_eq!(names, [("db", "db"), ("cache", "redis")]);
        assert_eq!(found.endpoint.aliases, ["web"]);
    }

    #[test]
    fn what_no_tenant_may_ask_is_refused_with_its_field() {
        let endpoint = |settings: &str| {
            (
                r#"{"NetworkMode":"back"}"#.to_owned(),
                format!(r#"{{"EndpointsConfig":{{"back":{settings}}}}}"#),
            )
        };
        for ((host, config), field) in [
            (
                (r#"{"NetworkMode":"Host"}"#.to_owned(), "{}".to_owned()),
                "NetworkMode",
            ),
            (
                (
                    r#"{"NetworkMode":"ns:/proc/1/ns/net"}"#.to_owned(),
                    "{}".to_owned(),
                ),
                "NetworkMode",
            ),
            (
                (
                    r#"{"NetworkMode":"container:"}"#.to_owned(),
                    "{}".to_owned(),
                ),
                "NetworkMode",
            ),
            (
                (
                    "{}".to_owned(),
                    r#"{"EndpointsConfig":{"host":{}}}"#.to_owned(),
                ),
                "host",
            ),
            (
                (
                    r#"{"NetworkMode":"a1"}"#.to_owned(),
                    r#"{"EndpointsConfig":{"b1":{}}}"#.to_owned(),
                ),
                "b1",
            ),
            (
                (
                    r#"{"NetworkMode":"none","Links":["db"]}"#.to_owned(),
                    "{}".to_owned(),
                ),
                "NetworkMode",
            ),
            (endpoint(r#"{"DriverOpts":{"a":"b"}}"#), "DriverOpts"),
            (
                endpoint(r#"{"MacAddress":"02:42:0a:c9:fa:02"}"#),
                "MacAddress",
            ),
            (
                endpoint(r#"{"IPAMConfig":{"IPv6Address":"fd00::1"}}"#),
                "IPv6Address",
            ),
            (
                endpoint(r#"{"IPAMConfig":{"IPv4Address":"x"}}"#),
                "IPv4Address",
            ),
            (endpoint(r#"{"Aliases":["a b"]}"#), "Aliases"),
            (endpoint(r#"{"Links":["a:b:c"]}"#), "Links"),
            (endpoint(r#"{"aliases":["a"]}"#), "aliases"),
            (endpoint(r#"{"Other":1}"#), "Other"),
        ] {
            let refusal = ask(&host, &config).unwrap_err();
            assert!(
                refusal.field().ends_with(field),
                "{host} {config}: {refusal}"
            );
        }
    }

    #[test]
    fn several_networks_are_joined_one_first() {
        use NetworkMode::{Default, Named};
        let config = r#"{"EndpointsConfig":{"a1":{"Aliases":["x"]},"b1":{},"bridge":null}}"#;
        for (host, first, more) in [
            (r#"{"NetworkMode":"b1"}"#, "b1", vec!["a1", "bridge"]),
            (r#"{"NetworkMode":"bridge"}"#, "bridge", vec!["a1", "b1"]),
        ] {
            let asked = ask(host, config).unwrap();
            let shown = |mode: &NetworkMode| match mode {
                Default => "bridge".to_owned(),
                Named(name) => name.clone(),
                other => panic!("{other:?}"),
            };
            assert_eq!(shown(&asked.mode), first);
            let others: Vec<String> = asked.more.iter().map(|(mode, _)| shown(mode)).collect();
            assert_eq!(others, more);
        }
        let asked = ask(
            "{}",
            r#"{"EndpointsConfig":{"a1":{},"b1":{"Aliases":["x"]}}}"#,
        )
        .unwrap();
        assert_eq!(asked.mode, Named("a1".to_owned()));
        assert_eq!(asked.more[0].1.aliases, ["x"]);
        let many: Vec<String> = (0..17).map(|n| format!(r#""n{n}":{{}}"#)).collect();
        for (host, config) in [
            (
                r#"{"NetworkMode":"c1"}"#,
                r#"{"EndpointsConfig":{"a1":{},"b1":{}}}"#.to_owned(),
            ),
            (
                r#"{"NetworkMode":"none"}"#,
                r#"{"EndpointsConfig":{"none":{},"b1":{}}}"#.to_owned(),
            ),
            (
                r#"{"NetworkMode":"a1"}"#,
                r#"{"EndpointsConfig":{"a1":{},"host":{}}}"#.to_owned(),
            ),
            (
                r#"{"NetworkMode":"a1"}"#,
                r#"{"EndpointsConfig":{"a1":{},"none":{}}}"#.to_owned(),
            ),
            (
                r#"{"NetworkMode":"a1"}"#,
                r#"{"EndpointsConfig":{"a1":{},"container:x":{}}}"#.to_owned(),
            ),
            (
                "{}",
                format!(r#"{{"EndpointsConfig":{{{}}}}}"#, many.join(",")),
            ),
        ] {
            assert!(ask(host, &config).is_err(), "{host} {config}");
        }
    }
}
