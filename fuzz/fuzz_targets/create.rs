//! `POST /containers/create`, and a volume's own create: what is accepted goes under our cgroup, with
//! nothing of the host's, is charged what it says, and is judged the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_core::dimension::Dimension;
use plimsoll_core::quota::ContainerDefaults;
use plimsoll_fuzz::{no_reserved_labels, only};
use plimsoll_host::request::create::{VolumeRequest, difference};
use plimsoll_host::request::{CreateRequest, ImageFacts, Judged, Policy, Refusal, judge};
use serde_json::Value;

const PARENT: &str = "/plimsoll/u1";
const OWNER: &str = "plimsoll.owner";

const HOST_CONFIG: [&str; 34] = [
    "AutoRemove",
    "CapAdd",
    "CapDrop",
    "CgroupParent",
    "CgroupnsMode",
    "ConsoleSize",
    "CpuShares",
    "CpusetCpus",
    "DeviceRequests",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "Init",
    "IpcMode",
    "LogConfig",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "MemorySwappiness",
    "Mounts",
    "NanoCpus",
    "NetworkMode",
    "OomScoreAdj",
    "PidsLimit",
    "ReadonlyRootfs",
    "RestartPolicy",
    "SecurityOpt",
    "ShmSize",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Ulimits",
];

/// What the engine gives every container by itself.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn judged(request: &CreateRequest) -> Result<Judged, Refusal> {
    let mut policy = Policy::new(PARENT);
    policy.labels.insert(OWNER.to_owned(), "alice".to_owned());
    policy.mounts.volume_prefix = "alice.".to_owned();
    policy.mounts.key = "0f".repeat(16);
    policy.mounts.stash = "/stash".to_owned();
    policy.mounts.writes_as = Some((1001, 1002));
    policy.mounts.home = Some("/home/alice".to_owned());
    let image = ImageFacts {
        id: format!("sha256:{}", "ab".repeat(32)),
        ..ImageFacts::default()
    };
    judge(request, &policy, &image, &ContainerDefaults::default())
}

fn check(judged: &Judged) {
    let (body, host) = (&judged.body, &judged.body["HostConfig"]);
    only(host, &HOST_CONFIG);
    no_reserved_labels(&body["Labels"], &[OWNER]);
    assert_eq!(body["Labels"][OWNER], "alice");
    assert_eq!(host["CgroupParent"], PARENT);
    assert_eq!(host["CgroupnsMode"], "private");
    assert_eq!(host["IpcMode"], "private");
    assert_eq!(host["NetworkMode"], "none");
    assert!(host["OomScoreAdj"].as_i64().unwrap_or(0) >= 0, "{host}");
    for option in items(&host["SecurityOpt"]) {
        assert_eq!(option, "no-new-privileges");
    }
    for added in items(&host["CapAdd"]) {
        let name = added.as_str().expect("a name").trim_start_matches("CAP_");
        assert!(CAPABILITIES.contains(&name), "{name}");
    }
    for mount in items(&host["Mounts"]) {
        let source = mount["Source"].as_str().expect("a source");
        let prefix = if mount["Type"] == "bind" {
            "/stash/"
        } else {
            "alice."
        };
        assert!(source.starts_with(prefix), "{mount}");
        assert!(
            mount["Type"] != "bind" || mount["ReadOnly"] == true || body["User"] == "1001:1002"
        );
    }
    let number = |name: &str| host[name].as_u64().unwrap_or(0);
    assert_eq!(judged.claim[Dimension::Cpu] * 1_000_000, number("NanoCpus"));
    assert_eq!(judged.claim[Dimension::Memory], number("Memory"));
    assert_eq!(number("Memory"), number("MemorySwap"));
    assert_eq!(judged.claim[Dimension::Pids], number("PidsLimit"));
    for dimension in [Dimension::Cpu, Dimension::Memory, Dimension::Pids] {
        assert!(judged.claim[dimension] > 0, "{dimension}");
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fuzz_target!(|data: &[u8]| {
    if let Ok(volume) = VolumeRequest::parse(data) {
        no_reserved_labels(&serde_json::json!(volume.settings.labels), &[]);
    }
    let Ok(request) = CreateRequest::parse(data) else {
        return;
    };
    let Ok(first) = judged(&request) else {
        return;
    };
    check(&first);
    let _ = difference(data, &request, &first.body);
    // Mounts are names of ours by now, which no tenant may say.
    if first.body["HostConfig"]["Mounts"].is_null() {
        let again = CreateRequest::parse(first.body.to_string().as_bytes());
        let again = judged(&again.expect("our own body is read")).expect("and accepted");
        assert_eq!((&again.body, &again.claim), (&first.body, &first.claim));
        assert_eq!(again.warnings, Vec::<String>::new());
    }
});
