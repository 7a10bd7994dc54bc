//! Configuration: defaults < file < environment < flags.
//!
//! One struct a concern; the unit is in the key's name; an unknown key is an error that names the
//! nearest known one. [`keys`] lists every key with how it is written and what it may be, [`load`]
//! lays the four sources over each other. A new field is also a new line in [`keys::KEYS`], which a
//! test holds against the structs here, `deploy/plimsoll.toml` and `docs/configuration.md`.

pub mod keys;
pub mod load;

use std::path::{Path, PathBuf};

pub use load::{ConfigError, DEFAULT_FILE, Sources, Warning};

use serde::Deserialize;

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
    /// Unix sockets of the Docker API gateway.
    pub gateway: Vec<String>,
    /// The container engine.
    pub engine: String,
    /// Scopes labels and cgroups; lower-case letters and digits.
    pub instance: String,
    /// Name of this host in the ledger.
    pub host: String,
    /// Where cgroups are mounted.
    pub cgroup_root: PathBuf,
    /// The gateway.
    pub tenants: Tenants,
    /// Registries.
    pub registries: Registries,
    /// Reservations.
    pub reservations: Reservations,
    /// Metering.
    pub metering: Metering,
    /// Reconciliation.
    pub reconcile: Reconcile,
}

/// Who may use the gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenants {
    /// Uids without a user get one, named after the OS user, with this class.
    pub provision_class: Option<String>,
    /// Only members of these OS groups are provisioned; empty means every uid from 1000 on.
    pub provision_groups: Vec<String>,
    /// Whom a refused person should turn to, in words.
    pub contact: Option<String>,
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
}

impl Default for Metering {
    fn default() -> Self {
        Self { interval_s: 10.0 }
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

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/plimsoll".into(),
            listen: "127.0.0.1:7180".into(),
            api_socket: "/run/plimsoll/api.sock".into(),
            gateway: vec!["unix:///run/plimsoll/docker.sock".into()],
            engine: "unix:///var/run/docker.sock".into(),
            instance: "plimsoll".into(),
            host: "local".into(),
            cgroup_root: "/sys/fs/cgroup".into(),
            tenants: Tenants::default(),
            registries: Registries::default(),
            reservations: Reservations::default(),
            metering: Metering::default(),
            reconcile: Reconcile::default(),
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

/// The path of a `unix://` address, or of a plain path.
#[must_use]
pub fn socket_path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}
