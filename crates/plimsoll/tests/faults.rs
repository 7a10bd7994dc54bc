//! An engine that hangs, an engine that goes and comes back, a full disk: told in words with the next
//! step, nothing half-done, and everything goes on by itself afterwards.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use common::{IMAGE, Server, SmallDisk, Tenant, as_uid, directory, wait_for};
use serde_json::{Value, json};

fn limits() -> Value {
    json!({"maxMemoryGB": 0.5, "maxCpuCores": 1, "maxConcurrentContainers": 6})
}

const SMALL: [&str; 4] = ["--memory", "64m", "--cpus", "0.2"];

fn run(tenant: &Tenant, name: &str, options: &[&str]) {
    let stays = [IMAGE, "sleep", "1000"];
    let named = ["run", "-d", "--name", name];
    tenant.ok(&[&named[..], &SMALL[..], options, &stays].concat());
}

/// Tries to create a container; the status and what was said.
fn create(server: &Server, tenant: &Tenant, name: &str) -> (u16, String) {
    let body = json!({"Image": IMAGE, "HostConfig": {"Memory": 64 << 20, "NanoCpus": 200_000_000}});
    let path = format!("/containers/create?name={name}");
    let socket = server.path("docker.sock");
    let (status, answer) = as_uid(tenant.uid, &socket, "POST", &path, Some(&body.to_string()));
    let message = answer["message"].as_str().unwrap_or_default().to_owned();
    (status, message)
}

fn running_memory(server: &Server) -> f64 {
    let label = format!("label=plimsoll.instance={}", server.instance());
    let listed = server.docker(&["ps", "-q", "--filter", &label]);
    let ids = String::from_utf8(listed.stdout).unwrap();
    let memory = ids.split_whitespace().map(|id| {
        let seen = server.docker(&["inspect", "-f", "{{.HostConfig.Memory}}", id]);
        let bytes = String::from_utf8(seen.stdout).unwrap();
        bytes.trim().parse::<f64>().unwrap()
    });
    memory.sum::<f64>() / f64::from(1 << 30)
}

fn on_engine(server: &Server) -> usize {
    let label = format!("label=plimsoll.instance={}", server.instance());
    let listed = server.docker(&["ps", "-aq", "--filter", &label]);
    String::from_utf8(listed.stdout).unwrap().lines().count()
}

/// What a relay does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Mood {
    /// Everything reaches the engine.
    Well,
    /// Nothing is ever answered.
    Hung,
    /// Creates are never answered, and never reach the engine.
    HungCreates,
    /// Creates reach the engine, and the answer gets lost.
    DeafCreates,
    /// Creates wait for another mood, and then reach the engine.
    SlowCreates,
}

/// The real engine behind a socket that can break.
struct Relay {
    socket: PathBuf,
    mood: Arc<AtomicU8>,
    /// Requests that are held up.
    held: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

impl Relay {
    fn start() -> Self {
        let dir = directory();
        let socket = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (mood, held) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicUsize::new(0)));
        let (of, holding) = (Arc::clone(&mood), Arc::clone(&held));
        // Ends with the process: the listener is never closed.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (mood, held) = (Arc::clone(&of), Arc::clone(&holding));
                std::thread::spawn(move || relay(client, &mood, &held));
            }
        });
        Self {
            socket,
            mood,
            held,
            _dir: dir,
        }
    }

    fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }
}

/// One connection, which carries one request: Plimsoll uses none twice.
fn relay(mut client: UnixStream, mood: &AtomicU8, held: &AtomicUsize) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&head).into_owned();
    let is_create = line.starts_with("POST") && line.contains("/containers/create");
    let is = |wanted: Mood| mood.load(Ordering::SeqCst) == wanted as u8;
    if is(Mood::Hung) || is_create && is(Mood::HungCreates) {
        held.fetch_add(1, Ordering::SeqCst);
        let _ = std::io::copy(&mut client, &mut std::io::sink());
        return;
    }
    if is_create && is(Mood::SlowCreates) {
        held.fetch_add(1, Ordering::SeqCst);
        wait_for("another mood", || (!is(Mood::SlowCreates)).then_some(()));
    }
    let deaf = is_create && is(Mood::DeafCreates);
    let socket = common::engine().replace("unix://", "");
    let mut engine = UnixStream::connect(socket).unwrap();
    engine.write_all(&head).unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    if deaf {
        let _ = engine.read(&mut [0; 4096]);
        held.fetch_add(1, Ordering::SeqCst);
    } else {
        let _ = std::io::copy(&mut engine, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
    }
    let _ = up.join();
}

/// A server over the real engine behind a relay, which is well again before the server goes.
struct Relayed {
    server: Server,
    relay: Relay,
}

impl Relayed {
    fn start(more: &[&str]) -> Self {
        Self::start_in(directory(), more)
    }

    fn start_in(dir: tempfile::TempDir, more: &[&str]) -> Self {
        let relay = Relay::start();
        let engine = format!("unix://{}", relay.socket.display());
        let often = ["--set", "reconcile.interval_s=0.2"];
        let server = Server::start_in(dir, &engine, &[&often, more].concat(), &[]);
        Self { server, relay }
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.relay.set(Mood::Well);
    }
}

#[test]
fn an_engine_that_hangs_is_told_in_time_and_leaves_nothing() {
    let short = [
        "--set",
        "engine_timeout_s=1",
        "--set",
        "reservations.gateway_ttl_s=1",
        "--set",
        "ports.first=43000",
    ];
    let Relayed { server, relay } = &Relayed::start(&short);
    let ada = server.tenant("ada", 62_600, limits());
    run(&ada, "web", &[]);
    let held = || server.usage("ada")["reservedContainers"].clone();
    assert_eq!(held(), 1);

    // It takes the order, and that is the last of it.
    relay.set(Mood::HungCreates);
    let (status, said) = create(server, &ada, "lost");
    assert_eq!(status, 503, "{said}");
    for words in [
        "did not give an answer within 4 s",
        "try again in a moment or tell an administrator",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(relay.held(), 1);
    // It may still come, so it is charged until it has expired.
    wait_for("the reservation to be void", || (held() == 1).then_some(()));
    assert!(server.container("ada", "lost").is_none());
    assert_eq!(on_engine(server), 1);

    // It does what it was asked, and nobody hears of it: whatever is there is somebody's.
    relay.set(Mood::DeafCreates);
    assert_eq!(create(server, &ada, "late").0, 503);
    wait_for("the container to be bound", || {
        server.container("ada", "late")?["containerId"]
            .as_str()
            .map(drop)
    });
    assert_eq!((held(), on_engine(server)), (json!(2), 2));

    // Nothing is answered any more.
    relay.set(Mood::Hung);
    let (status, said) = create(server, &ada, "never");
    assert_eq!(status, 503, "{said}");
    let said = ada.refused(&["ps"]);
    assert!(
        said.contains("the container engine does not answer"),
        "{said}"
    );
    let (status, ready) = server.api("GET", "/readyz", None);
    assert_eq!((status, &ready["ledger"]), (503, &json!("ok")), "{ready}");
    let said = ready["engine"].as_str().unwrap();
    assert!(said.contains("did not"), "{said}");
    assert_eq!(server.api("GET", "/healthz", None).0, 200);
    server.post("/api/users", json!({"name": "ben"}));
    assert_eq!(held(), 2);

    // And once it is well, everything goes on.
    relay.set(Mood::Well);
    ada.ok(&["rm", "-f", "late"]);
    run(&ada, "lost", &[]);
    ada.ok(&["rm", "-f", "lost", "web"]);
    wait_for("nothing to be held", || (held() == 0).then_some(()));
}

#[test]
fn a_server_ends_at_once_under_an_engine_that_hangs() {
    let mut relayed = Relayed::start(&[]);
    let Relayed { server, relay } = &mut relayed;
    relay.set(Mood::Hung);
    wait_for("a background task to hang", || {
        (relay.held() > 0).then_some(())
    });
    let (status, ready) = server.api("GET", "/readyz", None);
    let said = ready["engine"].as_str().unwrap();
    assert!(
        status == 503 && said.contains("did not answer within 2 s: restart it"),
        "{ready}"
    );
    server.terminate();
    let log = server.log();
    assert!(log.contains("ending") && !log.contains("cut off"), "{log}");
    relay.set(Mood::Well);
    server.restart();
}

/// An engine of its own, which can be stopped and killed.
struct OwnEngine {
    dir: tempfile::TempDir,
}

impl OwnEngine {
    fn start() -> Self {
        let engine = Self { dir: directory() };
        engine.script("start");
        let image = engine.dir.path().join("image.tar");
        let image = image.to_str().unwrap();
        docker(&common::engine(), &["save", "-o", image, IMAGE]);
        docker(&engine.address(), &["load", "-i", image]);
        engine
    }

    fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn script(&self, verb: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/engine.sh");
        let done = Command::new(script)
            .arg(verb)
            .env("PLIMSOLL_ENGINE_SOCKET", self.socket())
            .env("PLIMSOLL_RUN_DIR", self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    fn kill(&self) {
        let file = self.dir.path().join("engine/dockerd.pid");
        let pid = std::fs::read_to_string(file).unwrap();
        let killed = Command::new("kill").args(["-KILL", pid.trim()]).status();
        assert!(killed.unwrap().success());
        wait_for("the engine to be gone", || {
            UnixStream::connect(self.socket()).is_err().then_some(())
        });
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.script("stop");
    }
}

fn docker(engine: &str, args: &[&str]) {
    let mut command = Command::new("docker");
    let done = command.args(["-H", engine]).args(args).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn after_an_engine_comes_back_what_runs_is_charged_and_capped() {
    let engine = OwnEngine::start();
    let often = ["--set", "metering.interval_s=0.2"];
    let mut server = Server::start_with(&engine.address(), &often);
    let ada = server.tenant("ada", 62_610, limits());
    run(
        &ada,
        "kept",
        &["--restart", "always", "--stop-signal", "KILL"],
    );
    run(&ada, "ended", &["--stop-signal", "KILL"]);
    assert_eq!(server.usage("ada")["reservedMemoryGB"], 128.0 / 1024.0);
    let kept = server.full_id("ada", "kept");
    let id = server.get("/api/users/ada")["id"].clone();
    let parent = format!(
        "/sys/fs/cgroup/memory/{}/u{}",
        server.instance(),
        id.as_str().unwrap().replace('-', "")
    );

    for how in ["stopped", "killed"] {
        let before = wait_for("something to be measured", || {
            let used = server.usage("ada");
            (used["totalCpuCoreHours"].as_f64()? > 0.0).then_some(used)
        });
        match how {
            "stopped" => engine.script("stop"),
            _ => engine.kill(),
        }
        // Whoever asks is told, and whatever needs no engine goes on.
        let (status, said) = create(&server, &ada, "new");
        assert_eq!(status, 503, "{said}");
        for words in [
            "is it running",
            "nothing was changed",
            "tell an administrator",
        ] {
            assert!(said.contains(words), "{how}: {said}");
        }
        let (status, ready) = server.api("GET", "/readyz", None);
        assert_eq!((status, &ready["ledger"]), (503, &json!("ok")));
        let said = ready["engine"].as_str().unwrap();
        assert!(said.contains("cannot reach the container engine"), "{said}");
        server.post("/api/users", json!({"name": how}));
        // A server that starts meanwhile has forgotten nothing.
        server.crash();
        server.restart_without_its_engine();
        let after = server.usage("ada");
        for total in ["totalCpuCoreHours", "totalMemoryGBHours", "peakMemoryGB"] {
            assert!(after[total].as_f64() >= before[total].as_f64(), "{after}");
        }

        engine.script("start");
        wait_for("ledger and engine to agree", || {
            let state = |name| Some(server.container("ada", name)?["state"].clone());
            (state("kept")? == "active" && state("ended")? == "stopped").then_some(())
        });
        wait_for("the server to be ready", || {
            (server.api("GET", "/readyz", None).0 == 200).then_some(())
        });
        let charged = server.usage("ada")["reservedMemoryGB"].clone();
        assert_eq!(charged, running_memory(&server), "{how}");
        assert_eq!(charged, 64.0 / 1024.0, "{how}");
        // It runs where the caps are, and they are the quota's.
        let cap = |most: u64| {
            let file = format!("{parent}/memory.limit_in_bytes");
            let text = std::fs::read_to_string(file).ok()?;
            (text.trim().parse() == Ok(most)).then_some(())
        };
        let procs = std::fs::read_to_string(format!("{parent}/{kept}/cgroup.procs"));
        assert_ne!(procs.unwrap(), "", "{how}");
        wait_for("the cap", || cap(512 << 20));
        server.put("/api/quotas/user/ada", json!({"maxMemoryGB": 1}));
        wait_for("the raised cap", || cap(1 << 30));
        server.put("/api/quotas/user/ada", limits());
        // What was refused fits now, and what ended starts again.
        ada.ok(&["start", "ended"]);
        run(&ada, "new", &[]);
        ada.ok(&["rm", "-f", "new"]);
    }
    assert_eq!(server.usage("ada")["reservedContainers"], 2);
}

/// Takes every byte, those that the ledger has in reserve too; what the API said last.
fn fill(server: &Server, disk: &SmallDisk) -> (u16, Value) {
    disk.fill();
    let answers = (0..10_000).map(|n| {
        let new = json!({"name": format!("u{n}")});
        server.api("POST", "/api/users", Some(&new))
    });
    let mut refused = answers.filter(|(status, _)| *status != 201);
    refused.next().expect("the disk is full at last")
}

#[test]
fn a_full_disk_is_told_changes_nothing_and_passes() {
    let dir = directory();
    let disk = SmallDisk::mount(&dir.path().join("data"), "4m");
    let often = ["--set", "reconcile.interval_s=0.2"];
    let quick = [
        "--set",
        "metering.interval_s=0.1",
        "--set",
        "ports.first=43200",
    ];
    let settings = [&often[..], &quick].concat();
    let mut server = Server::start_in(dir, &common::engine(), &settings, &[]);
    let ada = server.tenant("ada", 62_620, limits());
    run(&ada, "web", &[]);
    run(&ada, "gone", &[]);
    let users = || server.get("/api/users")["items"].as_array().unwrap().len();
    let (status, problem) = fill(&server, &disk);
    let made = users();
    assert_eq!((status, &problem["code"]), (507, &json!("disk_full")));
    let said = problem["detail"].as_str().unwrap();
    assert!(
        said.contains("free some space; nothing was changed"),
        "{said}"
    );

    let before = server.usage("ada");
    let (status, said) = create(&server, &ada, "new");
    assert_eq!(status, 503, "{said}");
    assert!(
        said.ends_with("is full: free some space; nothing was changed"),
        "{said}"
    );
    let answer = server.api(
        "PUT",
        "/api/quotas/user/ada",
        Some(&json!({"maxMemoryGB": 9})),
    );
    assert_eq!(answer.0, 507, "{}", answer.1);
    // Nothing half-done, and whoever only looks sees everything.
    assert_eq!((users(), on_engine(&server)), (made, 2));
    for field in ["reservedContainers", "reservedMemoryGB", "quota"] {
        assert_eq!(server.usage("ada")[field], before[field]);
    }
    assert_eq!(ada.ok(&["exec", "web", "echo", "on"]), "on");
    let named = ada.ok(&["ps", "--format", "{{.Names}}"]);
    assert!(named.contains("web"), "{named}");
    wait_for("the collector to say so", || {
        let ready = server.api("GET", "/readyz", None).1;
        (ready["tasks"]["collector"]["ok"] == json!(false)).then_some(())
    });
    // What goes meanwhile is noted later.
    ada.docker(&["rm", "-f", "gone"]);
    assert_eq!(on_engine(&server), 1);

    disk.free();
    wait_for("what went to be released", || {
        (server.usage("ada")["reservedContainers"] == 1).then_some(())
    });
    server.post("/api/users", json!({"name": "ben"}));
    run(&ada, "new", &[]);
    wait_for("the collector to go on", || {
        let ready = server.api("GET", "/readyz", None).1;
        (ready["tasks"]["collector"]["ok"] == json!(true)).then_some(())
    });
    server.crash_and_restart();
    assert_eq!(server.usage("ada")["reservedContainers"], 2);
    assert_eq!(server.api("GET", "/api/users/ben", None).0, 200);
}

#[test]
fn a_create_that_the_full_disk_cannot_hold_leaves_no_container() {
    let dir = directory();
    let disk = SmallDisk::mount(&dir.path().join("data"), "4m");
    let short = [
        "--set",
        "reservations.gateway_ttl_s=1",
        "--set",
        "ports.first=43400",
    ];
    let Relayed { server, relay } = &Relayed::start_in(dir, &short);
    let ada = server.tenant("ada", 62_630, limits());
    relay.set(Mood::SlowCreates);
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| create(server, &ada, "web"));
        // It is reserved, and the engine is asked.
        wait_for("the create to be under way", || {
            (relay.held() == 1).then_some(())
        });
        assert_eq!(fill(server, &disk).0, 507);
        relay.set(Mood::Well);
        let (status, said) = creating.join().unwrap();
        assert_eq!(status, 503, "{said}");
        assert!(said.contains("nothing was changed"), "{said}");
    });
    assert_eq!(on_engine(server), 0);
    disk.free();
    wait_for("the reservation to be void", || {
        (server.usage("ada")["reservedContainers"] == 0).then_some(())
    });
    run(&ada, "web", &[]);
}
