//! What people try on a shared gateway when they mean harm, or are merely fast: on a real engine, with
//! the ordinary docker CLI and bare sockets.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{IMAGE, Server, Tenant, wait_for};
use serde_json::{Value, json};

fn small() -> Value {
    json!({"maxMemoryGB": 0.5, "maxCpuCores": 1, "maxConcurrentContainers": 1})
}

const SLEEP: [&str; 3] = [IMAGE, "sleep", "1000"];

fn with<'a>(options: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [options, &["--memory", "64m", "--cpus", "0.2"], rest].concat()
}

/// A python program under a tenant's uid, given the gateway's socket. Who calls is the process.
fn python(tenant: &Tenant, server: &Server, program: &str) -> Child {
    Command::new("/usr/bin/env")
        .args(["python3", "-uc", program])
        .arg(server.path("docker.sock"))
        .uid(tenant.uid)
        .gid(tenant.uid)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs")
}

fn output(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `docker top` runs `ps` on the host and shows the rows whose column PID is one of the container's.
/// A column called PID that holds something else would show other people's processes.
#[test]
fn top_shows_no_processes_but_the_containers() {
    let server = Server::start();
    let ada = server.tenant("ada", 62_000, small());
    ada.ok(&with(&["run", "-d", "--name", "web"], &SLEEP));
    for arguments in [
        &["-eouid=PID,args", "--forest"][..],
        &["-eo", "uid=PID,args"],
        &["-eo", "pid,args;id"],
        &["-eo", "pid,args\n"],
    ] {
        let refusal = ada.refused(&[&["top", "web"], arguments].concat());
        assert!(refusal.contains("ps_args"), "{arguments:?}: {refusal}");
    }
    for arguments in [&[][..], &["aux"], &["-eo", "pid,user,args"]] {
        let rows = ada.ok(&[&["top", "web"], arguments].concat());
        assert!(rows.contains("sleep 1000"), "{arguments:?}: {rows}");
        assert_eq!(rows.lines().count(), 2, "{arguments:?}: {rows}");
    }
}

/// Whoever looks at a container beside its start (each unpause does, refused as it is) must not free
/// what the start was admitted for: it does not run yet.
#[test]
fn starts_at_once_never_run_more_than_the_quota() {
    let server = Server::start();
    let ada = server.tenant("ada", 62_010, small());
    for name in ["one", "two"] {
        ada.ok(&with(&["run", "-d", "--name", name], &SLEEP));
        ada.ok(&["stop", "-t", "0", name]);
    }
    let mut storm = python(
        &ada,
        &server,
        r"
import socket, sys, threading
path = sys.argv[1]
def post(what):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.sendall(f'POST /containers/{what} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'.encode())
    answer = b''
    while True:
        b = s.recv(65536)
        if not b: break
        answer += b
    return int(answer.split()[1])
over = False
def hammer():
    while not over: post('one/unpause')
for line in sys.stdin:
    over = False
    helpers = [threading.Thread(target=hammer) for _ in range(2)]
    for h in helpers: h.start()
    said = {}
    def start(name): said[name] = post(name + '/start')
    starts = [threading.Thread(target=start, args=(n,)) for n in ('one', 'two')]
    for s in starts: s.start()
    for s in starts: s.join()
    over = True
    for h in helpers: h.join()
    print(said, flush=True)
",
    );
    let mut rounds = storm.stdin.take().unwrap();
    let mut said = BufReader::new(storm.stdout.take().unwrap());
    for _ in 0..12 {
        rounds.write_all(b"go\n").unwrap();
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let running = ada.ok(&["ps", "--format", "{{.Names}}"]);
        assert!(running.lines().count() <= 1, "{running} after {line}");
        let open = server.get("/api/quotas/violations");
        assert_eq!(open["items"], json!([]), "after {line}");
        for name in ["one", "two"] {
            ada.docker(&["kill", name]);
        }
    }
    drop(rounds);
    storm.wait().unwrap();
}

/// A policy by which the engine starts a container at its own next start is a claim to run.
#[test]
fn a_stopped_container_gets_no_restart_policy_past_admission() {
    let server = Server::start();
    let ada = server.tenant("ada", 62_020, small());
    ada.ok(&with(&["run", "-d", "--name", "one"], &SLEEP));
    ada.ok(&["stop", "-t", "0", "one"]);
    ada.ok(&with(&["run", "-d", "--name", "two"], &SLEEP));
    for policy in ["always", "unless-stopped", "on-failure"] {
        let refusal = ada.refused(&["update", "--restart", policy, "one"]);
        assert!(refusal.contains("plimsoll"), "{policy}: {refusal}");
    }
    assert_eq!(server.usage("ada")["reservedMemoryGB"], 64.0 / 1024.0);
    let open = server.get("/api/quotas/violations");
    assert_eq!(open["items"], json!([]), "nothing went over a limit");
    // On one that runs it is no more than it holds already, and no policy is none.
    ada.ok(&["update", "--restart", "always", "two"]);
    ada.ok(&["update", "--restart", "no", "two"]);
    ada.ok(&["update", "--restart", "no", "one"]);
}

/// Input that nobody reads any more must not cost output that was written before.
#[test]
fn output_is_whole_when_input_is_cut_off() {
    let server = Server::start();
    let ada = server.tenant("ada", 62_030, small());
    for _ in 0..10 {
        let mut run = ada
            .command(&with(
                &["run", "-i", "--rm"],
                &[IMAGE, "sh", "-c", "head -c 100000 >/dev/null; seq 1 60000"],
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = run.stdin.take().unwrap();
        let typing = std::thread::spawn(move || while input.write_all(&[b'y'; 4096]).is_ok() {});
        // Reading slowly leaves output between the engine and the client when the container ends.
        let mut stdout = run.stdout.take().unwrap();
        let mut text = String::new();
        let mut chunk = [0; 16384];
        loop {
            match stdout.read(&mut chunk).unwrap() {
                0 => break,
                read => text.push_str(std::str::from_utf8(&chunk[..read]).unwrap()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        run.wait().unwrap();
        typing.join().unwrap();
        let last = text.lines().last().unwrap_or_default();
        assert_eq!(last, "60000", "of {} bytes", text.len());
    }
}

/// Sockets the server has open. Its other descriptors come and go with the ledger's readers and the
/// collector's files, whoever is connected.
fn sockets(server: &Server) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// A client that is killed while a container says nothing must not keep a stream open for ever.
#[test]
fn streams_of_clients_that_are_gone_are_closed() {
    let server = Server::start();
    let ada = server.tenant("ada", 62_040, small());
    ada.ok(&with(&["run", "-d", "-i", "--name", "web"], &SLEEP));
    let before = wait_for("a quiet server", || {
        let first = sockets(&server);
        std::thread::sleep(Duration::from_millis(300));
        (sockets(&server) == first).then_some(first)
    });
    for args in [
        &["attach", "web"][..],
        &["logs", "-f", "web"],
        &["events"],
        &["wait", "web"],
        &["exec", "-i", "web", "sleep", "500"],
    ] {
        // A pipe that is not closed: the client does not end its input by itself.
        let mut client = ada
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the stream to be open", || {
            (sockets(&server) >= before + 2).then_some(())
        });
        std::thread::sleep(Duration::from_millis(300));
        client.kill().unwrap();
        client.wait().unwrap();
        let what = format!("docker {args:?} to leave nothing open");
        wait_for(&what, || (sockets(&server) <= before).then_some(()));
    }
}

/// One tenant's connections are not everybody's.
#[test]
fn too_many_connections_are_turned_away_and_only_their_owners() {
    let server = Server::start();
    let ada = server.tenant("ada", 62_050, small());
    let ben = server.tenant("ben", 62_051, small());
    let hoard = python(
        &ada,
        &server,
        r"
import select, socket, sys
kept = []
refused = b''
for i in range(400):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(sys.argv[1])
    kept.append(s)
# Which of them are one too many, whoever looked first decided.
s = select.select(kept, [], [], 10)[0][0]
while True:
    b = s.recv(65536)
    if not b: break
    refused += b
print(refused.decode())
print('END', flush=True)
sys.stdin.read()
",
    );
    let mut hoard = hoard;
    let mut said = String::new();
    let mut stdout = BufReader::new(hoard.stdout.take().unwrap());
    while !said.contains("END") {
        let mut line = String::new();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0);
        said.push_str(&line);
    }
    assert!(said.starts_with("HTTP/1.1 429"), "{said}");
    assert!(said.contains("too many open connections"), "{said}");
    ben.ok(&["ps"]);
    assert!(ada.refused(&["ps"]).contains("too many open connections"));
    drop(hoard.stdin.take());
    hoard.wait().unwrap();
    wait_for("ada to be let in again", || {
        (ada.docker(&["ps"]).code == 0).then_some(())
    });
}

/// Requests whose framing could be read two ways, and bodies where none belong.
#[test]
fn framing_has_one_reading() {
    let server = Server::start();
    let ada = server.tenant("ada", 62_060, small());
    ada.ok(&with(&["create", "--name", "web"], &SLEEP));
    let head = "POST /containers/web/start HTTP/1.1\r\nHost: d\r\nConnection: close\r\n";
    for (status, request) in [
        // Of two framings one is read, and what the other would make of it is no second request.
        (
            "200",
            "GET /containers/web/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n\
             POST /containers/web/start HTTP/1.1\r\nHost: d\r\n\r\n"
                .to_owned(),
        ),
        (
            "400",
            format!("{head}Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello"),
        ),
        (
            "400",
            format!(
                "{head}Content-Type: application/json\r\nContent-Length: 20\r\n\r\n\
                 {{\"Binds\":[\"/:/host\"]}}"
            ),
        ),
        ("400", format!("{head}Transfer-Encoding: gzip\r\n\r\n")),
        (
            "400",
            "GET http://evil/containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
                .to_owned(),
        ),
        (
            "403",
            "GET /containers/web/attach/ws HTTP/1.1\r\nHost: d\r\nConnection: Upgrade, close\r\n\
             Upgrade: websocket\r\n\r\n"
                .to_owned(),
        ),
        (
            "400",
            "GET /containers/web%00/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
                .to_owned(),
        ),
    ] {
        let mut child = python(
            &ada,
            &server,
            "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.settimeout(30)\n\
             s.connect(sys.argv[1])\ns.sendall(sys.stdin.buffer.read())\n\
             while True:\n    b=s.recv(65536)\n    if not b: break\n    sys.stdout.buffer.write(b)\n",
        );
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(request.as_bytes()).unwrap();
        drop(stdin);
        let answer = output(child);
        let got = answer.split(' ').nth(1).unwrap_or_default();
        assert_eq!(got, status, "{request}\n{answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{request}\n{answer}"
        );
    }
    let state = ada.ok(&["inspect", "web", "--format", "{{.State.Status}}"]);
    assert_eq!(state, "created", "none of them started it");
}

/// A name is free as soon as its container is gone, however it went.
#[test]
fn names_are_free_again_at_once() {
    let server = Server::start();
    let ada = server.tenant("ada", 62_070, json!({"maxConcurrentContainers": 4}));
    ada.ok(&with(&["create", "--name", "web"], &SLEEP));
    let taken = ada.refused(&with(&["create", "--name", "web"], &SLEEP));
    assert!(taken.contains("Conflict"), "{taken}");
    assert!(taken.contains("\"/web\" is already in use"), "{taken}");
    // Behind Plimsoll's back: no answer of the gateway's told the ledger.
    server.docker(&["rm", "-f", &server.full_id("ada", "web")]);
    ada.ok(&with(&["create", "--name", "web"], &SLEEP));
    ada.ok(&["rename", "web", "site"]);
    ada.ok(&with(&["create", "--name", "web"], &SLEEP));
    let taken = ada.refused(&["rename", "web", "site"]);
    assert!(taken.contains("\"/site\" is already in use"), "{taken}");
}

/// The engine knows the image by its id; people filter by the name they gave.
#[test]
fn events_are_filtered_by_the_image_as_it_was_named() {
    let server = Server::start();
    let ada = server.tenant("ada", 62_080, small());
    let follow = |image: &str| {
        let filter = format!("image={image}");
        let format = "{{.Action}} {{.Actor.Attributes.name}} {{.From}}";
        let mut events = ada
            .command(&[
                "events", "--since", "1m", "--filter", &filter, "--format", format,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(events.stdout.take().unwrap()).lines();
        (events, lines)
    };
    // The engine keeps few events, so they are followed from before.
    let (mut mine, mut lines) = follow(IMAGE);
    let (mut other, mut none) = follow("other");
    // More than once: the first may have come before the streams were open, and be among those that the
    // engine keeps no more.
    for _ in 0..3 {
        ada.ok(&with(&["create", "--name", "web"], &SLEEP));
        ada.ok(&["rm", "web"]);
    }
    let created = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("create")));
    assert_eq!(created.unwrap().unwrap(), format!("create web {IMAGE}"));
    for process in [&mut mine, &mut other] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert!(none.next().is_none());
}
