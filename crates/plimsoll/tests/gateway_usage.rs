//! `docker system df` and the prunes: what is one's own, and nothing else.

mod common;

use common::{IMAGE, Server, Tenant, as_uid_raw};
use serde_json::{Value, json};

const SMALL: [&str; 4] = ["--memory", "32m", "--cpus", "0.1"];

fn tenant(server: &Server, name: &str, uid: u32) -> Tenant {
    let limits = json!({"maxMemoryGB": 1, "maxCpuCores": 2, "maxStorageGB": 40});
    server.tenant(name, uid, limits)
}

fn made(tenant: &Tenant, verb: &[&str], name: &str, options: &[&str], command: &[&str]) {
    let name = ["--name", name];
    tenant.ok(&[verb, &name[..], &SMALL[..], options, &[IMAGE], command].concat());
}

fn df(server: &Server, tenant: &Tenant, query: &str) -> (u16, Value) {
    let request =
        format!("GET /v1.44/system/df{query} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
    let (status, text) = as_uid_raw(tenant.uid, &server.path("docker.sock"), request.as_bytes());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[test]
fn disk_use_is_ones_own() {
    let server = Server::start();
    let ada = tenant(&server, "ada", 66_100);
    let ben = tenant(&server, "ben", 66_101);
    let fill = "dd if=/dev/zero of=/data/f bs=1M count=3; dd if=/dev/zero of=/own bs=1M count=2";
    made(
        &ada,
        &["run"],
        "web",
        &["-v", "data:/data"],
        &["sh", "-c", fill],
    );
    ada.ok(&["commit", "web", "mine"]);
    made(&ada, &["run", "-d"], "idle", &[], &["sleep", "1000"]);
    made(&ben, &["run"], "web", &["-v", "bens:/data"], &["true"]);

    let (status, seen) = df(&server, &ada, "");
    assert_eq!(status, 200, "{seen}");
    let volumes = seen["Volumes"].as_array().unwrap();
    assert_eq!(volumes.len(), 1, "{seen}");
    assert_eq!(volumes[0]["Name"], "data");
    assert_eq!(
        volumes[0]["UsageData"],
        json!({"Size": 3 << 20, "RefCount": 1})
    );
    let containers = seen["Containers"].as_array().unwrap();
    let sizes: Vec<_> = containers
        .iter()
        .map(|c| (&c["Names"][0], &c["SizeRw"]))
        .collect();
    assert_eq!(sizes.len(), 2, "{seen}");
    assert!(
        sizes.contains(&(&json!("/web"), &json!(2 << 20))),
        "{sizes:?}"
    );
    let images = seen["Images"].as_array().unwrap();
    assert_eq!(images.len(), 1, "{seen}");
    assert_eq!(images[0]["RepoTags"], json!(["mine:latest"]));
    assert_eq!(images[0]["Containers"], 0);
    let alone = images[0]["Size"].as_u64().unwrap() - images[0]["SharedSize"].as_u64().unwrap();
    assert_eq!((alone, &seen["LayersSize"]), (2 << 20, &json!(2 << 20)));
    assert_eq!(seen["BuildCache"], json!([]));
    let text = seen.to_string();
    assert!(
        !text.contains("ada.") && !text.contains("bens") && !text.contains("plimsoll.invalid"),
        "{text}"
    );

    // As the CLI shows it.
    let rows = ada.ok(&[
        "system",
        "df",
        "--format",
        "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}}",
    ]);
    for row in [
        "Images 1 0 2.097MB",
        "Containers 2 1 2.097MB",
        "Local Volumes 1 1 3.146MB",
        "Build Cache 0 0 0B",
    ] {
        assert!(rows.lines().any(|line| line == row), "{row} in {rows}");
    }
    let verbose = ada.ok(&["system", "df", "-v"]);
    assert!(
        verbose.contains("mine") && verbose.contains("data") && verbose.contains("idle"),
        "{verbose}"
    );

    let (_, some) = df(&server, &ada, "?type=volume&type=container");
    assert!(
        some["Images"].is_null() && some["Volumes"].is_array() && some["Containers"].is_array()
    );
    for query in ["?type=swarm", "?evil=1", "?verbose=1&verbose=1"] {
        assert_eq!(df(&server, &ada, query).0, 400, "{query}");
    }
}

#[test]
fn prunes_take_what_is_ones_own_and_was_asked_for() {
    let server = Server::start();
    let ada = tenant(&server, "ada", 66_110);
    let ben = tenant(&server, "ben", 66_111);
    made(&ben, &["run"], "bens", &["-v", "bens:/data"], &["true"]);
    for label in ["a", "b"] {
        let label = format!("keep={label}");
        let labels = ["--label", label.as_str()];
        made(&ada, &["run"], &label.replace('=', "-"), &labels, &["true"]);
        ada.ok(&[
            "volume",
            "create",
            "--label",
            &label,
            &label.replace('=', "-"),
        ]);
        ada.ok(&[
            "network",
            "create",
            "--label",
            &label,
            &label.replace('=', "-"),
        ]);
        ada.ok(&[
            "commit",
            "-c",
            &format!("LABEL {label}"),
            "keep-a",
            &label.replace('=', "-"),
        ]);
    }
    made(&ada, &["run", "-d"], "runs", &[], &["sleep", "1000"]);
    let kinds: [(&[&str], &[&str]); 4] = [
        (
            &["container", "prune", "-f"],
            &["ps", "-a", "--format", "{{.Names}}"],
        ),
        (&["volume", "prune", "-f"], &["volume", "ls", "-q"]),
        (
            &["network", "prune", "-f"],
            &["network", "ls", "--format", "{{.Name}}"],
        ),
        (
            &["image", "prune", "-af"],
            &["images", "--format", "{{.Repository}}"],
        ),
    ];
    let left = |list: &[&str]| {
        let out = ada.ok(list);
        let mut names: Vec<String> = out
            .lines()
            .filter(|l| l.starts_with("keep"))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    };
    for (prune, list) in kinds {
        let with = |filter: &str| ada.ok(&[prune, &["--filter", filter]].concat());
        if prune[0] != "volume" {
            with("until=1h");
            with("until=2020-01-01");
            assert_eq!(left(list), ["keep-a", "keep-b"], "{prune:?}");
            for filter in ["until=yesterday", "until=1d"] {
                let refusal = ada.refused(&[prune, &["--filter", filter]].concat());
                assert!(refusal.contains("no point in time"), "{refusal}");
            }
        }
        let refusal = ada.refused(&[prune, &["--filter", "name=keep-a"]].concat());
        assert!(refusal.contains("name"), "{refusal}");
        with("label=keep=none");
        with("label!=keep");
        assert_eq!(left(list), ["keep-a", "keep-b"], "{prune:?}");
        with("label!=keep=a");
        assert_eq!(left(list), ["keep-a"], "{prune:?}");
        let rest = if prune[0] == "volume" {
            "label=keep=a"
        } else {
            "until=0s"
        };
        with(rest);
        assert_eq!(left(list), Vec::<String>::new(), "{prune:?}");
    }
    assert_eq!(ada.ok(&["ps", "--format", "{{.Names}}"]), "runs");
    assert_eq!(server.usage("ada")["reservedContainers"], 1);
    assert_eq!(ben.ok(&["ps", "-a", "--format", "{{.Names}}"]), "bens");
    assert_eq!(ben.ok(&["volume", "ls", "-q"]), "bens");

    // All of it at once, build cache included.
    made(&ada, &["run"], "ended", &["-v", "old:/data"], &["true"]);
    ada.ok(&["network", "create", "old"]);
    let said = ada.ok(&["system", "prune", "-f", "--volumes"]);
    assert!(
        said.contains("Deleted Containers") && said.contains("old"),
        "{said}"
    );
    assert_eq!(ada.ok(&["ps", "-a", "--format", "{{.Names}}"]), "runs");
    assert_eq!(ada.ok(&["volume", "ls", "-q"]), "");
    assert!(ada.ok(&["builder", "prune", "-f"]).contains("0B"));
    assert_eq!(ben.ok(&["ps", "-a", "--format", "{{.Names}}"]), "bens");
}
