//! The main job, end to end: people with the ordinary docker CLI, a real engine, real cgroups.
//!
//! `make test` starts an engine where none runs.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{Following, IMAGE, Server, Tenant, as_uid, as_uid_raw, exchange, wait_for};
use serde_json::{Value, json};

fn small() -> Value {
    json!({"maxMemoryGB": 0.5, "maxCpuCores": 1, "maxConcurrentContainers": 4})
}

fn two(server: &Server, base: u32) -> (Tenant, Tenant) {
    (
        server.tenant("ada", base, small()),
        server.tenant("ben", base + 1, small()),
    )
}

const SLEEP: [&str; 2] = ["sleep", "1000"];

fn run_asleep<'a>(name: &'a str, memory: &'a str) -> Vec<&'a str> {
    let mut args = vec![
        "run", "-d", "--name", name, "--memory", memory, "--cpus", "0.2",
    ];
    args.push(IMAGE);
    args.extend(SLEEP);
    args
}

#[test]
fn two_people_are_held_to_their_quota_and_measured() {
    let server = Server::start();
    let (ada, ben) = two(&server, 61_000);
    ada.ok(&run_asleep("web", "300m"));
    let refusal = ada.refused(&["run", "--rm", "--memory", "300m", IMAGE, "true"]);
    assert!(refusal.contains("quota exceeded for ada"), "{refusal}");
    assert!(
        refusal.contains("asked 300 MiB, 212 MiB of 512 MiB free"),
        "{refusal}"
    );
    assert!(refusal.contains("--memory 212m"), "{refusal}");
    assert!(refusal.contains("stop `web`"), "{refusal}");

    // What the refusal proposes works.
    ada.ok(&["run", "--rm", "--memory", "212m", IMAGE, "true"]);
    // Another's quota is another's.
    ben.ok(&["run", "--rm", "--memory", "300m", IMAGE, "true"]);

    let refused = server.get("/api/decisions?user=ada&outcome=refused");
    let id = refused["items"][0]["id"].as_str().unwrap().to_owned();
    assert!(refusal.contains(&id), "the refusal names its decision");
    assert_eq!(
        server.get(&format!("/api/decisions/{id}"))["violations"][0]["dimension"],
        "memory"
    );

    let used = wait_for("a measured value", || {
        let used = server.usage("ada");
        (used["currentMemoryGB"].as_f64()? > 0.0).then_some(used)
    });
    assert_eq!(used["reservedMemoryGB"], 300.0 / 1024.0);
    assert_eq!(used["currentRunningContainers"], 1);
}

#[test]
fn a_tenants_ordinary_day() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_010);
    let mut following = Following::start(&ada, "{{.Action}} {{.Actor.Attributes.name}}");
    assert_eq!(
        ada.ok(&["run", "--rm", "--memory", "64m", IMAGE, "echo", "hello"]),
        "hello"
    );
    assert_eq!(
        ada.docker(&[
            "run", "--rm", "--memory", "64m", IMAGE, "sh", "-c", "exit 7"
        ])
        .code,
        7
    );
    let echoed = ada.with_input(
        &["run", "-i", "--rm", "--memory", "64m", IMAGE, "cat"],
        "typed\n",
    );
    assert_eq!((echoed.code, echoed.out.as_str()), (0, "typed\n"));
    let terminal = ada.in_terminal(&format!("run -it --rm --memory 64m {IMAGE} tty"));
    assert!(terminal.out.contains("/dev/pts/"), "{terminal:?}");

    let counting = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.05; done";
    let id = ada.ok(&[
        "run", "-d", "--name", "web", "--memory", "64m", "--label", "app=x", IMAGE, "sh", "-c",
        counting,
    ]);
    assert_eq!(ada.ok(&["exec", "web", "echo", "inside"]), "inside");
    assert_eq!(
        ada.with_input(&["exec", "-i", "web", "cat"], "in\n").out,
        "in\n"
    );
    assert!(
        ada.in_terminal("exec -it web tty")
            .out
            .contains("/dev/pts/")
    );
    assert_eq!(
        ada.ok(&["ps", "--format", "{{.Names}} {{.Image}} {{.ID}}"]),
        format!("web {IMAGE} {}", &id[..12])
    );
    assert_eq!(
        ada.ok(&["ps", "-q", "--filter", "name=^/web$", "--no-trunc"]),
        id
    );
    assert_eq!(ada.ok(&["ps", "-q", "--filter", "label=app=y"]), "");
    let shown = ada.ok(&[
        "inspect",
        "web",
        "--format",
        "{{.Name}} {{.Config.Image}} {{json .Config.Labels}}",
    ]);
    assert_eq!(shown, format!("/web {IMAGE} {{\"app\":\"x\"}}"));
    assert!(
        ada.ok(&[
            "stats",
            "--no-stream",
            "--format",
            "{{.Name}} {{.MemUsage}}"
        ])
        .starts_with("web ")
    );
    assert!(ada.ok(&["top", "web"]).contains("while true"));

    // Following logs ends when the container does.
    let mut logs = ada
        .command(&["logs", "-f", "web"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "line 0");
    ada.ok(&["rename", "web", "site"]);
    ada.ok(&["pause", "site"]);
    ada.ok(&["unpause", "site"]);
    ada.ok(&["restart", "-t", "0", "site"]);
    ada.ok(&["kill", "site"]);
    assert!(logs.wait().unwrap().success());
    assert_eq!(ada.ok(&["wait", "site"]), "137");
    ada.ok(&["start", "site"]);
    ada.ok(&["update", "--memory", "96m", "site"]);
    assert_eq!(
        server.container("ada", "site").unwrap()["claim"]["memoryGB"],
        96.0 / 1024.0
    );
    ada.ok(&["stop", "-t", "0", "site"]);
    ada.ok(&["rm", "site"]);
    assert!(
        ada.refused(&["inspect", "site"])
            .to_lowercase()
            .contains("no such object: site")
    );

    let seen = following.until("destroy site");
    for event in ["create web", "start web", "rename site", "destroy site"] {
        assert!(seen.iter().any(|line| line == event), "{event} in {seen:?}");
    }
    assert!(ada.ok(&["images"]).contains(IMAGE));
    assert!(
        ada.ok(&["info", "--format", "{{.NCPU}} {{.MemTotal}}"])
            .ends_with(&(512u64 << 20).to_string())
    );
    let zero = server.usage("ada");
    assert_eq!(
        (&zero["reservedContainers"], &zero["reservedMemoryGB"]),
        (&json!(0), &json!(0.0))
    );
}

#[test]
fn a_terminal_has_the_size_of_its_window() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_140);
    // The size comes by a request of its own, a moment after the program has begun.
    let wait = "sh -c 'for i in $(seq 100); do \
        [ \"$(stty size)\" = \"31 101\" ] && echo it fits && break; sleep 0.1; done'";
    let run = ada.in_terminal(&format!("run -it --rm --memory 64m {IMAGE} {wait}"));
    assert!(run.out.contains("it fits"), "{run:?}");
    ada.ok(&run_asleep("web", "64m"));
    let exec = ada.in_terminal(&format!("exec -it web {wait}"));
    assert!(exec.out.contains("it fits"), "{exec:?}");
}

#[test]
fn attach_reads_and_writes_what_the_program_does() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_150);
    ada.ok(&[
        "create", "-i", "--name", "echo", "--memory", "64m", IMAGE, "cat",
    ]);
    let said = ada.with_input(&["start", "-ai", "echo"], "to and fro\n");
    assert_eq!((said.code, said.out.as_str()), (0, "to and fro\n"));
    ada.ok(&["start", "echo"]);
    let said = ada.with_input(&["attach", "echo"], "once more\n");
    assert_eq!((said.code, said.out.as_str()), (0, "once more\n"));
}

#[test]
fn tenants_do_not_see_or_touch_each_other() {
    let server = Server::start();
    let (ada, ben) = two(&server, 61_020);
    let mut following = Following::start(&ben, "{{.Action}} {{.Actor.ID}}");
    let id = ada.ok(&run_asleep("web", "64m"));
    // The same name is free for somebody else.
    ben.ok(&run_asleep("web", "64m"));
    assert!(
        ada.refused(&run_asleep("web", "64m"))
            .contains("already in use")
    );
    for args in [
        ["inspect", &id],
        ["logs", &id],
        ["stop", &id],
        ["kill", &id],
        ["rm", &id],
        ["start", &id],
        ["top", &id],
        ["pause", &id],
        ["restart", &id],
        ["wait", &id],
    ] {
        let said = ben.refused(&args).to_lowercase();
        assert!(said.contains("no such"), "docker {args:?}: {said}");
    }
    assert!(
        ben.refused(&["exec", &id, "true"])
            .contains("No such container")
    );
    assert!(ben.refused(&["attach", &id]).contains("No such container"));
    assert!(
        ben.refused(&["rename", &id, "mine"])
            .contains("No such container")
    );
    assert!(
        ben.refused(&["update", "--memory", "64m", &id])
            .contains("No such container")
    );
    assert_eq!(ben.ok(&["ps", "-a", "--format", "{{.Names}}"]), "web");
    assert!(!ben.ok(&["ps", "-aq", "--no-trunc"]).contains(&id));
    let own = ben.ok(&["ps", "-q", "--no-trunc"]);
    let seen = following.until(&format!("start {own}"));
    assert!(seen.iter().all(|line| line.ends_with(&own)), "{seen:?}");

    // An exec of ada's is not ben's either.
    let socket = server.path("docker.sock");
    let body = json!({"Cmd": ["true"]}).to_string();
    let made = as_uid(
        ada.uid,
        &socket,
        "POST",
        &format!("/containers/{id}/exec"),
        Some(&body),
    );
    let exec = made.1["Id"].as_str().unwrap().to_owned();
    let absent = as_uid(ben.uid, &socket, "GET", &format!("/exec/{exec}/json"), None);
    assert_eq!(absent.0, 404, "{}", absent.1);
    assert_eq!(
        as_uid(ada.uid, &socket, "GET", &format!("/exec/{exec}/json"), None).0,
        200
    );
}

/// A container made past the gateway and bound by the API has none of the gateway's labels, and is its
/// owner's all the same; one that only carries the labels is not.
#[test]
fn whose_a_container_is_says_the_ledger() {
    let server = Server::start();
    let (ada, ben) = two(&server, 61_130);
    let user = server.get("/api/users/ada")["id"].clone();
    let label = format!("plimsoll.user={}", user.as_str().unwrap());
    let made = |options: &[&str]| {
        let args = [
            &["create", "--memory", "64m"],
            options,
            &[IMAGE, "sleep", "1000"],
        ]
        .concat();
        let made = server.docker(&args);
        Made(String::from_utf8(made.stdout).unwrap().trim().to_owned())
    };
    let (bound, forged) = (made(&["--label", "app=x"]), made(&["--label", &label]));
    let mut following = Following::start(&ada, "{{.Action}} {{.Actor.ID}}");
    let reserved = server.post(
        "/api/reservations",
        json!({"user": "ada", "resourceRequest": {"memoryGB": 0.0625, "cpuCores": 0.1}}),
    );
    let id = reserved["id"].as_str().unwrap();
    server.post(
        &format!("/api/reservations/{id}/commit"),
        json!({"containerId": bound.0}),
    );
    ada.ok(&run_asleep("web", "64m"));
    let short = &bound.0[..12];
    let listed = ada.ok(&["ps", "-a", "--format", "{{.Names}} {{.ID}}"]);
    assert!(listed.contains(&format!("{short} {short}")), "{listed}");
    assert!(listed.contains("web "), "{listed}");
    assert!(!listed.contains(&forged.0[..12]), "{listed}");
    assert_eq!(ada.ok(&["ps", "-aq", "--filter", "label=app=x"]), short);
    assert_eq!(
        ada.ok(&["ps", "-aq", "--filter", &format!("id={short}")]),
        short
    );
    assert_eq!(ben.ok(&["ps", "-aq"]), "");
    assert_eq!(
        ada.ok(&["info", "--format", "{{.Containers}} {{.ContainersRunning}}"]),
        "2 1"
    );
    ada.ok(&["start", short]);
    assert_eq!(ada.ok(&["info", "--format", "{{.ContainersRunning}}"]), "2");
    let seen = following.until(&format!("start {}", bound.0));
    assert!(
        seen.iter().all(|line| !line.contains(&forged.0)),
        "{seen:?}"
    );
    ada.ok(&["rm", "-f", short]);
}

/// A container the test made past every server; gone when dropped.
struct Made(String);

impl Drop for Made {
    fn drop(&mut self) {
        let engine = common::engine();
        let _ = Command::new("docker")
            .args(["-H", &engine, "rm", "-f", &self.0])
            .output();
    }
}

#[test]
fn strangers_are_told_how_to_get_an_account() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_030);
    let stranger = Tenant {
        uid: 61_039,
        host: ada.host.clone(),
    };
    let said = stranger.refused(&["ps"]);
    assert!(said.contains("uid 61039 has no account here"), "{said}");
    assert!(said.contains("plimsoll user add"), "{said}");
    // Root on the host is nobody in particular here.
    let root = Tenant {
        uid: 0,
        host: ada.host,
    };
    assert!(root.refused(&["ps"]).contains("uid 0 has no account"));
}

#[test]
fn a_suspension_counts_at_once() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_040);
    ada.ok(&run_asleep("web", "64m"));
    server.api("PATCH", "/api/users/ada", Some(&json!({"suspended": true})));
    assert!(
        ada.refused(&run_asleep("more", "64m"))
            .contains("suspended")
    );
    // What runs can still be looked at and stopped.
    ada.ok(&["stop", "-t", "0", "web"]);
    assert!(ada.refused(&["start", "web"]).contains("suspended"));
}

#[test]
fn what_a_stop_frees_is_asked_for_again_by_a_start() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_050);
    ada.ok(&run_asleep("one", "400m"));
    ada.ok(&["stop", "-t", "0", "one"]);
    let freed = server.usage("ada");
    assert_eq!(
        (&freed["reservedMemoryGB"], &freed["reservedContainers"]),
        (&json!(0.0), &json!(1))
    );
    ada.ok(&run_asleep("two", "300m"));
    let refusal = ada.refused(&["start", "one"]);
    assert!(refusal.contains("quota exceeded"), "{refusal}");
    ada.ok(&["rm", "-f", "two"]);
    ada.ok(&["start", "one"]);
    assert_eq!(server.usage("ada")["reservedMemoryGB"], 400.0 / 1024.0);

    // A container that the engine starts by itself stays charged after a stop.
    ada.ok(&["rm", "-f", "one"]);
    let mut always = run_asleep("always", "300m");
    always.splice(2..2, ["--restart", "always"]);
    ada.ok(&always);
    ada.ok(&["stop", "-t", "0", "always"]);
    assert_eq!(
        server.container("ada", "always").unwrap()["state"],
        "active"
    );
}

#[test]
fn run_rm_twice_in_a_row_fits_every_time() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_060);
    for _ in 0..4 {
        ada.ok(&["run", "--rm", "--memory", "500m", IMAGE, "true"]);
    }
}

#[test]
fn the_kernel_holds_what_admission_let_through() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_070);
    ada.ok(&run_asleep("web", "64m"));
    let id = server.full_id("ada", "web");
    let user = server.get("/api/users/ada")["id"]
        .as_str()
        .unwrap()
        .replace('-', "");
    let parent = format!("{}/u{user}", server.instance());
    let read = |controller: &str, file: &str| {
        let path = format!("/sys/fs/cgroup/{controller}/{parent}/{file}");
        std::fs::read_to_string(&path).map(|t| t.trim().to_owned())
    };
    assert!(std::path::Path::new(&format!("/sys/fs/cgroup/memory/{parent}/{id}")).is_dir());
    assert_eq!(
        read("memory", "memory.limit_in_bytes").unwrap(),
        (512u64 << 20).to_string()
    );
    assert_eq!(read("cpu", "cpu.cfs_quota_us").unwrap(), "100000");
    assert_eq!(read("pids", "pids.max").unwrap(), (4096 + 10).to_string());
    // A changed limit reaches the kernel; lowering below what is reserved kills nothing.
    server.put("/api/quotas/user/ada", json!({"maxMemoryGB": 1}));
    wait_for("the raised cap", || {
        (read("memory", "memory.limit_in_bytes").ok()? == (1u64 << 30).to_string()).then_some(())
    });
    server.put("/api/quotas/user/ada", json!({"maxMemoryGB": 0.03125}));
    wait_for("the lowered cap", || {
        (read("memory", "memory.limit_in_bytes").ok()? == (64u64 << 20).to_string()).then_some(())
    });
    assert_eq!(ada.ok(&["ps", "--format", "{{.Names}}"]), "web");
    let open = server.get("/api/quotas/violations");
    assert_eq!(open["items"][0]["dimension"], "memory", "{open}");
}

#[test]
fn what_no_tenant_may_ask_is_refused_in_words() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_080);
    for option in [
        "--privileged",
        "--cap-add=SYS_ADMIN",
        "--pid=host",
        "--network=host",
        "--ipc=host",
        "--uts=host",
        "--userns=host",
        "--cgroupns=host",
        "--device=/dev/null",
        "--security-opt=seccomp=unconfined",
        "--cgroup-parent=/x",
        "--volume=/:/host",
        "--runtime=other",
        "--memory=-1",
        "--memory=1k",
        "--pids-limit=-1",
        "--cpus=0.001",
        "--memory-swap=-1",
        "--log-driver=syslog",
        "--publish=192.0.2.1:80:80",
        "--oom-score-adj=-500",
        "--volumes-from=x",
        "--sysctl=kernel.msgmax=1",
        "--gpus=all",
    ] {
        let said = ada.docker(&["create", "--memory", "64m", option, IMAGE, "true"]);
        assert_ne!(said.code, 0, "{option} was not refused");
        assert!(
            !said.err.trim().is_empty(),
            "{option} was refused without a word"
        );
    }
    assert_eq!(
        server.usage("ada")["reservedContainers"],
        0,
        "a refusal charges nothing"
    );
    for args in [
        vec!["pull", "alpine"],
        vec!["volume", "create", "--driver", "nfs", "x"],
        vec!["network", "create", "--driver", "macvlan", "x"],
        vec!["swarm", "init"],
        vec!["plugin", "ls"],
    ] {
        let said = ada.refused(&args);
        assert!(said.contains("plimsoll"), "docker {args:?}: {said}");
    }
}

#[test]
fn odd_requests_have_one_reading_or_none() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_090);
    let create = |body: &str| {
        format!(
            "POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let cases: Vec<(u16, String)> = vec![
        (400, "GET /v1.41/containers%2Fjson HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".into()),
        (400, "GET /v1.41/../containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".into()),
        (400, "GET //containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".into()),
        (400, "GET /v1.23/containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".into()),
        (400, "GET /containers/json?all=1&all=0 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".into()),
        (400, "GET /containers/json?evil=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".into()),
        (403, "GET /containers/web/attach/ws HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".into()),
        (403, "GET /nothing HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".into()),
        (400, "POST /build HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into()),
        (200, "OPTIONS /containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".into()),
        (400, create(r#"{"Image":"plimsoll/example","Image":"x"}"#)),
        (400, create(r#"{"Image":"plimsoll/example","image":"x"}"#)),
        (400, create(r#"{"Image":"plimsoll/example","HostConfig":{"privileged":true}}"#)),
        (400, create(r#"{"Image":"plimsoll/example","HostConfig":{"Memory":1e30}}"#)),
        (400, create(r#"{"Image":"plimsoll/example","HostConfig":{"Memory":NaN}}"#)),
        (400, create(r#"{"Image":"plimsoll/example","HostConfig":{"Memory":"64m"}}"#)),
        (400, create(r#"{"Image":"plimsoll/example","HostConfig":{"Memory":99999999999999999999}}"#)),
        (403, create(r#"{"Image":"plimsoll/example","HostConfig":{"Privileged":true}}"#)),
        (404, create(r#"{"Image":"no/such/image"}"#)),
        (400, create("[]")),
        (400, create("")),
        (400, "POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n\r\n{}".into()),
    ];
    for (status, request) in cases {
        let got = as_uid_raw(ada.uid, &server.path("docker.sock"), request.as_bytes());
        assert_eq!(got.0, status, "{request}\n{}", got.1);
    }
    // A body without an end is not read to its end.
    let endless = format!(
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{}",
        64 << 20,
        " ".repeat(5 << 20)
    );
    assert_eq!(
        as_uid_raw(ada.uid, &server.path("docker.sock"), endless.as_bytes()).0,
        413
    );
}

#[test]
fn a_client_that_vanishes_leaves_nothing_half_done() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_100);
    let body =
        json!({"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"Memory": 64 << 20}}).to_string();
    let request = format!(
        "POST /containers/create?name=gone HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
        s.sendall(sys.stdin.buffer.read())\n";
    let mut child = Command::new("/usr/bin/env")
        .args(["python3", "-c", script])
        .arg(server.path("docker.sock"))
        .uid(ada.uid)
        .gid(ada.uid)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(request.as_bytes())
        .unwrap();
    child.wait().unwrap();
    // Either it was never begun, or it is whole: there, charged and committed.
    let probe = ada.ok(&run_asleep("probe", "64m"));
    assert!(!probe.is_empty());
    wait_for("no reservation to hang in the air", || {
        let all = server.get("/api/containers?user=ada");
        let items = all["items"].as_array().unwrap().clone();
        items.iter().all(|c| c["state"] != "pending").then_some(())
    });
    let here = ada.ok(&["ps", "-a", "--format", "{{.Names}}"]);
    assert_eq!(
        here.contains("gone"),
        server.container("ada", "gone").is_some()
    );
}

#[test]
fn a_gateway_without_an_engine_says_so() {
    let server = Server::without_engine();
    let ada = server.tenant("ada", 61_110, small());
    let (status, body) = as_uid(
        ada.uid,
        &server.path("docker.sock"),
        "GET",
        "/containers/json",
        None,
    );
    assert_eq!(status, 503);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("container engine does not answer"),
        "{body}"
    );
    let (status, ready) = server.api("GET", "/readyz", None);
    assert_eq!((status, &ready["ready"]), (503, &json!(false)));
    assert_eq!(ready["ledger"], "ok");
    // An engine that hangs is not waited for for ever either: nothing is charged.
    assert_eq!(server.usage("ada")["reservedContainers"], 0);
}

#[test]
fn a_program_in_a_container_is_that_containers_tenant() {
    let server = Server::start();
    let (ada, _) = two(&server, 61_120);
    ada.ok(&run_asleep("web", "64m"));
    let id = server.full_id("ada", "web");
    let pid = server
        .docker(&["inspect", "-f", "{{.State.Pid}}", &id])
        .stdout;
    let pid = String::from_utf8(pid).unwrap().trim().to_owned();
    // A process of root's, moved into ada's container's cgroup as one inside it would be.
    let socket = server.path("docker.sock");
    let script = format!(
        "for c in /sys/fs/cgroup/*/{0}; do echo $$ > $(dirname $c)/$(basename $c)/cgroup.procs; done; \
         exec python3 -c 'import socket;s=socket.socket(socket.AF_UNIX);s.connect(\"{1}\");\
         s.sendall(b\"GET /info HTTP/1.1\\r\\nHost: d\\r\\nConnection: close\\r\\n\\r\\n\");print(s.makefile().read())'",
        cgroup_of(&pid),
        socket.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        answer.contains("plimsoll.user=ada"),
        "{answer} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The path of a process's cgroup below each v1 controller.
fn cgroup_of(pid: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = text.lines().find(|l| l.contains(":memory:")).unwrap();
    line.rsplit(':')
        .next()
        .unwrap()
        .trim_start_matches('/')
        .to_owned()
}

#[test]
fn the_sockets_of_a_running_server_are_not_taken_over() {
    let server = Server::start();
    let stolen = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(server.path("other"))
        .arg("--api-socket")
        .arg(server.path("api.sock"))
        .output()
        .unwrap();
    assert!(!stolen.status.success());
    let said = String::from_utf8_lossy(&stolen.stderr).into_owned();
    assert!(said.contains("in use"), "{said}");
    let second = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(server.path("data"))
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&server.pid().to_string()), "{said}");
    assert!(UnixStream::connect(server.path("api.sock")).is_ok());
    assert_eq!(
        exchange(
            &server.path("api.sock"),
            b"GET /healthz HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        )
        .unwrap()
        .0,
        200
    );
}
