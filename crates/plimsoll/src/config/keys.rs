//! Every key: how it is written in the environment and in flags, and what it may hold.
//!
//! The file is read by serde; the environment and flags are text, which is why each key also says
//! here how it is read from one. All sources share the one check.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use plimsoll_core::entity::Name;
use plimsoll_host::cgroup::Instance;
use plimsoll_host::request::registry::is_entry;
use plimsoll_host::subnet::Subnet;

use super::{Address, Config};
use crate::http_client::Url;
use crate::notify::mail::{NOT_AN_ADDRESS, is_address, server};

/// The shortest interval: below, the work itself fills the time.
const INTERVAL_MIN_S: f64 = 0.1;
/// The longest interval: a day.
const INTERVAL_MAX_S: f64 = 86_400.0;
/// The longest the engine may take over a question: a tenant has given up long before.
const ENGINE_TIMEOUT_MAX_S: u64 = 3600;
/// The longest wait for a reservation: a week.
const TTL_MAX_S: u64 = 7 * 86_400;
/// The longest anything is kept: a century, as good as for good.
const DAYS_MAX: u64 = 36_500;
/// The most connections a caller can be given: more are more than a process has.
const CONNECTIONS_MAX: usize = 1_000_000;
/// The most requests a second a caller can be given: more than there could be.
const REQUESTS_MAX: u32 = 1_000_000;
/// The longest a message is tried: a month.
const GIVE_UP_MAX_S: u64 = 31 * 86_400;
/// The longest path a unix socket can have.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// As in the file, sections by dots: `metering.interval_s`.
    pub path: &'static str,
    /// Sets it from text, as the environment and flags give it; several values are separated by
    /// commas.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
    /// What is wrong with the value it has.
    pub check: fn(&Config) -> Result<(), String>,
}

impl Key {
    /// The environment variable that sets it: `PLIMSOLL_METERING_INTERVAL_S`.
    #[must_use]
    pub fn variable(&self) -> String {
        let name = self.path.replace('.', "_").to_uppercase();
        format!("{}{name}", super::load::VARIABLE_PREFIX)
    }

    /// The key with this path.
    #[must_use]
    pub fn named(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// The key whose path, or last part, a misspelt one most resembles.
    #[must_use]
    pub fn nearest(unknown: &str) -> Option<&'static Self> {
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        KEYS.iter()
            .map(|key| {
                let whole = strsim::damerau_levenshtein(unknown, key.path);
                // A key put in the wrong section, or none.
                let part = strsim::damerau_levenshtein(&last(unknown), &last(key.path)) + 1;
                (whole.min(part), key)
            })
            .filter(|(distance, key)| *distance <= last(key.path).len() / 3 + 1)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, key)| key)
    }
}

/// Every key.
pub static KEYS: &[Key] = &[
    Key {
        path: "data_dir",
        set: |c, text| {
            c.data_dir = text.into();
            Ok(())
        },
        check: |c| absolute(&c.data_dir),
    },
    Key {
        path: "listen",
        set: |c, text| {
            text.clone_into(&mut c.listen);
            Ok(())
        },
        check: |c| listen(&c.listen),
    },
    Key {
        path: "api_socket",
        set: |c, text| {
            c.api_socket = super::socket_path(text).to_owned();
            Ok(())
        },
        check: |c| socket(&c.api_socket),
    },
    Key {
        path: "gateway",
        set: |c, text| {
            c.gateway = words(text);
            Ok(())
        },
        check: |c| match c.gateway.as_slice() {
            [] => Err("must name at least one address".to_owned()),
            all => all.iter().try_for_each(|text| address(text)),
        },
    },
    Key {
        path: "engine",
        set: |c, text| {
            text.clone_into(&mut c.engine);
            Ok(())
        },
        check: |c| address(&c.engine),
    },
    Key {
        path: "engine_timeout_s",
        set: |c, text| parsed(text, "a whole number").map(|n| c.engine_timeout_s = n),
        check: |c| match c.engine_timeout_s {
            1..=ENGINE_TIMEOUT_MAX_S => Ok(()),
            _ => Err(format!("must be from 1 to {ENGINE_TIMEOUT_MAX_S} seconds")),
        },
    },
    Key {
        path: "heartbeat_s",
        set: |c, text| parsed(text, "a number").map(|n| c.heartbeat_s = n),
        check: |c| interval(c.heartbeat_s),
    },
    Key {
        path: "instance",
        set: |c, text| {
            text.clone_into(&mut c.instance);
            Ok(())
        },
        check: |c| match c.instance.parse::<Instance>() {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
    },
    Key {
        path: "host",
        set: |c, text| {
            text.clone_into(&mut c.host);
            Ok(())
        },
        check: |c| name(&c.host),
    },
    Key {
        path: "cgroup_root",
        set: |c, text| {
            c.cgroup_root = text.into();
            Ok(())
        },
        check: |c| absolute(&c.cgroup_root),
    },
    Key {
        path: "tenants.provision_class",
        set: |c, text| {
            c.tenants.provision_class = some(text);
            Ok(())
        },
        check: |c| c.tenants.provision_class.as_deref().map_or(Ok(()), name),
    },
    Key {
        path: "tenants.provision_groups",
        set: |c, text| {
            c.tenants.provision_groups = words(text);
            Ok(())
        },
        check: |c| {
            let empty = c
                .tenants
                .provision_groups
                .iter()
                .any(|g| g.trim().is_empty());
            if empty {
                Err("must not name an empty group".to_owned())
            } else {
                Ok(())
            }
        },
    },
    Key {
        path: "tenants.contact",
        set: |c, text| {
            c.tenants.contact = some(text);
            Ok(())
        },
        check: |c| match &c.tenants.contact {
            Some(text) if text.chars().any(char::is_control) => {
                Err("must be one line of plain text".to_owned())
            }
            _ => Ok(()),
        },
    },
    Key {
        path: "mounts.roots",
        set: |c, text| {
            c.mounts.roots = words(text);
            Ok(())
        },
        check: |c| {
            let fits = |root: &String| root == "~" || root.starts_with('/') && root.len() > 1;
            if c.mounts.roots.iter().all(fits) {
                Ok(())
            } else {
                Err("must hold absolute paths below the root, or ~ for each user's home".to_owned())
            }
        },
    },
    Key {
        path: "mounts.stash",
        set: |c, text| {
            c.mounts.stash = text.into();
            Ok(())
        },
        check: |c| absolute(&c.mounts.stash),
    },
    Key {
        path: "networks.pool",
        set: |c, text| {
            text.clone_into(&mut c.networks.pool);
            Ok(())
        },
        check: |c| match c.networks.pool.parse::<Subnet>() {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
    },
    Key {
        path: "networks.prefix",
        set: |c, text| whole(text).map(|n| c.networks.prefix = n),
        check: |c| {
            let pool = c.networks.pool.parse::<Subnet>();
            let least = pool.map_or(8, |pool| pool.prefix().max(8));
            // Fewer addresses than a /29 has leave none for containers.
            if (least..=29).contains(&c.networks.prefix) {
                Ok(())
            } else {
                Err(format!(
                    "must be from {least} to 29 with this networks.pool"
                ))
            }
        },
    },
    Key {
        path: "networks.per_user_max",
        set: |c, text| whole(text).map(|n| c.networks.per_user_max = n),
        check: |_| Ok(()),
    },
    Key {
        path: "ports.first",
        set: |c, text| whole(text).map(|n| c.ports.first = n),
        check: |c| unprivileged(c.ports.first),
    },
    Key {
        path: "ports.last",
        set: |c, text| whole(text).map(|n| c.ports.last = n),
        check: |c| {
            if c.ports.last >= c.ports.first {
                unprivileged(c.ports.last)
            } else {
                Err("must not be below ports.first".to_owned())
            }
        },
    },
    Key {
        path: "ports.per_user",
        set: |c, text| whole(text).map(|n| c.ports.per_user = n),
        check: |c| {
            if c.ports.per_user > 0 {
                Ok(())
            } else {
                Err("must be at least 1".to_owned())
            }
        },
    },
    Key {
        path: "ports.outside",
        set: |c, text| {
            text.clone_into(&mut c.ports.outside);
            Ok(())
        },
        check: |c| match c.ports.outside.as_str() {
            "remap" | "refuse" => Ok(()),
            _ => Err("must be remap or refuse".to_owned()),
        },
    },
    Key {
        path: "limits.connections_per_user",
        set: |c, text| parsed(text, "a whole number").map(|n| c.limits.connections_per_user = n),
        check: |c| within(c.limits.connections_per_user, 1, CONNECTIONS_MAX),
    },
    Key {
        path: "limits.requests_per_s",
        set: |c, text| parsed(text, "a whole number").map(|n| c.limits.requests_per_s = n),
        check: |c| within(c.limits.requests_per_s, 1, REQUESTS_MAX),
    },
    Key {
        path: "limits.requests_burst",
        set: |c, text| parsed(text, "a whole number").map(|n| c.limits.requests_burst = n),
        check: |c| within(c.limits.requests_burst, 1, REQUESTS_MAX),
    },
    Key {
        path: "authz.socket",
        set: |c, text| {
            c.authz.socket = some(text).map(|text| super::socket_path(&text).to_owned());
            Ok(())
        },
        check: |c| c.authz.socket.as_deref().map_or(Ok(()), socket),
    },
    Key {
        path: "authz.allow_anonymous",
        set: |c, text| parsed(text, "true or false").map(|yes| c.authz.allow_anonymous = yes),
        check: |_| Ok(()),
    },
    Key {
        path: "authz.self_name",
        set: |c, text| {
            text.clone_into(&mut c.authz.self_name);
            Ok(())
        },
        check: |c| match c.authz.self_name.as_str() {
            "" => Err("must not be empty: that is how nobody is named".to_owned()),
            _ => Ok(()),
        },
    },
    Key {
        path: "registries.allow",
        set: |c, text| {
            c.registries.allow = words(text);
            Ok(())
        },
        check: |c| match c.registries.allow.iter().find(|entry| !is_entry(entry)) {
            Some(_) => Err(
                "must name registries by host, like registry.lab:5000, or by host and path, like \
                 docker.io/library"
                    .to_owned(),
            ),
            None => Ok(()),
        },
    },
    Key {
        path: "reservations.gateway_ttl_s",
        set: |c, text| parsed(text, "a whole number").map(|n| c.reservations.gateway_ttl_s = n),
        check: |c| ttl(c.reservations.gateway_ttl_s),
    },
    Key {
        path: "reservations.api_ttl_s",
        set: |c, text| parsed(text, "a whole number").map(|n| c.reservations.api_ttl_s = n),
        check: |c| ttl(c.reservations.api_ttl_s),
    },
    Key {
        path: "reservations.unstarted_s",
        set: |c, text| parsed(text, "a whole number").map(|n| c.reservations.unstarted_s = n),
        check: |c| ttl(c.reservations.unstarted_s),
    },
    Key {
        path: "metering.interval_s",
        set: |c, text| parsed(text, "a number").map(|n| c.metering.interval_s = n),
        check: |c| interval(c.metering.interval_s),
    },
    Key {
        path: "metering.near_interval_s",
        set: |c, text| parsed(text, "a number").map(|n| c.metering.near_interval_s = n),
        check: |c| interval(c.metering.near_interval_s),
    },
    Key {
        path: "metering.near_limit_percent",
        set: |c, text| whole(text).map(|n| c.metering.near_limit_percent = n),
        check: |c| match c.metering.near_limit_percent {
            1..=100 => Ok(()),
            _ => Err("must be from 1 to 100".to_owned()),
        },
    },
    Key {
        path: "metering.storage_interval_s",
        set: |c, text| parsed(text, "a number").map(|n| c.metering.storage_interval_s = n),
        check: |c| interval(c.metering.storage_interval_s),
    },
    Key {
        path: "reconcile.interval_s",
        set: |c, text| parsed(text, "a number").map(|n| c.reconcile.interval_s = n),
        check: |c| interval(c.reconcile.interval_s),
    },
    Key {
        path: "violations.calm_s",
        set: |c, text| parsed(text, "a number").map(|n| c.violations.calm_s = n),
        check: |c| interval(c.violations.calm_s),
    },
    Key {
        path: "ladder.interval_s",
        set: |c, text| parsed(text, "a number").map(|n| c.ladder.interval_s = n),
        check: |c| interval(c.ladder.interval_s),
    },
    Key {
        path: "ladder.stop_timeout_s",
        set: |c, text| whole(text).map(|n| c.ladder.stop_timeout_s = n),
        check: |c| match c.ladder.stop_timeout_s {
            0..=3600 => Ok(()),
            _ => Err("must be at most 3600".to_owned()),
        },
    },
    Key {
        path: "retention.decisions_days",
        set: |c, text| whole(text).map(|n| c.retention.decisions_days = n),
        check: |c| days(c.retention.decisions_days),
    },
    Key {
        path: "retention.reservations_days",
        set: |c, text| whole(text).map(|n| c.retention.reservations_days = n),
        check: |c| days(c.retention.reservations_days),
    },
    Key {
        path: "retention.violations_days",
        set: |c, text| whole(text).map(|n| c.retention.violations_days = n),
        check: |c| days(c.retention.violations_days),
    },
    Key {
        path: "retention.notices_days",
        set: |c, text| whole(text).map(|n| c.retention.notices_days = n),
        check: |c| days(c.retention.notices_days),
    },
    Key {
        path: "metrics.raw_days",
        set: |c, text| whole(text).map(|n| c.metrics.raw_days = n),
        check: |c| days(c.metrics.raw_days),
    },
    Key {
        path: "metrics.five_minutes_days",
        set: |c, text| whole(text).map(|n| c.metrics.five_minutes_days = n),
        check: |c| {
            if c.metrics.five_minutes_days < c.metrics.raw_days {
                return Err("must not be below metrics.raw_days".to_owned());
            }
            days(c.metrics.five_minutes_days)
        },
    },
    Key {
        path: "metrics.rollup_days",
        set: |c, text| whole(text).map(|n| c.metrics.rollup_days = n),
        check: |c| {
            if c.metrics.rollup_days < c.metrics.five_minutes_days {
                return Err("must not be below metrics.five_minutes_days".to_owned());
            }
            days(c.metrics.rollup_days)
        },
    },
    Key {
        path: "metrics.remote_write_url",
        set: |c, text| {
            c.metrics.remote_write_url = some(text);
            Ok(())
        },
        check: |c| url(c.metrics.remote_write_url.as_deref()),
    },
    Key {
        path: "metrics.unsent_hours",
        set: |c, text| whole(text).map(|n| c.metrics.unsent_hours = n),
        check: |c| match c.metrics.unsent_hours {
            1..=720 => Ok(()),
            _ => Err("must be from 1 to 720".to_owned()),
        },
    },
    Key {
        path: "metrics.remote_query_url",
        set: |c, text| {
            c.metrics.remote_query_url = some(text);
            Ok(())
        },
        check: |c| url(c.metrics.remote_query_url.as_deref()),
    },
    Key {
        path: "metrics.remote_token_file",
        set: |c, text| {
            c.metrics.remote_token_file = some(text).map(Into::into);
            Ok(())
        },
        check: |c| {
            c.metrics
                .remote_token_file
                .as_deref()
                .map_or(Ok(()), absolute)
        },
    },
    Key {
        path: "notify.interval_s",
        set: |c, text| parsed(text, "a number").map(|n| c.notify.interval_s = n),
        check: |c| interval(c.notify.interval_s),
    },
    Key {
        path: "notify.retry_s",
        set: |c, text| parsed(text, "a number").map(|n| c.notify.retry_s = n),
        check: |c| interval(c.notify.retry_s),
    },
    Key {
        path: "notify.retry_max_s",
        set: |c, text| parsed(text, "a number").map(|n| c.notify.retry_max_s = n),
        check: |c| {
            if c.notify.retry_max_s < c.notify.retry_s {
                return Err("must not be below notify.retry_s".to_owned());
            }
            interval(c.notify.retry_max_s)
        },
    },
    Key {
        path: "notify.give_up_s",
        set: |c, text| parsed(text, "a whole number").map(|n| c.notify.give_up_s = n),
        check: |c| within(c.notify.give_up_s, 1, GIVE_UP_MAX_S),
    },
    Key {
        path: "notify.timeout_s",
        set: |c, text| parsed(text, "a number").map(|n| c.notify.timeout_s = n),
        check: |c| interval(c.notify.timeout_s),
    },
    Key {
        path: "notify.server_url",
        set: |c, text| {
            c.notify.server_url = some(text);
            Ok(())
        },
        check: |c| url(c.notify.server_url.as_deref()),
    },
    Key {
        path: "notify.ca_file",
        set: |c, text| {
            c.notify.ca_file = some(text).map(Into::into);
            Ok(())
        },
        check: |c| c.notify.ca_file.as_deref().map_or(Ok(()), absolute),
    },
    Key {
        path: "notify.mail_server",
        set: |c, text| {
            c.notify.mail_server = some(text);
            Ok(())
        },
        check: |c| match c.notify.mail_server.as_deref() {
            Some(text) if server(text).is_none() => {
                Err("must be a host and a port, like mail.lab:587".to_owned())
            }
            _ => Ok(()),
        },
    },
    Key {
        path: "notify.mail_tls",
        set: |c, text| {
            text.clone_into(&mut c.notify.mail_tls);
            Ok(())
        },
        check: |c| match c.notify.mail_tls.as_str() {
            "starttls" | "tls" | "none" => Ok(()),
            _ => Err("must be starttls, tls or none".to_owned()),
        },
    },
    Key {
        path: "notify.mail_user",
        set: |c, text| {
            c.notify.mail_user = some(text);
            Ok(())
        },
        check: |_| Ok(()),
    },
    Key {
        path: "notify.mail_password_file",
        set: |c, text| {
            c.notify.mail_password_file = some(text).map(Into::into);
            Ok(())
        },
        check: |c| {
            c.notify
                .mail_password_file
                .as_deref()
                .map_or(Ok(()), absolute)
        },
    },
    Key {
        path: "notify.mail_from",
        set: |c, text| {
            c.notify.mail_from = some(text);
            Ok(())
        },
        check: |c| mail(c.notify.mail_from.as_deref()),
    },
    Key {
        path: "notify.mail_admins",
        set: |c, text| {
            c.notify.mail_admins = some(text);
            Ok(())
        },
        check: |c| mail(c.notify.mail_admins.as_deref()),
    },
    Key {
        path: "notify.webhook_url",
        set: |c, text| {
            c.notify.webhook_url = some(text);
            Ok(())
        },
        check: |c| url(c.notify.webhook_url.as_deref()),
    },
    Key {
        path: "notify.webhook_secret_file",
        set: |c, text| {
            c.notify.webhook_secret_file = some(text).map(Into::into);
            Ok(())
        },
        check: |c| {
            c.notify
                .webhook_secret_file
                .as_deref()
                .map_or(Ok(()), absolute)
        },
    },
    Key {
        path: "notify.slack_url_file",
        set: |c, text| {
            c.notify.slack_url_file = some(text).map(Into::into);
            Ok(())
        },
        check: |c| c.notify.slack_url_file.as_deref().map_or(Ok(()), absolute),
    },
    Key {
        path: "notify.alertmanager_url",
        set: |c, text| {
            c.notify.alertmanager_url = some(text);
            Ok(())
        },
        check: |c| url(c.notify.alertmanager_url.as_deref()),
    },
    Key {
        path: "notify.alertmanager_interval_s",
        set: |c, text| parsed(text, "a number").map(|n| c.notify.alertmanager_interval_s = n),
        check: |c| interval(c.notify.alertmanager_interval_s),
    },
    Key {
        path: "alerts.interval_s",
        set: |c, text| parsed(text, "a number").map(|n| c.alerts.interval_s = n),
        check: |c| interval(c.alerts.interval_s),
    },
    Key {
        path: "alerts.group_wait_s",
        set: |c, text| parsed(text, "a number").map(|n| c.alerts.group_wait_s = n),
        check: |c| interval(c.alerts.group_wait_s),
    },
    Key {
        path: "alerts.group_interval_s",
        set: |c, text| parsed(text, "a number").map(|n| c.alerts.group_interval_s = n),
        check: |c| interval(c.alerts.group_interval_s),
    },
    Key {
        path: "alerts.repeat_user_s",
        set: |c, text| parsed(text, "a number").map(|n| c.alerts.repeat_user_s = n),
        check: |c| interval(c.alerts.repeat_user_s),
    },
    Key {
        path: "alerts.repeat_admin_s",
        set: |c, text| parsed(text, "a number").map(|n| c.alerts.repeat_admin_s = n),
        check: |c| interval(c.alerts.repeat_admin_s),
    },
];

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn words(text: &str) -> Vec<String> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

fn whole<N: FromStr>(text: &str) -> Result<N, String> {
    parsed(text, "a whole number in range")
}

fn unprivileged(port: u16) -> Result<(), String> {
    if port >= 1024 {
        Ok(())
    } else {
        Err("must be 1024 or above: the ports below are the host's".to_owned())
    }
}

fn parsed<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("must be {what}"))
}

fn within<T: Copy + PartialOrd + Display>(value: T, least: T, most: T) -> Result<(), String> {
    if least <= value && value <= most {
        Ok(())
    } else {
        Err(format!("must be from {least} to {most}"))
    }
}

fn interval(seconds: f64) -> Result<(), String> {
    // A NaN is in no range.
    if (INTERVAL_MIN_S..=INTERVAL_MAX_S).contains(&seconds) {
        Ok(())
    } else {
        Err(format!(
            "must be from {INTERVAL_MIN_S} to {INTERVAL_MAX_S} seconds"
        ))
    }
}

fn ttl(seconds: u64) -> Result<(), String> {
    if (1..=TTL_MAX_S).contains(&seconds) {
        Ok(())
    } else {
        Err(format!("must be from 1 to {TTL_MAX_S} seconds"))
    }
}

fn days(days: u64) -> Result<(), String> {
    if (1..=DAYS_MAX).contains(&days) {
        Ok(())
    } else {
        Err(format!("must be from 1 to {DAYS_MAX} days"))
    }
}

fn name(text: &str) -> Result<(), String> {
    text.parse::<Name>()
        .map(drop)
        .map_err(|error| error.to_string())
}

fn absolute(path: &Path) -> Result<(), String> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err("must be an absolute path".to_owned())
    }
}

fn url(text: Option<&str>) -> Result<(), String> {
    text.map_or(Ok(()), |text| text.parse::<Url>().map(drop))
}

fn mail(text: Option<&str>) -> Result<(), String> {
    match text {
        Some(text) if !is_address(text) => Err(NOT_AN_ADDRESS.to_owned()),
        _ => Ok(()),
    }
}

fn address(text: &str) -> Result<(), String> {
    match Address::of(text) {
        Address::Unix(_) => unix(text).map_err(|error| {
            format!("{error}; for other machines it is an address like tcp://0.0.0.0:2376")
        }),
        Address::Tls(address) => listen(address).map_err(|error| format!("{error}, after tcp://")),
    }
}

fn listen(text: &str) -> Result<(), String> {
    let example = "must be an address and a port, like 127.0.0.1:7180";
    // `localhost:7180` is as good as an address: it is looked up when the server starts.
    let named = || {
        let (host, port) = text.rsplit_once(':')?;
        let host_ok = !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        (host_ok && port.parse::<u16>().is_ok()).then_some(())
    };
    if text.parse::<SocketAddr>().is_ok() || named().is_some() {
        Ok(())
    } else {
        Err(example.to_owned())
    }
}

fn unix(address: &str) -> Result<(), String> {
    match address.split_once("://") {
        Some((scheme, _)) if scheme != "unix" => Err(format!(
            "must be a unix socket, like unix:///run/docker.sock; {scheme}:// is not spoken here"
        )),
        _ => socket(super::socket_path(address)),
    }
}

fn socket(path: &Path) -> Result<(), String> {
    absolute(path)?;
    if path.as_os_str().len() > SOCKET_PATH_LEN_MAX {
        return Err(format!(
            "must be a path of at most {SOCKET_PATH_LEN_MAX} bytes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What serde knows, read out of its complaint about a field it does not.
    fn fields_of(section: &str) -> Vec<String> {
        let text = format!("{section}\nno_such_field = 1\n");
        let error = toml::from_str::<Config>(&text).unwrap_err();
        let fields = error.message().split('`').skip(3).step_by(2);
        fields.map(str::to_owned).collect()
    }

    #[test]
    fn every_field_has_a_key_and_every_key_a_field() {
        let mut fields = Vec::new();
        for field in fields_of("") {
            let inner = fields_of(&format!("[{field}]"));
            // A plain field is no section, and serde then complains about something else.
            if toml::from_str::<Config>(&format!("[{field}]\n")).is_ok() {
                fields.extend(inner.iter().map(|inner| format!("{field}.{inner}")));
            } else {
                fields.push(field);
            }
        }
        fields.sort();
        let mut keys: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
        keys.sort_unstable();
        assert_eq!(keys, fields);
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::default();
        for key in KEYS {
            assert_eq!((key.check)(&config), Ok(()), "{}", key.path);
        }
    }

    #[test]
    fn values_read_from_text_and_are_checked() {
        let long = format!("/{}", "s".repeat(107));
        for (key, text, good) in [
            ("data_dir", "/srv/plimsoll", true),
            ("data_dir", "plimsoll", false),
            ("listen", "127.0.0.1:7180", true),
            ("listen", "[::1]:7180", true),
            ("listen", "localhost:7180", true),
            ("listen", "7180", false),
            ("listen", "host:99999", false),
            ("listen", ":7180", false),
            ("api_socket", "unix:///run/a.sock", true),
            ("api_socket", long.as_str(), false),
            ("gateway", "unix:///run/a.sock,/run/b.sock", true),
            ("gateway", "unix:///run/a.sock,tcp://0.0.0.0:2376", true),
            ("gateway", "tcp://127.0.0.1", false),
            ("gateway", "http://127.0.0.1:2375", false),
            ("gateway", "", false),
            ("engine", "unix:///var/run/docker.sock", true),
            ("engine", "tcp://127.0.0.1:2376", true),
            ("engine", "http://localhost", false),
            ("engine", "docker.sock", false),
            ("instance", "plimsoll2", true),
            ("instance", "2", false),
            ("instance", "a-b", false),
            ("host", "node-1.example", true),
            ("host", "Node 1", false),
            ("cgroup_root", "/sys/fs/cgroup", true),
            ("tenants.provision_class", "student", true),
            ("tenants.provision_class", "", true),
            ("tenants.provision_class", "No Class", false),
            ("tenants.provision_groups", "staff, ml", true),
            ("tenants.contact", "root@example.org", true),
            ("tenants.contact", "a\u{1b}[31mb", false),
            ("networks.pool", "10.64.0.0/12", true),
            ("networks.pool", "10.64.0.1/12", false),
            ("networks.prefix", "24", true),
            ("networks.prefix", "30", false),
            ("networks.prefix", "12", false),
            ("networks.per_user_max", "0", true),
            ("ports.first", "1023", false),
            ("ports.last", "65536", false),
            ("ports.last", "19999", false),
            ("ports.per_user", "0", false),
            ("ports.outside", "refuse", true),
            ("ports.outside", "allow", false),
            ("limits.connections_per_user", "1", true),
            ("limits.connections_per_user", "0", false),
            ("limits.requests_per_s", "200", true),
            ("limits.requests_per_s", "0.5", false),
            ("limits.requests_burst", "0", false),
            ("limits.requests_burst", "99999999999", false),
            ("authz.socket", "/run/docker/plugins/plimsoll.sock", true),
            ("authz.socket", "", true),
            ("authz.socket", "plimsoll.sock", false),
            ("authz.allow_anonymous", "true", true),
            ("authz.allow_anonymous", "yes", false),
            ("authz.self_name", "plimsoll", true),
            ("authz.self_name", "", false),
            (
                "registries.allow",
                "docker.io/library, registry.lab:5000",
                true,
            ),
            ("registries.allow", "", true),
            ("registries.allow", "https://registry.lab", false),
            ("engine_timeout_s", "1", true),
            ("engine_timeout_s", "0", false),
            ("engine_timeout_s", "3601", false),
            ("reservations.gateway_ttl_s", "1", true),
            ("reservations.gateway_ttl_s", "0", false),
            ("reservations.api_ttl_s", "-1", false),
            ("reservations.unstarted_s", "1.5", false),
            ("reservations.unstarted_s", "99999999999999999999", false),
            ("metering.interval_s", "0.5", true),
            ("metering.interval_s", "0", false),
            ("metering.interval_s", "-1", false),
            ("metering.interval_s", "nan", false),
            ("metering.interval_s", "inf", false),
            ("metering.interval_s", "1e9", false),
            ("metering.interval_s", "soon", false),
            ("metering.near_interval_s", "1", true),
            ("metering.near_interval_s", "0", false),
            ("metering.near_limit_percent", "100", true),
            ("metering.near_limit_percent", "0", false),
            ("metering.near_limit_percent", "101", false),
            ("metering.storage_interval_s", "600", true),
            ("metering.storage_interval_s", "0", false),
            ("reconcile.interval_s", "60", true),
            ("violations.calm_s", "60", true),
            ("violations.calm_s", "0", false),
            ("ladder.interval_s", "0.5", true),
            ("ladder.interval_s", "0", false),
            ("ladder.stop_timeout_s", "0", true),
            ("ladder.stop_timeout_s", "3601", false),
            ("retention.violations_days", "0", false),
            ("retention.notices_days", "0", false),
            ("retention.decisions_days", "36500", true),
            ("retention.decisions_days", "0", false),
            ("retention.reservations_days", "36501", false),
            ("retention.reservations_days", "1.5", false),
            ("metrics.raw_days", "1", true),
            ("metrics.five_minutes_days", "6", false),
            ("metrics.rollup_days", "60", true),
            ("metrics.rollup_days", "59", false),
            (
                "metrics.remote_write_url",
                "http://127.0.0.1:9090/api/v1/write",
                true,
            ),
            ("metrics.remote_write_url", "", true),
            ("metrics.remote_write_url", "https://metrics.lab", true),
            ("metrics.remote_write_url", "ftp://metrics.lab", false),
            ("metrics.unsent_hours", "720", true),
            ("metrics.unsent_hours", "0", false),
            ("metrics.remote_query_url", "metrics.lab", false),
            ("metrics.remote_token_file", "token", false),
            ("alerts.group_wait_s", "0", false),
            ("alerts.repeat_user_s", "86400", true),
            ("notify.interval_s", "0", false),
            ("notify.retry_max_s", "4", false),
            ("notify.give_up_s", "0", false),
            ("notify.mail_server", "mail.lab:587", true),
            ("notify.mail_server", "", true),
            ("notify.mail_server", "mail.lab", false),
            ("notify.mail_tls", "none", true),
            ("notify.mail_tls", "ssl", false),
            ("notify.mail_from", "plimsoll@lab.example", true),
            ("notify.mail_from", "Plimsoll <plimsoll@lab.example>", false),
            ("notify.mail_admins", "root", false),
            ("notify.webhook_url", "hook.lab", false),
            ("notify.webhook_secret_file", "secret", false),
            ("notify.slack_url_file", "/etc/plimsoll/slack.url", true),
            ("notify.alertmanager_interval_s", "0.01", false),
        ] {
            let key = Key::named(key).unwrap();
            let mut config = Config::default();
            let outcome = (key.set)(&mut config, text).and_then(|()| (key.check)(&config));
            assert_eq!(
                outcome.is_ok(),
                good,
                "{} = {text:?}: {outcome:?}",
                key.path
            );
        }
    }

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        for (unknown, near) in [
            ("lisen", Some("listen")),
            ("metring.interval_s", Some("metering.interval_s")),
            ("metering.intervall_s", Some("metering.interval_s")),
            ("metering.contact", Some("tenants.contact")),
            ("gateway_ttl_s", Some("reservations.gateway_ttl_s")),
            ("colour", None),
        ] {
            assert_eq!(Key::nearest(unknown).map(|key| key.path), near, "{unknown}");
        }
    }
}
