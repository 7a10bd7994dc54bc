//! What is measured is what the kernel counted, whatever becomes of the server meanwhile.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are outside the server: they may look at the clock"
)]

mod common;

use std::time::Instant;

use common::{IMAGE, Server, SmallDisk, Tenant, wait_for};
use serde_json::{Value, json};

/// Burns the processor it is given.
const BUSY: [&str; 3] = ["sh", "-c", "while :; do :; done"];

/// `tail` keeps its last line, which is all of it.
const HOLDS_48M: [&str; 3] = ["sh", "-c", "head -c 48m /dev/zero | tail | sleep 1000"];

const TOTALS: [&str; 3] = [
    "totalCpuCoreHours",
    "totalMemoryGBHours",
    "totalRuntimeHours",
];
const PEAKS: [&str; 3] = ["peakCpuCores", "peakMemoryGB", "peakContainers"];

struct Metered {
    server: Server,
    ada: Tenant,
    /// The cgroup over all of ada's containers.
    parent: String,
}

impl Metered {
    fn start(uid: u32, port: &str) -> Self {
        Self::start_in(common::directory(), uid, port)
    }

    fn start_in(dir: tempfile::TempDir, uid: u32, port: &str) -> Self {
        let quick = ["--set", "metering.interval_s=0.1", "--set", port];
        let server = Server::start_in(dir, &common::engine(), &quick, &[]);
        let ada = server.tenant("ada", uid, json!({"maxMemoryGB": 0.5, "maxCpuCores": 1}));
        let id = server.get("/api/users/ada")["id"].clone();
        let id = id.as_str().unwrap().replace('-', "");
        let parent = format!("{}/u{id}", server.instance());
        Self {
            server,
            ada,
            parent,
        }
    }

    fn run(&self, name: &str, command: &[&str]) {
        let options = [
            "run", "-d", "--name", name, "--memory", "128m", "--cpus", "0.3",
        ];
        self.ada.ok(&[&options, &[IMAGE][..], command].concat());
    }

    /// A file of the cgroup over all of ada's containers, or of one of them.
    fn counted(&self, controller: &str, container: &str, file: &str) -> u64 {
        let parent = &self.parent;
        let path = format!("/sys/fs/cgroup/{controller}/{parent}/{container}/{file}");
        let text = std::fs::read_to_string(&path).unwrap();
        text.trim().parse().unwrap()
    }

    /// CPU time that the kernel counted for ada, nanoseconds.
    fn cpu_ns(&self) -> u64 {
        self.counted("cpuacct", "", "cpuacct.usage")
    }

    fn said(&self) -> Value {
        self.server.usage("ada")
    }

    /// What the API says once it has counted all that the kernel has.
    fn settled(&self) -> Value {
        wait_for("every nanosecond to be counted", || {
            let used = self.said();
            (nanoseconds(&used) == self.cpu_ns()).then_some(used)
        })
    }
}

fn totals(used: &Value) -> Vec<f64> {
    TOTALS.map(|name| used[name].as_f64().unwrap()).to_vec()
}

fn peaks(used: &Value) -> Value {
    PEAKS.map(|name| used[name].clone()).to_vec().into()
}

fn nanoseconds(used: &Value) -> u64 {
    (used["totalCpuCoreHours"].as_f64().unwrap() * 3.6e12).round() as u64
}

fn assert_no_lower(before: &Value, after: &Value) {
    for (before, after) in totals(before).iter().zip(totals(after)) {
        assert!(after >= *before, "{before} became {after}");
    }
}

#[test]
fn totals_are_the_kernels_across_crashes_and_restarts() {
    let mut m = Metered::start(62_500, "ports.first=41000");
    m.run("busy", &BUSY);
    let container = m.server.full_id("ada", "busy");
    wait_for("something to be counted", || {
        (nanoseconds(&m.said()) > 100_000_000).then_some(())
    });

    // Killed while it counts: the first answer of the next is no lower than the last of this one.
    for _ in 0..3 {
        let before = m.said();
        m.server.crash_and_restart();
        assert_no_lower(&before, &m.said());
    }
    let before = m.said();
    m.server.terminate();
    m.server.restart();
    assert_no_lower(&before, &m.said());

    // Frozen, what runs uses nothing, and both sides can be compared to the last nanosecond.
    m.ada.ok(&["pause", "busy"]);
    let before = m.settled();
    m.server.crash();
    // Away, the server sees nothing of this.
    m.server.docker(&["unpause", &container]);
    let counted = nanoseconds(&before);
    wait_for("the container to go on", || {
        (m.cpu_ns() > counted + 100_000_000).then_some(())
    });
    m.server.docker(&["pause", &container]);
    m.server.restart();
    assert_no_lower(&before, &m.said());
    let after = m.settled();
    assert!(nanoseconds(&after) > counted + 100_000_000, "{after}");

    // Whatever was used is also the system's, and nobody else's but what runs past Plimsoll.
    let system = m.server.get("/api/usage/system");
    let managed = nanoseconds(&system) - nanoseconds(&system["unmanaged"]);
    assert_eq!(managed, nanoseconds(&after));
    // A container that goes takes nothing along.
    m.ada.ok(&["unpause", "busy"]);
    m.ada.ok(&["rm", "-f", "busy"]);
    let last = m.settled();
    m.server.crash_and_restart();
    assert_no_lower(&last, &m.said());
    assert_eq!(nanoseconds(&m.settled()), m.cpu_ns());
}

#[test]
fn memory_over_time_is_the_working_set_times_the_runtime() {
    let mut m = Metered::start(62_510, "ports.first=41200");
    m.run("web", &HOLDS_48M);
    let held = wait_for("it to hold its memory", || {
        let used = m.said();
        (used["currentMemoryGB"].as_f64()? > 48.0 / 1024.0).then_some(used)
    });
    m.ada.ok(&["pause", "web"]);
    let container = m.server.full_id("ada", "web");
    let bytes = held["currentMemoryGB"].as_f64().unwrap() * f64::from(1 << 30);
    let most = m.counted("memory", &container, "memory.max_usage_in_bytes");
    assert!(bytes <= most as f64, "{bytes} of {most}");

    let spent = |used: &Value| {
        let [_, memory, runtime] = totals(used)[..] else {
            unreachable!()
        };
        (memory, runtime)
    };
    let (memory, runtime) = spent(&held);
    // A server that is away has seen no memory and counts no runtime: the two stay in step.
    for _ in 0..2 {
        m.server.crash_and_restart();
        let away = spent(&m.said());
        wait_for("time to be counted again", || {
            (spent(&m.said()).1 > away.1).then_some(())
        });
    }
    let now = m.said();
    let (memory, runtime) = (spent(&now).0 - memory, spent(&now).1 - runtime);
    let mean = memory / runtime;
    let held = held["currentMemoryGB"].as_f64().unwrap();
    // The kernel charges in batches of some pages a processor, so what is frozen wavers a little.
    assert!((mean / held - 1.0).abs() < 0.03, "{mean} instead of {held}");
}

#[test]
fn peaks_outlive_what_made_them_and_the_server() {
    let mut m = Metered::start(62_520, "ports.first=41400");
    m.run("small", &["sleep", "1000"]);
    m.run("big", &HOLDS_48M);
    let high = wait_for("the peak", || {
        let used = m.said();
        let big = used["currentMemoryGB"].as_f64()? > 48.0 / 1024.0;
        (big && used["currentRunningContainers"] == 2).then_some(used)
    });
    m.ada.ok(&["rm", "-f", "big"]);
    let after = wait_for("what it held to be free", || {
        let used = m.said();
        let small = used["currentMemoryGB"].as_f64()? < 48.0 / 1024.0;
        (small && used["currentRunningContainers"] == 1).then_some(used)
    });
    assert_eq!(after["peakContainers"], 2);
    let peak = after["peakMemoryGB"].as_f64().unwrap();
    assert!(peak >= high["currentMemoryGB"].as_f64().unwrap(), "{after}");
    let most = m.counted("memory", "", "memory.max_usage_in_bytes");
    // The two containers are read one after the other, not at one moment.
    let slack = f64::from(1 << 20);
    assert!(
        peak * f64::from(1 << 30) <= most as f64 + slack,
        "{peak} of {most}"
    );
    m.ada.ok(&["rm", "-f", "small"]);
    wait_for("nothing to run", || {
        (m.said()["currentRunningContainers"] == 0).then_some(())
    });
    let kept = peaks(&m.said());
    m.server.crash_and_restart();
    assert_eq!(peaks(&m.said()), kept);
    m.server.terminate();
    m.server.restart();
    assert_eq!(peaks(&m.said()), kept);
}

#[test]
fn a_full_disk_makes_nothing_count_twice_or_go_missing() {
    let dir = common::directory();
    let disk = SmallDisk::mount(&dir.path().join("data"), "4m");
    let mut m = Metered::start_in(dir, 62_530, "ports.first=41600");
    let began = Instant::now();
    m.run("busy", &BUSY);
    disk.fill();
    let collector =
        |server: &Server| server.api("GET", "/readyz", None).1["tasks"]["collector"].clone();
    let runs = |server: &Server| collector(server)["runs"].as_u64().unwrap();
    wait_for("a reading that cannot be kept", || {
        (collector(&m.server)["ok"] == json!(false)).then_some(())
    });
    let first = runs(&m.server);
    wait_for("many of them", || {
        (runs(&m.server) > first + 10).then_some(())
    });
    // They are shown all the same.
    m.ada.ok(&["pause", "busy"]);
    let full = m.settled();
    assert_eq!(collector(&m.server)["ok"], false);
    disk.free();
    wait_for("readings to be kept again", || {
        (collector(&m.server)["ok"] == json!(true)).then_some(())
    });
    m.server.crash_and_restart();
    assert_no_lower(&full, &m.said());
    assert_eq!(nanoseconds(&m.settled()), nanoseconds(&full));
    let ran = m.said()["totalRuntimeHours"].as_f64().unwrap();
    assert!(ran * 3600.0 <= began.elapsed().as_secs_f64(), "{ran} hours");
}

/// What the API says of a running container.
fn used(server: &Server, user: &str, name: &str) -> Option<Value> {
    let usage = server.container(user, name)?["usage"].clone();
    (!usage.is_null()).then_some(usage)
}

fn bytes(used: &Value, field: &str) -> u64 {
    (used[field].as_f64().unwrap() * f64::from(1 << 30)).round() as u64
}

fn assert_within(what: &str, measured: u64, truth: u64, permille: u64) {
    let most = truth * permille / 1000;
    assert!(
        measured.abs_diff(truth) <= most,
        "{what}: {measured} instead of {truth}"
    );
}

fn inspect(server: &Server, id: &str, format: &str) -> String {
    let output = server.docker(&["inspect", "-f", format, id]);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A file of `/proc` of a container's first process.
fn proc(server: &Server, id: &str, file: &str) -> String {
    let pid = inspect(server, id, "{{.State.Pid}}");
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}

/// What a container's only interface has received and sent, seen from inside.
fn inside(server: &Server, id: &str) -> (u64, u64) {
    let text = proc(server, id, "net/dev");
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"));
    let mut numbers = line.unwrap().split_ascii_whitespace();
    let received = numbers.next().unwrap().parse().unwrap();
    (received, numbers.nth(7).unwrap().parse().unwrap())
}

#[test]
fn cpu_time_is_what_the_scheduler_gave_and_the_cap_let_through() {
    let m = Metered::start(62_540, "ports.first=41800");
    let half = [
        "run", "-d", "--name", "half", "--memory", "64m", "--cpus", "0.5", IMAGE,
    ];
    m.ada.ok(&[&half[..], &BUSY].concat());
    let read = || {
        let used = used(&m.server, "ada", "half")?;
        let at: jiff::Timestamp = used["updatedAt"].as_str()?.parse().ok()?;
        Some((at.as_millisecond(), nanoseconds(&used)))
    };
    let (began, from) = wait_for("a reading", read);
    let (ended, to) = wait_for("a while to pass", || {
        read().filter(|(at, ns)| at - began > 2000 && ns - from > 100_000_000)
    });
    // One period more than fits, at most.
    let most = u64::try_from(ended - began).unwrap() * 500_000 + 50_000_000;
    assert!(to - from <= most, "{} of {most} ns", to - from);

    let id = m.server.full_id("ada", "half");
    m.ada.ok(&["pause", "half"]);
    let ran = proc(&m.server, &id, "schedstat");
    let ran: u64 = ran.split(' ').next().unwrap().parse().unwrap();
    let counted = wait_for("all of it to be counted", || {
        let counted = nanoseconds(&used(&m.server, "ada", "half")?);
        (counted == m.counted("cpuacct", &id, "cpuacct.usage")).then_some(counted)
    });
    // The scheduler's own account of the one process there is. Starting it took its share.
    assert_within("CPU time", counted, ran, 10);
    // The children are the whole, but for what the runtime spent between them.
    let parent = m.settled();
    assert_within("the parent's", nanoseconds(&parent), counted, 100);
}

#[test]
fn memory_is_the_engines_figure_to_a_mebibyte() {
    let m = Metered::start(62_550, "ports.first=42000");
    let holds = ["sh", "-c", "head -c 300m /dev/zero | tail | sleep 1000"];
    let options = [
        "run", "-d", "--name", "big", "--memory", "450m", "--cpus", "0.5", IMAGE,
    ];
    m.ada.ok(&[&options[..], &holds].concat());
    let gb = |used: &Value| bytes(used, "memoryGB");
    wait_for("it to hold its memory", || {
        (gb(&used(&m.server, "ada", "big")?) > 300 << 20).then_some(())
    });
    m.ada.ok(&["pause", "big"]);
    let id = m.server.full_id("ada", "big");
    let path = format!("/containers/{id}/stats?stream=false&one-shot=true");
    let engine = common::engine();
    let socket = std::path::Path::new(engine.strip_prefix("unix://").unwrap());
    let (status, said) = common::http(socket, "GET", &path, &[], None).unwrap();
    assert_eq!(status, 200, "{said}");
    let memory = &serde_json::from_str::<Value>(&said).unwrap()["memory_stats"];
    let inactive = memory["stats"]["total_inactive_file"].as_u64().unwrap();
    let engines = memory["usage"].as_u64().unwrap() - inactive;
    // An idle container's memory is read again after some readings.
    wait_for("the same figure to a mebibyte", || {
        let ours = gb(&used(&m.server, "ada", "big")?);
        (ours.abs_diff(engines) < 1 << 20).then_some(())
    });
    assert!((300 << 20..310 << 20).contains(&engines), "{engines}");
}

#[test]
fn what_one_container_sends_the_other_receives_and_connections_are_counted() {
    let m = Metered::start(62_560, "ports.first=42200");
    let run = |name: &str, script: &str| {
        let options = [
            "run", "-d", "--name", name, "--memory", "64m", "--cpus", "0.3", IMAGE,
        ];
        m.ada.ok(&[&options[..], &["sh", "-c", script]].concat());
        m.server.full_id("ada", name)
    };
    let sink = run(
        "sink",
        "nc -ll -p 9 -e cat >/dev/null & sleep 1000 | nc -l -p 7 >/dev/null; sleep 1000",
    );
    let source = run(
        "source",
        "until head -c 20m /dev/zero | nc sink 7; do sleep 0.1; done; \
         until [ -e /go ]; do sleep 0.1; done; \
         for i in $(seq 50); do sleep 1000 | nc sink 9 & done; wait",
    );
    let totals = |name: &str| {
        let used = used(&m.server, "ada", name)?;
        Some((bytes(&used, "totalReceivedGB"), bytes(&used, "totalSentGB")))
    };
    wait_for("all of it to arrive", || {
        (totals("sink")?.0 > 20 << 20).then_some(())
    });
    for (name, id) in [("sink", &sink), ("source", &source)] {
        wait_for("both sides to agree to the last byte", || {
            (totals(name)? == inside(&m.server, id)).then_some(())
        });
    }
    let (_, sent) = totals("source").unwrap();
    // Headers come on top: 66 bytes on each packet of up to 64 KiB.
    assert!((20 << 20..22 << 20).contains(&sent), "{sent}");

    m.ada.ok(&["exec", "source", "touch", "/go"]);
    // Without those that only wait for late packets.
    let sockets = |id: &str, state: Option<&str>| {
        let both = proc(&m.server, id, "net/tcp") + &proc(&m.server, id, "net/tcp6");
        let states = both
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().nth(3));
        let counted = states.filter(|now| state.map_or(!["st", "06"].contains(now), |s| s == *now));
        counted.count() as u64
    };
    // The listener takes them as it comes to it.
    for (name, id, least) in [("source", &source, 50), ("sink", &sink, 1)] {
        wait_for("fifty connections", || {
            let open = used(&m.server, "ada", name)?["connections"].as_u64()?;
            let established = sockets(id, Some("01"));
            (established >= least && open == sockets(id, None)).then_some(())
        });
    }

    // Another's network is another's: what shares it has none of its own.
    m.ada.ok(&[
        "run",
        "-d",
        "--name",
        "guest",
        "--network",
        "container:sink",
        "--memory",
        "16m",
        "--cpus",
        "0.1",
        IMAGE,
        "sleep",
        "1000",
    ]);
    let guest = wait_for("the guest to be read", || used(&m.server, "ada", "guest"));
    assert_eq!(
        (&guest["connections"], bytes(&guest, "totalReceivedGB")),
        (&Value::Null, 0)
    );
}

#[test]
fn what_is_written_to_a_volume_is_counted() {
    let m = Metered::start(62_570, "ports.first=42400");
    m.server.put(
        "/api/quotas/user/ada",
        json!({"maxMemoryGB": 0.5, "maxCpuCores": 1, "maxStorageGB": 30}),
    );
    let writes = "dd if=/dev/zero of=/data/x bs=1M count=200 oflag=direct conv=fsync; sleep 1000";
    let options = [
        "run",
        "-d",
        "--name",
        "disk",
        "-v",
        "data:/data",
        "--memory",
        "128m",
        "--cpus",
        "0.5",
        IMAGE,
    ];
    m.ada.ok(&[&options[..], &["sh", "-c", writes]].concat());
    wait_for("all of it to be counted", || {
        let written = bytes(&used(&m.server, "ada", "disk")?, "totalBlockWrittenGB");
        (written >= 200 << 20).then_some(())
    });
    let id = m.server.full_id("ada", "disk");
    let file = "blkio.throttle.io_service_bytes_recursive";
    let path = format!("/sys/fs/cgroup/blkio/{}/{id}/{file}", m.parent);
    // What the file system writes of its own comes a while after the data.
    let written = wait_for("the kernel's own figure", || {
        let written = bytes(&used(&m.server, "ada", "disk")?, "totalBlockWrittenGB");
        let counted = std::fs::read_to_string(&path).unwrap();
        let kernels = counted
            .lines()
            .filter_map(|line| line.split_once(" Write ")?.1.parse::<u64>().ok());
        (written == kernels.sum::<u64>()).then_some(written)
    });
    assert_within("written", written, 200 << 20, 10);
}

#[test]
fn a_container_that_lives_a_fifth_of_a_second_is_counted_in_full() {
    let dir = common::directory();
    // No reading falls into its life by chance.
    let slow = [
        "--set",
        "metering.interval_s=60",
        "--set",
        "ports.first=42600",
    ];
    let server = Server::start_in(dir, &common::engine(), &slow, &[]);
    let ada = server.tenant("ada", 62_580, json!({"maxMemoryGB": 0.5, "maxCpuCores": 1}));
    let id = server.get("/api/users/ada")["id"]
        .as_str()
        .unwrap()
        .replace('-', "");
    let cpu = format!(
        "/sys/fs/cgroup/cpuacct/{}/u{id}/cpuacct.usage",
        server.instance()
    );
    let burst = "timeout 0.2 sh -c 'while :; do :; done'; true";
    ada.ok(&[
        "run", "--name", "brief", "--memory", "64m", "--cpus", "1", IMAGE, "sh", "-c", burst,
    ]);
    let said = wait_for("it to be counted", || {
        let said = server.usage("ada");
        let kernels: u64 = std::fs::read_to_string(&cpu)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        (nanoseconds(&said) == kernels && said["currentRunningContainers"] == 0).then_some(said)
    });
    let short = (said["totalShortLivedCpuCoreHours"].as_f64().unwrap() * 3.6e12) as u64;
    assert!(short < nanoseconds(&said) / 2, "its end was read: {said}");
    let id = server.full_id("ada", "brief");
    let at = |field: &str| -> i64 {
        let text = inspect(&server, &id, &format!("{{{{.State.{field}}}}}"));
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    };
    let ran = u64::try_from(at("FinishedAt") - at("StartedAt")).unwrap();
    let counted = (said["totalRuntimeHours"].as_f64().unwrap() * 3.6e6).round() as u64;
    // Two clocks, each cut to whole milliseconds at both ends.
    assert!(counted.abs_diff(ran) <= 4, "{counted} of {ran} ms");
}

#[test]
fn parts_are_the_whole_and_strangers_are_told_apart() {
    let m = Metered::start(62_590, "ports.first=42800");
    let bob = m
        .server
        .tenant("bob", 62_591, json!({"maxMemoryGB": 0.5, "maxCpuCores": 1}));
    m.server.post("/api/teams", json!({"name": "crew"}));
    m.server
        .put("/api/quotas/team/crew", json!({"mode": "shadow"}));
    m.server
        .put("/api/teams/crew/members/bob", json!({"role": "member"}));
    let options = ["run", "-d", "--memory", "32m", "--cpus", "0.2", "--name"];
    m.server
        .post("/api/projects", json!({"name": "thesis", "user": "ada"}));
    let own = ["own", "--label", "plimsoll.project=thesis", IMAGE];
    m.ada.ok(&[&options[..], &own, &BUSY].concat());
    bob.ok(&[
        &options[..],
        &["teams", "--label", "plimsoll.team=crew", IMAGE],
        &BUSY,
    ]
    .concat());
    bob.ok(&[
        &options[..],
        &["bobs", "--label", "plimsoll.team=-", IMAGE],
        &BUSY,
    ]
    .concat());
    let name = format!("{}-stranger", m.server.instance());
    let label = format!("plimsoll.instance={}", m.server.instance());
    let stranger = [
        "run", "-d", "--name", &name, "--label", &label, "--memory", "32m", IMAGE,
    ];
    m.server
        .docker(&[&stranger[..], &["sleep", "1000"]].concat());

    let listed = wait_for("the stranger to be metered", || {
        let all = m.server.get("/api/containers");
        let strangers = all["unmanaged"].as_array().unwrap().clone();
        strangers
            .into_iter()
            .find(|s| s["containerName"] == *name && s["usage"]["memoryGB"].is_number())
    });
    assert_eq!(listed["image"], IMAGE);
    for (tenant, name) in [(&m.ada, "own"), (&bob, "teams"), (&bob, "bobs")] {
        wait_for("it to use something", || {
            let user = if name == "own" { "ada" } else { "bob" };
            (nanoseconds(&used(&m.server, user, name)?) > 50_000_000).then_some(())
        });
        tenant.ok(&["pause", name]);
    }
    // Whatever else runs on this engine is the system's, and nobody's.
    wait_for("the parts to be the whole", || {
        let (ada, bob) = (m.said(), m.server.usage("bob"));
        let system = m.server.get("/api/usage/system");
        let team = m.server.get("/api/usage/team/crew");
        let sum = |amount: &dyn Fn(&Value) -> u64| {
            let (users, all) = (amount(&ada) + amount(&bob), amount(&system));
            users == all - amount(&system["unmanaged"]) && amount(&team) < amount(&bob)
        };
        let is_whole = sum(&|used| nanoseconds(used))
            && sum(&|used| bytes(used, "currentMemoryGB"))
            && sum(&|used| used["currentRunningContainers"].as_u64().unwrap());
        is_whole.then_some(())
    });
    wait_for("the project to be its only container", || {
        let projects = m.server.get("/api/projects");
        let project = nanoseconds(&projects["items"][0]["usage"]);
        let own = nanoseconds(&used(&m.server, "ada", "own")?);
        (project == own && own > 0).then_some(())
    });
    m.server.docker(&["rm", "-f", &name]);
    wait_for("the stranger to be gone", || {
        let all = m.server.get("/api/containers");
        let strangers = all["unmanaged"].as_array().unwrap();
        strangers
            .iter()
            .all(|s| s["containerName"] != *name)
            .then_some(())
    });
}

#[test]
fn what_is_held_on_disk_is_measured_and_held_against_the_limit() {
    let quick = [
        "--set",
        "metering.storage_interval_s=0.2",
        "--set",
        "violations.calm_s=0.1",
        "--set",
        "ports.first=43000",
    ];
    let server = Server::start_with(&common::engine(), &quick);
    let limits = |gb: f64| json!({"maxMemoryGB": 0.5, "maxCpuCores": 1, "maxStorageGB": gb});
    let ada = server.tenant("ada", 62_600, limits(20.0));
    let fills = "head -c 50m /dev/zero >/layer; head -c 30m /dev/zero >/data/volume; \
                 yes $(head -c 1000 /dev/zero | tr '\\0' x) | head -n 5000; sync; sleep 1000";
    let options = [
        "run",
        "-d",
        "--name",
        "full",
        "-v",
        "data:/data",
        "--memory",
        "128m",
        IMAGE,
    ];
    ada.ok(&[&options[..], &["sh", "-c", fills]].concat());
    let mib = |used: &Value, field: &str| used[field].as_f64().map_or(0.0, |gb| gb * 1024.0);
    let own = wait_for("its layer and its log to be measured", || {
        let own = mib(&server.container("ada", "full")?, "usedStorageGB");
        (own > 55.0).then_some(own)
    });
    // Each line of the log has a frame of some seventy bytes.
    assert!(own < 56.0, "{own}");
    let said = wait_for("its volume, too", || {
        let said = server.usage("ada");
        (mib(&said, "currentStorageGB") > own + 29.0).then_some(said)
    });
    let all = mib(&said, "currentStorageGB");
    assert!(all < own + 31.0, "{all}");
    assert!(said["reservedStorageGB"].as_f64().unwrap() > 1.0, "{said}");

    server.put("/api/quotas/user/ada", limits(0.05));
    let open = |server: &Server| {
        let all = server.get("/api/quotas/violations");
        let items = all["items"].as_array().unwrap().clone();
        let is_it =
            |v: &&Value| v["open"] == true && v["kind"] == "used" && v["dimension"] == "storage";
        items.iter().find(is_it).cloned()
    };
    let violation = wait_for("a violation", || open(&server));
    assert!(mib(&violation, "current") > 85.0, "{violation}");
    ada.ok(&["rm", "-f", "full"]);
    ada.ok(&["volume", "rm", "data"]);
    wait_for("it to end", || open(&server).is_none().then_some(()));
}
