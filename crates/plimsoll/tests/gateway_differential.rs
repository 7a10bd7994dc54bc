//! What was judged is what the engine did: create bodies are generated, harmful fields among harmless
//! ones and in odd spellings, and of every one that is let through the engine is asked what it made.
//!
//! `PLIMSOLL_DIFFERENTIAL_SEED` and `PLIMSOLL_DIFFERENTIAL_CASES` repeat or widen a run.

#![allow(
    clippy::disallowed_methods,
    reason = "which cases are run is said in the environment"
)]

mod common;

use common::{IMAGE, Server, http};
use serde_json::{Value, json};

/// xorshift64*: enough to choose from tables, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// Fields of `HostConfig` as JSON text, harmless and harmful.
const HOST: [&str; 73] = [
    r#""Memory":33554432"#,
    r#""Memory":0"#,
    r#""Memory":-1"#,
    r#""Memory":9223372036854775807"#,
    r#""Memory":33554432.0"#,
    r#""Memory":"33554432""#,
    r#""memory":0"#,
    r#""MemorySwap":-1"#,
    r#""MemorySwap":134217728"#,
    r#""MemoryReservation":16777216"#,
    r#""NanoCpus":100000000"#,
    r#""NanoCpus":1"#,
    r#""NanoCpus":0"#,
    r#""CpuQuota":20000,"CpuPeriod":100000"#,
    r#""CpuQuota":-1"#,
    r#""CpuShares":512"#,
    r#""PidsLimit":50"#,
    r#""PidsLimit":-1"#,
    r#""PidsLimit":null"#,
    r#""Privileged":true"#,
    r#""Privileged":false"#,
    r#""privileged":true"#,
    r#""CapAdd":["SYS_ADMIN"]"#,
    r#""CapAdd":["NET_BIND_SERVICE"]"#,
    r#""CapDrop":["ALL"]"#,
    r#""PidMode":"host""#,
    r#""IpcMode":"host""#,
    r#""IpcMode":"none""#,
    r#""UTSMode":"host""#,
    r#""NetworkMode":"none""#,
    r#""NetworkMode":"host""#,
    r#""NetworkMode":"bridge""#,
    r#""NetworkMode":"Host""#,
    r#""NetworkMode":"nobodys""#,
    r#""NetworkMode":"container:nobodys""#,
    r#""networkmode":"host""#,
    r#""Links":["nobodys:x"]"#,
    r#""PortBindings":{"80/tcp":[{"HostPort":"22"}]}"#,
    r#""PortBindings":{"80/tcp":[{"HostPort":"20007"},{}]}"#,
    r#""PortBindings":{"80/tcp":[{"HostPort":"1-65535"}],"81/udp":null}"#,
    r#""PortBindings":{"80/tcp":[{"HostIp":"192.0.2.1"}]}"#,
    r#""PublishAllPorts":true"#,
    r#""Binds":["/:/host"]"#,
    r#""Binds":["/etc:/etc:ro"]"#,
    r#""Binds":["data:/data"]"#,
    r#""B\u0069nds":["/:/host"]"#,
    r#""Bind\u017f":["/:/host"]"#,
    r#""Mounts":[{"Type":"bind","Source":"/","Target":"/h"}]"#,
    r#""Mounts":[{"Type":"volume","Source":"v","Target":"/v"}]"#,
    r#""Mounts":[{"Type":"volume","Target":"/v","VolumeOptions":{"DriverConfig":{"Options":{"device":"/"}}}}]"#,
    r#""Tmpfs":{"/t":"size=1m"}"#,
    r#""Tmpfs":{"/t":"size=1m,size=9g"}"#,
    r#""ShmSize":1048576"#,
    r#""Devices":[{"PathOnHost":"/dev/kmsg","PathInContainer":"/k","CgroupPermissions":"rwm"}]"#,
    r#""DeviceCgroupRules":["a *:* rwm"]"#,
    r#""SecurityOpt":["seccomp=unconfined"]"#,
    r#""SecurityOpt":["no-new-privileges"]"#,
    r#""CgroupParent":"/""#,
    r#""CgroupParent":"""#,
    r#""Runtime":"runc""#,
    r#""RestartPolicy":{"Name":"always"}"#,
    r#""RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2}"#,
    r#""AutoRemove":false"#,
    r#""LogConfig":{"Type":"syslog"}"#,
    r#""LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}}"#,
    r#""OomKillDisable":true"#,
    r#""OomScoreAdj":500"#,
    r#""Ulimits":[{"Name":"nofile","Soft":100,"Hard":200}]"#,
    r#""Sysctls":{"kernel.shmmax":"1"}"#,
    r#""MaskedPaths":[]"#,
    r#""ReadonlyRootfs":true"#,
    r#""UsernsMode":"host""#,
    r#""Annotations":{"io.x":"y"}"#,
];

/// Fields beside it.
const TOP: [&str; 20] = [
    r#""User":"1000""#,
    r#""Env":["A=b"]"#,
    r#""Labels":{"plimsoll.user":"x","app":"y"}"#,
    r#""Labels":{"plimsoll.team":""}"#,
    r#""Tty":true"#,
    r#""Hostname":"h""#,
    r#""Volumes":{"/v":{}}"#,
    r#""NetworkDisabled":true"#,
    r#""StopTimeout":3"#,
    r#""Memory":1"#,
    r#""HostConfig":{}"#,
    r#""hostconfig":{"Privileged":true}"#,
    r#""Entrypoint":["true"]"#,
    r#""MacAddress":"02:42:ac:11:00:02""#,
    r#""Image":"plimsoll/example""#,
    r#""Unknown":1"#,
    r#""ExposedPorts":{"80/tcp":{},"82/tcp":{}}"#,
    r#""NetworkingConfig":{"EndpointsConfig":{"host":{}}}"#,
    r#""NetworkingConfig":{"EndpointsConfig":{"bridge":{"Aliases":["a"],"IPAMConfig":{}}}}"#,
    r#""NetworkingConfig":{"EndpointsConfig":{"bridge":{"DriverOpts":{"a":"b"}}}}"#,
];

fn body(dice: &mut Dice) -> String {
    let some = |dice: &mut Dice, from: &[&str], most: usize| {
        let count = dice.roll(most + 1);
        let picked: Vec<String> = (0..count).map(|_| (*dice.pick(from)).to_owned()).collect();
        picked.join(",")
    };
    let host = some(dice, &HOST, 4);
    let top = some(dice, &TOP, 1);
    let comma = if top.is_empty() { "" } else { "," };
    format!(r#"{{"Image":"{IMAGE}","Cmd":["true"]{comma}{top},"HostConfig":{{{host}}}}}"#)
}

/// What must be true of whatever a tenant got the engine to make.
fn holds(made: &Value, charged: &Value, parent: &str) -> Result<(), String> {
    let host = &made["HostConfig"];
    let number = |name: &str| host[name].as_i64().unwrap_or(0);
    let empty = |value: &Value| {
        value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value == ""
    };
    let gib = f64::from(1 << 30);
    let same = |name: &str, is: f64| {
        let reserved = charged["charged"][name].as_f64().unwrap_or(-1.0);
        ((reserved - is).abs() < 1e-9)
            .then_some(())
            .ok_or_else(|| format!("{name} is charged as {reserved}, the engine has {is}"))
    };
    same("cpuCores", number("NanoCpus") as f64 / 1e9)?;
    same("memoryGB", number("Memory") as f64 / gib)?;
    same("pids", number("PidsLimit") as f64)?;
    let shown = |name: &str| format!("{name} is {}", host[name]);
    if number("MemorySwap") != number("Memory") {
        return Err(shown("MemorySwap"));
    }
    for name in ["Memory", "NanoCpus", "PidsLimit"] {
        if number(name) <= 0 {
            return Err(shown(name));
        }
    }
    for name in ["CpuQuota", "CpuPeriod", "CpuRealtimeRuntime", "BlkioWeight"] {
        if number(name) != 0 {
            return Err(shown(name));
        }
    }
    for name in ["Privileged", "OomKillDisable"] {
        if host[name] == true {
            return Err(shown(name));
        }
    }
    for name in [
        "PidMode",
        "UTSMode",
        "UsernsMode",
        "Devices",
        "DeviceCgroupRules",
        "VolumesFrom",
        "Links",
    ] {
        if !empty(&host[name]) {
            return Err(shown(name));
        }
    }
    if !matches!(host["IpcMode"].as_str(), Some("private" | "none")) {
        return Err(shown("IpcMode"));
    }
    if host["CgroupnsMode"] != "private" || host["CgroupParent"] != parent {
        return Err(format!(
            "{} {}",
            shown("CgroupnsMode"),
            shown("CgroupParent")
        ));
    }
    let network = host["NetworkMode"].as_str().unwrap_or_default();
    let own = network == "none" || (network.starts_with("ada.") && network.ends_with(".bridge"));
    if !own || !empty(&host["Binds"]) {
        return Err(format!("{} {}", shown("NetworkMode"), shown("Binds")));
    }
    // The first user's span.
    let bindings = host["PortBindings"].as_object().into_iter().flatten();
    for binding in bindings.flat_map(|(_, b)| b.as_array().into_iter().flatten()) {
        let port = binding["HostPort"].as_str().and_then(|p| p.parse().ok());
        if !port.is_some_and(|p: u16| (20_000..20_050).contains(&p)) || binding["HostIp"] != "" {
            return Err(shown("PortBindings"));
        }
    }
    if host["PublishAllPorts"] == true {
        return Err(shown("PublishAllPorts"));
    }
    for mount in made["Mounts"].as_array().into_iter().flatten() {
        let ours = mount["Type"] == "tmpfs"
            || (mount["Type"] == "volume"
                && mount["Name"]
                    .as_str()
                    .is_some_and(|n| n.starts_with("ada.")));
        if !ours {
            return Err(format!("it mounts {mount}"));
        }
    }
    for cap in host["CapAdd"].as_array().into_iter().flatten() {
        if cap
            .as_str()
            .is_some_and(|c| c.contains("SYS_") || c == "ALL")
        {
            return Err(shown("CapAdd"));
        }
    }
    for option in host["SecurityOpt"].as_array().into_iter().flatten() {
        if !option
            .as_str()
            .is_some_and(|o| o.starts_with("no-new-privileges"))
        {
            return Err(shown("SecurityOpt"));
        }
    }
    if !matches!(
        host["LogConfig"]["Type"].as_str(),
        Some("json-file" | "local" | "none")
    ) || host["MaskedPaths"].as_array().is_none_or(Vec::is_empty)
    {
        return Err(format!("{} {}", shown("LogConfig"), shown("MaskedPaths")));
    }
    Ok(())
}

#[test]
fn whatever_is_let_through_is_what_was_judged() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let seed = number("PLIMSOLL_DIFFERENTIAL_SEED", 0x5eed_0f5e_a11e_7715);
    let cases = number("PLIMSOLL_DIFFERENTIAL_CASES", 400);
    let server = Server::start();
    // The tenant is whoever runs the test.
    let uid = std::process::Command::new("id").arg("-u").output().unwrap();
    let uid: u32 = String::from_utf8_lossy(&uid.stdout).trim().parse().unwrap();
    server.tenant("ada", uid, json!({"maxMemoryGB": 4, "maxCpuCores": 4}));
    let id = server.get("/api/users/ada")["id"]
        .as_str()
        .unwrap()
        .replace('-', "");
    let parent = format!("/{}/u{id}", server.instance());
    let mut dice = Dice(seed.max(1));
    let (mut through, mut refused) = (0, 0);
    for case in 0..cases {
        let body = body(&mut dice);
        let sent = http(
            &server.path("docker.sock"),
            "POST",
            "/v1.41/containers/create",
            &[],
            Some(&body),
        );
        let (status, answer) = sent.unwrap();
        let context = || format!("seed {seed} case {case}: {status} {body}\n{answer}");
        if status != 201 {
            assert!((400..500).contains(&status), "{}", context());
            refused += 1;
            continue;
        }
        through += 1;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let container = answer["Id"].as_str().unwrap();
        let seen = server.docker(&["inspect", container]);
        let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
        let charged = server.get("/api/containers?user=ada");
        let charged = charged["items"].as_array().unwrap();
        let charged = charged.iter().find(|c| c["containerId"] == container);
        let charged = charged.unwrap_or_else(|| panic!("uncharged: {}", context()));
        if let Err(why) = holds(&seen[0], charged, &parent) {
            panic!("{why}: {}", context());
        }
        let path = format!("/v1.41/containers/{container}?force=1&v=1");
        let (status, said) = http(&server.path("docker.sock"), "DELETE", &path, &[], None).unwrap();
        assert_eq!(status, 204, "{said}");
    }
    // Were everything refused, or nothing, this would show nothing.
    assert!(
        through * 10 > cases && refused * 10 > cases,
        "{through} through, {refused} refused"
    );
    assert_eq!(server.usage("ada")["reservedContainers"], 0);
}
