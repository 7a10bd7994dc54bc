//! Much, and many, through the gateway: a gigabyte of image both ways, half a thousand people attached.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{IMAGE, Server, Tenant};
use serde_json::json;

/// What the server may have used at most, whatever went through it.
const MEMORY_MAX_MIB: u64 = 100;

const GIB: u64 = 1 << 30;

fn status_kib(server: &Server, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let value = line.unwrap().trim().strip_suffix(" kB").unwrap();
    value.trim().parse().unwrap()
}

fn assert_flat(server: &Server) {
    let most = status_kib(server, "VmHWM:");
    assert!(most < MEMORY_MAX_MIB << 10, "{most} KiB at most");
}

/// A shell as the tenant's account, with `$docker` at the gateway.
fn shell(tenant: &Tenant, script: &str) -> String {
    let made = Command::new("sh")
        .args(["-euc", script])
        .env("DOCKER_HOST", &tenant.host)
        .env("HOME", "/nonexistent")
        .uid(tenant.uid)
        .gid(tenant.uid)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{script}: {error}");
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

/// Also when the test fails.
struct Swept<'a>(&'a Tenant, &'a str);

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        self.0.docker(&["rmi", "-f", self.1]);
    }
}

#[test]
fn a_gigabyte_of_image_goes_both_ways_and_the_memory_stays_flat() {
    let server = Server::start();
    let room = json!({"maxMemoryGB": 0.5, "maxCpuCores": 1, "maxStorageGB": 4});
    let ada = server.tenant("ada", 62_700, room);
    let dir = tempfile::tempdir().unwrap();
    let big = dir.path().join("big");
    std::fs::File::create(&big).unwrap().set_len(GIB).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(ada.uid), Some(ada.uid)).unwrap();
    let at = dir.path().display();
    let _swept = Swept(&ada, "big");

    shell(
        &ada,
        &format!("tar -C {at} -cf - big | docker import - big:1"),
    );
    assert_flat(&server);
    let reserved = || server.usage("ada")["reservedStorageGB"].as_f64().unwrap();
    assert!((1.0..1.01).contains(&reserved()), "{}", reserved());

    shell(&ada, &format!("docker save big:1 > {at}/saved"));
    assert_flat(&server);
    let saved = std::fs::metadata(dir.path().join("saved")).unwrap().len();
    assert!(saved > GIB, "{saved}");

    ada.ok(&["rmi", "big:1"]);
    assert!(reserved() < 0.001, "{}", reserved());
    let said = shell(&ada, &format!("docker load -q < {at}/saved"));
    assert!(said.contains("big:1"), "{said}");
    assert_flat(&server);
    assert!((1.0..1.01).contains(&reserved()), "{}", reserved());
}

const ATTACHED: usize = 500;

/// Attaches as often as it is told, says so, and then how many of them have heard `all`.
const ATTACH: &str = r"
import socket, sys
path, container, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
head = ('POST /v1.41/containers/%s/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\n'
        'Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n' % container).encode()
kept = []
for i in range(count):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(path)
    s.sendall(head)
    answer = b''
    while b'\r\n\r\n' not in answer:
        part = s.recv(1)
        if not part: break
        answer += part
    if not answer.startswith(b'HTTP/1.1 101'):
        print(answer.decode()); break
    kept.append(s)
print('attached', len(kept), flush=True)
heard = 0
for s in kept:
    said = b''
    while b'hear' not in said:
        part = s.recv(4096)
        if not part: break
        said += part
    heard += said.endswith(b'hear ye\n')
print('heard', heard, flush=True)
sys.stdin.read()
";

#[test]
fn half_a_thousand_are_attached_and_all_hear_what_is_said() {
    let server = Server::start_with(
        &common::engine(),
        &["--set", "limits.connections_per_user=600"],
    );
    let room = json!({"maxMemoryGB": 0.5, "maxCpuCores": 1});
    let ada = server.tenant("ada", 62_710, room);
    let program = "read line; echo $line; exec sleep 1000";
    ada.ok(&[
        "run", "-di", "--name", "crier", "--memory", "64m", IMAGE, "sh", "-c", program,
    ]);
    let mut crowd = Command::new("/usr/bin/env")
        .args(["python3", "-uc", ATTACH])
        .arg(server.path("docker.sock"))
        .args(["crier", &ATTACHED.to_string()])
        .uid(ada.uid)
        .gid(ada.uid)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(crowd.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), format!("attached {ATTACHED}"));
    let now = status_kib(&server, "VmRSS:");
    assert!(now < MEMORY_MAX_MIB << 10, "{now} KiB");

    // One more, who speaks.
    let mut speaker = ada
        .command(&["attach", "crier"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut mouth = speaker.stdin.take().unwrap();
    mouth.write_all(b"hear ye\n").unwrap();
    assert_eq!(next(), format!("heard {ATTACHED}"));
    let mut own = [0; 8];
    speaker
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut own)
        .unwrap();
    assert_eq!(&own, b"hear ye\n");

    drop(crowd.stdin.take());
    crowd.wait().unwrap();
    speaker.kill().unwrap();
    speaker.wait().unwrap();
    ada.ok(&["rm", "-f", "crier"]);
}
