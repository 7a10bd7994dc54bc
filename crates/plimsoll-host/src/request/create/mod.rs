//! Container create: from a stranger's body to a claim and a body of our own.
//!
//! [`CreateRequest::parse`] decodes every field the engine knows. A field that no tenant may use is
//! refused there, unless it holds the engine's own default, which is how the CLI writes "not
//! asked". [`judge`] then applies what depends on the host, the image and the class, and writes the
//! body. The body never holds a field that this module does not name.

mod body;
mod exact;
mod gpu;
mod mounts;
mod network;
mod parse;
mod ports;
mod rules;
mod storage;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use plimsoll_core::dimension::Amounts;
use plimsoll_core::quota::ContainerDefaults;
use serde_json::Value;

use super::limits::{Asked, Requested, RestartName, RestartPolicy, memory_swap};
use super::refusal::Refusal;
use super::shared::{is_below, not_to_enter, safe_to_enter};
use body::{Config, HostConfig};
pub use exact::difference;
pub use gpu::{GpuAsk, GpuRequest};
pub use mounts::{
    HostUse, MountPolicy, VolumeRequest, VolumeSettings, VolumeUse, is_anonymous, stash_index,
};
pub use network::{Attachment, Endpoint, Link, NetworkAsk, NetworkMode};
pub use ports::{PortPairs, PortRange, PortsAsked, PortsGiven};
use storage::LogAsked;

/// Labels that start so are Plimsoll's, in any letter case.
pub const RESERVED_LABELS: &str = "plimsoll.";

/// What the host and the operator allow; the same for every container of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Containers may swap: `MemorySwap` above `Memory` is kept.
    pub swap: bool,
    /// The engine can bound a writable layer (`StorageOpt.size`).
    pub storage_opt: bool,
    /// What the tenant does not name is filled in. Where a quota only watches it is charged all the
    /// same, and the container runs as the engine would have it.
    pub fill_in: bool,
    /// GPUs on this host.
    pub gpus_available: u64,
    /// The runtime the engine uses by itself; naming it is not a request.
    pub default_runtime: String,
    /// The cgroup the container goes under.
    pub cgroup_parent: String,
    /// The reserved labels the container gets: owner, team, project, reservation key.
    pub labels: BTreeMap<String, String>,
    /// What its mounts are called and whose rights they have.
    pub mounts: MountPolicy,
}

impl Policy {
    /// A policy that grants nothing beyond the ordinary, under this cgroup parent.
    #[must_use]
    pub fn new(cgroup_parent: impl Into<String>) -> Self {
        Self {
            swap: false,
            storage_opt: false,
            fill_in: true,
            gpus_available: 0,
            default_runtime: "runc".to_owned(),
            cgroup_parent: cgroup_parent.into(),
            labels: BTreeMap::new(),
            mounts: MountPolicy::default(),
        }
    }
}

/// What the image brings along by itself. The engine merges these into the container, so a rule on
/// the request alone would miss them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageFacts {
    /// The image's id, `sha256:...`; what the engine is told to run.
    pub id: String,
    /// `Config.Labels`.
    pub labels: BTreeMap<String, String>,
    /// `Config.Env`.
    pub env: Vec<String>,
    /// The keys of `Config.ExposedPorts`.
    pub exposed_ports: Vec<String>,
    /// The keys of `Config.Volumes`: each becomes an anonymous volume.
    pub volumes: Vec<String>,
    /// `Config.WorkingDir`.
    pub working_dir: String,
    /// `Config.Healthcheck.Interval`, in nanoseconds.
    pub health_interval_ns: Option<i64>,
}

/// A create request, decoded. Holds nothing a tenant can never have.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateRequest {
    /// The image as the tenant names it, to be resolved by the caller.
    pub image: String,
    /// The team named by the label `plimsoll.team`.
    pub team: Option<String>,
    /// The project named by the label `plimsoll.project`.
    pub project: Option<String>,
    /// The tenant's labels, without reserved ones.
    pub labels: BTreeMap<String, String>,
    /// The network.
    pub network: NetworkAsk,
    /// The resource fields.
    pub asked: Asked,
    reserved: BTreeMap<String, String>,
    config: Config,
    host: HostConfig,
    restart: RestartPolicy,
    auto_remove: bool,
    publish_all: bool,
    runtime: String,
    cgroup_parent: String,
    swappiness: Option<i64>,
    shm: Option<u64>,
    mounts: mounts::Asked,
    storage: Option<u64>,
    log: LogAsked,
    gpus: Option<GpuRequest>,
    ports: PortsAsked,
    warnings: Vec<String>,
}

/// A create request that may go to the engine once its claim is admitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// What the ledger charges.
    pub claim: Amounts,
    /// The same as numbers, with those the ledger does not charge.
    pub requested: Requested,
    /// The body for the engine.
    pub body: Value,
    /// For the `Warnings` of the answer.
    pub warnings: Vec<String>,
    /// The engine removes the container when it exits.
    pub auto_remove: bool,
    /// When the engine starts it by itself.
    pub restart_policy: RestartPolicy,
    /// The tenant's labels, without reserved ones.
    pub labels: BTreeMap<String, String>,
    /// The team named by the label `plimsoll.team`.
    pub team: Option<String>,
    /// The project named by the label `plimsoll.project`.
    pub project: Option<String>,
    /// GPUs to pin with [`Judged::pin_gpus`] before the body is sent.
    pub gpus: Option<GpuRequest>,
    /// The network it wants. The body has none until [`Judged::attach`].
    pub network: NetworkAsk,
    /// The ports it wants to publish. The body has none until [`Judged::publish`].
    pub ports: PortsAsked,
    /// Volumes that must be there before the engine creates the container.
    pub volumes: Vec<VolumeUse>,
    /// Folders of the host that must be mounted for it by then.
    pub host_mounts: Vec<HostUse>,
    /// The container runs with its owner's uid and gid.
    pub as_owner: bool,
}

impl CreateRequest {
    /// Whether it mounts anything of the host.
    #[must_use]
    pub fn mounts_host(&self) -> bool {
        self.mounts.of_host()
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] for what is malformed, unknown or out of range, and
    /// [`Refusal::Policy`] for what no tenant may ask.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        parse::parse(body)
    }
}

/// Decides on a request and writes the body for the engine. `defaults` are concrete: its `cpu` and
/// `memory` already narrowed by [`ContainerDefaults::cpu_under`] and `memory_under`.
///
/// # Errors
/// [`Refusal`] for what this host, image or class does not allow.
pub fn judge(
    request: &CreateRequest,
    policy: &Policy,
    image: &ImageFacts,
    defaults: &ContainerDefaults,
) -> Result<Judged, Refusal> {
    let mut warnings = request.warnings.clone();
    let mut config = request.config.clone();
    let mut host = request.host.clone();

    if !request.runtime.is_empty() && request.runtime != policy.default_runtime {
        return Err(Refusal::policy(
            "HostConfig.Runtime",
            format!("--runtime {}", super::json::short(&request.runtime)),
            "the runtime is part of the isolation between tenants",
            "leave the option out",
        ));
    }
    if !request.cgroup_parent.is_empty() && request.cgroup_parent != policy.cgroup_parent {
        return Err(Refusal::policy(
            "HostConfig.CgroupParent",
            "--cgroup-parent",
            "containers run in their owner's cgroup, where the quota holds",
            "leave the option out",
        ));
    }
    let mut ports = request.ports.clone();
    if request.publish_all {
        ports.publish_all(config.exposed_ports.keys().cloned(), image)?;
    }

    let mut requested = numbers(request, policy, defaults, &mut warnings)?;
    let temp = storage::temp(request, policy, defaults)?;
    requested.temp_storage = temp.total;
    let layer = storage::layer(request.storage, policy, defaults)?;
    let log = request.log.complete(defaults);
    requested.storage = storage::sum(&[layer.charged, log.above_default(defaults)])?;
    requested.gpus = gpu::count(request.gpus.as_ref(), policy)?;

    let (env, env_warning) = gpu::env(config.env.take(), &image.env, requested.gpus > 0);
    config.env = env;
    warnings.extend(env_warning);
    rules::slow_health_checks(&mut config, image);
    let mounted = mounts::mounted(request, &policy.mounts, image)?;
    let as_owner = mounted.as_owner(&policy.mounts);
    if as_owner {
        run_as_owner(&mut config, &mut host, &policy.mounts, &mut warnings)?;
        if policy.mounts.beyond_home {
            check_working_dir(&config.working_dir, &mounted.targets, image)?;
        }
    }
    host.mounts.clone_from(&mounted.body);
    config.image.clone_from(&image.id);
    config.labels = labels(request, policy, image, &mut warnings);

    "none".clone_into(&mut host.network_mode);
    host.cgroup_parent.clone_from(&policy.cgroup_parent);
    host.cgroupns_mode = "private";
    host.restart_policy = request.restart;
    host.auto_remove = request.auto_remove;
    host.log_config = if policy.fill_in {
        log.body()
    } else {
        request.log.body()
    };
    host.shm_size = temp.shm;
    host.tmpfs = temp.tmpfs;
    host.storage_opt = layer.option;
    // Zero is "no limit" to the engine.
    let given = |asked: bool, amount: u64| {
        if asked || policy.fill_in { amount } else { 0 }
    };
    let asked = request.asked;
    host.nano_cpus = given(asked.cpu.is_some(), requested.cpu.nano());
    host.memory = given(asked.memory.is_some(), requested.memory.0);
    host.memory_swap = given(asked.memory.is_some(), requested.memory_swap.0);
    host.memory_reservation = requested.memory_reservation.0;
    host.cpu_shares = requested.cpu_shares;
    host.pids_limit = given(asked.pids.is_some(), requested.pids);
    host.device_requests = request
        .gpus
        .iter()
        .map(|gpus| gpus.body(requested.gpus))
        .collect();
    host.memory_swappiness = request.swappiness.filter(|_| policy.swap);
    if request.swappiness.is_some() && !policy.swap {
        warnings.push(
            "plimsoll: --memory-swappiness was left out: containers do not swap here".to_owned(),
        );
    }
    config.host_config = host;

    Ok(Judged {
        claim: requested.claim(),
        requested,
        body: config.into_value(),
        warnings,
        auto_remove: request.auto_remove,
        restart_policy: request.restart,
        labels: request.labels.clone(),
        team: request.team.clone(),
        project: request.project.clone(),
        gpus: request.gpus.clone(),
        network: request.network.clone(),
        ports,
        volumes: mounted.volumes,
        host_mounts: mounted.host,
        as_owner,
    })
}

/// Who writes to the host does it with the owner's rights alone: with their uid and gid, and without a
/// way to others.
fn run_as_owner(
    config: &mut Config,
    host: &mut HostConfig,
    mounts: &MountPolicy,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let Some((uid, gid)) = mounts.writes_as else {
        return Ok(());
    };
    let owner = format!("{uid}:{gid}");
    if config.user.is_empty() {
        warnings.push(format!(
            "plimsoll: runs as {owner}, your uid and gid, because it can write to the host; mount \
             folders of your home read-only (:ro) to run as the image does"
        ));
    } else if config.user != owner && config.user != uid.to_string() {
        return Err(Refusal::policy(
            "User",
            format!(
                "--user {} with a writable folder of the host",
                super::json::short(&config.user)
            ),
            "its files would be written with rights that are not yours",
            format!("use --user {owner}, or mount the folder read-only (:ro)"),
        ));
    }
    if !host.group_add.is_empty() {
        return Err(Refusal::policy(
            "HostConfig.GroupAdd",
            "--group-add with a writable folder of the host",
            "its files would be written with rights that are not yours",
            "leave the option out, or mount the folder read-only (:ro)",
        ));
    }
    config.user = owner;
    host.security_opt = vec!["no-new-privileges"];
    Ok(())
}

/// Root enters the working directory, before the container becomes its owner's.
fn check_working_dir(asked: &str, targets: &[String], image: &ImageFacts) -> Result<(), Refusal> {
    let dir = if asked.is_empty() {
        &image.working_dir
    } else {
        asked
    };
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    // The image's own is the administrator's choice, unless something is mounted around it.
    let of_image = *dir == image.working_dir
        && !dir.split('/').any(|segment| segment == "..")
        && !targets.iter().any(|top| is_below(dir, top));
    if of_image || safe_to_enter(dir, &targets) {
        return Ok(());
    }
    Err(not_to_enter("WorkingDir".to_owned(), dir))
}

impl Judged {
    /// Whether the engine may start the container by itself after an exit.
    #[must_use]
    pub fn restarts(&self) -> bool {
        self.restart_policy.name != RestartName::No
    }

    /// Writes the network it is given into the body.
    pub fn attach(&mut self, attachment: &Attachment) {
        let (mode, networking) = attachment.body();
        self.body["HostConfig"]["NetworkMode"] = mode.into();
        self.body["NetworkingConfig"] = networking;
    }

    /// Writes the ports it is given into the body.
    pub fn publish(&mut self, given: &PortsGiven) {
        let bindings = serde_json::to_value(&given.bindings);
        self.body["HostConfig"]["PortBindings"] = bindings.expect("plain texts serialise");
        self.warnings.extend(given.warnings.iter().cloned());
    }

    /// Writes the devices chosen for this container into the body, in place of a count.
    pub fn pin_gpus(&mut self, ids: &[String]) {
        if let Some(gpus) = &self.gpus {
            self.body["HostConfig"]["DeviceRequests"] = Value::Array(vec![gpus.pinned(ids)]);
        }
    }
}

fn numbers(
    request: &CreateRequest,
    policy: &Policy,
    defaults: &ContainerDefaults,
    warnings: &mut Vec<String>,
) -> Result<Requested, Refusal> {
    let asked = request.asked;
    let how = if policy.fill_in {
        "running with"
    } else {
        "running without one, charged as"
    };
    let cpu = asked.cpu.unwrap_or_else(|| {
        warnings.push(format!(
            "plimsoll: no CPU limit given, {how} {} cores; choose with --cpus",
            defaults.cpu
        ));
        defaults.cpu
    });
    if asked.memory.is_none() && asked.memory_swap.is_some() {
        return Err(Refusal::bad(
            "HostConfig.MemorySwap",
            "needs a memory limit: set --memory too",
        ));
    }
    let memory = asked.memory.unwrap_or_else(|| {
        warnings.push(format!(
            "plimsoll: no memory limit given, {how} {}; choose with --memory",
            defaults.memory
        ));
        defaults.memory
    });
    let memory_swap = memory_swap(asked.memory_swap, memory, policy.swap, warnings)?;
    let reservation = asked.memory_reservation.unwrap_or_default();
    if reservation > memory && (asked.memory.is_some() || policy.fill_in) {
        return Err(Refusal::bad(
            "HostConfig.MemoryReservation",
            format!("must not be above the memory limit of {memory}"),
        ));
    }
    let pids = asked.pids.unwrap_or_else(|| {
        warnings.push(format!(
            "plimsoll: no process limit given, {how} {}; choose with --pids-limit",
            defaults.pids
        ));
        defaults.pids
    });
    Ok(Requested {
        cpu,
        memory,
        memory_swap,
        memory_reservation: reservation,
        cpu_shares: asked.cpu_shares.unwrap_or(0),
        pids,
        ..Requested::default()
    })
}

/// The tenant's labels, then ours over them. An image's reserved labels are blanked, because the
/// engine would merge them in and they could claim to be ours.
fn labels(
    request: &CreateRequest,
    policy: &Policy,
    image: &ImageFacts,
    warnings: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let read = |key: &str| matches!(key, "plimsoll.team" | "plimsoll.project");
    for (key, value) in &request.reserved {
        if !read(key) && !value.is_empty() && policy.labels.get(key) != Some(value) {
            warnings.push(format!(
                "plimsoll: label {} was left out: labels under {RESERVED_LABELS} are reserved",
                super::json::short(key)
            ));
        }
    }
    let mut labels = request.labels.clone();
    for key in image.labels.keys().filter(|key| is_reserved(key)) {
        labels.insert(key.clone(), String::new());
    }
    labels.extend(policy.labels.clone());
    labels
}

fn is_reserved(label: &str) -> bool {
    super::json::fold(label).starts_with(RESERVED_LABELS)
}
