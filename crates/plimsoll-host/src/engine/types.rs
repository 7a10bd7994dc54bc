//! The engine's JSON, as far as Plimsoll reads it.
//!
//! Go writes `null` for empty maps and lists, and leaves out fields that older or newer versions
//! lack: every field that is not the thing's identity has a default.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::ContainerId;

/// `null` as the type's default.
pub(super) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Go's zero time, `0001-01-01T00:00:00Z`, means never.
fn go_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<jiff::Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    if text.is_empty() || text.starts_with("0001-01-01T") {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// A container, from `GET /containers/{id}/json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerInspect {
    /// Full id.
    pub id: ContainerId,
    /// Name with the engine's leading `/`; see [`ContainerInspect::name`].
    pub name: String,
    /// When it was created.
    #[serde(default, deserialize_with = "go_time")]
    pub created: Option<jiff::Timestamp>,
    /// Id of its image (`sha256:...`).
    #[serde(default)]
    pub image: String,
    /// What it is doing.
    pub state: ContainerState,
    /// How often its restart policy has restarted it since somebody last started it.
    #[serde(default)]
    pub restart_count: u32,
    /// Its log file on the host; empty when its log driver keeps none.
    #[serde(default)]
    pub log_path: String,
    /// Where its writable layer is.
    #[serde(default, deserialize_with = "null_default")]
    pub graph_driver: GraphDriver,
    /// Limits and placement.
    #[serde(default, deserialize_with = "null_default")]
    pub host_config: HostConfig,
    /// What it runs.
    #[serde(default, deserialize_with = "null_default")]
    pub config: ContainerConfig,
    /// Volumes and bind mounts.
    #[serde(default, deserialize_with = "null_default")]
    pub mounts: Vec<Mount>,
    /// Its place in networks.
    #[serde(default, deserialize_with = "null_default")]
    pub network_settings: NetworkSettings,
}

impl ContainerInspect {
    /// The name without the engine's leading `/`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.trim_start_matches('/')
    }

    /// Whether it holds CPU, memory and the rest of what running takes: it runs, is paused or waits
    /// for its restart, or the engine would start it by itself.
    #[must_use]
    pub fn holds_runtime(&self) -> bool {
        self.state.occupies() || self.engine_may_start_it()
    }

    /// Whether the engine would start it without being asked (when it comes up, or after its
    /// restart delay), by the engine's own rule:
    ///
    /// - one that was never started is never started, whatever its policy;
    /// - `always`: yes, even after somebody stopped it;
    /// - `on-failure`: when it ended in failure and has retries left (0 retries: no limit), even
    ///   after somebody stopped it;
    /// - `unless-stopped`: no, because inspect cannot tell how it stopped and only a stop, or a
    ///   start that failed, leaves it exited.
    #[must_use]
    pub fn engine_may_start_it(&self) -> bool {
        if self.state.dead || self.state.started_at.is_none() {
            return false;
        }
        let policy = &self.host_config.restart_policy;
        match policy.name.as_str() {
            "always" => true,
            "on-failure" => {
                let retries_left = policy.maximum_retry_count == 0
                    || self.restart_count < policy.maximum_retry_count;
                retries_left && self.state.exit_code != 0
            }
            _ => false,
        }
    }
}

/// What a container is doing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    /// Has processes (also while paused or restarting).
    pub running: bool,
    /// Its processes are frozen.
    pub paused: bool,
    /// Waits for its restart policy's delay.
    pub restarting: bool,
    /// Its own memory limit killed a process. On cgroup v1 stays false when the parent's limit did.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Could not be removed entirely.
    pub dead: bool,
    /// Its first process on the host, 0 when none.
    pub pid: u32,
    /// Exit code of its last run.
    pub exit_code: i64,
    /// The engine's words when its last start failed.
    pub error: String,
    /// When it last started.
    #[serde(deserialize_with = "go_time")]
    pub started_at: Option<jiff::Timestamp>,
    /// When it last ended.
    #[serde(deserialize_with = "go_time")]
    pub finished_at: Option<jiff::Timestamp>,
}

impl ContainerState {
    /// Whether it runs, is paused or waits for its restart.
    #[must_use]
    pub fn occupies(&self) -> bool {
        self.running || self.paused || self.restarting
    }
}

/// A container's limits and placement. 0 means unset, as the engine writes it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// CPU limit in billionths of a core.
    pub nano_cpus: i64,
    /// CPU limit the older way: microseconds per `cpu_period`.
    pub cpu_quota: i64,
    /// Microseconds; 0 means the kernel's 100 000.
    pub cpu_period: i64,
    /// Relative weight.
    pub cpu_shares: i64,
    /// Memory limit in bytes.
    pub memory: i64,
    /// Memory and swap together in bytes; -1 means unlimited swap.
    pub memory_swap: i64,
    /// Soft memory limit in bytes.
    pub memory_reservation: i64,
    /// Most processes; `None`, 0 and -1 mean unlimited.
    pub pids_limit: Option<i64>,
    /// Parent cgroup; empty means the engine's default.
    pub cgroup_parent: String,
    /// What the engine does when it exits.
    #[serde(deserialize_with = "null_default")]
    pub restart_policy: RestartPolicy,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: i64,
    /// Tmpfs mounts: path to options.
    #[serde(deserialize_with = "null_default")]
    pub tmpfs: BTreeMap<String, String>,
    /// GPUs and the like.
    #[serde(deserialize_with = "null_default")]
    pub device_requests: Vec<DeviceRequest>,
    /// `bridge`, `host`, `none`, `container:<id>` or a network's name.
    pub network_mode: String,
    /// The engine removes it when it exits.
    pub auto_remove: bool,
    /// Options of the storage driver, such as `size`.
    #[serde(deserialize_with = "null_default")]
    pub storage_opt: BTreeMap<String, String>,
}

/// What the engine does when a container exits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `no`, `always`, `unless-stopped`, `on-failure`, or empty, which is `no`.
    pub name: String,
    /// Retries of `on-failure`; 0 means no limit.
    pub maximum_retry_count: u32,
}

/// A request for devices, such as GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceRequest {
    /// `nvidia` or another driver; empty lets the engine choose by capability.
    pub driver: String,
    /// How many; -1 means all; 0 where `device_ids` names them.
    pub count: i64,
    /// Which.
    #[serde(rename = "DeviceIDs", deserialize_with = "null_default")]
    pub device_ids: Vec<String>,
    /// Alternatives of capabilities that must all be there, such as `[["gpu"]]`.
    #[serde(deserialize_with = "null_default")]
    pub capabilities: Vec<Vec<String>>,
    /// Options of the driver.
    #[serde(deserialize_with = "null_default")]
    pub options: BTreeMap<String, String>,
}

/// What a container runs, as far as it matters here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// The image as it was named at create.
    pub image: String,
    /// Labels, the image's included. Images and commits can forge them.
    #[serde(deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// The user it runs as; empty means root or the image's.
    pub user: String,
    /// Has a terminal, so its streams are raw.
    pub tty: bool,
    /// Seconds from its stop signal until it is killed; negative where it never is.
    pub stop_timeout: Option<i64>,
}

/// Where a container's or image's layers are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GraphDriver {
    /// `overlay2`, `btrfs`, ...
    pub name: String,
    /// Paths by role; for overlay2 `UpperDir`, `WorkDir`, `MergedDir`, `LowerDir`.
    #[serde(deserialize_with = "null_default")]
    pub data: BTreeMap<String, String>,
}

/// One volume or bind mount of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// `volume`, `bind`, `tmpfs`, ...
    pub r#type: String,
    /// The volume's name; empty for others.
    pub name: String,
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// May be written.
    #[serde(rename = "RW")]
    pub rw: bool,
}

/// A container's place in networks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// Path of its network namespace on the host; empty when it has none.
    pub sandbox_key: String,
    /// Networks by name.
    #[serde(deserialize_with = "null_default")]
    pub networks: BTreeMap<String, NetworkEndpoint>,
}

/// A container's place in one network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkEndpoint {
    /// Full id of the network.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// IPv4 address; empty when it does not run.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// IPv6 address; empty when it has none.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// MAC address; empty when it does not run.
    pub mac_address: String,
}

/// A volume.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeSummary {
    /// Its name: the engine has no other id for it.
    pub name: String,
    /// Where it is on the host.
    #[serde(default)]
    pub mountpoint: String,
    /// Labels.
    #[serde(default, deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VolumeList {
    pub(super) volumes: Option<Vec<VolumeSummary>>,
}

/// What a volume takes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeUsage {
    /// The volume's name.
    pub name: String,
    /// Bytes and users.
    #[serde(deserialize_with = "null_default")]
    pub usage_data: UsageData,
}

/// See [`VolumeUsage`].
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UsageData {
    /// Bytes; -1 when the engine does not know.
    pub size: i64,
    /// Containers that have it.
    pub ref_count: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DiskUsage {
    #[serde(default, deserialize_with = "null_default")]
    pub(super) volumes: Vec<VolumeUsage>,
}

/// A container in a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerSummary {
    /// Full id.
    pub id: ContainerId,
    /// Names, each with the engine's leading `/`.
    #[serde(default, deserialize_with = "null_default")]
    pub names: Vec<String>,
    /// The image as it was named at create.
    #[serde(default)]
    pub image: String,
    /// Id of its image.
    #[serde(default, rename = "ImageID")]
    pub image_id: String,
    /// When it was created, in seconds since 1970.
    #[serde(default)]
    pub created: i64,
    /// Labels, the image's included.
    #[serde(default, deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// As [`ContainerState::status`].
    #[serde(default)]
    pub state: String,
    /// The same for people, such as `Up 3 hours`.
    #[serde(default)]
    pub status: String,
}

/// An image, from `GET /images/{name}/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageInspect {
    /// Its id (`sha256:...`).
    pub id: String,
    /// Names it goes by.
    #[serde(default, deserialize_with = "null_default")]
    pub repo_tags: Vec<String>,
    /// Names with digests.
    #[serde(default, deserialize_with = "null_default")]
    pub repo_digests: Vec<String>,
    /// Bytes of all its layers.
    #[serde(default)]
    pub size: u64,
    /// What its containers inherit.
    #[serde(default, deserialize_with = "null_default")]
    pub config: ImageConfig,
    /// Where its layers are.
    #[serde(default, deserialize_with = "null_default")]
    pub graph_driver: GraphDriver,
    /// Its layers.
    #[serde(default, rename = "RootFS", deserialize_with = "null_default")]
    pub root_fs: RootFs,
}

/// An image's layers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RootFs {
    /// Digests, lowest first. Images that share a layer share its bytes.
    #[serde(deserialize_with = "null_default")]
    pub layers: Vec<String>,
}

/// What an image's containers inherit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `NAME=value`.
    #[serde(deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// Labels.
    #[serde(deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// What runs first in images built on this one.
    #[serde(deserialize_with = "null_default")]
    pub on_build: Vec<String>,
    /// Paths that get an anonymous volume each.
    #[serde(deserialize_with = "null_default")]
    pub volumes: BTreeMap<String, serde::de::IgnoredAny>,
    /// Ports like `80/tcp`.
    #[serde(deserialize_with = "null_default")]
    pub exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    /// User to run as; empty means root.
    pub user: String,
    /// Directory to start in.
    pub working_dir: String,
    /// Command, when the container names none.
    #[serde(deserialize_with = "null_default")]
    pub cmd: Vec<String>,
    /// What runs the command.
    #[serde(deserialize_with = "null_default")]
    pub entrypoint: Vec<String>,
    /// How its health is checked.
    #[serde(deserialize_with = "null_default")]
    pub healthcheck: Healthcheck,
}

/// How a container's health is checked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// Nanoseconds between two checks; `None` means the engine's default.
    pub interval: Option<i64>,
}

/// The engine about its host and itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineInfo {
    /// The engine's own id; stays over restarts.
    #[serde(rename = "ID")]
    pub id: String,
    /// The host's name.
    pub name: String,
    /// CPUs.
    #[serde(rename = "NCPU")]
    pub ncpu: u32,
    /// Memory in bytes.
    pub mem_total: u64,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Where the engine keeps images and containers.
    pub docker_root_dir: String,
    /// Storage driver.
    pub driver: String,
    /// The engine's version.
    pub server_version: String,
    /// The host's, such as `Debian GNU/Linux 12 (bookworm)`.
    pub operating_system: String,
    /// The host's kernel.
    pub kernel_version: String,
    /// Such as `name=seccomp,profile=default` and `name=userns`.
    #[serde(deserialize_with = "null_default")]
    pub security_options: Vec<String>,
    /// What the engine cannot do here, in its words.
    #[serde(deserialize_with = "null_default")]
    pub warnings: Vec<String>,
    /// Containers keep running while the engine restarts.
    pub live_restore_enabled: bool,
}

/// New limits of a container. What is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResourceUpdate {
    /// CPU limit in billionths of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nano_cpus: Option<i64>,
    /// Memory limit in bytes. The engine refuses one above the present `memory_swap` unless that is
    /// sent too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// Memory and swap together in bytes; equal to `memory` means no swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    /// Soft memory limit in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
    /// Relative weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<i64>,
    /// Most processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// What the engine does when it exits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UpdateReply {
    #[serde(default, deserialize_with = "null_default")]
    pub(super) warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(policy: &str, max: u32, restarts: u32, state: &str) -> ContainerInspect {
        let json = format!(
            r#"{{"Id":"{}","Name":"/x","RestartCount":{restarts},"State":{state},
                "HostConfig":{{"RestartPolicy":{{"Name":"{policy}","MaximumRetryCount":{max}}}}}}}"#,
            "a".repeat(64)
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn runtime_is_held_while_it_runs_and_while_the_engine_would_start_it() {
        const STARTED: &str = r#""StartedAt":"2026-01-02T03:04:05.6789Z""#;
        let exited = |code: i64| format!(r#"{{"Status":"exited","ExitCode":{code},{STARTED}}}"#);
        let created = r#"{"Status":"created","StartedAt":"0001-01-01T00:00:00Z"}"#.to_owned();
        for (policy, max, restarts, state, holds) in [
            ("no", 0, 0, r#"{"Running":true}"#.to_owned(), true),
            (
                "no",
                0,
                0,
                r#"{"Running":true,"Paused":true}"#.to_owned(),
                true,
            ),
            (
                "on-failure",
                1,
                1,
                r#"{"Restarting":true}"#.to_owned(),
                true,
            ),
            ("no", 0, 0, exited(1), false),
            ("", 0, 0, exited(1), false),
            ("unless-stopped", 0, 0, exited(137), false),
            ("always", 0, 0, exited(0), true),
            ("always", 0, 0, exited(143), true),
            ("always", 0, 0, created.clone(), false),
            ("on-failure", 0, 99, exited(1), true),
            ("on-failure", 3, 2, exited(143), true),
            ("on-failure", 3, 3, exited(1), false),
            ("on-failure", 3, 0, exited(0), false),
            ("on-failure", 0, 0, created, false),
            (
                "always",
                0,
                0,
                format!(r#"{{"Dead":true,{STARTED}}}"#),
                false,
            ),
        ] {
            assert_eq!(
                container(policy, max, restarts, &state).holds_runtime(),
                holds,
                "{policy}:{max} after {restarts} restarts, {state}"
            );
        }
    }

    #[test]
    fn nulls_and_missing_fields_are_defaults() {
        let json = format!(
            r#"{{"Id":"{}","Name":"/web","State":{{"StartedAt":"","FinishedAt":null}},"Mounts":null,
                "HostConfig":{{"Tmpfs":null,"DeviceRequests":null,"PidsLimit":null}},
                "Config":{{"Labels":null}},"NetworkSettings":{{"Networks":null}}}}"#,
            "b".repeat(64)
        );
        let container: ContainerInspect = serde_json::from_str(&json).unwrap();
        assert_eq!(container.name(), "web");
        assert_eq!(container.state.started_at, None);
        assert_eq!(container.host_config.pids_limit, None);
        assert!(container.host_config.tmpfs.is_empty() && container.mounts.is_empty());
    }

    #[test]
    fn an_update_names_only_what_changes() {
        let update = ResourceUpdate {
            nano_cpus: Some(500_000_000),
            ..ResourceUpdate::default()
        };
        assert_eq!(
            serde_json::to_string(&update).unwrap(),
            r#"{"NanoCpus":500000000}"#
        );
    }
}
