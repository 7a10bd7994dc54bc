//! Whatever ends in the middle: ledger and engine agree afterwards, nothing leaks, nothing is oversold.

mod common;

use common::{IMAGE, Server, wait_for};
use serde_json::json;

fn limits() -> serde_json::Value {
    json!({"maxMemoryGB": 0.5, "maxCpuCores": 2, "maxConcurrentContainers": 8, "maxContainers": 20})
}

#[test]
fn a_crash_loses_nothing_that_was_answered() {
    let mut server = Server::start();
    let ada = server.tenant("ada", 62_000, limits());
    ada.ok(&[
        "run", "-d", "--name", "web", "--memory", "64m", IMAGE, "sleep", "1000",
    ]);
    let before = server.usage("ada");
    server.crash_and_restart();
    let after = server.usage("ada");
    assert_eq!(before["reservedMemoryGB"], after["reservedMemoryGB"]);
    assert_eq!(ada.ok(&["ps", "--format", "{{.Names}}"]), "web");
    ada.ok(&["rm", "-f", "web"]);
    assert_eq!(server.usage("ada")["reservedContainers"], 0);
}

#[test]
fn what_happens_while_the_server_is_away_is_found_out() {
    let mut server = Server::start();
    let ada = server.tenant("ada", 62_010, limits());
    for name in ["gone", "ended", "kept"] {
        ada.ok(&[
            "run", "-d", "--name", name, "--memory", "64m", IMAGE, "sleep", "1000",
        ]);
    }
    ada.ok(&[
        "create", "--name", "begun", "--memory", "64m", IMAGE, "sleep", "1000",
    ]);
    let id = |name: &str| server.full_id("ada", name);
    let (gone, ended, begun) = (id("gone"), id("ended"), id("begun"));
    server.crash();
    server.docker(&["rm", "-f", &gone]);
    server.docker(&["stop", "-t", "0", &ended]);
    server.docker(&["start", &begun]);
    server.restart();
    wait_for("the ledger to agree with the engine", || {
        let gone = server.container("ada", "gone").is_none();
        let state = |name| Some(server.container("ada", name)?["state"].as_str()?.to_owned());
        (gone && state("ended")? == "stopped" && state("kept")? == "active").then_some(())
    });
    assert_eq!(server.container("ada", "begun").unwrap()["state"], "active");
    assert_eq!(server.usage("ada")["reservedMemoryGB"], 128.0 / 1024.0);
}

#[test]
fn containers_changed_behind_our_back_are_charged_as_they_are() {
    let server = Server::start();
    let ada = server.tenant("ada", 62_020, limits());
    ada.ok(&[
        "run", "-d", "--name", "web", "--memory", "64m", IMAGE, "sleep", "1000",
    ]);
    let id = server.full_id("ada", "web");
    server.docker(&["update", "--memory", "700m", "--memory-swap", "700m", &id]);
    wait_for("the change to be charged", || {
        let used = server.usage("ada");
        (used["reservedMemoryGB"] == 700.0 / 1024.0).then_some(())
    });
    // A fact over the limit is charged, and is a violation; only requests are refused.
    let open = server.get("/api/quotas/violations");
    assert_eq!(open["items"][0]["name"].as_str(), None);
    assert_eq!(open["items"][0]["entity"], "ada", "{open}");
    assert!(
        ada.refused(&["run", "--rm", "--memory", "64m", IMAGE, "true"])
            .contains("quota exceeded")
    );
    server.docker(&["rm", "-f", &id]);
    wait_for("the violation to close", || {
        server.get("/api/quotas/violations")["items"]
            .as_array()?
            .is_empty()
            .then_some(())
    });
}

#[test]
fn crashes_in_the_middle_of_many_creates_leave_engine_and_ledger_of_one_mind() {
    let mut server = Server::start();
    let ada = server.tenant("ada", 62_030, limits());
    for round in 0..3 {
        let children: Vec<_> = (0..6)
            .map(|n| {
                let name = format!("c{round}-{n}");
                ada.command(&[
                    "run", "-d", "--name", &name, "--memory", "100m", "--cpus", "0.1", IMAGE,
                    "sleep", "1000",
                ])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
            })
            .collect();
        // At another moment each round: as soon as a first container, or a first reservation, shows.
        wait_for("something to be under way", || {
            let all = server.get("/api/containers?user=ada");
            let items = all["items"].as_array()?.clone();
            let wanted = if round == 0 { "pending" } else { "active" };
            let seen = items
                .iter()
                .any(|c| c["state"] == wanted || c["state"] == "active");
            seen.then_some(())
        });
        server.crash_and_restart();
        for mut child in children {
            child.wait().unwrap();
        }
        let label = format!("label=plimsoll.instance={}", server.instance());
        wait_for("engine and ledger to agree", || {
            let listed = server.docker(&["ps", "-aq", "--no-trunc", "--filter", &label]);
            let mut engine: Vec<String> = String::from_utf8(listed.stdout)
                .ok()?
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            let all = server.get("/api/containers?user=ada");
            let mut ledger: Vec<String> = all["items"]
                .as_array()?
                .iter()
                .filter_map(|c| c["containerId"].as_str().map(str::to_owned))
                .collect();
            engine.sort();
            ledger.sort();
            (engine == ledger).then_some(())
        });
        let used = server.usage("ada");
        assert!(
            used["reservedMemoryGB"].as_f64().unwrap() <= 0.5,
            "oversold: {used}"
        );
        for name in ada.ok(&["ps", "-aq"]).split_whitespace() {
            ada.ok(&["rm", "-f", name]);
        }
    }
}

/// A restart does not wait for those who only watch, and finishes what was begun.
#[test]
fn a_server_that_ends_cuts_streams_and_finishes_changes() {
    let mut server = Server::start();
    let ada = server.tenant("ada", 62_040, limits());
    ada.ok(&[
        "run",
        "-d",
        "-i",
        "--name",
        "web",
        "--memory",
        "64m",
        IMAGE,
        "sh",
        "-c",
        "while true; do echo line; sleep 0.01; done",
    ]);
    let watching: &[&[&str]] = &[
        &["events"],
        &["logs", "-f", "web"],
        &["wait", "web"],
        &["stats"],
        &["attach", "web"],
        &["exec", "-i", "web", "sleep", "100"],
    ];
    let mut clients: Vec<_> = watching
        .iter()
        .map(|args| {
            ada.command(args)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    // Each has a connection, and the gateway one to the engine for it.
    wait_for("the streams to be open", || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).ok()?;
        let sockets = open
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"));
        (sockets.count() >= 2 * watching.len()).then_some(())
    });
    let took = server.terminate();
    assert!(took.as_millis() < 1000, "took {took:?}");
    for client in &mut clients {
        client.wait().unwrap();
    }

    server.restart();
    // The shell does not mind being told to end.
    let stop = ada
        .command(&["stop", "-t", "2", "web"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let took = server.terminate();
    assert!(took.as_millis() > 500, "took {took:?}");
    assert!(stop.wait_with_output().unwrap().status.success());
    server.restart();
    assert_eq!(server.container("ada", "web").unwrap()["state"], "stopped");
}
