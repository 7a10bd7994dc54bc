//! Compose through the gateway: one file, many people, at the same time.
//!
//! `PLIMSOLL_COMPOSE_TENANTS` says how many (4).

#![allow(
    clippy::disallowed_methods,
    reason = "how many tenants there are is said in the environment"
)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{IMAGE, Server, Tenant, wait_for};
use serde_json::{Value, json};

const FILE: &str = r#"
version: "3.8"
services:
  db:
    image: plimsoll/example
    command: ["sh", "-c", "echo $$WORD > /data/word; exec sleep 1000"]
    environment: {WORD: "first"}
    volumes: ["data:/data"]
    networks: [back]
    mem_limit: 32m
    cpus: 0.05
    healthcheck:
      test: ["CMD", "test", "-s", "/data/word"]
      interval: 1s
      retries: 20
  web:
    image: plimsoll/example
    command: ["sh", "-c", "mkdir -p /w; cp /data/word /w/index.html; exec httpd -f -p 80 -h /w"]
    volumes: ["data:/data:ro"]
    networks: [back, front]
    ports: ["8080:80"]
    depends_on: [db]
    mem_limit: 32m
    cpus: 0.05
  ask:
    image: plimsoll/example
    command: ["sh", "-c", "while ! wget -q -O - http://web/; do sleep 1; done; exec sleep 1000"]
    networks: [front]
    depends_on: [web]
    mem_limit: 32m
    cpus: 0.05
  idle:
    image: plimsoll/example
    command: ["sleep", "1000"]
    deploy: {resources: {limits: {cpus: "0.05", memory: 32M}}}
networks:
  back: {internal: true}
  front: {}
volumes:
  data: {}
"#;

/// A server whose tenants publish from `first` on: two servers on one host would share the rest.
fn server(first: u16) -> Server {
    let first = format!("ports.first={first}");
    Server::start_with(&common::engine(), &["--set", &first])
}

fn limits() -> Value {
    json!({"maxMemoryGB": 1, "maxCpuCores": 1, "maxStorageGB": 20, "maxContainers": 10,
           "maxConcurrentContainers": 8})
}

fn compose(tenant: &Tenant, file: &Path, args: &[&str]) -> Output {
    let output = Command::new("docker-compose")
        .uid(tenant.uid)
        .gid(tenant.uid)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("DOCKER_HOST", &tenant.host)
        .env("COMPOSE_PROJECT_NAME", "course")
        .args(["-f"])
        .arg(file)
        .args(["--compatibility"])
        .args(args)
        .current_dir(file.parent().unwrap())
        .stdin(Stdio::null())
        .output()
        .expect("docker-compose runs");
    assert!(
        output.status.success(),
        "docker-compose {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn written(dir: &Path, text: &str) -> std::path::PathBuf {
    let file = dir.join("docker-compose.yml");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    file
}

#[test]
fn a_class_runs_one_file_at_once_and_nobody_meets_another() {
    let count = std::env::var("PLIMSOLL_COMPOSE_TENANTS");
    let count: u32 = count.ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let server = server(26000);
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path(), FILE);
    let tenants: Vec<Tenant> = (0..count)
        .map(|n| server.tenant(&format!("student{n}"), 65_100 + n, limits()))
        .collect();
    std::thread::scope(|scope| {
        for tenant in &tenants {
            scope.spawn(|| compose(tenant, &file, &["up", "-d"]));
        }
    });
    let mut ports = std::collections::BTreeSet::new();
    for (n, tenant) in tenants.iter().enumerate() {
        let listed = tenant.ok(&["ps", "--format", "{{.Names}}"]);
        let mut names: Vec<&str> = listed.lines().collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "course_ask_1",
                "course_db_1",
                "course_idle_1",
                "course_web_1"
            ]
        );
        wait_for("one service to reach the other by its name", || {
            let logs = said(&compose(tenant, &file, &["logs", "--no-color", "ask"]));
            logs.contains("first").then_some(())
        });
        let port = said(&compose(tenant, &file, &["port", "web", "80"]));
        assert!(ports.insert(port.clone()), "{port} is published twice");
        assert_eq!(
            said(&compose(
                tenant,
                &file,
                &["exec", "-T", "db", "cat", "/data/word"]
            )),
            "first\n"
        );
        let usage = server.usage(&format!("student{n}"));
        assert_eq!(usage["reservedConcurrentContainers"], 4);
        assert_eq!(usage["reservedMemoryGB"], 0.125);
    }
    std::thread::scope(|scope| {
        for tenant in &tenants {
            scope.spawn(|| compose(tenant, &file, &["down", "-v", "-t", "0"]));
        }
    });
    for (n, tenant) in tenants.iter().enumerate() {
        assert_eq!(tenant.ok(&["ps", "-aq"]), "");
        assert_eq!(tenant.ok(&["volume", "ls", "-q"]), "");
        let usage = server.usage(&format!("student{n}"));
        assert_eq!(usage["reservedContainers"], 0);
        assert_eq!(usage["reservedStorageGB"], 0.0);
    }
}

/// Compose stops the old container, makes the new one and then removes the old one: what runs fits a
/// quota for one of them, since a stop frees what running takes.
#[test]
fn a_changed_service_is_made_anew_within_a_quota_for_one_that_runs() {
    let server = server(28000);
    let tight = json!({"maxMemoryGB": 0.125, "maxCpuCores": 0.2, "maxStorageGB": 7,
                       "maxContainers": 6, "maxConcurrentContainers": 4});
    let ada = server.tenant("ada", 65_200, tight);
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path(), FILE);
    compose(&ada, &file, &["up", "-d"]);
    compose(&ada, &file, &["up", "-d"]);
    let unchanged = ada.ok(&["ps", "-q", "--filter", "name=course_idle_1"]);
    written(dir.path(), &FILE.replace("first", "second"));
    compose(&ada, &file, &["up", "-d"]);
    assert_eq!(
        ada.ok(&["ps", "-q", "--filter", "name=course_idle_1"]),
        unchanged
    );
    wait_for("the new word", || {
        let word = ada.docker(&["exec", "course_db_1", "cat", "/data/word"]);
        (word.out == "second\n").then_some(())
    });
    compose(&ada, &file, &["down", "-v", "-t", "0"]);
    assert_eq!(server.usage("ada")["reservedContainers"], 0);
}

const ONE: &str = r#"
version: "2.4"
services:
  all:
    image: plimsoll/example
    command: sleep 1000
    environment: {WORD: "first"}
    restart: always
    mem_limit: 256m
    cpus: 0.5
"#;

/// Also with a restart policy, for which a container that was stopped stays charged.
#[test]
fn a_service_that_takes_the_whole_quota_is_made_anew_in_its_own_place() {
    let server = server(28800);
    let whole = json!({"maxMemoryGB": 0.25, "maxCpuCores": 0.5, "maxStorageGB": 1,
                       "maxContainers": 1, "maxConcurrentContainers": 1});
    let ada = server.tenant("ada", 65_400, whole);
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path(), ONE);
    let word = || ada.ok(&["exec", "course_all_1", "sh", "-c", "echo $WORD"]);
    compose(&ada, &file, &["up", "-d", "-t", "0"]);
    written(dir.path(), &ONE.replace("first", "second"));
    compose(&ada, &file, &["up", "-d", "-t", "0"]);
    assert_eq!(word(), "second");
    // Smaller, and then as large as the quota again.
    for memory in ["128m", "256m"] {
        written(dir.path(), &ONE.replace("256m", memory));
        compose(&ada, &file, &["up", "-d", "-t", "0"]);
        assert_eq!(word(), "first");
    }
    let usage = server.usage("ada");
    assert_eq!(usage["reservedContainers"], 1);
    assert_eq!(usage["reservedMemoryGB"], 0.25);
    assert_eq!(usage["reservedStorageGB"], 1.0);
    // What nobody replaces is another one.
    let refusal = ada.refused(&["create", "--memory", "8m", IMAGE, "true"]);
    assert!(refusal.contains("containers"), "{refusal}");
    compose(&ada, &file, &["down", "-v", "-t", "0"]);
    assert_eq!(server.usage("ada")["reservedStorageGB"], 0.0);
}

/// Compose 2 makes the new container while the old one runs, and says which one that is.
#[test]
fn a_replacement_is_charged_above_the_old_one_and_runs_after_it() {
    let server = server(28900);
    let limits = json!({"maxMemoryGB": 0.25, "maxCpuCores": 0.5, "maxStorageGB": 1,
                        "maxContainers": 1, "maxConcurrentContainers": 1});
    let ada = server.tenant("ada", 65_410, limits.clone());
    let ben = server.tenant("ben", 65_411, limits);
    let create = |verb: &[&str], name: &str, service: &str, replace: &str, memory: &str| {
        let service = format!("com.docker.compose.service={service}");
        let replace = format!("com.docker.compose.replace={replace}");
        let head = ["--name", name, "--memory", memory, "--cpus", "0.5"];
        let labels = [
            "--label",
            "com.docker.compose.project=p",
            "--label",
            &service,
            "--label",
            &replace,
        ];
        [verb, &head, &labels, &[IMAGE, "sleep", "1000"]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<String>>()
    };
    let said = |tenant: &Tenant, args: Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        tenant.docker(&args)
    };
    let run = said(&ada, create(&["run", "-d"], "old", "web", "none", "256m"));
    assert_eq!(run.code, 0, "{run:?}");
    for (service, replace, memory, fits) in [
        ("other", "old", "256m", false),
        ("web", "absent", "256m", false),
        ("web", "old", "300m", false),
        ("web", "old", "256m", true),
        // One takes the place of one, and nobody the new one's.
        ("web", "old", "256m", false),
        ("web", "new", "256m", false),
    ] {
        let made = said(&ada, create(&["create"], "new", service, replace, memory));
        assert_eq!(
            made.code == 0,
            fits,
            "{service} {replace} {memory}: {made:?}"
        );
    }
    // Somebody else's is nobody's to replace.
    let theirs = said(
        &ben,
        create(&["create"], "new", "web", &run.out.trim()[..12], "256m"),
    );
    assert_eq!(theirs.code, 0, "{theirs:?}");
    assert_eq!(server.usage("ben")["reservedMemoryGB"], 0.25);

    let usage = server.usage("ada");
    assert_eq!(
        (&usage["reservedContainers"], &usage["reservedMemoryGB"]),
        (&json!(1), &json!(0.25))
    );
    let refusal = ada.refused(&["start", "new"]);
    assert!(refusal.contains("quota exceeded"), "{refusal}");
    ada.ok(&["stop", "-t", "0", "old"]);
    ada.ok(&["start", "new"]);
    let refusal = ada.refused(&["start", "old"]);
    assert!(refusal.contains("quota exceeded"), "{refusal}");
    ada.ok(&["rm", "old"]);
    ada.ok(&["rename", "new", "old"]);
    let usage = server.usage("ada");
    assert_eq!(
        (&usage["reservedContainers"], &usage["reservedMemoryGB"]),
        (&json!(1), &json!(0.25))
    );
}

#[test]
fn what_does_not_fit_says_so_in_composes_own_output() {
    let server = server(28500);
    let ada = server.tenant(
        "ada",
        65_300,
        json!({"maxMemoryGB": 0.0625, "maxCpuCores": 1}),
    );
    let dir = tempfile::tempdir().unwrap();
    let file = written(
        dir.path(),
        &format!(
            "version: '2.4'\nservices:\n  big:\n    image: {IMAGE}\n    command: sleep 9\n    mem_limit: 128m\n"
        ),
    );
    let output = Command::new("docker-compose")
        .uid(ada.uid)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("DOCKER_HOST", &ada.host)
        .arg("-f")
        .arg(&file)
        .args(["up", "-d"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        text.contains("quota exceeded for ada") && text.contains("memory"),
        "{text}"
    );
}
