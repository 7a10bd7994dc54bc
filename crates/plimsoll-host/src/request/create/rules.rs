//! Checks on single fields that need more than their type.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::ImageFacts;
use super::body::{Config, Empty, Healthcheck, Ulimit};
use crate::request::json::{Fields, short};
use crate::request::refusal::{BadRequest, Refusal};

/// The most ports one container may expose or publish: the engine runs a host process for each.
pub(super) const PORTS_MAX: usize = 256;
/// The most entries of a list that the engine writes into a container's files.
const ENTRIES_MAX: usize = 256;
/// Every health check is a process the engine starts; the engine itself would allow one a
/// millisecond.
const HEALTH_INTERVAL_MIN_NS: i64 = 1_000_000_000;

/// The capabilities the engine gives every container: adding one is only ever undoing a drop.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Sysctls of a container's own network namespace that size nothing in the kernel.
const SYSCTLS: [&str; 13] = [
    "net.core.somaxconn",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.default.disable_ipv6",
];

fn capability(field: &str, name: &str) -> Result<String, Refusal> {
    let upper = name.to_ascii_uppercase();
    if upper.is_empty()
        || upper.len() > 40
        || !upper.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
    {
        return Err(Refusal::bad(field, "is not a capability"));
    }
    Ok(if upper == "ALL" || upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    })
}

pub(super) fn cap_add(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let field = fields.name("CapAdd");
    let mut added = Vec::new();
    for name in fields.strings_or_one("CapAdd")?.unwrap_or_default() {
        let cap = capability(&field, &name)?;
        if !CAPABILITIES.contains(&cap.as_str()) {
            return Err(Refusal::policy(
                field,
                format!("--cap-add {}", short(&name)),
                "it would let a container reach past its isolation",
                "containers keep the engine's default capabilities",
            ));
        }
        added.push(cap);
    }
    Ok(added)
}

pub(super) fn cap_drop(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let field = fields.name("CapDrop");
    fields
        .strings_or_one("CapDrop")?
        .unwrap_or_default()
        .iter()
        .map(|name| capability(&field, name))
        .collect()
}

pub(super) fn security_opt(fields: &mut Fields) -> Result<Vec<&'static str>, Refusal> {
    let field = fields.name("SecurityOpt");
    let mut set = None;
    for option in fields.strings("SecurityOpt")?.unwrap_or_default() {
        let value = match option.as_str() {
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true" => true,
            "no-new-privileges:false" | "no-new-privileges=false" => false,
            _ => {
                return Err(Refusal::policy(
                    field,
                    format!("--security-opt {}", short(&option)),
                    "it would change the container's isolation",
                    "only no-new-privileges can be chosen",
                ));
            }
        };
        if set.is_some_and(|already| already != value) {
            return Err(Refusal::bad(field, "no-new-privileges is given twice"));
        }
        set = Some(value);
    }
    Ok(if set == Some(true) {
        vec!["no-new-privileges"]
    } else {
        Vec::new()
    })
}

/// Added groups. Any id is harmless while nothing of the host is mounted: root in the container
/// can take any group anyway, and no host file is there to open with it.
pub(super) fn groups(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let field = fields.name("GroupAdd");
    let groups = fields.strings("GroupAdd")?.unwrap_or_default();
    if groups.len() > 64 {
        return Err(Refusal::bad(field, "at most 64 groups"));
    }
    for group in &groups {
        let numeric = group.bytes().all(|b| b.is_ascii_digit());
        let fits = group.parse::<i32>().is_ok();
        let name = group.len() <= 32
            && !group.starts_with(['-', '.'])
            && group
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if group.is_empty() || (numeric && !fits) || !name {
            return Err(Refusal::bad(field, "must hold group ids or names"));
        }
    }
    Ok(groups)
}

/// Resource limits of processes. The container's cgroup bounds memory and processes whatever these
/// say; what is refused here is what a cgroup does not hold: real-time priority, being nicer than
/// others, host-wide file tables and per-uid kernel queues.
pub(super) fn ulimits(fields: &mut Fields) -> Result<Vec<Ulimit>, Refusal> {
    let mut limits: Vec<Ulimit> = Vec::new();
    for mut entry in fields.objects("Ulimits")? {
        let field = entry.name("Name");
        let name = entry.str("Name")?.unwrap_or_default();
        let soft = entry.i64("Soft")?.unwrap_or(0);
        let hard = entry.i64("Hard")?.unwrap_or(0);
        entry.finish(&[], &mut Vec::new())?;
        let (max, unlimited) = match name.as_str() {
            "nofile" => (1_048_576, false),
            "nproc" => (4_194_304, true),
            "sigpending" => (65_536, false),
            "msgqueue" => (819_200, false),
            "nice" => (20, false),
            "rtprio" => (0, false),
            "as" | "core" | "cpu" | "data" | "fsize" | "locks" | "memlock" | "rss" | "stack" => {
                (i64::MAX, true)
            }
            _ => return Err(Refusal::bad(field, "is not a limit the engine knows here")),
        };
        for value in [soft, hard] {
            if value < -1 {
                return Err(Refusal::bad(field, format!("{name} must not be negative")));
            }
            if value > max || (value == -1 && !unlimited) {
                return Err(Refusal::policy(
                    field,
                    format!(
                        "--ulimit {name}={}",
                        if value == -1 {
                            "unlimited".to_owned()
                        } else {
                            value.to_string()
                        }
                    ),
                    "it would take from the whole host",
                    format!("use at most {max}"),
                ));
            }
        }
        let open = |n: i64| if n == -1 { i64::MAX } else { n };
        if open(soft) > open(hard) {
            return Err(Refusal::bad(field, format!("{name}: soft is above hard")));
        }
        if limits.iter().any(|l| l.name == name) {
            return Err(Refusal::bad(field, format!("{name} is given twice")));
        }
        limits.push(Ulimit { name, soft, hard });
    }
    Ok(limits)
}

pub(super) fn sysctls(fields: &mut Fields) -> Result<BTreeMap<String, String>, Refusal> {
    let field = fields.name("Sysctls");
    let sysctls = fields.string_map("Sysctls")?.unwrap_or_default();
    for (key, value) in &sysctls {
        if !SYSCTLS.contains(&key.as_str()) {
            return Err(Refusal::policy(
                field,
                format!("--sysctl {}", short(key)),
                "it is shared with the host or sizes the kernel's own memory",
                format!("these can be set: {}", SYSCTLS.join(", ")),
            ));
        }
        if value.is_empty()
            || value.len() > 32
            || !value
                .bytes()
                .all(|b| b.is_ascii_digit() || b == b' ' || b == b'\t')
        {
            return Err(Refusal::bad(
                format!("{field}.{key}"),
                "must be numbers separated by spaces",
            ));
        }
    }
    Ok(sysctls)
}

/// A list of CPUs, written back in the engine's form. Choosing CPUs does not add any: the cap on
/// CPU time holds. Choosing memory nodes could empty one for others and is refused.
pub(super) fn cpuset(fields: &mut Fields) -> Result<String, Refusal> {
    const CPU_MAX: u32 = 8191;
    let field = fields.name("CpusetCpus");
    let text = fields.str("CpusetCpus")?.unwrap_or_default();
    let bad = || BadRequest::new(&field, "must be a list of CPUs, like 0-3,5");
    let number = |s: &str| {
        Some(s)
            .filter(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|s| s.parse::<u32>().ok())
            .filter(|n| *n <= CPU_MAX)
            .ok_or_else(bad)
    };
    let mut parts = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        match part.split_once('-') {
            None => parts.push(number(part)?.to_string()),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(bad().into());
                }
                parts.push(format!("{first}-{last}"));
            }
        }
        if parts.len() > ENTRIES_MAX {
            return Err(bad().into());
        }
    }
    Ok(parts.join(","))
}

/// `80`, `80/tcp`: one port, as the engine writes it.
pub(super) fn port(field: &str, text: &str) -> Result<String, Refusal> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = port_number(number).filter(|n| *n > 0);
    match number {
        Some(n) if matches!(protocol, "tcp" | "udp" | "sctp") => Ok(format!("{n}/{protocol}")),
        _ => Err(Refusal::bad(
            field,
            format!("{} is not a port like 80/tcp", short(text)),
        )),
    }
}

pub(super) fn port_number(text: &str) -> Option<u16> {
    Some(text)
        .filter(|t| !t.is_empty() && t.len() <= 5 && t.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|t| t.parse().ok())
}

pub(super) fn exposed(fields: &mut Fields) -> Result<BTreeMap<String, Empty>, Refusal> {
    let field = fields.name("ExposedPorts");
    let ports: BTreeMap<_, _> = fields
        .set("ExposedPorts")?
        .unwrap_or_default()
        .iter()
        .map(|text| Ok((port(&field, text)?, Empty {})))
        .collect::<Result<_, Refusal>>()?;
    if ports.len() > PORTS_MAX {
        return Err(Refusal::bad(field, format!("at most {PORTS_MAX} ports")));
    }
    Ok(ports)
}

fn ip(field: &str, text: &str) -> Result<String, Refusal> {
    text.parse::<IpAddr>()
        .map(|ip| ip.to_string())
        .map_err(|_| Refusal::bad(field, "must be an IP address"))
}

fn entries(fields: &mut Fields, name: &'static str) -> Result<Vec<String>, Refusal> {
    let entries = fields.strings(name)?.unwrap_or_default();
    if entries.len() > ENTRIES_MAX {
        return Err(Refusal::bad(
            fields.name(name),
            format!("at most {ENTRIES_MAX} entries"),
        ));
    }
    Ok(entries)
}

pub(super) fn dns(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let field = fields.name("Dns");
    entries(fields, "Dns")?
        .iter()
        .map(|text| ip(&field, text))
        .collect()
}

/// Words for a line of the container's `resolv.conf`.
pub(super) fn words(fields: &mut Fields, name: &'static str) -> Result<Vec<String>, Refusal> {
    let words = entries(fields, name)?;
    for word in &words {
        if word.is_empty() || word.len() > 255 || !word.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Refusal::bad(
                fields.name(name),
                "must hold words without spaces",
            ));
        }
    }
    Ok(words)
}

/// Entries of the container's `hosts` file, written as `name:address`, the form every engine reads.
pub(super) fn extra_hosts(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let field = fields.name("ExtraHosts");
    entries(fields, "ExtraHosts")?
        .iter()
        .map(|host| {
            extra_host(host).ok_or_else(|| {
                Refusal::bad(
                    &field,
                    format!("{} is not a host like name:192.0.2.1", short(host)),
                )
            })
        })
        .collect()
}

fn extra_host(host: &str) -> Option<String> {
    let (name, address) = host.split_once([':', '='])?;
    let named = !name.is_empty()
        && name.len() <= 255
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !named {
        return None;
    }
    if address == "host-gateway" {
        return Some(format!("{name}:{address}"));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(address);
    let ip: IpAddr = bare.parse().ok()?;
    Some(format!("{name}:{ip}"))
}

pub(super) fn healthcheck(
    fields: &mut Fields,
    warnings: &mut Vec<String>,
) -> Result<Option<Healthcheck>, Refusal> {
    let Some(mut health) = fields.object("Healthcheck")? else {
        return Ok(None);
    };
    let duration = |health: &mut Fields, name: &'static str, min: i64| -> Result<i64, Refusal> {
        let n = health.i64(name)?.unwrap_or(0);
        if n != 0 && n < min {
            return Err(Refusal::bad(
                health.name(name),
                format!("must be at least {} ms", min / 1_000_000),
            ));
        }
        Ok(n)
    };
    let interval = duration(&mut health, "Interval", HEALTH_INTERVAL_MIN_NS)?;
    let timeout = duration(&mut health, "Timeout", 1_000_000)?;
    let start_period = duration(&mut health, "StartPeriod", 1_000_000)?;
    let retries = health.i64("Retries")?.unwrap_or(0);
    if !(0..=i64::from(i32::MAX)).contains(&retries) {
        return Err(Refusal::bad(health.name("Retries"), "must not be negative"));
    }
    let test = health.strings("Test")?.unwrap_or_default();
    // Newer than the API version spoken to the engine.
    health.finish(&["StartInterval"], warnings)?;
    Ok(Some(Healthcheck {
        test,
        interval,
        timeout,
        start_period,
        retries,
    }))
}

/// An interval the request leaves open comes from the image; a tenant's image may say anything.
pub(super) fn slow_health_checks(config: &mut Config, image: &ImageFacts) {
    let fast = |ns: i64| ns != 0 && ns < HEALTH_INTERVAL_MIN_NS;
    let inherited = config.healthcheck.as_ref().is_none_or(|h| h.interval == 0);
    if inherited && image.health_interval_ns.is_some_and(fast) {
        config.healthcheck.get_or_insert_default().interval = HEALTH_INTERVAL_MIN_NS;
    }
}
