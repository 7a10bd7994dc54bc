use plimsoll_core::dimension::Dimension;
use plimsoll_core::quota::ContainerDefaults;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../fixtures/", $name)).as_slice()
    };
}

fn policy() -> Policy {
    let mut policy = Policy::new("/plimsoll/u1");
    policy
        .labels
        .insert("plimsoll.owner".to_owned(), "alice".to_owned());
    policy
}

fn image() -> ImageFacts {
    ImageFacts {
        id: format!("sha256:{}", "ab".repeat(32)),
        ..ImageFacts::default()
    }
}

fn run_with(body: &[u8], policy: &Policy, image: &ImageFacts) -> Result<Judged, Refusal> {
    judge(
        &CreateRequest::parse(body)?,
        policy,
        image,
        &ContainerDefaults::default(),
    )
}

fn run(body: &str) -> Result<Judged, Refusal> {
    run_with(body.as_bytes(), &policy(), &image())
}

/// A body around the text of `HostConfig`'s fields.
fn host(fields: &str) -> String {
    format!(r#"{{"Image":"i","HostConfig":{{{fields}}}}}"#)
}

#[test]
fn where_a_quota_only_watches_nothing_is_filled_in_and_all_is_charged() {
    let mut watching = policy();
    watching.fill_in = false;
    watching.storage_opt = true;
    let body = host(r#""Tmpfs":{"/t":""}"#);
    let enforced = run(&body).unwrap();
    let watched = run_with(body.as_bytes(), &watching, &image()).unwrap();
    assert_eq!(watched.claim, enforced.claim);
    let told = &watched.body["HostConfig"];
    for name in ["NanoCpus", "Memory", "MemorySwap", "PidsLimit"] {
        assert_eq!(told[name], 0, "{name}");
        assert_ne!(enforced.body["HostConfig"][name], 0, "{name}");
    }
    assert_eq!(told["Tmpfs"]["/t"], "rw,noexec,nosuid,nodev");
    assert_eq!(
        told["LogConfig"],
        json!({"Type": "json-file", "Config": {}})
    );
    assert_eq!(
        (&told["StorageOpt"], &told["ShmSize"]),
        (&Value::Null, &Value::Null)
    );
    assert!(
        watched
            .warnings
            .iter()
            .any(|w| w.contains("running without one, charged as 1 GiB")),
        "{:?}",
        watched.warnings
    );

    // What is asked for is given, and isolation is as everywhere.
    let body = host(r#""Memory":67108864,"NanoCpus":500000000,"PidsLimit":9,"ShmSize":4096"#);
    let asked = run_with(body.as_bytes(), &watching, &image()).unwrap();
    assert_eq!(asked.body["HostConfig"]["Memory"], 67_108_864);
    assert_eq!(asked.body["HostConfig"]["MemorySwap"], 67_108_864);
    assert_eq!(asked.body["HostConfig"]["NanoCpus"], 500_000_000);
    assert_eq!(asked.body["HostConfig"]["PidsLimit"], 9);
    assert_eq!(asked.body["HostConfig"]["ShmSize"], 4096);
    assert_eq!(asked.body["HostConfig"]["CgroupParent"], "/plimsoll/u1");
    let privileged = host(r#""Privileged":true"#);
    assert!(run_with(privileged.as_bytes(), &watching, &image()).is_err());
}

#[track_caller]
fn refused(body: &str, status: u16, field: &str) {
    match run(body) {
        Ok(judged) => panic!("accepted {body}\n as {}", judged.body),
        Err(refusal) => {
            assert_eq!(refusal.status(), status, "{body}: {refusal}");
            assert!(
                refusal.field().contains(field) || refusal.message().contains(field),
                "{body}: {refusal}"
            );
            assert!(refusal.message().starts_with("plimsoll: "), "{refusal}");
        }
    }
}

#[test]
#[rustfmt::skip]
fn what_no_tenant_may_ask_is_refused() {
    for (fields, field) in [
        (r#""Privileged":true"#, "HostConfig.Privileged"),
        (r#""Privileged":"yes""#, "HostConfig.Privileged"),
        (r#""Binds":["/:/host"]"#, "HostConfig.Binds"),
        (r#""Binds":["vol:/x:rshared"]"#, "HostConfig.Binds[0]"),
        (r#""Binds":["vol:/proc/x"]"#, "HostConfig.Binds[0]"),
        (r#""Binds":["/var/run/docker.sock:/s:ro"]"#, "HostConfig.Binds"),
        (r#""Mounts":[{"Type":"bind","Source":"/","Target":"/h"}]"#, "HostConfig.Binds"),
        (r#""Mounts":[{"Type":"bind","Source":"/a","Target":"/h","BindOptions":{"Propagation":"rshared"}}]"#, "BindOptions.Propagation"),
        (r#""Mounts":[{"Type":"volume","Source":"v","Target":"/h","VolumeOptions":{"DriverConfig":{"Name":"nfs"}}}]"#, "DriverConfig.Name"),
        (r#""Mounts":[{"Type":"volume","Source":"v","Target":"/h","VolumeOptions":{"Subpath":"../x"}}]"#, "VolumeOptions.Subpath"),
        (r#""Mounts":[{"Type":"volume","Target":"/h","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"type":"none","o":"bind","device":"/"}}}}]"#, "DriverConfig.Options"),
        (r#""Mounts":[{"Type":"npipe","Target":"/h"}]"#, "Mounts[0].Type"),
        (r#""Mounts":[{"Type":"image","Source":"i","Target":"/h"}]"#, "Mounts[0].Type"),
        (r#""Mounts":[{"Target":"/h"}]"#, "Mounts[0].Type"),
        (r#""Mounts":[{"Type":"tmpfs","Target":"/proc/sys"}]"#, "Mounts[0].Target"),
        (r#""Mounts":[{"Type":"tmpfs","Target":"/t"},{"Type":"bind","Source":"/","Target":"/h"}]"#, "HostConfig.Binds"),
        (r#""Tmpfs":{"/dev":""}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"//sys//fs":""}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"dev"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"suid"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"nr_inodes=0"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"nr_blocks=0"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"mpol=bind:0"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"rshared"}"#, "HostConfig.Tmpfs"),
        (r#""PidMode":"host""#, "HostConfig.PidMode"),
        (r#""PidMode":"container:x""#, "HostConfig.PidMode"),
        (r#""NetworkMode":"host""#, "HostConfig.NetworkMode"),
        (r#""NetworkMode":"ns:/proc/1/ns/net""#, "HostConfig.NetworkMode"),
        (r#""NetworkMode":"Host""#, "HostConfig.NetworkMode"),
        (r#""IpcMode":"host""#, "HostConfig.IpcMode"),
        (r#""IpcMode":"shareable""#, "HostConfig.IpcMode"),
        (r#""IpcMode":"container:x""#, "HostConfig.IpcMode"),
        (r#""UsernsMode":"host""#, "HostConfig.UsernsMode"),
        (r#""UTSMode":"host""#, "HostConfig.UTSMode"),
        (r#""CgroupnsMode":"host""#, "HostConfig.CgroupnsMode"),
        (r#""Cgroup":"container:x""#, "HostConfig.Cgroup"),
        (r#""CgroupParent":"/""#, "HostConfig.CgroupParent"),
        (r#""CgroupParent":"/plimsoll/u2""#, "HostConfig.CgroupParent"),
        (r#""Devices":[{"PathOnHost":"/dev/sda","PathInContainer":"/d","CgroupPermissions":"rwm"}]"#, "HostConfig.Devices"),
        (r#""DeviceCgroupRules":["a *:* rwm"]"#, "HostConfig.DeviceCgroupRules"),
        (r#""SecurityOpt":["seccomp=unconfined"]"#, "HostConfig.SecurityOpt"),
        (r#""SecurityOpt":["apparmor=unconfined"]"#, "HostConfig.SecurityOpt"),
        (r#""SecurityOpt":["label=disable"]"#, "HostConfig.SecurityOpt"),
        (r#""SecurityOpt":["no-new-privileges","systempaths=unconfined"]"#, "HostConfig.SecurityOpt"),
        (r#""MaskedPaths":[]"#, "HostConfig.MaskedPaths"),
        (r#""ReadonlyPaths":[]"#, "HostConfig.ReadonlyPaths"),
        (r#""MaskedPaths":["/proc/kcore"]"#, "HostConfig.MaskedPaths"),
        (r#""CapAdd":["SYS_ADMIN"]"#, "HostConfig.CapAdd"),
        (r#""CapAdd":["cap_sys_admin"]"#, "HostConfig.CapAdd"),
        (r#""CapAdd":["ALL"]"#, "HostConfig.CapAdd"),
        (r#""CapAdd":"SYS_PTRACE""#, "HostConfig.CapAdd"),
        (r#""Capabilities":["CAP_SYS_ADMIN"]"#, "HostConfig.Capabilities"),
        (r#""Runtime":"nvidia""#, "HostConfig.Runtime"),
        (r#""VolumesFrom":["x"]"#, "HostConfig.VolumesFrom"),
        (r#""VolumeDriver":"nfs""#, "HostConfig.VolumeDriver"),
        (r#""Annotations":{"a":"b"}"#, "HostConfig.Annotations"),
        (r#""LogConfig":{"Type":"syslog"}"#, "HostConfig.LogConfig.Type"),
        (r#""LogConfig":{"Config":{"mode":"non-blocking"}}"#, "HostConfig.LogConfig.Config.mode"),
        (r#""LogConfig":{"Config":{"env":"A"}}"#, "HostConfig.LogConfig.Config.env"),
        (r#""OomKillDisable":true"#, "HostConfig.OomKillDisable"),
        (r#""OomScoreAdj":-1"#, "HostConfig.OomScoreAdj"),
        (r#""CpuRealtimeRuntime":950000"#, "HostConfig.CpuRealtimeRuntime"),
        (r#""CpuRealtimePeriod":1"#, "HostConfig.CpuRealtimePeriod"),
        (r#""BlkioWeight":500"#, "HostConfig.BlkioWeight"),
        (r#""BlkioWeightDevice":[{"Path":"/dev/sda","Weight":10}]"#, "HostConfig.BlkioWeightDevice"),
        (r#""BlkioDeviceWriteBps":[{"Path":"/dev/sda","Rate":10}]"#, "HostConfig.BlkioDeviceWriteBps"),
        (r#""KernelMemory":1"#, "HostConfig.KernelMemory"),
        (r#""CpusetMems":"0""#, "HostConfig.CpusetMems"),
        (r#""CpuCount":1"#, "HostConfig.CpuCount"),
        (r#""Isolation":"process""#, "HostConfig.Isolation"),
        (r#""StorageOpt":{"size":"1g"}"#, "HostConfig.StorageOpt"),
        (r#""StorageOpt":{"dm.x":"1"}"#, "HostConfig.StorageOpt"),
        (r#""Sysctls":{"kernel.shmmax":"1"}"#, "HostConfig.Sysctls"),
        (r#""Sysctls":{"net.core.rmem_max":"1"}"#, "HostConfig.Sysctls"),
        (r#""Sysctls":{"net.core.somaxconn/../../kernel/panic":"1"}"#, "HostConfig.Sysctls"),
        (r#""PortBindings":{"80/tcp":[{"HostIp":"192.0.2.1"}]}"#, "HostConfig.PortBindings"),
        (r#""Ulimits":[{"Name":"rtprio","Soft":1,"Hard":99}]"#, "HostConfig.Ulimits[0]"),
        (r#""Ulimits":[{"Name":"nice","Soft":40,"Hard":40}]"#, "HostConfig.Ulimits[0]"),
        (r#""Ulimits":[{"Name":"nofile","Soft":-1,"Hard":-1}]"#, "HostConfig.Ulimits[0]"),
        (r#""DeviceRequests":[{"Count":-1,"Capabilities":[["gpu"]]}]"#, "HostConfig.DeviceRequests"),
        (r#""DeviceRequests":[{"Driver":"cdi","DeviceIDs":["vendor.com/class=all"]}]"#, "HostConfig.DeviceRequests"),
        (r#""DeviceRequests":[{"Count":1,"Capabilities":[["tpu"]]}]"#, "HostConfig.DeviceRequests"),
    ] {
        refused(&host(fields), 403, field);
    }
    for (body, field) in [
        (r#"{"Image":"i","Volumes":{"/proc/v":{}}}"#, "Volumes./proc/v"),
        (r#"{"Image":"i","MacAddress":"02:42:ac:11:00:02"}"#, "MacAddress"),
        (r#"{"Image":"i","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"x"}}}}"#, "EndpointsConfig.bridge.MacAddress"),
        (r#"{"Image":"i","NetworkingConfig":{"EndpointsConfig":{"host":{}}}}"#, "EndpointsConfig.host"),
    ] {
        refused(body, 403, field);
    }
}

#[test]
#[rustfmt::skip]
fn what_is_malformed_or_out_of_range_is_refused() {
    for (fields, field) in [
        // CPU
        (r#""NanoCpus":9999"#, "HostConfig.NanoCpus"),
        (r#""NanoCpus":9999999"#, "HostConfig.NanoCpus"),
        (r#""NanoCpus":-1"#, "HostConfig.NanoCpus"),
        (r#""NanoCpus":1e9"#, "HostConfig.NanoCpus"),
        (r#""NanoCpus":1.5"#, "HostConfig.NanoCpus"),
        (r#""NanoCpus":"1000000000""#, "HostConfig.NanoCpus"),
        (r#""NanoCpus":9223372036854775807"#, "HostConfig.NanoCpus"),
        (r#""NanoCpus":18446744073709551616"#, "HostConfig.NanoCpus"),
        (r#""NanoCpus":1000000000,"CpuQuota":100000"#, "HostConfig.NanoCpus"),
        (r#""NanoCpus":1000000000,"CpuPeriod":100000"#, "HostConfig.NanoCpus"),
        (r#""CpuQuota":-1"#, "HostConfig.CpuQuota"),
        (r#""CpuQuota":999"#, "HostConfig.CpuQuota"),
        (r#""CpuQuota":1000,"CpuPeriod":1000000"#, "HostConfig.CpuQuota"),
        (r#""CpuQuota":9007199254740992,"CpuPeriod":1000"#, "HostConfig.CpuQuota"),
        (r#""CpuQuota":9223372036854775807"#, "HostConfig.CpuQuota"),
        (r#""CpuPeriod":1"#, "HostConfig.CpuPeriod"),
        (r#""CpuPeriod":-1"#, "HostConfig.CpuPeriod"),
        (r#""CpuPeriod":1000001"#, "HostConfig.CpuPeriod"),
        (r#""CpuShares":1"#, "HostConfig.CpuShares"),
        (r#""CpuShares":262144"#, "HostConfig.CpuShares"),
        (r#""CpuShares":-1"#, "HostConfig.CpuShares"),
        (r#""CpusetCpus":"3-1""#, "HostConfig.CpusetCpus"),
        (r#""CpusetCpus":"0-4294967296""#, "HostConfig.CpusetCpus"),
        (r#""CpusetCpus":"0,,1""#, "HostConfig.CpusetCpus"),
        (r#""CpusetCpus":"^1""#, "HostConfig.CpusetCpus"),
        // memory
        (r#""Memory":6291455"#, "HostConfig.Memory"),
        (r#""Memory":-1"#, "HostConfig.Memory"),
        (r#""Memory":9223372036854775807"#, "HostConfig.Memory"),
        (r#""Memory":18446744073709551615"#, "HostConfig.Memory"),
        (r#""Memory":[1]"#, "HostConfig.Memory"),
        (r#""Memory":67108864,"MemorySwap":-1"#, "HostConfig.MemorySwap"),
        (r#""Memory":67108864,"MemorySwap":7000000"#, "MemorySwap"),
        (r#""MemorySwap":67108864"#, "HostConfig.MemorySwap"),
        (r#""Memory":67108864,"MemoryReservation":67108865"#, "HostConfig.MemoryReservation"),
        (r#""MemoryReservation":2147483648"#, "HostConfig.MemoryReservation"),
        (r#""MemoryReservation":-1"#, "HostConfig.MemoryReservation"),
        (r#""MemorySwappiness":101"#, "HostConfig.MemorySwappiness"),
        // the rest of the charged fields
        (r#""PidsLimit":-1"#, "HostConfig.PidsLimit"),
        (r#""PidsLimit":9223372036854775807"#, "HostConfig.PidsLimit"),
        (r#""ShmSize":-1"#, "HostConfig.ShmSize"),
        (r#""ShmSize":9223372036854775807"#, "HostConfig.ShmSize"),
        (r#""ShmSize":9007199254740992,"Tmpfs":{"/t":""}"#, "HostConfig"),
        (r#""Tmpfs":{"/t":"size=0"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"size=50%"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"size="}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"size=-1"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"size=0x10"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"size=1t"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"size=1m,size=100g"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"size=99999999999999999999g"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"exec,noexec"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"mode=99"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/t":"uid=-1"}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"t":""}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/":""}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/a/../proc":""}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/a":"","/a/":""}"#, "HostConfig.Tmpfs"),
        (r#""Tmpfs":{"/a":""},"Mounts":[{"Type":"tmpfs","Target":"/a"}]"#, "Mounts[0].Target"),
        (r#""Mounts":[{"Type":"tmpfs","Target":"/a","TmpfsOptions":{"SizeBytes":-1}}]"#, "SizeBytes"),
        (r#""Mounts":[{"Type":"tmpfs","Target":"/a","TmpfsOptions":{"Mode":65535}}]"#, "Mode"),
        (r#""Mounts":[{"Type":"tmpfs","Target":"/a","TmpfsOptions":{"Options":[["suid"]]}}]"#, "Options"),
        (r#""Mounts":[{"Type":"tmpfs","Source":"/","Target":"/a"}]"#, "Mounts[0].Source"),
        (r#""Mounts":[{"Type":"tmpfs","Target":"/a","BindOptions":{"Propagation":"rshared"}}]"#, "BindOptions"),
        (r#""Mounts":[{"Type":"tmpfs","type":"bind","Target":"/a"}]"#, "letter case"),
        (r#""Mounts":[null]"#, "Mounts[0]"),
        (r#""Mounts":{}"#, "HostConfig.Mounts"),
        (r#""StorageOpt":{"size":"0"}"#, "HostConfig.StorageOpt"),
        (r#""LogConfig":{"Config":{"max-size":"-1"}}"#, "max-size"),
        (r#""LogConfig":{"Config":{"max-size":"1"}}"#, "max-size"),
        (r#""LogConfig":{"Config":{"max-size":"1.5g"}}"#, "max-size"),
        (r#""LogConfig":{"Config":{"max-file":"101"}}"#, "max-file"),
        (r#""LogConfig":{"Config":{"max-file":"0"}}"#, "max-file"),
        (r#""LogConfig":{"Type":"none","Config":{"max-size":"10m"}}"#, "max-size"),
        // others
        (r#""RestartPolicy":{"Name":"Always"}"#, "RestartPolicy.Name"),
        (r#""RestartPolicy":{"Name":"always","MaximumRetryCount":1}"#, "MaximumRetryCount"),
        (r#""RestartPolicy":{"Name":"on-failure","MaximumRetryCount":-1}"#, "MaximumRetryCount"),
        (r#""RestartPolicy":{"Name":"always"},"AutoRemove":true"#, "RestartPolicy"),
        (r#""CapDrop":["SYS ADMIN"]"#, "HostConfig.CapDrop"),
        (r#""SecurityOpt":["no-new-privileges:true","no-new-privileges:false"]"#, "SecurityOpt"),
        (r#""GroupAdd":["99999999999"]"#, "HostConfig.GroupAdd"),
        (r#""GroupAdd":["-1"]"#, "HostConfig.GroupAdd"),
        (r#""Ulimits":[{"Name":"nofile","Soft":10,"Hard":5}]"#, "Ulimits[0]"),
        (r#""Ulimits":[{"Name":"bogus","Soft":1,"Hard":1}]"#, "Ulimits[0]"),
        (r#""Ulimits":[{"Name":"core","Soft":-2,"Hard":-2}]"#, "Ulimits[0]"),
        (r#""OomScoreAdj":1001"#, "HostConfig.OomScoreAdj"),
        (r#""OomScoreAdj":-1001"#, "HostConfig.OomScoreAdj"),
        (r#""PortBindings":{"0/tcp":null}"#, "PortBindings"),
        (r#""PortBindings":{"80-90/tcp":null}"#, "PortBindings"),
        (r#""PortBindings":{"80/icmp":null}"#, "PortBindings"),
        (r#""PortBindings":{"80/tcp":[{"HostIp":"host"}]}"#, "HostIp"),
        (r#""PortBindings":{"80/tcp":[{"HostPort":"99999"}]}"#, "HostPort"),
        (r#""PortBindings":{"80/tcp":[{"HostPort":"+8080"}]}"#, "HostPort"),
        (r#""PortBindings":{"80/tcp":[{"HostPort":"9000-8000"}]}"#, "HostPort"),
        (r#""PortBindings":{"80/tcp":[{"hostport":"22"}]}"#, "letter case"),
        (r#""Dns":["a"]"#, "HostConfig.Dns"),
        (r#""DnsOptions":["a\nnameserver 1.1.1.1"]"#, "HostConfig.DnsOptions"),
        (r#""DnsSearch":[""]"#, "HostConfig.DnsSearch"),
        (r#""ExtraHosts":["a:b\nc"]"#, "HostConfig.ExtraHosts"),
        (r#""ExtraHosts":["a"]"#, "HostConfig.ExtraHosts"),
        (r#""Sysctls":{"net.core.somaxconn":"a"}"#, "somaxconn"),
        (r#""ConsoleSize":[1]"#, "HostConfig.ConsoleSize"),
        (r#""ConsoleSize":[-1,80]"#, "HostConfig.ConsoleSize"),
        (r#""Privileged":false,"Unknown":1"#, "HostConfig.Unknown"),
        (r#""Unknown":"""#, "HostConfig.Unknown"),
        (r#""DeviceRequests":[{"Count":1,"DeviceIDs":["0"],"Capabilities":[["gpu"]]}]"#, "DeviceRequests"),
        (r#""DeviceRequests":[{"Count":0,"Capabilities":[["gpu"]]}]"#, "Count"),
        (r#""DeviceRequests":[{"DeviceIDs":["0","0"],"Capabilities":[["gpu"]]}]"#, "DeviceIDs[1]"),
        (r#""DeviceRequests":[{"DeviceIDs":["/dev/sda"],"Capabilities":[["gpu"]]}]"#, "DeviceIDs[0]"),
        (r#""DeviceRequests":[{"Count":1,"Capabilities":[["gpu"],["gpu"]]}]"#, "Capabilities"),
        (r#""DeviceRequests":[{"Count":1,"Capabilities":[["gpu"]]},{"Count":1,"Capabilities":[["gpu"]]}]"#, "DeviceRequests"),
        // keys that the engine would match
        (r#""privileged":true"#, "HostConfig.privileged"),
        (r#""PRIVILEGED":null"#, "HostConfig.PRIVILEGED"),
        (r#""\u212AernelMemory":1"#, "KernelMemory"),
        (r#""Kernel\u004demory":1,"KernelMemory":0"#, "twice"),
        (r#""Bind\u017F":["/:/host"]"#, "Binds"),
        (r#""Privileged":false,"Privileged":true"#, "twice"),
        (r#""memory":1073741824"#, "letter case"),
        (r#""Memory":67108864,"memory":0"#, "letter case"),
        (r#""LogConfig":{"type":"syslog"}"#, "letter case"),
    ] {
        refused(&host(fields), 400, field);
    }
    for (body, field) in [
        ("", "body"),
        ("null", "body"),
        ("[]", "body"),
        ("{}", "Image"),
        (r#"{"Image":""}"#, "Image"),
        (r#"{"Image":null}"#, "Image"),
        (r#"{"Image":"i"}{"#, "body"),
        (r#"{"Image":"i"}{"Image":"j"}"#, "body"),
        (r#"{"Image":"i","Image":"j"}"#, "twice"),
        (r#"{"Image":"i","image":"j"}"#, "letter case"),
        (r#"{"Image":"i","hostconfig":{"Privileged":true}}"#, "letter case"),
        (r#"{"Image":"i","hostconfig":null}"#, "letter case"),
        (r#"{"Image":"i","HostConfıg":{}}"#, "HostConf"),
        (r#"{"Image":"i","Ho\u017FtConfig":{}}"#, "letter case"),
        (r#"{"Image":"i","HostConfig":{},"HostConfig":{"Privileged":true}}"#, "twice"),
        (r#"{"Image":"i","HostConfig":[]}"#, "HostConfig"),
        (r#"{"Image":"i","HostConfig":{"Binds":null,"Bi\u006eds":["/:/h"]}}"#, "twice"),
        (r#"{"Image":"i","Binds":["/:/h"]}"#, "Binds"),
        (r#"{"Image":"i","Privileged":true}"#, "Privileged"),
        (r#"{"Image":"i","NetworkMode":"host"}"#, "NetworkMode"),
        (r#"{"Image":"i","Memory":9999999999}"#, "Memory"),
        (r#"{"Image":"i","Cpuset":"0"}"#, "Cpuset"),
        (r#"{"Image":"i","InnerHostConfig":{}}"#, "InnerHostConfig"),
        (r#"{"Image":"i","Labels":["a"]}"#, "Labels"),
        (r#"{"Image":"i","Labels":{"a":1}}"#, "Labels.a"),
        (r#"{"Image":"i","Env":["A=\u0000"]}"#, "Env[0]"),
        (r#"{"Image":"i","Env":[null]}"#, "Env[0]"),
        (r#"{"Image":"i","Env":"A=b"}"#, "Env"),
        (r#"{"Image":"i","Cmd":[1]}"#, "Cmd[0]"),
        (r#"{"Image":"i","WorkingDir":"w"}"#, "WorkingDir"),
        (r#"{"Image":"i","Hostname":"a b"}"#, "Hostname"),
        (r#"{"Image":"i","StopTimeout":-1}"#, "StopTimeout"),
        (r#"{"Image":"i","Tty":"true"}"#, "Tty"),
        (r#"{"Image":"i","ExposedPorts":{"1-65535/tcp":{}}}"#, "ExposedPorts"),
        (r#"{"Image":"i","ExposedPorts":{"80/tcp":{"a":1}}}"#, "ExposedPorts"),
        (r#"{"Image":"i","Healthcheck":{"Interval":1000000}}"#, "Healthcheck.Interval"),
        (r#"{"Image":"i","Healthcheck":{"Retries":-1}}"#, "Healthcheck.Retries"),
        (r#"{"Image":"i","User":"\ud800"}"#, "body"),
    ] {
        refused(body, 400, field);
    }
}

#[test]
fn bodies_that_cost_more_to_read_than_they_weigh_are_refused() {
    let deep = format!(
        r#"{{"Image":"i","Env":{}{}}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    refused(&deep, 400, "nested deeper");
    let wide = format!(r#"{{"Image":"i","Env":[{}0]}}"#, "0,".repeat(200_000));
    refused(&wide, 400, "values");
    let invalid = b"{\"Image\":\"\xff\"}";
    assert_eq!(
        run_with(invalid, &policy(), &image()).unwrap_err().status(),
        400
    );
}

#[test]
fn what_clients_send_for_ordinary_commands_is_accepted() {
    for (name, body) in [
        ("docker create", fixture!("cli-create.json")),
        ("docker run --rm", fixture!("cli-run-rm.json")),
        ("docker run -it --rm", fixture!("cli-run-it-rm.json")),
        (
            "docker create, many flags",
            fixture!("cli-create-many-flags.json"),
        ),
        ("docker-py create", fixture!("py-create.json")),
        (
            "docker-py create, nothing set",
            fixture!("py-create-plain.json"),
        ),
    ] {
        let judged = run_with(body, &policy(), &image())
            .unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!(judged.body["Image"], image().id);
        assert_eq!(judged.body["HostConfig"]["CgroupParent"], "/plimsoll/u1");
        for d in [Dimension::Cpu, Dimension::Memory, Dimension::Pids] {
            assert!(judged.claim[d] > 0, "{name}");
        }
        assert_eq!(judged.claim[Dimension::Containers], 1);
    }
    // What the CLI sends for --gpus and for -v is understood, and refused by name.
    for (body, field) in [
        (
            fixture!("cli-create-gpus-all.json"),
            "HostConfig.DeviceRequests",
        ),
        (
            fixture!("cli-create-gpus-ids.json"),
            "HostConfig.DeviceRequests",
        ),
        (
            fixture!("cli-create-gpu-mount.json"),
            "HostConfig.DeviceRequests",
        ),
        (fixture!("cli-create-binds.json"), "HostConfig.Binds"),
    ] {
        let refusal = run_with(body, &policy(), &image()).unwrap_err();
        assert_eq!((refusal.status(), refusal.field()), (403, field));
    }
    let gpus = Policy {
        gpus_available: 4,
        ..policy()
    };
    for (body, count) in [
        (fixture!("cli-create-gpus-all.json"), 4),
        (fixture!("cli-create-gpus-ids.json"), 2),
        (fixture!("cli-create-gpu-mount.json"), 1),
    ] {
        let judged = run_with(body, &gpus, &image()).unwrap();
        assert_eq!(judged.claim[Dimension::Gpus], count);
    }
}

#[test]
#[rustfmt::skip]
fn zero_null_and_the_default_are_not_requests() {
    for fields in [
        "",
        r#""PidsLimit":0"#,
        r#""PidsLimit":null,"Memory":null,"NanoCpus":0,"CpuQuota":0,"CpuPeriod":0"#,
        r#""CpuPeriod":100000"#,
        r#""MemorySwappiness":-1,"MemorySwap":0,"OomKillDisable":false,"BlkioWeight":0"#,
        r#""ConsoleSize":[24,80],"Isolation":"default","Runtime":"runc""#,
        r#""MaskedPaths":null,"ReadonlyPaths":null,"Privileged":null,"Devices":[]"#,
        r#""IpcMode":"private","CgroupnsMode":"private","CgroupParent":"/plimsoll/u1""#,
        r#""NetworkMode":"","RestartPolicy":{},"LogConfig":{"Type":"","Config":null}"#,
        r#""SecurityOpt":["no-new-privileges:false"],"OomScoreAdj":0,"VolumeDriver":"local""#,
        r#""Binds":[],"Links":[],"VolumesFrom":[],"Tmpfs":{},"Mounts":[],"Sysctls":{}"#,
        r#""Whatever":null"#,
    ] {
        let judged = run(&host(fields)).unwrap_or_else(|refusal| panic!("{fields}: {refusal}"));
        let plain = run(r#"{"Image":"i"}"#).unwrap();
        assert_eq!(judged.claim, plain.claim, "{fields}");
        assert_eq!(judged.requested, plain.requested, "{fields}");
        assert_eq!(judged.warnings, plain.warnings, "{fields}");
    }
}

#[test]
#[rustfmt::skip]
fn what_is_charged_is_what_the_engine_is_told() {
    const MIB: u64 = 1 << 20;
    let d = ContainerDefaults::default();
    for (fields, dimension, amount) in [
        ("", Dimension::Cpu, d.cpu.0),
        (r#""NanoCpus":10000000"#, Dimension::Cpu, 10),
        (r#""NanoCpus":1500000001"#, Dimension::Cpu, 1501),
        (r#""CpuQuota":50000"#, Dimension::Cpu, 500),
        (r#""CpuQuota":50000,"CpuPeriod":25000"#, Dimension::Cpu, 2000),
        (r#""CpuQuota":1000,"CpuPeriod":3000"#, Dimension::Cpu, 334),
        ("", Dimension::Memory, d.memory.0),
        (r#""Memory":6291456"#, Dimension::Memory, 6 * MIB),
        ("", Dimension::Pids, d.pids),
        (r#""PidsLimit":7"#, Dimension::Pids, 7),
        ("", Dimension::TempStorage, d.shm.0),
        (r#""ShmSize":1048576"#, Dimension::TempStorage, MIB),
        (r#""IpcMode":"none""#, Dimension::TempStorage, 0),
        (r#""ShmSize":1048576,"Tmpfs":{"/t":""}"#, Dimension::TempStorage, 65 * MIB),
        (r#""ShmSize":1048576,"Tmpfs":{"/t":"size=2M,mode=1777"}"#, Dimension::TempStorage, 3 * MIB),
        (r#""ShmSize":1048576,"Tmpfs":{"/t":"size=1"}"#, Dimension::TempStorage, MIB + 4096),
        (r#""ShmSize":1048576,"Mounts":[{"Type":"tmpfs","Target":"/t"}]"#, Dimension::TempStorage, 65 * MIB),
        (r#""ShmSize":1048576,"Mounts":[{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":4096}}]"#, Dimension::TempStorage, MIB + 4096),
        ("", Dimension::Storage, d.writable.0),
        (r#""LogConfig":{"Type":"none"}"#, Dimension::Storage, d.writable.0),
        (r#""LogConfig":{"Config":{"max-size":"1m"}}"#, Dimension::Storage, d.writable.0),
        (r#""LogConfig":{"Config":{"max-size":"1g","max-file":"2"}}"#, Dimension::Storage, d.writable.0 + 2_000_000_000 - 30 * MIB),
        ("", Dimension::ConcurrentContainers, 1),
        ("", Dimension::Gpus, 0),
    ] {
        let judged = run(&host(fields)).unwrap_or_else(|refusal| panic!("{fields}: {refusal}"));
        assert_eq!(judged.claim[dimension], amount, "{fields}");
        agrees(&judged);
    }
}

/// The claim, recomputed from the body alone.
#[track_caller]
fn agrees(judged: &Judged) {
    let host = &judged.body["HostConfig"];
    let number = |name: &str| host[name].as_u64().unwrap_or(0);
    let claim = &judged.claim;
    assert_eq!(claim[Dimension::Cpu] * 1_000_000, number("NanoCpus"));
    assert_eq!(claim[Dimension::Memory], number("Memory"));
    assert_eq!(number("MemorySwap"), number("Memory"));
    assert_eq!(claim[Dimension::Pids], number("PidsLimit"));
    let tmpfs: u64 = host["Tmpfs"]
        .as_object()
        .into_iter()
        .flat_map(|map| map.values())
        .map(|options| {
            let size = options.as_str().unwrap().split("size=").nth(1).unwrap();
            size.split(',').next().unwrap().parse::<u64>().unwrap()
        })
        .sum();
    assert_eq!(claim[Dimension::TempStorage], number("ShmSize") + tmpfs);
    for absent in [
        "CpuQuota",
        "CpuPeriod",
        "Privileged",
        "Binds",
        "Mounts",
        "Devices",
    ] {
        assert_eq!(host[absent], Value::Null, "{absent}");
    }
    for d in [
        Dimension::Cpu,
        Dimension::Memory,
        Dimension::Pids,
        Dimension::Containers,
    ] {
        assert!(claim[d] > 0, "{d}");
    }
    assert_eq!(host["CgroupParent"], "/plimsoll/u1");
    assert_eq!(host["CgroupnsMode"], "private");
}

#[test]
fn a_body_of_ours_is_judged_the_same_again() {
    for body in [
        fixture!("cli-create-many-flags.json"),
        fixture!("cli-run-it-rm.json"),
        fixture!("py-create.json"),
    ] {
        same_again(&run_with(body, &policy(), &image()).unwrap(), &policy());
    }
}

#[track_caller]
fn same_again(judged: &Judged, policy: &Policy) {
    let text = judged.body.to_string();
    let again = run_with(text.as_bytes(), policy, &image())
        .unwrap_or_else(|refusal| panic!("{text}: {refusal}"));
    assert_eq!(again.body, judged.body);
    assert_eq!(again.claim, judged.claim);
    assert_eq!(again.requested, judged.requested);
    assert_eq!(again.warnings, Vec::<String>::new(), "{text}");
}

#[test]
fn the_body_carries_what_the_tenant_chose() {
    let mut judged = run_with(fixture!("cli-create-many-flags.json"), &policy(), &image()).unwrap();
    assert_eq!(
        judged.body["HostConfig"]["NetworkMode"], "none",
        "until it is given one"
    );
    let range = PortRange {
        first: 8000,
        last: 8099,
    };
    let given = judged.ports.give(range, &PortPairs::new(), false).unwrap();
    judged.publish(&given);
    judged.attach(&Attachment::Network {
        name: "back".to_owned(),
        endpoint: Endpoint {
            aliases: vec!["hn".to_owned()],
            ..Endpoint::default()
        },
    });
    let host = json!({
        "CgroupParent": "/plimsoll/u1", "CgroupnsMode": "private", "IpcMode": "private",
        "NetworkMode": "back", "NanoCpus": 1_500_000_000, "Memory": 536_870_912,
        "MemorySwap": 536_870_912, "PidsLimit": 100, "ShmSize": 67_108_864,
        "Tmpfs": {"/run": "rw,noexec,nosuid,nodev,size=8388608"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10485760", "max-file": "3"}},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "AutoRemove": false, "ReadonlyRootfs": true, "Init": true,
        "PortBindings": {
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
            "90/tcp": [{"HostIp": "", "HostPort": "8090"}],
            "443/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8043"}]
        },
        "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "GroupAdd": ["100"],
        "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}],
        "Dns": ["1.1.1.1"], "ExtraHosts": ["a:1.2.3.4"]
    });
    let expected = json!({
        "Image": image().id,
        "Hostname": "hn", "User": "1000", "WorkingDir": "/w",
        "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
        "Tty": false, "OpenStdin": false, "StdinOnce": false,
        "ExposedPorts": {"80/tcp": {}, "90/tcp": {}, "443/tcp": {}},
        "Env": ["A=b"], "Cmd": ["true"],
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64},
        "Labels": {"plimsoll.owner": "alice", "x": "y"},
        "StopSignal": "TERM", "StopTimeout": 5,
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": {"back": {"Aliases": ["hn"], "Links": []}}}
    });
    assert_eq!(judged.body, expected);
    assert_eq!(judged.warnings, Vec::<String>::new());
}

#[test]
fn hosts_are_written_as_every_engine_reads_them() {
    let hosts = r#""ExtraHosts":["a:1.2.3.4","b=1.2.3.4","c:[::1]","d:::1","e:host-gateway"]"#;
    let judged = run(&host(hosts)).unwrap();
    assert_eq!(
        judged.body["HostConfig"]["ExtraHosts"],
        json!(["a:1.2.3.4", "b:1.2.3.4", "c:::1", "d:::1", "e:host-gateway"])
    );
}

#[test]
fn logs_are_bounded_and_start() {
    for (log, config) in [
        (
            r#"{"Type":"json-file"}"#,
            json!({"max-size": "10485760", "max-file": "3"}),
        ),
        (
            r#"{"Config":{"max-size":"20k","max-file":"1","compress":"true"}}"#,
            json!({"max-size": "20000", "max-file": "1"}),
        ),
        (
            r#"{"Type":"local","Config":{"max-file":"1"}}"#,
            json!({"max-size": "10485760", "max-file": "1", "compress": "false"}),
        ),
        (
            r#"{"Type":"local","Config":{"compress":"true"}}"#,
            json!({"max-size": "10485760", "max-file": "3", "compress": "true"}),
        ),
        (r#"{"Type":"none"}"#, json!({})),
    ] {
        let judged = run(&host(&format!(r#""LogConfig":{log}"#))).unwrap();
        assert_eq!(
            judged.body["HostConfig"]["LogConfig"]["Config"], config,
            "{log}"
        );
        let again = run(&judged.body.to_string()).unwrap();
        assert_eq!(again.body, judged.body, "{log}");
    }
}

#[test]
fn injected_limits_are_told() {
    let judged = run(r#"{"Image":"i"}"#).unwrap();
    for (warning, word) in judged
        .warnings
        .iter()
        .zip(["--cpus", "--memory", "--pids-limit"])
    {
        assert!(warning.contains(word), "{warning}");
    }
    assert_eq!(judged.warnings.len(), 3);
}

#[test]
fn reserved_labels_are_ours() {
    let mut facts = image();
    for key in ["plimsoll.owner", "plimsoll.key", "Plimsoll.X", "other"] {
        facts.labels.insert(key.to_owned(), "forged".to_owned());
    }
    let body = br#"{"Image":"i","Labels":{"plimsoll.team":"ml","plimsoll.project":"p","plimsoll.owner":"root","PLIM\u017FOLL.x":"1","a":"1","A":"2"}}"#;
    let judged = run_with(body, &policy(), &facts).unwrap();
    assert_eq!(judged.team.as_deref(), Some("ml"));
    assert_eq!(judged.project.as_deref(), Some("p"));
    assert_eq!(
        judged.body["Labels"],
        json!({"A": "2", "a": "1", "plimsoll.owner": "alice", "plimsoll.key": "", "Plimsoll.X": ""})
    );
    let told: Vec<_> = judged
        .warnings
        .iter()
        .filter(|w| w.contains("reserved"))
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
#[rustfmt::skip]
fn no_gpu_comes_by_environment() {
    for (env, image_env, granted, expected) in [
        (r#"["A=1"]"#, vec![], false, json!(["A=1"])),
        ("null", vec!["PATH=/bin"], false, Value::Null),
        (r#"["NVIDIA_VISIBLE_DEVICES=all"]"#, vec![], false, json!(["NVIDIA_VISIBLE_DEVICES=void"])),
        (r#"["NVIDIA_VISIBLE_DEVICES"]"#, vec![], false, json!(["NVIDIA_VISIBLE_DEVICES=void"])),
        ("null", vec!["NVIDIA_VISIBLE_DEVICES=all"], false, json!(["NVIDIA_VISIBLE_DEVICES=void"])),
        ("null", vec!["CUDA_VERSION=8.0"], false, json!(["NVIDIA_VISIBLE_DEVICES=void"])),
        (r#"["CUDA_VERSION=8"]"#, vec![], false, json!(["CUDA_VERSION=8", "NVIDIA_VISIBLE_DEVICES=void"])),
        (r#"["DOCKER_RESOURCE_GPU=all"]"#, vec![], false, json!([])),
        ("null", vec!["DOCKER_RESOURCE_GPU=all"], false, json!(["DOCKER_RESOURCE_GPU=void"])),
        ("null", vec!["AMD_VISIBLE_DEVICES=all"], false, json!(["AMD_VISIBLE_DEVICES=void"])),
        (r#"["NVIDIA_VISIBLE_DEVICES=all","A=1"]"#, vec![], true, json!(["A=1"])),
    ] {
        let gpu = r#""DeviceRequests":[{"Count":1,"Capabilities":[["gpu"]]}]"#;
        let body = format!(
            r#"{{"Image":"i","Env":{env},"HostConfig":{{{}}}}}"#,
            if granted { gpu } else { "" }
        );
        let facts = ImageFacts {
            env: image_env.into_iter().map(str::to_owned).collect(),
            ..image()
        };
        let policy = Policy {
            gpus_available: 1,
            ..policy()
        };
        let judged = run_with(body.as_bytes(), &policy, &facts).unwrap();
        assert_eq!(judged.body["Env"], expected, "{body} on {:?}", facts.env);
    }
}

#[test]
fn an_image_does_not_bring_what_a_request_may_not_ask() {
    let facts = ImageFacts {
        health_interval_ns: Some(1_000_000),
        exposed_ports: (1..300).map(|n| format!("{n}/tcp")).collect(),
        ..image()
    };
    let judged = run_with(br#"{"Image":"i"}"#, &policy(), &facts).unwrap();
    assert_eq!(
        judged.body["Healthcheck"],
        json!({"Interval": 1_000_000_000})
    );
    let publish = host(r#""PublishAllPorts":true"#);
    let refusal = run_with(publish.as_bytes(), &policy(), &facts).unwrap_err();
    assert_eq!(refusal.field(), "HostConfig.PublishAllPorts");
}

#[test]
fn swap_storage_and_gpus_follow_the_policy() {
    let granting = Policy {
        swap: true,
        storage_opt: true,
        gpus_available: 2,
        ..policy()
    };
    let fields = r#""Memory":67108864,"MemorySwap":134217728,"StorageOpt":{"size":"2G"},"MemorySwappiness":10,
        "DeviceRequests":[{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}]"#;
    let mut judged = run_with(host(fields).as_bytes(), &granting, &image()).unwrap();
    let sent = judged.body["HostConfig"].clone();
    assert_eq!(sent["MemorySwap"], 134_217_728);
    assert_eq!(sent["MemorySwappiness"], 10);
    assert_eq!(sent["StorageOpt"], json!({"size": "2147483648"}));
    assert_eq!(judged.claim[Dimension::Storage], 2 << 30);
    assert_eq!(judged.claim[Dimension::Gpus], 2);
    assert_eq!(sent["DeviceRequests"][0]["Count"], 2);
    judged.pin_gpus(&["GPU-1".to_owned(), "GPU-2".to_owned()]);
    assert_eq!(
        judged.body["HostConfig"]["DeviceRequests"],
        json!([{"Driver": "", "DeviceIDs": ["GPU-1", "GPU-2"], "Capabilities": [["gpu"]]}])
    );

    let judged = run(&host(r#""Memory":67108864,"MemorySwap":134217728"#)).unwrap();
    assert_eq!(judged.body["HostConfig"]["MemorySwap"], 67_108_864);
    assert!(judged.warnings.iter().any(|w| w.contains("--memory-swap")));
    let judged = run_with(host("").as_bytes(), &granting, &image()).unwrap();
    assert_eq!(
        judged.body["HostConfig"]["StorageOpt"],
        json!({"size": "1073741824"})
    );
}

#[test]
fn a_refusal_says_what_why_and_what_instead() {
    let refusal = run(&host(r#""Privileged":true"#)).unwrap_err();
    assert_eq!(
        refusal.message(),
        "plimsoll: --privileged is not allowed here: it gives the container the host's devices and \
         rights; name what the program needs; --cap-add covers the engine's default capabilities"
    );
    let refusal = run(&host(r#""NanoCpus":9999"#)).unwrap_err();
    assert_eq!(
        refusal.message(),
        "plimsoll: HostConfig.NanoCpus: must be at least 0.01 of a core"
    );
}

/// Values that sit on the edges of what is accepted.
fn numbers() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(i64::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(u64::MAX)),
        Just(json!(1.5)),
        (0u32..63).prop_map(|bit| json!(1u64 << bit)),
        (0u32..63).prop_map(|bit| json!((1u64 << bit) + 1)),
        (1i64..20_000_000_000).prop_map(|n| json!(n)),
    ]
}

fn host_configs() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "NanoCpus",
        "CpuQuota",
        "CpuPeriod",
        "CpuShares",
        "Memory",
        "MemorySwap",
        "MemoryReservation",
        "MemorySwappiness",
        "PidsLimit",
        "ShmSize",
        "OomScoreAdj",
    ]);
    let size = "(size=[0-9]{1,12}[kmg]?)?(,mode=[0-7]{1,4})?(,exec|,noexec|,ro)?";
    (
        prop::collection::btree_map(name, numbers(), 0..5),
        prop::collection::btree_map("/[a-z]{1,3}(/[a-z]{1,2})?", size, 0..3),
        prop::collection::vec((0u64..1 << 40, 0u32..0o10000), 0..2),
        prop::sample::select(vec!["", "private", "none"]),
        prop::sample::select(vec!["", "no", "always", "on-failure"]),
    )
        .prop_map(|(fields, tmpfs, mounts, ipc, restart)| {
            let mut host = json!({
                "Tmpfs": tmpfs, "IpcMode": ipc, "RestartPolicy": {"Name": restart},
                "Mounts": mounts.iter().enumerate().map(|(i, (size, mode))| json!({
                    "Type": "tmpfs", "Target": format!("/m{i}"),
                    "TmpfsOptions": {"SizeBytes": size, "Mode": mode}
                })).collect::<Vec<_>>(),
            });
            for (name, value) in fields {
                host[name] = value;
            }
            host
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn an_accepted_body_says_what_is_charged_and_is_judged_the_same_again(
        host in host_configs(),
        env in prop::option::of(prop::collection::vec("[A-Z]{1,3}(=[a-z]{0,3})?", 0..3)),
    ) {
        let body = json!({"Image": "i", "Env": env, "HostConfig": host}).to_string();
        if let Ok(judged) = run(&body) {
            agrees(&judged);
            same_again(&judged, &policy());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = run_with(&body, &policy(), &image());
    }
}

/// Mounts of a person whose home is /home/alice.
fn at_home() -> Policy {
    Policy {
        mounts: MountPolicy {
            volume_prefix: "alice.1.".to_owned(),
            key: "0f".repeat(16),
            stash: "/run/stash".to_owned(),
            writes_as: Some((1001, 1002)),
            home: Some("/home/alice".to_owned()),
            beyond_home: true,
        },
        ..policy()
    }
}

#[test]
fn the_engine_is_told_of_mounts_by_names_of_ours_alone() {
    let image = ImageFacts {
        volumes: vec!["/declared".to_owned(), "/data".to_owned()],
        ..image()
    };
    let body = host(
        r#""Binds":["data:/data","/home/alice/work:/work:ro","/anonymous"],
           "Mounts":[{"Type":"volume","Target":"/other","ReadOnly":true}]"#,
    );
    let judged = run_with(body.as_bytes(), &at_home(), &image).unwrap();
    let told: Vec<(String, String)> = judged.body["HostConfig"]["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["Target"].to_string(), m["Source"].to_string()))
        .collect();
    let anonymous = |n: usize| format!("\"alice.1.{}{n:032x}\"", "0f".repeat(16));
    let named = |target: &str, source: &str| (format!("\"{target}\""), source.to_owned());
    assert_eq!(
        told,
        [
            named("/anonymous", &anonymous(0)),
            named("/data", "\"alice.1.data\""),
            named("/declared", &anonymous(2)),
            named("/other", &anonymous(3)),
            named("/work", &format!("\"/run/stash/{}/0\"", "0f".repeat(16))),
        ]
    );
    assert!(judged.body["HostConfig"].get("Binds").is_none());
    let volumes: Vec<bool> = judged.volumes.iter().map(|v| v.anonymous).collect();
    assert_eq!(volumes, [true, false, true, true]);
    assert!(
        judged
            .volumes
            .iter()
            .filter(|v| v.anonymous)
            .all(|v| is_anonymous(&v.name))
    );
    assert_eq!(judged.host_mounts[0].path, "/home/alice/work");
    assert_eq!(judged.body.get("User"), None, "reading at home is free");
}

/// Whoever can write to the host, or read beyond their home, does it under their own uid and gid.
#[test]
fn who_reaches_the_host_does_it_with_their_own_rights() {
    for (binds, user, runs_as) in [
        (r#"["/home/alice:/w"]"#, "", Some("1001:1002")),
        (r#"["/home/alice:/w"]"#, "1001", Some("1001:1002")),
        (r#"["/home/alice:/w"]"#, "1001:1002", Some("1001:1002")),
        (r#"["/home/alice:/w"]"#, "0", None),
        (r#"["/home/alice:/w"]"#, "1001:0", None),
        (r#"["/home/alice:/w"]"#, "alice", None),
        (r#"["/home/alice:/w:ro"]"#, "0", Some("0")),
        (r#"["/home/alicent:/w:ro"]"#, "", Some("1001:1002")),
        (r#"["/scratch:/w:ro"]"#, "", Some("1001:1002")),
        (r#"["/scratch:/w:ro"]"#, "0", None),
        (
            r#"["/home/alice:/r:ro","/home/alice/x:/w"]"#,
            "",
            Some("1001:1002"),
        ),
    ] {
        let body = format!(r#"{{"Image":"i","User":"{user}","HostConfig":{{"Binds":{binds}}}}}"#);
        let judged = run_with(body.as_bytes(), &at_home(), &image());
        match (judged, runs_as) {
            (Ok(judged), Some(runs_as)) => {
                assert_eq!(judged.body["User"], runs_as, "{body}");
                let forced = runs_as.contains(':');
                assert_eq!(judged.as_owner, forced, "{body}");
                let options = judged.body["HostConfig"]["SecurityOpt"].to_string();
                assert_eq!(options.contains("no-new-privileges"), forced, "{body}");
            }
            (Err(refusal), None) => assert_eq!(refusal.field(), "User", "{body}"),
            (judged, _) => panic!("{body}: {judged:?}"),
        }
    }
    let groups = host(r#""Binds":["/home/alice:/w"],"GroupAdd":["0"]"#);
    let refusal = run_with(groups.as_bytes(), &at_home(), &image()).unwrap_err();
    assert_eq!(refusal.field(), "HostConfig.GroupAdd");
    for path in ["relative/x", "/home/alice/../ben", "/a\\u0000b"] {
        let body = host(&format!(r#""Binds":["{path}:/w"]"#));
        assert!(
            run_with(body.as_bytes(), &at_home(), &image()).is_err(),
            "{path}"
        );
    }
}

/// The runtime enters the working directory, and makes what is missing of it and of mounts' places, as
/// root: nowhere that somebody else's folders may be on the way.
#[test]
fn root_goes_nowhere_for_a_tenant_in_folders_of_the_host() {
    let image = ImageFacts {
        working_dir: "/app/src".to_owned(),
        ..image()
    };
    for (binds, dir, refused) in [
        (r#"["/scratch:/x:ro"]"#, "", None),
        (r#"["/scratch:/x:ro"]"#, "/", None),
        (r#"["/scratch:/x:ro"]"#, "/x", None),
        (r#"["/scratch:/x:ro"]"#, "/x/", None),
        (r#"["/scratch:/x:ro"]"#, "/app/src", None),
        (
            r#"["/scratch:/x:ro"]"#,
            "/x/ben/project",
            Some("WorkingDir"),
        ),
        (r#"["/scratch:/x:ro"]"#, "/y/../x/ben", Some("WorkingDir")),
        (r#"["/scratch:/x:ro"]"#, "/tmp/link", Some("WorkingDir")),
        (r#"["/scratch:/app:ro"]"#, "", Some("WorkingDir")),
        (
            r#"["/scratch:/x:ro","v1:/v","v2:/v/l"]"#,
            "/v/l",
            Some("WorkingDir"),
        ),
        // A link in the home may lead beyond it.
        (r#"["/home/alice/link:/x"]"#, "/x/ben", Some("WorkingDir")),
        (r#"["/home/alice:/x:ro"]"#, "/x/ben", None),
        (r#"["v1:/v"]"#, "/v/x", None),
        (
            r#"["/scratch:/x","vol:/x/ben/new"]"#,
            "/",
            Some("HostConfig.Mounts"),
        ),
        (r#"["/scratch:/x:ro","vol:/x/ben/new"]"#, "/", None),
        (r#"["/home/alice:/x","vol:/x/node_modules"]"#, "/x", None),
    ] {
        let body =
            format!(r#"{{"Image":"i","WorkingDir":"{dir}","HostConfig":{{"Binds":{binds}}}}}"#);
        let judged = run_with(body.as_bytes(), &at_home(), &image);
        assert_eq!(
            judged.err().map(|r| r.field().to_owned()).as_deref(),
            refused,
            "{body}"
        );
    }
    let body = br#"{"Image":"i","WorkingDir":"/x/src","HostConfig":{"Binds":["/home/alice:/x"]}}"#;
    let mut policy = at_home();
    policy.mounts.beyond_home = false;
    assert!(run_with(body, &policy, &image).is_ok());
    // As some accounts have it.
    policy.mounts.home = Some("/home/alice/".to_owned());
    let body = host(r#""Binds":["/home/alice/x:/x:ro"]"#);
    let judged = run_with(body.as_bytes(), &policy, &image).unwrap();
    assert!(!judged.as_owner);
}
