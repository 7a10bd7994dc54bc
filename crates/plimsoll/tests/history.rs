//! The history of a real container on the real engine.

mod common;

use common::{IMAGE, Server, engine, wait_for};
use serde_json::{Value, json};

/// A server that reads often.
fn server() -> Server {
    let set = [
        "--set",
        "metering.interval_s=0.2",
        "--set",
        "ports.first=29300",
    ];
    Server::start_with(&engine(), &set)
}

fn points(server: &Server, path: &str) -> Vec<(i64, f64)> {
    let body = server.get(&format!("/api/usage/{path}/history?metric=cpu&step=1s"));
    let points = body["points"].as_array().unwrap().iter();
    let read = |point: &Value| (point[0].as_i64().unwrap(), point[1].as_f64().unwrap());
    points.map(read).collect()
}

#[test]
fn what_a_container_uses_is_there_over_time_and_after_a_crash() {
    let mut server = server();
    let ada = server.tenant("ada", 64_301, json!({"maxCpuCores": 4, "maxMemoryGB": 2}));
    server.post("/api/projects", json!({"name": "thesis", "user": "ada"}));
    let burn = ["run", "-d", "--name", "burn", "--cpus", "0.5"];
    let burn = [&burn[..], &["--label", "plimsoll.project=thesis", IMAGE]].concat();
    ada.ok(&[&burn[..], &["sh", "-c", "while :; do :; done"]].concat());
    let id = server.full_id("ada", "burn");
    let container = format!("container/{id}");
    for path in ["user/ada", "project/thesis", "system", &container] {
        wait_for("readings of half a core", || {
            let busy = points(&server, path);
            (busy.iter().filter(|(_, cores)| *cores > 0.2).count() >= 2).then_some(())
        });
    }
    let before = points(&server, &container);
    server.crash_and_restart();
    let after = points(&server, &container);
    let whole = &before[..before.len() - 1];
    assert_eq!(
        &after[..whole.len()],
        whole,
        "seconds that were over stay as they were"
    );

    // Other tests have containers here, too.
    let of = |query: &str, key: &str| {
        let breakdown = server.get(&format!("/api/usage/analytics?{query}"));
        let items = breakdown["items"].as_array().unwrap().iter();
        let mut found = items.filter(|item| item["key"] == key);
        found
            .next()
            .unwrap_or_else(|| panic!("{key} is not in {breakdown:#}"))
            .clone()
    };
    let burn = of("groupBy=container&metric=cpu", &id);
    assert_eq!(burn["name"], "burn");
    assert!(burn["total"].as_f64().unwrap() > 0.0, "{burn}");
    let image = of("groupBy=image&metric=memory_gb", IMAGE);
    assert!(image["total"].as_f64().unwrap() > 0.0, "{image}");

    let reserved = "history?metric=cpu_reserved&step=1s";
    for path in ["user/ada", "project/thesis", "system", &container] {
        let body = server.get(&format!("/api/usage/{path}/{reserved}"));
        let last = body["points"].as_array().unwrap().last().unwrap();
        assert_eq!((&last[1], &body["unit"]), (&json!(0.5), &json!("cores")));
    }
    let users = server.get("/api/usage/analytics?groupBy=user&metric=memory");
    let [used, reserved, idle] = ["total", "reservedTotal", "idleTotal"]
        .map(|field| users["items"][0][field].as_f64().unwrap());
    assert!(used > 0.0 && reserved > used, "{users}");
    assert!((reserved - used - idle).abs() < 1.0, "{users}");
    let hosts = server.get("/api/usage/analytics?groupBy=host&metric=cpu");
    let mut keys = hosts["items"].as_array().unwrap().iter();
    let host = keys.find_map(|item| item["key"].as_str()).unwrap();
    let whole = points(&server, &format!("host/{host}"));
    assert!(whole.iter().any(|(_, cores)| *cores > 0.2), "{whole:?}");
    for words in [["--project", "thesis"], ["--host", host]] {
        let plot = server.plimsoll(&["history", words[0], words[1], "--since", "1m"]);
        assert!(
            plot.out.starts_with(&format!("cpu of {}", words[1])),
            "{plot:?}"
        );
    }

    let plot = server.plimsoll(&["history", "user", "ada", "--since", "1m", "--step", "1s"]);
    assert_eq!(plot.code, 0, "{}", plot.err);
    assert!(
        plot.out.starts_with("cpu of ada, a point each 1 s"),
        "{}",
        plot.out
    );
    assert!(plot.out.contains('█'), "{}", plot.out);
    let table = server.plimsoll(&["history", "--container", &id, "--csv"]);
    assert!(
        table.out.starts_with("time,average,max,total\n20"),
        "{}",
        table.out
    );
    let table = server.plimsoll(&["export", "--level", "raw", "--metric", "cpu,cpu_reserved"]);
    assert!(
        table.out.starts_with("time,entityType,entityId,name,"),
        "{table:?}"
    );
    let of_burn = format!(",container,\"{id}\",\"burn\",");
    let rows = |what: &str| {
        let rows = table.out.lines().filter(|line| line.contains(&of_burn));
        rows.filter(|line| line.contains(what)).count()
    };
    assert!(
        rows(",cpu,cores,") > 2 && rows(",cpu_reserved,cores,0.5,0.5,") > 2,
        "{table:?}"
    );
    assert_eq!(rows(",memory,"), 0);
    assert!(table.out.contains(",\"thesis\","), "{table:?}");
    let file = server.path("table.csv");
    let of = ["export", "--of", "user", "--output", file.to_str().unwrap()];
    assert_eq!(server.plimsoll(&of).code, 0);
    let table = std::fs::read_to_string(file).unwrap();
    let hour = table.lines().nth(1).unwrap();
    assert!(
        hour.contains(":00:00Z,user,") && hour.contains(",\"ada\","),
        "{table}"
    );
    for (flag, value, named) in [
        ("--level", "2h", "level"),
        ("--metric", "cpu,cpus", "cpu_throttled"),
        ("--of", "image", "entityType"),
    ] {
        let wrong = server.plimsoll(&["export", flag, value]);
        assert_eq!(wrong.code, 2, "{}", wrong.err);
        assert!(wrong.err.contains(named), "{}", wrong.err);
    }

    let wrong = server.plimsoll(&["history", "system", "--metric", "cpus"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    assert!(wrong.err.contains("cpu_throttled"), "{}", wrong.err);
}

#[test]
fn a_backup_of_a_running_server_is_put_back_when_it_has_ended() {
    let mut server = Server::without_engine();
    server.post("/api/users", json!({"name": "ada"}));
    let (copies, data) = (server.path("copies"), server.path("data"));
    let words = |verb| {
        [
            verb,
            copies.to_str().unwrap(),
            "--data-dir",
            data.to_str().unwrap(),
        ]
    };
    let made = server.plimsoll(&words("backup"));
    assert_eq!(made.code, 0, "{}", made.err);
    assert_eq!(made.out.lines().count(), 3, "{}", made.out);
    server.post("/api/users", json!({"name": "bob"}));

    let refused = server.plimsoll(&words("restore"));
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains(&server.pid().to_string()),
        "{}",
        refused.err
    );
    server.terminate();
    let restored = server.plimsoll(&words("restore"));
    assert_eq!(restored.code, 0, "{}", restored.err);
    server.restart();
    let users = server.get("/api/users");
    let names: Vec<_> = users["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| &u["name"])
        .collect();
    assert_eq!(names, ["ada"]);
}
