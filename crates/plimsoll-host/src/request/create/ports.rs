//! Published ports: what is asked, and which ports of the tenant's own range answer it.
//!
//! A range is a host of one's own in small: a port outside it always means the same port inside for
//! one tenant, so what clashed with itself on a host of its own clashes here, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};

use super::ImageFacts;
use super::body::PortBinding;
use super::rules::{PORTS_MAX, port, port_number};
use crate::request::json::{Fields, Json, short};
use crate::request::refusal::{BadRequest, Refusal};

/// The host ports that are one tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first of them.
    pub first: u16,
    /// The last of them; not below `first`.
    pub last: u16,
}

impl PortRange {
    fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Every port of it, beginning with the one that `port` falls on and going round once.
    fn from(self, port: u16) -> impl Iterator<Item = u16> {
        let count = u32::from(self.last - self.first) + 1;
        (0..count).map(move |n| {
            let offset = (u32::from(port) + n) % count;
            self.first + u16::try_from(offset).unwrap_or(0)
        })
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.first, self.last)
    }
}

/// A host port as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Any,
    Port(u16),
    /// One of these, whichever is free.
    Between(u16, u16),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    container_port: String,
    host_ip: String,
    wanted: Wanted,
}

/// Every port a container is to publish.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortsAsked(Vec<Asked>);

/// Which port means which: by the port on the host, the one that was asked for, or zero for any.
pub type PortPairs = BTreeMap<u16, u16>;

/// Ports of a tenant's own for a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortsGiven {
    pub(super) bindings: BTreeMap<String, Vec<PortBinding>>,
    /// What was given for what.
    pub pairs: PortPairs,
    /// For the `Warnings` of the answer.
    pub warnings: Vec<String>,
}

/// Takes `PortBindings` of a `HostConfig`.
pub(super) fn take(fields: &mut Fields) -> Result<PortsAsked, Refusal> {
    let name = fields.name("PortBindings");
    let mut all = Vec::new();
    for (key, value) in fields.map("PortBindings")?.unwrap_or_default() {
        let container_port = port(&name, &key)?;
        let field = format!("{name}.{container_port}");
        let items = match value {
            Json::Null => Vec::new(),
            Json::Array(items) => items,
            _ => return Err(Refusal::bad(field, "must be an array")),
        };
        for (i, item) in items.into_iter().enumerate() {
            let field = format!("{field}[{i}]");
            let Json::Object(map) = item else {
                return Err(Refusal::bad(field, "must be an object"));
            };
            let mut binding = Fields::new(field, map);
            let host_ip = host_ip(&mut binding)?;
            let field = binding.name("HostPort");
            let wanted = wanted(&field, &binding.str("HostPort")?.unwrap_or_default())?;
            binding.finish(&[], &mut Vec::new())?;
            all.push(Asked {
                container_port: container_port.clone(),
                host_ip,
                wanted,
            });
            if all.len() > PORTS_MAX {
                return Err(Refusal::bad(name, format!("at most {PORTS_MAX} ports")));
            }
        }
    }
    Ok(PortsAsked(all))
}

/// The address to publish on: every one, or the host's own.
fn host_ip(binding: &mut Fields) -> Result<String, Refusal> {
    let text = binding.str("HostIp")?.unwrap_or_default();
    match text.as_str() {
        "" | "0.0.0.0" | "127.0.0.1" | "::" => Ok(text),
        other if other.parse::<std::net::IpAddr>().is_err() => Err(Refusal::bad(
            binding.name("HostIp"),
            "must be an IP address",
        )),
        other => Err(Refusal::policy(
            binding.name("HostIp"),
            format!("publishing on the address {}", short(other)),
            "the host's single addresses are its administrator's to give",
            "leave the address out, or use 127.0.0.1 to be reached from this host alone",
        )),
    }
}

/// A host port: empty or zero for any, a number, or a range to pick from.
fn wanted(field: &str, text: &str) -> Result<Wanted, Refusal> {
    let bad = || BadRequest::new(field, "must be a port, a range of ports, or empty");
    if text.is_empty() {
        return Ok(Wanted::Any);
    }
    Ok(match text.split_once('-') {
        None => match port_number(text).ok_or_else(bad)? {
            0 => Wanted::Any,
            n => Wanted::Port(n),
        },
        Some((first, last)) => {
            let first = port_number(first).ok_or_else(bad)?;
            let last = port_number(last).ok_or_else(bad)?;
            if first > last {
                return Err(bad().into());
            }
            Wanted::Between(first, last)
        }
    })
}

impl PortsAsked {
    /// Whether nothing is to be published.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what `-P` publishes: every exposed port, of the request and of the image, that is not
    /// published already.
    pub(super) fn publish_all(
        &mut self,
        exposed: impl Iterator<Item = String>,
        image: &ImageFacts,
    ) -> Result<(), Refusal> {
        let field = "HostConfig.PublishAllPorts";
        let too_many = || {
            Refusal::policy(
                field,
                "--publish-all",
                format!(
                    "this image exposes more than {PORTS_MAX} ports, each a process on the host"
                ),
                "publish the ones you need with -p",
            )
        };
        let mut exposed: BTreeSet<String> = exposed.collect();
        for text in &image.exposed_ports {
            // An image may name a range; nobody has a port for each.
            exposed.insert(port(field, text).map_err(|_| too_many())?);
        }
        if exposed.len() > PORTS_MAX {
            return Err(too_many());
        }
        for container_port in exposed {
            if !self.0.iter().any(|a| a.container_port == container_port) {
                self.0.push(Asked {
                    container_port,
                    host_ip: String::new(),
                    wanted: Wanted::Any,
                });
            }
        }
        Ok(())
    }

    /// Chooses ports. `taken` are those of the tenant's other containers. A port outside the range is
    /// refused where `strict`, else moved into it.
    ///
    /// # Errors
    /// [`Refusal`] when the range has no port left, or a port is outside it and may not be moved.
    pub fn give(
        &self,
        range: PortRange,
        taken: &PortPairs,
        strict: bool,
    ) -> Result<PortsGiven, Refusal> {
        let mut given = PortsGiven::default();
        let mut chosen = vec![0; self.0.len()];
        // Those with the least choice first.
        for pass in [Self::inside, Self::moved, Self::free] {
            for (asked, port) in self.0.iter().zip(&mut chosen).filter(|(_, p)| **p == 0) {
                if let Some((wanted, found)) = pass(asked, range, taken, &given.pairs, strict)? {
                    given.pairs.insert(found, wanted);
                    *port = found;
                }
            }
        }
        for (asked, port) in self.0.iter().zip(chosen) {
            if let Wanted::Port(wanted) = asked.wanted
                && wanted != port
            {
                given.warnings.push(format!(
                    "plimsoll: port {wanted} is not yours: published on {port}; yours are {range}"
                ));
            }
            let binding = PortBinding {
                host_ip: asked.host_ip.clone(),
                host_port: port.to_string(),
            };
            let bindings = given.bindings.entry(asked.container_port.clone());
            bindings.or_default().push(binding);
        }
        given.warnings.sort();
        given.warnings.dedup();
        Ok(given)
    }

    fn inside(
        asked: &Asked,
        range: PortRange,
        _: &PortPairs,
        _: &PortPairs,
        _: bool,
    ) -> Result<Option<(u16, u16)>, Refusal> {
        Ok(match asked.wanted {
            Wanted::Port(port) if range.contains(port) => Some((port, port)),
            _ => None,
        })
    }

    fn moved(
        asked: &Asked,
        range: PortRange,
        taken: &PortPairs,
        own: &PortPairs,
        strict: bool,
    ) -> Result<Option<(u16, u16)>, Refusal> {
        let Wanted::Port(wanted) = asked.wanted else {
            return Ok(None);
        };
        if strict {
            return Err(Refusal::policy(
                "HostConfig.PortBindings",
                format!("publishing host port {wanted}"),
                format!("your ports are {range}"),
                "choose one of them, or leave the host port out to get a free one",
            ));
        }
        let means = |port: &u16| {
            let other = own.get(port).or_else(|| taken.get(port));
            other.is_none_or(|other| *other == wanted)
        };
        // Where it lies already, if it does: others may have come and gone before it.
        let known = [own, taken]
            .into_iter()
            .flatten()
            .find(|(port, other)| **other == wanted && range.contains(**port))
            .map(|(port, _)| *port);
        let found = known.or_else(|| range.from(wanted).find(means));
        found
            .map(|port| Some((wanted, port)))
            .ok_or_else(|| none_left(range))
    }

    fn free(
        asked: &Asked,
        range: PortRange,
        taken: &PortPairs,
        own: &PortPairs,
        _: bool,
    ) -> Result<Option<(u16, u16)>, Refusal> {
        let free = |port: &u16| !taken.contains_key(port) && !own.contains_key(port);
        let container_port = asked.container_port.split('/').next().unwrap_or_default();
        let near = container_port.parse().unwrap_or(0);
        let mut within = match asked.wanted {
            // All of it outside: any of one's own will do.
            Wanted::Between(first, last) if first <= range.last && last >= range.first => {
                first.max(range.first)..=last.min(range.last)
            }
            _ => range.first..=range.last,
        };
        let all = within == (range.first..=range.last);
        let found = if all {
            range.from(near).find(free)
        } else {
            within.find(free)
        };
        found
            .map(|port| Some((0, port)))
            .ok_or_else(|| none_left(range))
    }
}

fn none_left(range: PortRange) -> Refusal {
    Refusal::policy(
        "HostConfig.PortBindings",
        "publishing one more port",
        format!("every port of yours that would do is taken; yours are {range}"),
        "remove a container that publishes ports, or publish fewer",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::json::decode_object;

    const MINE: PortRange = PortRange {
        first: 20_000,
        last: 20_009,
    };

    fn asked(bindings: &str) -> Result<PortsAsked, Refusal> {
        let body = format!(r#"{{"PortBindings":{bindings}}}"#);
        take(&mut decode_object(body.as_bytes()).unwrap())
    }

    /// Container port and host port of each, in order.
    fn given(bindings: &str, taken: &[(u16, u16)]) -> Result<Vec<String>, String> {
        let taken = taken.iter().copied().collect();
        let given = asked(bindings)
            .and_then(|asked| asked.give(MINE, &taken, false))
            .map_err(|refusal| refusal.message())?;
        let shown = given.bindings.iter().flat_map(|(port, bindings)| {
            bindings
                .iter()
                .map(move |b| format!("{port} {}", b.host_port))
        });
        Ok(shown.collect())
    }

    #[test]
    fn ports_are_given_from_the_range_and_mean_the_same_each_time() {
        for (bindings, taken, expected) in [
            (
                r#"{"80/tcp":[{"HostPort":"20003"}]}"#,
                &[][..],
                &["80/tcp 20003"][..],
            ),
            // A clash with oneself is the engine's to tell, at start.
            (
                r#"{"80/tcp":[{"HostPort":"20003"}]}"#,
                &[(20_003, 0)],
                &["80/tcp 20003"],
            ),
            (
                r#"{"80/tcp":[{"HostPort":"8083"}]}"#,
                &[],
                &["80/tcp 20003"],
            ),
            (
                r#"{"80/tcp":[{"HostPort":"8083"}]}"#,
                &[(20_003, 8083)],
                &["80/tcp 20003"],
            ),
            (
                r#"{"80/tcp":[{"HostPort":"8083"}]}"#,
                &[(20_003, 9093)],
                &["80/tcp 20004"],
            ),
            (
                r#"{"80/tcp":[{"HostPort":"8083"}]}"#,
                &[(20_004, 8083)],
                &["80/tcp 20004"],
            ),
            (r#"{"80/tcp":[{"HostPort":"80"}]}"#, &[], &["80/tcp 20000"]),
            (
                r#"{"80/tcp":[{"HostPort":""}]}"#,
                &[(20_000, 0)],
                &["80/tcp 20001"],
            ),
            (r#"{"80/tcp":[{"HostPort":"0"}]}"#, &[], &["80/tcp 20000"]),
            (
                r#"{"80/tcp":[{}],"81/tcp":[{"HostPort":"20000"}]}"#,
                &[],
                &["80/tcp 20001", "81/tcp 20000"],
            ),
            // One number for two protocols stays one.
            (
                r#"{"53/tcp":[{"HostPort":"53"}],"53/udp":[{"HostPort":"53"}]}"#,
                &[],
                &["53/tcp 20003", "53/udp 20003"],
            ),
            (
                r#"{"80/tcp":[{"HostPort":"20004-20006"}]}"#,
                &[(20_004, 0)],
                &["80/tcp 20005"],
            ),
            (
                r#"{"80/tcp":[{"HostPort":"8000-8010"}]}"#,
                &[],
                &["80/tcp 20000"],
            ),
            ("{}", &[], &[]),
        ] {
            let expected: Vec<String> = expected.iter().map(|s| (*s).to_owned()).collect();
            assert_eq!(given(bindings, taken), Ok(expected), "{bindings} {taken:?}");
        }
        let full: Vec<(u16, u16)> = (20_000..=20_009).map(|port| (port, 0)).collect();
        for bindings in [
            r#"{"80/tcp":[{}]}"#,
            r#"{"80/tcp":[{"HostPort":"8080"}]}"#,
            r#"{"80/tcp":[{"HostPort":"20004-20006"}]}"#,
        ] {
            let refusal = given(bindings, &full).unwrap_err();
            assert!(refusal.contains("yours are 20000 to 20009"), "{refusal}");
        }
    }

    #[test]
    fn a_moved_port_is_told_and_may_be_refused() {
        let asked = asked(r#"{"80/tcp":[{"HostPort":"8080"}]}"#).unwrap();
        let given = asked.give(MINE, &PortPairs::new(), false).unwrap();
        assert_eq!(
            given.warnings,
            ["plimsoll: port 8080 is not yours: published on 20000; yours are 20000 to 20009"]
        );
        assert_eq!(given.pairs, PortPairs::from([(20_000, 8080)]));
        let refusal = asked.give(MINE, &PortPairs::new(), true).unwrap_err();
        assert!(refusal.message().contains("your ports are 20000 to 20009"));
    }

    #[test]
    fn only_the_host_as_a_whole_or_itself_is_published_on() {
        for (address, good) in [
            ("", true),
            ("0.0.0.0", true),
            ("127.0.0.1", true),
            ("::", true),
            ("192.0.2.1", false),
            ("127.0.0.2", false),
            ("::1", false),
            ("host", false),
        ] {
            let bindings = format!(r#"{{"80/tcp":[{{"HostIp":"{address}"}}]}}"#);
            assert_eq!(asked(&bindings).is_ok(), good, "{address}");
        }
    }
}
