//! The body as the engine gets it: every field it can hold, in the engine's names.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::request::limits::RestartPolicy;

fn is_false(b: &bool) -> bool {
    !b
}

fn is_zero<N: Default + PartialEq>(n: &N) -> bool {
    *n == N::default()
}

/// An empty JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub(super) struct Empty {}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Config {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) hostname: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) domainname: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) user: String,
    pub(super) attach_stdin: bool,
    pub(super) attach_stdout: bool,
    pub(super) attach_stderr: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) exposed_ports: BTreeMap<String, Empty>,
    pub(super) tty: bool,
    pub(super) open_stdin: bool,
    pub(super) stdin_once: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) healthcheck: Option<Healthcheck>,
    pub(super) image: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) working_dir: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) network_disabled: bool,
    pub(super) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) shell: Vec<String>,
    pub(super) host_config: HostConfig,
}

impl Config {
    pub(super) fn into_value(self) -> Value {
        serde_json::to_value(self).expect("string keys and plain values always serialise")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Healthcheck {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) retries: i64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostConfig {
    pub(super) cgroup_parent: String,
    pub(super) cgroupns_mode: &'static str,
    pub(super) ipc_mode: &'static str,
    pub(super) network_mode: String,
    pub(super) nano_cpus: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) cpu_shares: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) cpuset_cpus: String,
    pub(super) memory: u64,
    pub(super) memory_swap: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) memory_reservation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_swappiness: Option<i64>,
    pub(super) pids_limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) shm_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) tmpfs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) mounts: Vec<Value>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) storage_opt: BTreeMap<String, String>,
    pub(super) log_config: LogConfig,
    pub(super) restart_policy: RestartPolicy,
    pub(super) auto_remove: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) console_size: Option<[u64; 2]>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) cap_add: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) cap_drop: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) security_opt: Vec<&'static str>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) group_add: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) ulimits: Vec<Ulimit>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) sysctls: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) oom_score_adj: i64,
    pub(super) readonly_rootfs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) init: Option<bool>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) dns: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) dns_options: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) dns_search: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) extra_hosts: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) device_requests: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LogConfig {
    #[serde(rename = "Type")]
    pub(super) driver: &'static str,
    pub(super) config: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PortBinding {
    pub(super) host_ip: String,
    pub(super) host_port: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Ulimit {
    pub(super) name: String,
    pub(super) soft: i64,
    pub(super) hard: i64,
}
