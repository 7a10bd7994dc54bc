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

    // Whatever was used is also the system's, and nobody else's.
    let system = m.server.get("/api/usage/system");
    assert_eq!(nanoseconds(&system), nanoseconds(&after));
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
