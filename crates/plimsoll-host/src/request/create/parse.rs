//! The decoder of a create body: every field the engine knows, in the order of its structs.

use std::collections::BTreeMap;

use super::body::{Config, HostConfig};
use super::gpu::GpuRequest;
use super::storage::{self, LogAsked};
use super::{CreateRequest, is_reserved, mounts, network, ports, rules};
use crate::request::json::{self, Fields, short};
use crate::request::limits::{Asked, RestartName, RestartPolicy, amount};
use crate::request::refusal::Refusal;
use crate::request::shared::{console, plain, working_dir};
use plimsoll_core::units::AMOUNT_MAX;

/// Fields that have no effect on a Linux engine or concern only the client.
const HARMLESS: [&str; 3] = ["ArgsEscaped", "OnBuild", "Platform"];
const HARMLESS_HOST: [&str; 2] = ["ContainerIDFile", "Consistency"];

/// Fields of `HostConfig` that the engine also reads at the top level, for clients of long ago.
const HOST_FIELDS: [&str; 71] = [
    "Annotations",
    "AutoRemove",
    "Binds",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeight",
    "BlkioWeightDevice",
    "CapAdd",
    "CapDrop",
    "Capabilities",
    "Cgroup",
    "CgroupParent",
    "CgroupnsMode",
    "ConsoleSize",
    "ContainerIDFile",
    "CpuCount",
    "CpuPercent",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpuShares",
    "Cpuset",
    "CpusetCpus",
    "CpusetMems",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "Init",
    "IpcMode",
    "Isolation",
    "KernelMemory",
    "KernelMemoryTCP",
    "Links",
    "LogConfig",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "MemorySwappiness",
    "Mounts",
    "NanoCpus",
    "NetworkMode",
    "OomKillDisable",
    "OomScoreAdj",
    "PidMode",
    "PidsLimit",
    "PortBindings",
    "Privileged",
    "PublishAllPorts",
    "ReadonlyRootfs",
    "RestartPolicy",
    "Runtime",
    "SecurityOpt",
    "ShmSize",
    "Tmpfs",
    "UsernsMode",
    "VolumesFrom",
    "MaskedPaths",
    "ReadonlyPaths",
    "StorageOpt",
    "Sysctls",
    "UTSMode",
    "Ulimits",
    "VolumeDriver",
];

/// Fields of `HostConfig` no tenant may set: field, what a user would have written, why.
const DENIED: [(&str, &str, &str, &str); 23] = [
    (
        "Privileged",
        "--privileged",
        "it gives the container the host's devices and rights",
        "name what the program needs; --cap-add covers the engine's default capabilities",
    ),
    (
        "Devices",
        "--device",
        "host devices are not given to tenants",
        "use --gpus for GPUs",
    ),
    (
        "DeviceCgroupRules",
        "--device-cgroup-rule",
        "host devices are not given to tenants",
        "use --gpus for GPUs",
    ),
    (
        "VolumesFrom",
        "--volumes-from",
        "it reaches into another container",
        "run without it",
    ),
    (
        "Annotations",
        "--annotation",
        "annotations steer the container runtime",
        "use --label",
    ),
    (
        "OomKillDisable",
        "--oom-kill-disable",
        "a container at its memory limit would hang instead of end",
        "raise --memory",
    ),
    (
        "CpuRealtimePeriod",
        "--cpu-rt-period",
        "real-time scheduling starves other tenants",
        "use --cpus",
    ),
    (
        "CpuRealtimeRuntime",
        "--cpu-rt-runtime",
        "real-time scheduling starves other tenants",
        "use --cpus",
    ),
    (
        "BlkioWeight",
        "--blkio-weight",
        "disk shares are set by the host",
        "leave the option out",
    ),
    (
        "BlkioWeightDevice",
        "--blkio-weight-device",
        "disk shares are set by the host",
        "leave the option out",
    ),
    (
        "BlkioDeviceReadBps",
        "--device-read-bps",
        "it names host devices",
        "leave the option out",
    ),
    (
        "BlkioDeviceWriteBps",
        "--device-write-bps",
        "it names host devices",
        "leave the option out",
    ),
    (
        "BlkioDeviceReadIOps",
        "--device-read-iops",
        "it names host devices",
        "leave the option out",
    ),
    (
        "BlkioDeviceWriteIOps",
        "--device-write-iops",
        "it names host devices",
        "leave the option out",
    ),
    (
        "CpusetMems",
        "--cpuset-mems",
        "memory nodes are shared by all tenants",
        "leave the option out",
    ),
    (
        "KernelMemory",
        "--kernel-memory",
        "kernel memory counts inside --memory",
        "use --memory",
    ),
    (
        "KernelMemoryTCP",
        "KernelMemoryTCP",
        "kernel memory counts inside --memory",
        "use --memory",
    ),
    (
        "CpuCount",
        "--cpu-count",
        "it exists only on Windows",
        "use --cpus",
    ),
    (
        "CpuPercent",
        "--cpu-percent",
        "it exists only on Windows",
        "use --cpus",
    ),
    (
        "IOMaximumIOps",
        "--io-maxiops",
        "it exists only on Windows",
        "leave the option out",
    ),
    (
        "IOMaximumBandwidth",
        "--io-maxbandwidth",
        "it exists only on Windows",
        "leave the option out",
    ),
    (
        "Cgroup",
        "Cgroup",
        "containers run in their owner's cgroup, where the quota holds",
        "leave it out",
    ),
    (
        "Capabilities",
        "Capabilities",
        "it replaces the engine's set of capabilities",
        "use --cap-add and --cap-drop",
    ),
];

/// Namespace fields: field, option, the value besides "" that asks for nothing.
const NAMESPACES: [(&str, &str, &str); 4] = [
    ("PidMode", "--pid", ""),
    ("UTSMode", "--uts", ""),
    ("UsernsMode", "--userns", ""),
    ("CgroupnsMode", "--cgroupns", "private"),
];

pub(super) fn parse(body: &[u8]) -> Result<CreateRequest, Refusal> {
    let mut top = json::decode_object(body)?;
    let mut warnings = Vec::new();

    for name in HOST_FIELDS {
        if top.take(name).is_some_and(|json| !json.is_zero()) {
            return Err(Refusal::bad(name, "belongs inside HostConfig"));
        }
    }
    if top.take("MacAddress").is_some_and(|json| !json.is_zero()) {
        return Err(Refusal::policy(
            "MacAddress",
            "--mac-address",
            "it could take another tenant's address",
            "leave the option out",
        ));
    }
    let declared = top.set("Volumes")?.unwrap_or_default();
    let image = top.str("Image")?.unwrap_or_default();
    if image.is_empty() || image.len() > 1024 || !image.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refusal::bad("Image", "must name an image"));
    }

    let (reserved, labels): (BTreeMap<_, _>, BTreeMap<_, _>) = top
        .string_map("Labels")?
        .unwrap_or_default()
        .into_iter()
        .partition(|(key, _)| is_reserved(key));
    let read = |key: &str| reserved.get(key).filter(|v| !v.is_empty()).cloned();

    let stop_timeout = top.i64("StopTimeout")?;
    if stop_timeout.is_some_and(|s| !(0..=3600).contains(&s)) {
        return Err(Refusal::bad(
            "StopTimeout",
            "must be between 0 and 3600 seconds",
        ));
    }
    let config = Config {
        hostname: plain(&mut top, "Hostname", 63)?,
        domainname: plain(&mut top, "Domainname", 64)?,
        user: plain(&mut top, "User", 256)?,
        attach_stdin: top.bool("AttachStdin")?.unwrap_or(false),
        attach_stdout: top.bool("AttachStdout")?.unwrap_or(false),
        attach_stderr: top.bool("AttachStderr")?.unwrap_or(false),
        exposed_ports: rules::exposed(&mut top)?,
        tty: top.bool("Tty")?.unwrap_or(false),
        open_stdin: top.bool("OpenStdin")?.unwrap_or(false),
        stdin_once: top.bool("StdinOnce")?.unwrap_or(false),
        env: top.strings("Env")?,
        cmd: top.strings_or_one("Cmd")?,
        healthcheck: rules::healthcheck(&mut top, &mut warnings)?,
        image: image.clone(),
        working_dir: working_dir(&mut top)?,
        entrypoint: top.strings_or_one("Entrypoint")?,
        network_disabled: top.bool("NetworkDisabled")?.unwrap_or(false),
        labels: BTreeMap::new(),
        stop_signal: plain(&mut top, "StopSignal", 16)?,
        stop_timeout,
        shell: top.strings_or_one("Shell")?.unwrap_or_default(),
        host_config: HostConfig::default(),
    };
    let networking = top.object("NetworkingConfig")?;
    let mut fields = top
        .object("HostConfig")?
        .unwrap_or_else(|| Fields::new("HostConfig".to_owned(), BTreeMap::new()));
    top.finish(&HARMLESS, &mut warnings)?;

    deny(&mut fields)?;
    let network = network::take(&mut fields, networking)?;
    let restart = RestartPolicy::take(&mut fields)?.unwrap_or_default();
    let auto_remove = fields.bool("AutoRemove")?.unwrap_or(false);
    if auto_remove && restart.name != RestartName::No {
        return Err(Refusal::bad(
            "HostConfig.RestartPolicy",
            "conflicts with AutoRemove: set one of --restart and --rm",
        ));
    }
    let swappiness = fields.i64("MemorySwappiness")?.filter(|n| *n != -1);
    if swappiness.is_some_and(|n| !(0..=100).contains(&n)) {
        return Err(Refusal::bad(
            "HostConfig.MemorySwappiness",
            "must be between 0 and 100",
        ));
    }
    let oom_score_adj = fields.i64("OomScoreAdj")?.unwrap_or(0);
    if !(-1000..=1000).contains(&oom_score_adj) {
        return Err(Refusal::bad(
            "HostConfig.OomScoreAdj",
            "must be between 0 and 1000",
        ));
    }
    if oom_score_adj < 0 {
        return Err(Refusal::policy(
            "HostConfig.OomScoreAdj",
            "a negative --oom-score-adj",
            "other tenants' programs would be killed first",
            "use 0 to 1000",
        ));
    }
    let ports = ports::take(&mut fields)?;
    let host = HostConfig {
        ipc_mode: ipc(&mut fields)?,
        cpuset_cpus: rules::cpuset(&mut fields)?,
        console_size: console_size(&mut fields)?,
        cap_add: rules::cap_add(&mut fields)?,
        cap_drop: rules::cap_drop(&mut fields)?,
        security_opt: rules::security_opt(&mut fields)?,
        group_add: rules::groups(&mut fields)?,
        ulimits: rules::ulimits(&mut fields)?,
        sysctls: rules::sysctls(&mut fields)?,
        oom_score_adj,
        readonly_rootfs: fields.bool("ReadonlyRootfs")?.unwrap_or(false),
        init: fields.bool("Init")?,
        dns: rules::dns(&mut fields)?,
        dns_options: rules::words(&mut fields, "DnsOptions")?,
        dns_search: rules::words(&mut fields, "DnsSearch")?,
        extra_hosts: rules::extra_hosts(&mut fields)?,
        ..HostConfig::default()
    };
    let request = CreateRequest {
        image,
        team: read("plimsoll.team"),
        project: read("plimsoll.project"),
        labels,
        network,
        asked: Asked::take(&mut fields)?,
        reserved,
        config,
        host,
        restart,
        auto_remove,
        publish_all: fields.bool("PublishAllPorts")?.unwrap_or(false),
        runtime: fields.str("Runtime")?.unwrap_or_default(),
        cgroup_parent: fields.str("CgroupParent")?.unwrap_or_default(),
        swappiness,
        shm: amount(&mut fields, "ShmSize", AMOUNT_MAX)?,
        mounts: mounts::take(&declared, &mut fields)?,
        storage: storage::take_layer(&mut fields)?,
        log: LogAsked::take(&mut fields)?,
        gpus: GpuRequest::take(&mut fields)?,
        ports,
        warnings: Vec::new(),
    };
    fields.finish(&HARMLESS_HOST, &mut warnings)?;
    Ok(CreateRequest {
        warnings,
        ..request
    })
}

fn deny(fields: &mut Fields) -> Result<(), Refusal> {
    for (name, asked, why, instead) in DENIED {
        if fields.take(name).is_some_and(|json| !json.is_zero()) {
            return Err(Refusal::policy(fields.name(name), asked, why, instead));
        }
    }
    for name in ["MaskedPaths", "ReadonlyPaths"] {
        // Here an empty list is a request: it uncovers every path.
        if fields.take(name).is_some() {
            return Err(Refusal::policy(
                fields.name(name),
                "--security-opt systempaths",
                "it would uncover files of the host's kernel",
                "leave the option out",
            ));
        }
    }
    for (name, option, ours) in NAMESPACES {
        let mode = fields.str(name)?.unwrap_or_default();
        if !mode.is_empty() && mode != ours {
            return Err(Refusal::policy(
                fields.name(name),
                format!("{option}={}", short(&mode)),
                "it shares a namespace with the host or another container",
                "leave the option out",
            ));
        }
    }
    let driver = fields.str("VolumeDriver")?.unwrap_or_default();
    if !matches!(driver.as_str(), "" | "local") {
        return Err(Refusal::policy(
            fields.name("VolumeDriver"),
            format!("--volume-driver {}", short(&driver)),
            "volume plugins run with the host's rights",
            "leave the option out",
        ));
    }
    let isolation = fields.str("Isolation")?.unwrap_or_default();
    if !matches!(isolation.as_str(), "" | "default") {
        return Err(Refusal::policy(
            fields.name("Isolation"),
            "--isolation",
            "it exists only on Windows",
            "leave the option out",
        ));
    }
    Ok(())
}

fn ipc(fields: &mut Fields) -> Result<&'static str, Refusal> {
    let mode = fields.str("IpcMode")?.unwrap_or_default();
    match mode.as_str() {
        "" | "private" => Ok("private"),
        "none" => Ok("none"),
        other => Err(Refusal::policy(
            fields.name("IpcMode"),
            format!("--ipc={}", short(other)),
            "it shares memory with the host or another container",
            "leave the option out",
        )),
    }
}

fn console_size(fields: &mut Fields) -> Result<Option<[u64; 2]>, Refusal> {
    let name = fields.name("ConsoleSize");
    console(&name, fields.array("ConsoleSize")?.as_deref())
}
