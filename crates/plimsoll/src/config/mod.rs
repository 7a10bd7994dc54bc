//! Configuration: defaults < file < environment < flags.
//!
//! One struct a concern; the unit is in the key's name; an unknown key is an error that names the
//! nearest known one. [`keys`] lists every key with how it is written and what it may be, [`load`]
//! lays the four sources over each other. A new field is also a new line in [`keys::KEYS`], which a
//! test holds against the structs here, `deploy/plimsoll.toml` and `docs/configuration.md`.

pub mod keys;
pub mod load;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use load::{ConfigError, DEFAULT_FILE, Sources, Warning};

use plimsoll_host::request::create::PortRange;
use serde::Deserialize;

use crate::http_client::{Client, SHOWN_MAX};
use crate::notify::text::Texts;

/// Everything a server can be told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the ledger, the metrics and the first token are.
    pub data_dir: PathBuf,
    /// Address of the HTTP API.
    pub listen: String,
    /// Unix socket of the HTTP API; callers are known by their uid, root is administrator.
    pub api_socket: PathBuf,
    /// Where tenants find Docker: unix sockets, and `tcp://` addresses for TLS.
    pub gateway: Vec<String>,
    /// The container engine.
    pub engine: String,
    /// Seconds the engine may take over a question; four times as long over a create or a start.
    pub engine_timeout_s: u64,
    /// Seconds of silence after which whoever follows events is sent a sign of life.
    pub heartbeat_s: f64,
    /// Scopes labels and cgroups; lower-case letters and digits.
    pub instance: String,
    /// Name of this host in the ledger.
    pub host: String,
    /// Where cgroups are mounted.
    pub cgroup_root: PathBuf,
    /// The gateway.
    pub tenants: Tenants,
    /// Folders of the host in containers.
    pub mounts: Mounts,
    /// Networks of tenants.
    pub networks: Networks,
    /// Host ports of tenants.
    pub ports: Ports,
    /// What one caller may hold of this server.
    pub limits: Limits,
    /// The engine's authorization plugin.
    pub authz: Authz,
    /// Registries.
    pub registries: Registries,
    /// Reservations.
    pub reservations: Reservations,
    /// Metering.
    pub metering: Metering,
    /// Reconciliation.
    pub reconcile: Reconcile,
    /// Violations.
    pub violations: Violations,
    /// What is done about violations.
    pub ladder: Ladder,
    /// Retention.
    pub retention: Retention,
    /// The history of what was measured.
    pub metrics: Metrics,
    /// How people are told.
    pub notify: Notify,
    /// When they are told of what is watched.
    pub alerts: Alerts,
}

/// Who may use the gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenants {
    /// Uids without a user get one, named after the OS user, with this class.
    pub provision_class: Option<String>,
    /// Only members of these OS groups are provisioned; empty means every account of a person.
    pub provision_groups: Vec<String>,
    /// Whom a refused person should turn to, in words.
    pub contact: Option<String>,
}

/// What of the host tenants may mount.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mounts {
    /// Folders under which they may: `~` is their home, `{user}` their login name.
    pub roots: Vec<String>,
    /// Where Plimsoll mounts them for the engine.
    pub stash: PathBuf,
}

impl Default for Mounts {
    fn default() -> Self {
        Self {
            roots: vec!["~".to_owned()],
            stash: "/run/plimsoll-mounts".into(),
        }
    }
}

/// What one caller may hold of this server, on all listeners together.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections.
    pub connections_per_user: usize,
    /// Requests a second, over time.
    pub requests_per_s: u32,
    /// Requests at once, after a rest.
    pub requests_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_user: 256,
            requests_per_s: 200,
            requests_burst: 1000,
        }
    }
}

/// The engine's authorization plugin: a second lock, for those who reach the engine past the gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Authz {
    /// Where the engine looks for it; none unless given.
    pub socket: Option<PathBuf>,
    /// Requests of nobody pass, which is what everything on the engine's unix socket is.
    pub allow_anonymous: bool,
    /// The common name of the certificate with which Plimsoll itself speaks to the engine.
    pub self_name: String,
}

impl Default for Authz {
    fn default() -> Self {
        Self {
            socket: None,
            allow_anonymous: false,
            self_name: crate::ca::SELF_NAME.into(),
        }
    }
}

/// Where tenants may pull from and push to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registries {
    /// Hosts, or hosts and the beginning of a path; empty means none.
    pub allow: Vec<String>,
}

/// How reservations expire.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reservations {
    /// Seconds until a reservation of the gateway that was not committed may be voided.
    pub gateway_ttl_s: u64,
    /// Seconds until a reservation of the API that was not committed is void, unless it says.
    pub api_ttl_s: u64,
    /// Seconds after which a container that was created but never started frees what running takes.
    pub unstarted_s: u64,
}

impl Default for Reservations {
    fn default() -> Self {
        Self {
            gateway_ttl_s: 60,
            api_ttl_s: 300,
            unstarted_s: 600,
        }
    }
}

/// How use is measured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metering {
    /// Seconds between two readings of every container.
    pub interval_s: f64,
    /// The same while somebody is near a limit.
    pub near_interval_s: f64,
    /// Share of a CPU or memory limit from which on its user or team is near it, percent.
    pub near_limit_percent: u64,
    /// Seconds between two walks through what is held on disk.
    pub storage_interval_s: f64,
}

impl Default for Metering {
    fn default() -> Self {
        Self {
            interval_s: 10.0,
            near_interval_s: 2.0,
            near_limit_percent: 80,
            storage_interval_s: 300.0,
        }
    }
}

/// How often the ledger is held against the engine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reconcile {
    /// Seconds between two full comparisons; events start one at once.
    pub interval_s: f64,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { interval_s: 60.0 }
    }
}

/// How violations open and close.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Violations {
    /// Seconds that measured use must stay within its limit before its violation closes.
    pub calm_s: f64,
}

impl Default for Violations {
    fn default() -> Self {
        Self { calm_s: 60.0 }
    }
}

/// How exceeded limits are acted upon.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ladder {
    /// Seconds between looks.
    pub interval_s: f64,
    /// Seconds a container has at most from its stop signal until it is killed.
    pub stop_timeout_s: u64,
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            interval_s: 1.0,
            stop_timeout_s: 30,
        }
    }
}

/// How long the ledger keeps what it no longer needs. The audit log stays for good.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days a decision is kept; longer while a reservation rests on it.
    pub decisions_days: u64,
    /// Days a reservation is kept after it has ended, and its idempotency key with it.
    pub reservations_days: u64,
    /// Days a violation is kept after it has closed.
    pub violations_days: u64,
    /// Days somebody can read what they were told.
    pub notices_days: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            decisions_days: 90,
            reservations_days: 400,
            violations_days: 400,
            notices_days: 90,
        }
    }
}

/// How the history of what was measured is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Days every reading is kept.
    pub raw_days: u64,
    /// Days sums of five minutes are kept.
    pub five_minutes_days: u64,
    /// Days sums of hours and days are kept.
    pub rollup_days: u64,
    /// Every reading is sent here, too, by Prometheus remote write.
    pub remote_write_url: Option<String>,
    /// Hours that what was not sent waits.
    pub unsent_hours: u64,
    /// Histories are read here, by PromQL.
    pub remote_query_url: Option<String>,
    /// A file with the bearer token for both.
    pub remote_token_file: Option<PathBuf>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            raw_days: 7,
            five_minutes_days: 60,
            rollup_days: 400,
            remote_write_url: None,
            unsent_hours: 24,
            remote_query_url: None,
            remote_token_file: None,
        }
    }
}

/// How what people are told gets to them. Without an address a channel is off.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Notify {
    /// Seconds between two looks at what is to be sent.
    pub interval_s: f64,
    /// Seconds to the second try; twice as long after each.
    pub retry_s: f64,
    /// The longest that becomes, seconds.
    pub retry_max_s: f64,
    /// Seconds after which a message that was never taken is given up.
    pub give_up_s: u64,
    /// Seconds the other side may take over one message.
    pub timeout_s: f64,
    /// Where the dashboard is; links begin with it.
    pub server_url: Option<String>,
    /// Certificates of authorities that count beside the system's.
    pub ca_file: Option<PathBuf>,
    /// `HOST:PORT` of the mail server.
    pub mail_server: Option<String>,
    /// `starttls`, `tls` from the first byte on, or `none`.
    pub mail_tls: String,
    /// Who logs in there.
    pub mail_user: Option<String>,
    /// A file with their password.
    pub mail_password_file: Option<PathBuf>,
    /// The sender.
    pub mail_from: Option<String>,
    /// The address that administrators share.
    pub mail_admins: Option<String>,
    /// Everything that anybody is told is posted here.
    pub webhook_url: Option<String>,
    /// A file with the secret that signs it: `whsec_` and Base64.
    pub webhook_secret_file: Option<PathBuf>,
    /// A file with the address of a chat's webhook.
    pub slack_url_file: Option<PathBuf>,
    /// What comes before `/api/v2` at Alertmanager.
    pub alertmanager_url: Option<String>,
    /// Seconds between two postings of what fires.
    pub alertmanager_interval_s: f64,
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            interval_s: 2.0,
            retry_s: 5.0,
            retry_max_s: 3600.0,
            give_up_s: 259_200,
            timeout_s: 15.0,
            server_url: None,
            ca_file: None,
            mail_server: None,
            mail_tls: "starttls".into(),
            mail_user: None,
            mail_password_file: None,
            mail_from: None,
            mail_admins: None,
            webhook_url: None,
            webhook_secret_file: None,
            slack_url_file: None,
            alertmanager_url: None,
            alertmanager_interval_s: 60.0,
        }
    }
}

impl Notify {
    /// How long the other side may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_s)
    }

    /// What asks other programs.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.timeout(), self.ca_file.clone(), SHOWN_MAX)
    }

    /// How messages are written.
    #[must_use]
    pub fn texts(&self) -> Texts {
        Texts {
            server_url: self.server_url.clone(),
        }
    }
}

/// How often alerts are looked at and people told of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// Seconds between two looks.
    pub interval_s: f64,
    /// Seconds the first news of somebody waits for more.
    pub group_wait_s: f64,
    /// Seconds until they are told of further news.
    pub group_interval_s: f64,
    /// Seconds after which what still fires is told again.
    pub repeat_user_s: f64,
    /// The same for what administrators alone are told.
    pub repeat_admin_s: f64,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            interval_s: 15.0,
            group_wait_s: 30.0,
            group_interval_s: 300.0,
            repeat_user_s: 86_400.0,
            repeat_admin_s: 14_400.0,
        }
    }
}

/// The networks tenants make.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Networks {
    /// Their subnets are cut from this one.
    pub pool: String,
    /// The size of each: how many leading bits its addresses share.
    pub prefix: u8,
    /// The most one user may have beside their default one.
    pub per_user_max: u64,
}

impl Default for Networks {
    fn default() -> Self {
        Self {
            pool: "10.201.0.0/16".into(),
            prefix: 26,
            per_user_max: 8,
        }
    }
}

/// The host ports tenants publish on: a span of its own for each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    /// The first port of the first user.
    pub first: u16,
    /// The last port of all; the kernel gives out those from 32768 on by itself.
    pub last: u16,
    /// How many each user has.
    pub per_user: u16,
    /// What becomes of a port outside its user's span: `remap` or `refuse`.
    pub outside: String,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            first: 20_000,
            last: 32_767,
            per_user: 50,
            outside: "remap".into(),
        }
    }
}

impl Ports {
    /// The span of the user in this slot; `None` when the ports end before it.
    #[must_use]
    pub fn of_slot(&self, slot: u32) -> Option<PortRange> {
        let each = u32::from(self.per_user);
        let first = u32::from(self.first).checked_add(slot.checked_mul(each)?)?;
        let last = first.checked_add(each.checked_sub(1)?)?;
        let range = PortRange {
            first: u16::try_from(first).ok()?,
            last: u16::try_from(last).ok()?,
        };
        (range.last <= self.last).then_some(range)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/plimsoll".into(),
            listen: "127.0.0.1:7180".into(),
            api_socket: "/run/plimsoll/api.sock".into(),
            gateway: vec!["unix:///run/plimsoll/docker.sock".into()],
            engine: "unix:///var/run/docker.sock".into(),
            engine_timeout_s: 30,
            heartbeat_s: 15.0,
            instance: "plimsoll".into(),
            host: "local".into(),
            cgroup_root: "/sys/fs/cgroup".into(),
            tenants: Tenants::default(),
            mounts: Mounts::default(),
            networks: Networks::default(),
            ports: Ports::default(),
            limits: Limits::default(),
            authz: Authz::default(),
            registries: Registries::default(),
            reservations: Reservations::default(),
            metering: Metering::default(),
            reconcile: Reconcile::default(),
            violations: Violations::default(),
            ladder: Ladder::default(),
            retention: Retention::default(),
            metrics: Metrics::default(),
            notify: Notify::default(),
            alerts: Alerts::default(),
        }
    }
}

impl Config {
    /// Path of the first administrator's token.
    #[must_use]
    pub fn admin_token_path(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }
}

/// Where a listener of the gateway, or the engine, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address<'a> {
    /// A socket; the gateway knows callers by their uid.
    Unix(&'a Path),
    /// `HOST:PORT`; callers, and Plimsoll at the engine, are known by their certificate.
    Tls(&'a str),
}

impl<'a> Address<'a> {
    /// Takes an address apart. Whether it makes sense, its key's check says.
    #[must_use]
    pub fn of(address: &'a str) -> Self {
        match address.strip_prefix("tcp://") {
            Some(address) => Self::Tls(address),
            None => Self::Unix(socket_path(address)),
        }
    }
}

impl Config {
    /// The unix sockets of the gateway.
    pub fn gateway_sockets(&self) -> impl Iterator<Item = &Path> {
        let all = self.gateway.iter().map(|address| Address::of(address));
        all.filter_map(|address| match address {
            Address::Unix(path) => Some(path),
            Address::Tls(_) => None,
        })
    }
}

/// The path of a `unix://` address, or of a plain path.
#[must_use]
pub fn socket_path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}
