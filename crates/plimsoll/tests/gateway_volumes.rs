//! Volumes through the gateway: own names, own data, charged, and gone when they should be.

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{IMAGE, Server, wait_for};
use serde_json::{Value, json};

fn limits() -> Value {
    json!({"maxMemoryGB": 1, "maxCpuCores": 2, "maxStorageGB": 4, "maxContainers": 10,
           "maxConcurrentContainers": 4})
}

const SMALL: [&str; 4] = ["--memory", "32m", "--cpus", "0.1"];

fn run<'a>(options: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [&["run"], &SMALL[..], options, &[IMAGE], rest].concat()
}

fn storage(server: &Server, user: &str) -> f64 {
    server.usage(user)["reservedStorageGB"].as_f64().unwrap()
}

#[test]
fn two_tenants_have_a_volume_of_one_name_and_never_meet() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_000, limits());
    let ben = server.tenant("ben", 63_001, limits());
    for (tenant, word) in [(&ada, "for-ada"), (&ben, "for-ben")] {
        assert_eq!(tenant.ok(&["volume", "create", "data"]), "data");
        let write = format!("echo {word} > /d/word");
        tenant.ok(&run(&["--rm", "-v", "data:/d"], &["sh", "-c", &write]));
    }
    for (tenant, word) in [(&ada, "for-ada"), (&ben, "for-ben")] {
        let mount = ["--rm", "--mount", "source=data,target=/d,readonly"];
        assert_eq!(tenant.ok(&run(&mount, &["cat", "/d/word"])), word);
        assert_eq!(tenant.ok(&["volume", "ls", "-q"]), "data");
        let seen = tenant.ok(&["volume", "inspect", "data"]);
        assert!(
            !seen.contains("/var/lib") && !seen.contains("plimsoll") && !seen.contains("ada."),
            "{seen}"
        );
    }
    let held = run(
        &["-d", "--name", "web", "-v", "data:/d"],
        &["sleep", "1000"],
    );
    ada.ok(&held);
    let seen = ada.ok(&["inspect", "web"]);
    assert!(seen.contains("\"Name\": \"data\""), "{seen}");
    assert!(
        !seen.contains("ada.") && !seen.contains("/var/lib"),
        "{seen}"
    );
    assert_eq!(ada.ok(&["ps", "--format", "{{.Mounts}}"]), "data");
    let refusal = ada.refused(&["volume", "rm", "data"]);
    assert!(
        refusal.contains("in use") && !refusal.contains("ada."),
        "{refusal}"
    );

    // What is another's is not there, by whatever name.
    let engine = server.docker(&["volume", "ls", "-q", "--filter", "name=ben."]);
    let engine = String::from_utf8(engine.stdout).unwrap();
    let bens = engine.lines().find(|n| n.ends_with(".data")).unwrap();
    for command in [&["volume", "inspect", bens][..], &["volume", "rm", bens]] {
        let refusal = ada.refused(command);
        assert!(
            refusal.to_lowercase().contains("no such volume"),
            "{refusal}"
        );
    }
    ben.ok(&["volume", "rm", "data"]);
    ada.ok(&["rm", "-f", "web"]);
    ada.ok(&["volume", "rm", "data"]);
}

#[test]
fn a_volume_is_charged_until_it_is_removed() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_010, limits());
    ada.ok(&["volume", "create", "one"]);
    assert_eq!(storage(&server, "ada"), 1.0, "the class's default size");
    assert_eq!(
        ada.ok(&["volume", "create", "one"]),
        "one",
        "it is there already"
    );
    assert_eq!(storage(&server, "ada"), 1.0);
    ada.ok(&["volume", "create", "--opt", "size=2g", "two"]);
    assert_eq!(storage(&server, "ada"), 3.0);
    let refusal = ada.refused(&["volume", "create", "--opt", "size=1.5g", "three"]);
    assert!(
        refusal.contains("quota exceeded") && refusal.contains("storage"),
        "{refusal}"
    );
    // A container's own layer is a GiB: with a third volume it does not fit, and nothing is left.
    let refusal = ada.refused(&run(&["-v", "three:/d"], &["true"]));
    assert!(refusal.contains("quota exceeded"), "{refusal}");
    assert_eq!(storage(&server, "ada"), 3.0);
    assert_eq!(ada.ok(&["ps", "-aq"]), "");
    assert_eq!(ada.ok(&["volume", "ls", "-q"]), "one\ntwo");
    ada.ok(&["volume", "rm", "two"]);
    assert_eq!(
        ada.ok(&run(&["--rm", "-v", "three:/d"], &["echo", "fits"])),
        "fits"
    );
    assert_eq!(ada.ok(&["volume", "ls", "-q"]), "one\nthree");
    let pruned = ada.ok(&["volume", "prune", "-f"]);
    assert!(
        pruned.contains("one") && pruned.contains("three"),
        "{pruned}"
    );
    assert_eq!(storage(&server, "ada"), 0.0);
}

#[test]
fn a_volume_nobody_named_goes_as_on_any_engine() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_020, limits());
    let volumes = || ada.ok(&["volume", "ls", "-q"]);
    ada.ok(&run(&["--rm", "-v", "/d"], &["touch", "/d/x"]));
    wait_for("the volume to go with its container", || {
        volumes().is_empty().then_some(())
    });
    assert_eq!(storage(&server, "ada"), 0.0);
    ada.ok(&run(&["--name", "kept", "-v", "/d"], &["touch", "/d/x"]));
    let name = volumes();
    assert_eq!(name.len(), 64, "{name}");
    ada.ok(&["rm", "kept"]);
    assert_eq!(volumes(), name, "rm alone leaves it");
    let mount = format!("{name}:/d");
    assert_eq!(ada.ok(&run(&["--rm", "-v", &mount], &["ls", "/d"])), "x");
    ada.ok(&["volume", "rm", &name]);

    ada.ok(&run(
        &["-d", "--name", "runs", "-v", "/d", "-v", "named:/n"],
        &["sleep", "1000"],
    ));
    // Refused, because it runs: then the volume does not go later, either.
    ada.refused(&["rm", "-v", "runs"]);
    ada.ok(&["stop", "-t", "0", "runs"]);
    ada.ok(&["rm", "runs"]);
    assert_eq!(volumes().lines().count(), 2);
    ada.ok(&["volume", "prune", "-f"]);

    ada.ok(&run(
        &["--name", "last", "-v", "/d", "-v", "named:/n"],
        &["true"],
    ));
    ada.ok(&["rm", "-v", "last"]);
    assert_eq!(volumes(), "named");
}

/// Volumes have no ids, so no part of a name stands for another volume.
#[test]
fn a_name_of_hex_digits_is_a_name() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_060, limits());
    ada.ok(&["volume", "create", "precious"]);
    for name in ["ad", "ada"] {
        let refusal = ada.refused(&["volume", "rm", name]);
        assert!(refusal.contains("no such volume"), "{name}: {refusal}");
    }
    assert_eq!(ada.ok(&["volume", "create", "ada"]), "ada");
    ada.ok(&run(&["--rm", "-v", "ad:/d"], &["touch", "/d/x"]));
    assert_eq!(ada.ok(&["volume", "ls", "-q"]), "ad\nada\nprecious");
    assert_eq!(storage(&server, "ada"), 3.0);
    ada.ok(&["volume", "rm", "ad", "ada", "precious"]);
}

#[test]
fn rm_volumes_takes_what_was_made_for_the_container_alone() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_070, limits());
    let volumes = || ada.ok(&["volume", "ls", "-q"]);
    let made = ada.ok(&["volume", "create"]);
    ada.ok(&run(
        &["--name", "one", "-v", &format!("{made}:/d"), "-v", "/own"],
        &["true"],
    ));
    assert_eq!(volumes().lines().count(), 2);
    ada.ok(&["rm", "-v", "one"]);
    assert_eq!(volumes(), made);
    ada.ok(&["volume", "rm", &made]);
}

/// A volume that goes with its container while another is made over it: it is there and charged, or it
/// is not there.
#[test]
fn a_volume_that_goes_is_not_made_anew_for_nobody() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_080, limits());
    let engine_has = |args: &[&str], name: &str| {
        let listed = server.docker(&[&["volume", "ls", "-q"], args].concat());
        String::from_utf8_lossy(&listed.stdout).contains(name)
    };
    let label = format!("label=plimsoll.instance={}", server.instance());
    for round in 0..15 {
        ada.ok(&run(
            &["-d", "--rm", "--name", "goes", "-v", "/d"],
            &["sleep", "1000"],
        ));
        let name = ada.ok(&["volume", "ls", "-q"]);
        let mount = format!("{name}:/d");
        let mut going = ada.command(&["rm", "-f", "goes"]);
        let mut going = going.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(40 + 10 * round));
        let next = [&["create", "--name", "next", "-v", &mount], &SMALL[..]].concat();
        let made = ada.docker(&[&next[..], &[IMAGE, "true"]].concat());
        going.wait().unwrap();
        let unpaid = engine_has(&[], &name) && !engine_has(&["--filter", &label], &name);
        if made.code == 0 {
            ada.ok(&["rm", "next"]);
        }
        if unpaid {
            let listed =
                server.docker(&["volume", "ls", "-q", "--filter", &format!("name={name}")]);
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            server.docker(&["volume", "rm", listed.trim()]);
        }
        assert!(!unpaid, "round {round}: {made:?}");
        ada.docker(&["volume", "rm", &name]);
    }
}

#[test]
fn a_volume_the_image_declares_is_charged_like_any_other() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_030, limits());
    let image = format!("{}/declares:1", server.instance());
    let made = server.docker(&["create", IMAGE, "true"]);
    let id = String::from_utf8(made.stdout).unwrap();
    server.docker(&["commit", "--change", "VOLUME /data", id.trim(), &image]);
    server.docker(&["rm", id.trim()]);
    let run = |options: &[&'static str]| {
        [
            &["run", "-d"],
            &SMALL[..],
            options,
            &[&image],
            &["sleep", "1000"],
        ]
        .concat()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
    };
    let ok = |args: Vec<String>| ada.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    ok(run(&["--name", "one"]));
    assert_eq!(storage(&server, "ada"), 2.0, "layer and volume");
    assert_eq!(ada.ok(&["volume", "ls", "-q"]).len(), 64);
    ok(run(&["--name", "two", "--tmpfs", "/data"]));
    assert_eq!(storage(&server, "ada"), 3.0, "a tmpfs stands in its place");
    ada.ok(&["rm", "-fv", "one"]);
    ada.ok(&["rm", "-fv", "two"]);
    assert_eq!(storage(&server, "ada"), 0.0);
    server.docker(&["rmi", &image]);
}

#[test]
fn what_reaches_past_a_tenants_volumes_is_refused() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_040, limits());
    let hex = "a".repeat(64);
    let hex_mount = format!("{hex}:/d");
    for (command, said) in [
        (
            &["volume", "create", "--driver", "nfs", "x1"][..],
            "--driver nfs",
        ),
        (
            &[
                "volume",
                "create",
                "--opt",
                "type=none",
                "--opt",
                "o=bind",
                "--opt",
                "device=/",
                "x2",
            ],
            "--opt",
        ),
        (&["volume", "create", &hex], "looks like an id"),
        (
            &["volume", "create", "--opt", "size=0", "x3"],
            "size like 5g",
        ),
        (&["volume", "create", "../x"], "volume's name"),
        (&["run", "-v", &hex_mount, IMAGE], "no such volume"),
        (&["run", "-v", "x4:/proc/x", IMAGE], "isolate"),
        (&["run", "-v", "x4:/d:shared", IMAGE], "private"),
        (&["run", "-v", "x4:/d", "--tmpfs", "/d", IMAGE], "twice"),
        (
            &["run", "--volume-driver", "nfs", "-v", "x4:/d", IMAGE],
            "--volume-driver",
        ),
        (
            &[
                "run",
                "--mount",
                "type=volume,src=x4,dst=/d,volume-driver=local,volume-opt=device=/",
                IMAGE,
            ],
            "--opt device",
        ),
        (&["run", "--volumes-from", "x", IMAGE], "--volumes-from"),
    ] {
        let refusal = ada.refused(command);
        assert!(refusal.contains(said), "{command:?}: {refusal}");
    }
    assert_eq!(ada.ok(&["volume", "ls", "-q"]), "");
    assert_eq!(ada.ok(&["ps", "-aq"]), "");
    assert_eq!(storage(&server, "ada"), 0.0);
}

#[test]
fn ledger_and_engine_agree_on_volumes_whatever_happened_in_between() {
    let mut server = Server::start();
    let ada = server.tenant("ada", 63_050, limits());
    for name in ["gone", "kept"] {
        ada.ok(&["volume", "create", name]);
    }
    ada.ok(&run(
        &["-d", "--rm", "--name", "web", "-v", "/d"],
        &["sleep", "1000"],
    ));
    assert_eq!(storage(&server, "ada"), 4.0);
    let web = server.full_id("ada", "web");
    let listed = server.docker(&["volume", "ls", "-q", "--filter", "name=ada."]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let own = format!("plimsoll.instance={}", server.instance());
    let mine = |name: &str| {
        let seen = server.docker(&["volume", "inspect", name]);
        String::from_utf8_lossy(&seen.stdout).contains(server.instance())
    };
    let gone = listed
        .lines()
        .find(|n| n.ends_with(".gone") && mine(n))
        .unwrap()
        .to_owned();
    server.crash();
    server.docker(&["volume", "rm", &gone]);
    server.docker(&["rm", "-f", &web]);
    server.restart();
    wait_for("the charges to follow", || {
        (storage(&server, "ada") == 1.0).then_some(())
    });
    assert_eq!(ada.ok(&["volume", "ls", "-q"]), "kept");
    let left = server.docker(&["volume", "ls", "-q", "--filter", &format!("label={own}")]);
    assert_eq!(String::from_utf8(left.stdout).unwrap().lines().count(), 1);
    ada.ok(&["volume", "rm", "kept"]);
}
