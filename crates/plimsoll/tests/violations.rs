//! Violations of what really runs: who is behind them, and when they end.

mod common;

use common::{IMAGE, Server, Tenant, wait_for};
use serde_json::{Value, json};

/// Burns the processor it is given.
const BUSY: [&str; 3] = ["sh", "-c", "while :; do :; done"];

fn server(port: &str) -> Server {
    let quick = [
        "--set",
        "metering.interval_s=0.2",
        "--set",
        "violations.calm_s=0.5",
        "--set",
        port,
    ];
    Server::start_with(&common::engine(), &quick)
}

fn run(tenant: &Tenant, name: &str, options: &[&str]) {
    let all = ["run", "-d", "--name", name, "--cpus", "0.3"];
    tenant.ok(&[&all, options, &[IMAGE], &BUSY].concat());
}

fn listed(server: &Server, which: &str) -> Vec<Value> {
    let all = server.get(&format!("/api/quotas/violations?{which}"));
    all["items"].as_array().unwrap().clone()
}

#[test]
fn who_is_throttled_at_the_cap_is_told_with_the_containers_behind_it() {
    let server = server("ports.first=44000");
    let limits = json!({"maxCpuCores": 0.3, "maxMemoryGB": 1, "overcommit": 3});
    let ada = server.tenant("ada", 62_610, limits);
    run(&ada, "one", &["--memory", "64m"]);
    run(&ada, "two", &["--memory", "64m"]);
    let which = "user=ada&kind=throttled&dimension=cpu";
    let violation = wait_for("the kernel to throttle", || {
        let found = listed(&server, which).into_iter().next()?;
        // The peak's containers, once both were seen.
        (found["behind"].as_array()?.len() == 2).then_some(found)
    });
    assert_eq!(violation["level"], "user");
    assert_eq!(violation["limit"], 0.3);
    assert_eq!(violation["closedAt"], Value::Null);
    for behind in violation["behind"].as_array().unwrap() {
        assert_eq!(behind["user"], "ada");
        assert!(behind["amount"].as_f64().unwrap() > 0.0, "{behind}");
    }
    let said = server.plimsoll(&["violations", "--user", "ada", "--kind", "throttled"]);
    assert!(said.out.contains("throttled"), "{}", said.out);
    assert!(said.out.contains("one") && said.out.contains("two"));

    ada.ok(&["rm", "-f", "one", "two"]);
    wait_for("it to close", || {
        listed(&server, which).is_empty().then_some(())
    });
    let closed = listed(&server, &format!("{which}&status=closed"));
    let last = closed.iter().find(|v| v["id"] == violation["id"]).unwrap();
    assert_eq!(last["open"], false);
    assert!(last["calmSince"].is_string(), "{last}");
}

#[test]
fn what_runs_in_a_team_is_not_held_against_its_owners_quota() {
    let server = server("ports.first=44500");
    let limits = json!({"maxCpuCores": 0.05, "maxMemoryGB": 1});
    let ada = server.tenant("ada", 62_611, limits);
    server.post("/api/teams", json!({"name": "ml"}));
    let place = json!({"role": "member", "allotment": {
        "maxCpuCores": 1, "maxMemoryGB": 1, "maxStorageGB": 5, "maxContainers": 5,
        "maxConcurrentContainers": 5, "maxTempStorageGB": 1, "maxPids": 2048,
    }});
    server.put("/api/teams/ml/members/ada", place);
    run(
        &ada,
        "busy",
        &["--memory", "64m", "--label", "plimsoll.team=ml"],
    );
    wait_for("more to be used than ada's own quota has", || {
        let used = server.usage("ada")["currentCpuCores"].as_f64()?;
        (used > 0.2).then_some(())
    });
    // A reading that was held against limits after that one.
    let runs = || {
        let text = server.raw("GET", "/metrics", &[], None).1;
        let text = text.as_str()?.to_owned();
        let line = text
            .lines()
            .find(|l| l.starts_with("plimsoll_task_runs_total{task=\"collector\"}"))?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    };
    let before = runs().expect("the collector counts its runs");
    wait_for("two more readings", || {
        (runs()? >= before + 2).then_some(())
    });
    assert_eq!(
        listed(&server, "user=ada&kind=used&status=all"),
        [] as [Value; 0]
    );
}
