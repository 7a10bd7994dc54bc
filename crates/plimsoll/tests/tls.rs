//! The gateway over TLS, with the ordinary docker CLI on a real engine, and what is turned away there.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are outside the server: they may look at the clock"
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{IMAGE, Said, Server, said, wait_for};
use plimsoll::ca::{Authority, new_request};
use plimsoll_core::entity::{CertId, UserId};
use serde_json::json;

/// A person elsewhere: a folder with their certificate, and docker's own folder.
struct Remote {
    endpoint: String,
    certs: PathBuf,
    config: PathBuf,
}

impl Remote {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        command
            .env("DOCKER_HOST", &self.endpoint)
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", &self.certs);
        command
    }

    /// docker without a word about where it is.
    fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nonexistent")
            .env("DOCKER_CONFIG", &self.config)
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn docker(&self, args: &[&str]) -> Said {
        said(&self.command(args).output().unwrap())
    }

    fn ok(&self, args: &[&str]) -> String {
        let said = self.docker(args);
        assert_eq!(said.code, 0, "docker {args:?}: {said:?}");
        said.out.trim().to_owned()
    }

    fn refused(&self, args: &[&str]) -> String {
        let said = self.docker(args);
        assert_ne!(said.code, 0, "docker {args:?} was not refused: {said:?}");
        said.err
    }

    /// Asks with curl, which says what became of the handshake.
    fn curl(&self, args: &[&str]) -> Said {
        let url = self.endpoint.replace("tcp://", "https://") + "/containers/json";
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--max-time", "20"])
            .args(args)
            .arg(url);
        said(&command.output().unwrap())
    }

    fn address(&self) -> &str {
        self.endpoint.strip_prefix("tcp://").unwrap()
    }
}

/// A user with a certificate, made by the command line.
fn remote(server: &Server, endpoint: &str, name: &str) -> Remote {
    server.post("/api/users", json!({"name": name}));
    let limits = json!({"maxMemoryGB": 0.5, "maxCpuCores": 1, "maxConcurrentContainers": 4});
    server.put(&format!("/api/quotas/user/{name}"), limits);
    let certs = server.path(&format!("{name}-certs"));
    let made = server.plimsoll(&["user", "cert", name, "--out", certs.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{made:?}");
    assert!(
        made.out.contains(&format!("DOCKER_HOST={endpoint}")),
        "{made:?}"
    );
    Remote {
        endpoint: endpoint.to_owned(),
        certs,
        config: server.path(&format!("{name}-docker")),
    }
}

fn small<'a>(options: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [options, &["--memory", "64m", "--cpus", "0.2", IMAGE], rest].concat()
}

fn serials(server: &Server, user: &str) -> Vec<String> {
    let certs = server.get(&format!("/api/users/{user}/certs"));
    let items = certs["items"].as_array().unwrap().iter();
    items
        .map(|cert| cert["serial"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_certificate_is_all_that_docker_needs() {
    let (server, endpoint) = Server::start_over_tls(&[]);
    let ada = remote(&server, &endpoint, "ada");
    let ben = remote(&server, &endpoint, "ben");
    assert_eq!(
        ada.ok(&small(&["run", "--rm"], &["echo", "hello"])),
        "hello"
    );
    ada.ok(&small(&["run", "-d", "--name", "web"], &["sleep", "1000"]));
    assert_eq!(ada.ok(&["ps", "--format", "{{.Names}}"]), "web");
    assert_eq!(ben.ok(&["ps", "-aq"]), "");
    assert!(ben.refused(&["logs", "web"]).contains("No such container"));
    assert_eq!(server.usage("ada")["reservedContainers"], 1);

    // Streams: the end of the input is passed on and does not end the output.
    let lines = "a\n".repeat(20_000);
    let mut count = ada
        .command(&["exec", "-i", "web", "wc", "-l"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    count
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let counted = said(&count.wait_with_output().unwrap());
    assert_eq!(counted.out.trim(), "20000", "{counted:?}");
    let many = ada.ok(&["exec", "web", "seq", "1", "60000"]);
    assert!(many.ends_with("\n60000"), "{} bytes", many.len());

    // By flags, and as a context.
    let file = |name: &str| ada.certs.join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let flags = [
        "--tlsverify",
        "--tlscacert",
        &ca,
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
    ];
    let run = small(&["run", "--rm"], &["echo", "flags"]);
    let by_flags = [&["-H", endpoint.as_str()], &flags[..], &run].concat();
    let ran = said(&ada.bare(&by_flags).output().unwrap());
    assert_eq!(ran.out.trim(), "flags", "{ran:?}");
    let file = ada.certs.join("plimsoll.dockercontext");
    for args in [
        &["context", "import", "plimsoll", file.to_str().unwrap()][..],
        &["context", "use", "plimsoll"],
    ] {
        let done = said(&ada.bare(args).output().unwrap());
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
    }
    let listed = ada
        .bare(&["ps", "--format", "{{.Names}}"])
        .output()
        .unwrap();
    assert_eq!(said(&listed).out.trim(), "web");
}

/// A stream ends with its client, whether it had ended its input before or not.
#[test]
fn streams_of_clients_that_are_gone_are_closed() {
    let (server, endpoint) = Server::start_over_tls(&[]);
    let ada = remote(&server, &endpoint, "ada");
    ada.ok(&small(
        &["run", "-d", "-i", "--name", "web"],
        &["sleep", "1000"],
    ));
    let sockets = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
        open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    };
    let before = wait_for("a quiet server", || {
        let first = sockets();
        std::thread::sleep(Duration::from_millis(300));
        (sockets() == first).then_some(first)
    });
    for (args, ends_its_input) in [
        (&["attach", "web"][..], false),
        (&["logs", "-f", "web"], false),
        (&["exec", "-i", "web", "sleep", "500"], false),
        (&["exec", "-i", "web", "sleep", "500"], true),
    ] {
        let mut client = ada.command(args).stdin(Stdio::piped()).spawn().unwrap();
        wait_for("the stream to be open", || {
            (sockets() >= before + 2).then_some(())
        });
        if ends_its_input {
            drop(client.stdin.take());
        }
        std::thread::sleep(Duration::from_millis(500));
        client.kill().unwrap();
        client.wait().unwrap();
        let what = format!("docker {args:?} to leave nothing open");
        wait_for(&what, || (sockets() <= before).then_some(()));
    }
}

#[test]
fn a_revoked_certificate_is_told_so_and_its_connections_end() {
    let (server, endpoint) = Server::start_over_tls(&[]);
    let ada = remote(&server, &endpoint, "ada");
    ada.ok(&small(
        &["run", "-d", "-i", "--name", "web"],
        &["sleep", "1000"],
    ));
    let mut open: Vec<_> = [&["attach", "web"][..], &["logs", "-f", "web"], &["events"]]
        .iter()
        .map(|args| {
            let mut command = ada.command(args);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let serial = serials(&server, "ada").remove(0);
    let listed = server.plimsoll(&["user", "cert", "ada", "--list"]);
    assert!(listed.out.contains(&serial), "{listed:?}");
    let revoked = server.plimsoll(&["user", "revoke-cert", &serial]);
    assert_eq!(revoked.code, 0, "{revoked:?}");
    for client in &mut open {
        wait_for("the stream to end", || client.try_wait().unwrap());
    }
    let refusal = ada.refused(&["ps"]);
    assert!(
        refusal.contains(&format!("certificate {serial} was revoked")),
        "{refusal}"
    );
    let listed = server.plimsoll(&["user", "cert", "ada", "--list"]);
    assert!(listed.out.contains("revoked"), "{listed:?}");
    assert!(server.log().contains("was revoked"), "the log says which");

    // Another of the same user counts still, until the user is gone.
    let certs = server.path("again");
    let made = server.plimsoll(&["user", "cert", "ada", "--out", certs.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{made:?}");
    let again = Remote { certs, ..ada };
    again.ok(&["rm", "-f", "web"]);
    server.api("PATCH", "/api/users/ada", Some(&json!({"suspended": true})));
    let refusal = again.refused(&small(&["run", "--rm"], &["true"]));
    assert!(refusal.contains("suspended"), "{refusal}");
    let (status, _) = server.api("DELETE", "/api/users/ada", None);
    assert_eq!(status, 204);
    let refusal = again.refused(&["ps"]);
    assert!(refusal.contains("is not in the ledger"), "{refusal}");
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn whoever_has_no_certificate_of_ours_does_not_come_in() {
    let (server, endpoint) = Server::start_over_tls(&[]);
    let ada = remote(&server, &endpoint, "ada");
    let now_ms = i64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis(),
    );
    let now_ms = now_ms.unwrap();
    let user = server.get("/api/users/ada");
    let user = plimsoll_store::User {
        id: UserId(user["id"].as_str().unwrap().parse().unwrap()),
        name: "ada".into(),
        email: None,
        mail: true,
        os_uid: None,
        port_slot: 0,
        role: plimsoll_store::Role::Member,
        default_team: None,
        suspended: false,
        draining: false,
        created_ms: 0,
    };
    let own = Authority::of(&server.path("data"));
    let other_dir = tempfile::tempdir().unwrap();
    let other = Authority::of(other_dir.path());
    other.init(&[], now_ms).unwrap();
    let (key, request) = new_request("ada").unwrap();
    let dir = other_dir.path();
    let key = write(dir, "key.pem", &key);
    let day = 86_400_000;
    let serial = || CertId(uuid::Uuid::now_v7());
    let made = |name: &str, authority: &Authority, from, until| {
        let pem = authority.issue(&request, &user, serial(), from, until);
        write(dir, name, &pem.unwrap())
    };
    let foreign = made("foreign.pem", &other, now_ms, now_ms + day);
    let expired = made("expired.pem", &own, now_ms - 2 * day, now_ms - day);
    let unknown = made("unknown.pem", &own, now_ms, now_ms + day);
    let ca = ada.certs.join("ca.pem").to_str().unwrap().to_owned();
    let good = ada.certs.join("cert.pem").to_str().unwrap().to_owned();
    let good_key = ada.certs.join("key.pem").to_str().unwrap().to_owned();
    let servers = server
        .path("data/tls/server.pem")
        .to_str()
        .unwrap()
        .to_owned();
    let servers_key = server
        .path("data/tls/server.key")
        .to_str()
        .unwrap()
        .to_owned();
    let in_good_order = ["--cacert", &ca, "--cert", &good, "--key", &good_key];
    let listed = ada.curl(&in_good_order);
    assert_eq!(listed.out, "[]", "{listed:?}");

    for (what, args, logged) in [
        ("none", vec!["--cacert", &ca], "sent no certificates"),
        (
            "another authority's",
            vec!["--cacert", &ca, "--cert", &foreign, "--key", &key],
            "UnknownIssuer",
        ),
        (
            "an expired one",
            vec!["--cacert", &ca, "--cert", &expired, "--key", &key],
            "expired",
        ),
        (
            "the server's",
            vec!["--cacert", &ca, "--cert", &servers, "--key", &servers_key],
            "extended key usage",
        ),
        (
            "a good one over TLS 1.2",
            [&in_good_order[..], &["--tls-max", "1.2"]].concat(),
            "TLS 1.3",
        ),
    ] {
        let before = server.log().len();
        let said = ada.curl(&args);
        assert_ne!(said.code, 0, "{what}: {said:?}");
        assert_eq!(said.out, "", "{what}: nothing was answered");
        assert!(said.err.contains("alert"), "{what}: {said:?}");
        // A line is written when the client has gone.
        wait_for(what, || {
            let log = server.log();
            let told = log.get(before..)?;
            (told.contains("handshake failed") && told.contains(logged)).then_some(())
        });
    }
    // Signed by the authority, and nothing the ledger knows of.
    let said = ada.curl(&["--cacert", &ca, "--cert", &unknown, "--key", &key]);
    assert!(said.out.contains("is not in the ledger"), "{said:?}");
    // docker shows the alert, too.
    std::fs::remove_file(ada.certs.join("cert.pem")).unwrap();
    std::fs::copy(&foreign, ada.certs.join("cert.pem")).unwrap();
    std::fs::copy(&key, ada.certs.join("key.pem")).unwrap();
    let refusal = ada.refused(&["ps"]);
    assert!(
        refusal.contains("unknown certificate authority") || refusal.contains("tls:"),
        "{refusal}"
    );
}

fn plain(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_no_tls_is_told_so_and_what_is_slow_is_let_go() {
    let (server, endpoint) = Server::start_over_tls(&[]);
    let ada = remote(&server, &endpoint, "ada");
    let answer = plain(ada.address(), b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("speaks TLS only"), "{answer}");
    let mut docker = ada.bare(&["ps"]);
    let refusal = said(&docker.env("DOCKER_HOST", &endpoint).output().unwrap());
    assert!(refusal.err.contains("speaks TLS only"), "{refusal:?}");

    // A handshake that stops in the middle, and one that never begins; others are served meanwhile.
    let began = Instant::now();
    let mut slow = TcpStream::connect(ada.address()).unwrap();
    slow.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    let mut silent = TcpStream::connect(ada.address()).unwrap();
    ada.ok(&["ps"]);
    for stream in [&mut slow, &mut silent] {
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
    }
    assert!(began.elapsed() > Duration::from_secs(5));
    wait_for("the log to say so", || {
        let log = server.log();
        log.contains("a TLS handshake took too long").then_some(())
    });
}

#[test]
fn connections_beyond_the_limit_are_told_so_and_only_their_owners() {
    let (server, endpoint) = Server::start_over_tls(&["--set", "limits.connections_per_user=4"]);
    let (ada, ben) = (
        remote(&server, &endpoint, "ada"),
        remote(&server, &endpoint, "ben"),
    );
    // A stream holds its connection. One that was itself one too many is begun again.
    let mut events: Vec<std::process::Child> = Vec::new();
    let refusal = wait_for("ada to have too many", || {
        events.retain_mut(|client| client.try_wait().unwrap().is_none());
        if events.len() < 4 {
            let mut client = ada.command(&["events"]);
            events.push(client.stdout(Stdio::null()).spawn().unwrap());
            return None;
        }
        let said = ada.docker(&["ps"]);
        (said.code != 0).then_some(said.err)
    });
    assert!(refusal.contains("too many open connections"), "{refusal}");
    ben.ok(&["ps"]);
    for client in &mut events {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    wait_for("ada to be let in again", || {
        (ada.docker(&["ps"]).code == 0).then_some(())
    });
}

#[test]
fn requests_beyond_the_rate_are_told_when_to_come_back() {
    let narrow = [
        "--set",
        "limits.requests_per_s=5",
        "--set",
        "limits.requests_burst=40",
    ];
    let (server, endpoint) = Server::start_over_tls(&narrow);
    let ada = remote(&server, &endpoint, "ada");
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"]
        .map(|name| ada.certs.join(name).to_str().unwrap().to_owned());
    // All on one connection.
    let url = endpoint.replace("tcp://", "https://") + "/version?n=[1-90]";
    let many = Command::new("curl")
        .args([
            "-sS", "-i", "--cacert", &ca, "--cert", &cert, "--key", &key, &url,
        ])
        .output()
        .unwrap();
    let many = said(&many);
    assert!(many.out.contains("429 Too Many Requests"), "{many:?}");
    assert!(many.out.contains("retry-after: 1"), "{many:?}");
    assert!(many.out.contains("plimsoll: too many requests"), "{many:?}");
    wait_for("the rate to let ada in again", || {
        (ada.docker(&["ps"]).code == 0).then_some(())
    });
}
