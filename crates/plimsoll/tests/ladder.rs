//! What is done about exceeded limits, on real containers: announced, done, and taken back.

mod common;

use common::{IMAGE, Server, Tenant, wait_for};
use serde_json::{Value, json};

/// Burns the processor it is given.
const BUSY: [&str; 3] = ["sh", "-c", "while :; do :; done"];
/// Does not stop when asked to.
const STUBBORN: [&str; 3] = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"];

fn server(port: &str, calm: &str) -> Server {
    let quick = [
        "metering.interval_s=0.2",
        calm,
        "ladder.interval_s=0.1",
        "ladder.stop_timeout_s=1",
        port,
    ];
    let set: Vec<&str> = quick.into_iter().flat_map(|q| ["--set", q]).collect();
    Server::start_with(&common::engine(), &set)
}

fn run(tenant: &Tenant, name: &str, options: &[&str], program: &[&str]) {
    let all = ["run", "-d", "--name", name, "--memory", "64m"];
    tenant.ok(&[&all, options, &[IMAGE], program].concat());
}

/// The steps for violations in a dimension, open or not.
fn steps(server: &Server, which: &str) -> Vec<Value> {
    let all = server.get(&format!("/api/quotas/violations?status=all&{which}"));
    let all = all["items"].as_array().unwrap().clone();
    let steps = all.iter().flat_map(|v| v["steps"].as_array().unwrap());
    steps.cloned().collect()
}

fn step(server: &Server, which: &str, container: &str, has: &str) -> Value {
    wait_for(&format!("{container} to have {has}"), || {
        let found = steps(server, which);
        let is = |s: &&Value| s["container"] == container && s[has].is_string();
        found.iter().find(is).cloned()
    })
}

/// What the engine says of a container.
fn seen(server: &Server, user: &str, name: &str) -> Value {
    let id = server.full_id(user, name);
    let said = server.docker(&["inspect", &id]);
    serde_json::from_slice::<Value>(&said.stdout).unwrap()[0].clone()
}

fn runs(server: &Server, user: &str, name: &str) -> bool {
    seen(server, user, name)["State"]["Running"] == true
}

fn told(server: &Server, user: &str) -> Vec<String> {
    let token = server.post("/api/tokens", json!({"user": user}));
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let headers = [("Authorization", bearer.as_str())];
    let (status, inbox) = server.raw("GET", "/api/notifications", &headers, None);
    assert_eq!(status, 200, "{inbox}");
    let items = inbox["items"].as_array().unwrap().iter();
    let titles = items.map(|n| n["title"].as_str().unwrap().to_owned());
    titles.collect()
}

#[test]
fn the_newest_is_stopped_for_good_after_it_was_announced() {
    let server = server("ports.first=45000", "violations.calm_s=0.5");
    let ada = server.tenant("ada", 62_620, json!({"maxMemoryGB": 1}));
    let ladder = json!({"steps": {"stopAfterSeconds": 1}, "announceSeconds": 2});
    server.put("/api/quotas/user/ada", json!({"ladder": ladder}));
    run(&ada, "old", &[], &STUBBORN);
    let for_ever = ["--restart", "always", "--stop-timeout", "600"];
    run(&ada, "new", &for_ever, &STUBBORN);
    server.put("/api/quotas/user/ada", json!({"maxMemoryGB": 0.1}));

    let which = "user=ada&dimension=memory";
    let announced = step(&server, which, "new", "announcedAt");
    assert_eq!(announced["step"], "stop");
    let said = server.plimsoll(&["violations", "--user", "ada"]);
    assert!(said.out.contains("stop new in"), "{}", said.out);
    let done = step(&server, which, "new", "endedAt");
    assert_eq!(done["id"], announced["id"]);
    let at = |field: &str| done[field].as_str().unwrap().parse::<jiff::Timestamp>();
    let notice = at("doneAt")
        .unwrap()
        .duration_since(at("announcedAt").unwrap());
    assert!(notice.as_millis() >= 2000, "{done}");

    let new = seen(&server, "ada", "new");
    assert_eq!(new["State"]["Running"], false);
    assert_eq!(new["State"]["ExitCode"], 137, "it was killed");
    assert_eq!(new["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert!(runs(&server, "ada", "old"));
    let told = told(&server, "ada");
    for what in ["will be stopped at", "is stopped", "may be started again"] {
        let title = format!("new of ada {what}");
        assert!(told.iter().any(|t| t.starts_with(&title)), "{told:?}");
    }
    assert!(ada.refused(&["start", "new"]).contains("quota exceeded"));

    server.put("/api/quotas/user/ada", json!({"maxMemoryGB": 1}));
    ada.ok(&["start", "new"]);
    let new = seen(&server, "ada", "new");
    assert_eq!(new["HostConfig"]["RestartPolicy"]["Name"], "always");
}

#[test]
fn what_is_throttled_gets_its_processor_back() {
    let server = server("ports.first=45250", "violations.calm_s=0.5");
    let ada = server.tenant("ada", 62_621, json!({"maxCpuCores": 1, "maxMemoryGB": 1}));
    let ladder = json!({"steps": {"throttleAfterSeconds": 0}, "announceSeconds": 0});
    server.put("/api/quotas/user/ada", json!({"ladder": ladder}));
    run(&ada, "old", &["--cpus", "0.4"], &STUBBORN);
    run(&ada, "new", &["--cpus", "0.4"], &STUBBORN);
    let cpus = |name| seen(&server, "ada", name)["HostConfig"]["NanoCpus"].as_i64();
    server.put("/api/quotas/user/ada", json!({"maxCpuCores": 0.5}));
    wait_for("the newest to be throttled", || {
        (cpus("new") == Some(100_000_000)).then_some(())
    });
    let done = step(&server, "user=ada&kind=reserved", "new", "endedAt");
    assert_eq!(
        (&done["step"], &done["toCpuCores"]),
        (&json!("throttle"), &json!(0.1))
    );
    assert_eq!(cpus("old"), Some(400_000_000));
    server.put("/api/quotas/user/ada", json!({"maxCpuCores": 1}));
    wait_for("it to get its processor back", || {
        (cpus("new") == Some(400_000_000)).then_some(())
    });
}

#[test]
fn an_administrator_looks_first_and_then_takes_the_next_step_at_once() {
    let server = server("ports.first=46000", "violations.calm_s=0.5");
    let ada = server.tenant("ada", 62_625, json!({"maxMemoryGB": 1}));
    let hour = json!({"steps": {"stopAfterSeconds": 3600}});
    server.put("/api/quotas/user/ada", json!({"ladder": hour}));
    run(&ada, "old", &[], &STUBBORN);
    run(&ada, "new", &[], &STUBBORN);
    server.put("/api/quotas/user/ada", json!({"maxMemoryGB": 0.1}));
    let path = "/api/quotas/enforce";
    let other = json!({"entityType": "system", "dryRun": true});
    assert_eq!(server.post(path, other)["actions"], json!([]));
    let would = server.post(path, json!({"dryRun": true}));
    let action = &would["actions"][0];
    assert_eq!(would["actions"].as_array().unwrap().len(), 1, "{would}");
    for (field, value) in [
        ("container", "new"),
        ("step", "stop"),
        ("action", "do"),
        ("dimension", "memory"),
        ("user", "ada"),
    ] {
        assert_eq!(action[field], value, "{action}");
    }
    assert!(steps(&server, "user=ada").is_empty(), "nothing was done");
    assert!(runs(&server, "ada", "new"));
    let socket = server.path("api.sock");
    let (status, _) = common::as_uid(62_625, &socket, "POST", path, Some("{}"));
    assert_eq!(status, 403);

    let said = server.plimsoll(&["enforce", "user", "ada"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("new"), "{said:?}");
    assert!(!runs(&server, "ada", "new"));
    assert!(runs(&server, "ada", "old"));
    let said = server.plimsoll(&["enforce"]);
    assert!(!said.out.contains("do "), "{said:?}");
}

#[test]
fn what_is_paused_stays_so_through_a_crash_until_nothing_is_enforced() {
    let mut server = server("ports.first=45500", "violations.calm_s=600");
    let ada = server.tenant("ada", 62_622, json!({"maxCpuCores": 1, "maxMemoryGB": 1}));
    let ladder = json!({"steps": {"pauseAfterSeconds": 0}, "announceSeconds": 0});
    server.put("/api/quotas/user/ada", json!({"ladder": ladder}));
    run(&ada, "old", &["--cpus", "0.3"], &BUSY);
    run(&ada, "new", &["--cpus", "0.3"], &BUSY);
    server.put("/api/quotas/user/ada", json!({"maxCpuCores": 0.3}));
    step(&server, "user=ada&kind=used", "new", "doneAt");
    let paused = |server: &Server| seen(server, "ada", "new")["State"]["Paused"] == true;
    wait_for("it to be paused", || paused(&server).then_some(()));

    server.crash_and_restart();
    for verb in ["unpause", "restart"] {
        let why = ada.refused(&[verb, "new"]);
        assert!(why.contains("new was paused at"), "{why}");
        assert!(why.contains("user ada uses") && why.contains("docker quota request"));
    }
    let id = server.full_id("ada", "new");
    server.docker(&["unpause", &id]);
    wait_for("it to be paused again", || paused(&server).then_some(()));

    server.put("/api/quotas/user/ada", json!({"mode": "shadow"}));
    step(&server, "user=ada&kind=used", "new", "endedAt");
    assert!(!paused(&server));
    ada.ok(&["restart", "-t", "0", "new"]);
}

#[test]
fn a_pool_that_shrinks_takes_back_what_was_borrowed_and_nothing_else() {
    let server = server("ports.first=45750", "violations.calm_s=0.5");
    let limits = json!({"maxCpuCores": 1, "maxMemoryGB": 1});
    let ada = server.tenant("ada", 62_623, limits.clone());
    let bob = server.tenant("bob", 62_624, limits);
    server.post("/api/teams", json!({"name": "ml"}));
    let room = json!({"maxCpuCores": 9, "maxStorageGB": 50, "maxContainers": 50, "maxPids": 9999,
                      "maxConcurrentContainers": 50, "maxTempStorageGB": 9, "maxMemoryGB": 0.2});
    server.put("/api/quotas/team/ml", json!({"sharedPool": room}));
    for who in ["ada", "bob"] {
        let place = json!({"role": "member", "allotment": {"maxMemoryGB": 0.1}});
        server.put(&format!("/api/teams/ml/members/{who}"), place);
    }
    let ladder = json!({"dimensions": {"memory": {"stopAfterSeconds": 0}}, "announceSeconds": 0});
    server.put("/api/quotas/team/ml", json!({"ladder": ladder}));
    let in_team = ["--label", "plimsoll.team=ml", "--cpus", "0.1"];
    for name in ["one", "two", "three"] {
        run(&ada, name, &in_team, &STUBBORN);
    }
    run(&bob, "own", &in_team, &STUBBORN);
    let pool = json!({"sharedPool": {"maxMemoryGB": 0}, "reason": "less for everybody"});
    server.put("/api/quotas/team/ml", pool);
    for name in ["three", "two"] {
        step(&server, "team=ml", name, "endedAt");
        assert!(!runs(&server, "ada", name), "{name}");
    }
    assert!(runs(&server, "ada", "one"));
    assert!(
        runs(&server, "bob", "own"),
        "the newest, and within its allotment"
    );
    assert_eq!(server.get("/api/quotas/violations")["items"], json!([]));
}

#[test]
fn what_uses_up_its_budget_is_stopped_and_does_not_start_before_there_is_more() {
    let server = server("ports.first=46250", "violations.calm_s=0.5");
    let ada = server.tenant("ada", 62_626, json!({"maxCpuCores": 1, "maxMemoryGB": 1}));
    let bob = server.tenant("bob", 62_627, json!({"maxCpuCores": 1, "maxMemoryGB": 1}));
    let ladder =
        json!({"dimensions": {"core_hours_day": {"stopAfterSeconds": 0}}, "announceSeconds": 0});
    let budget = json!({"maxCoreHoursPerDay": 0.001, "ladder": ladder});
    server.put("/api/quotas/user/ada", budget);
    // A day's runtime ends what runs without being asked to.
    server.put("/api/quotas/user/bob", json!({"maxRuntimeHours": 0.003}));
    run(&ada, "busy", &["--cpus", "0.8"], &BUSY);
    run(&bob, "long", &["--cpus", "0.1"], &STUBBORN);
    for (tenant, user, name, dimension) in [
        (&ada, "ada", "busy", "core_hours_day"),
        (&bob, "bob", "long", "runtime"),
    ] {
        step(
            &server,
            &format!("user={user}&dimension={dimension}"),
            name,
            "doneAt",
        );
        wait_for("it to be stopped", || {
            (!runs(&server, user, name)).then_some(())
        });
        let why = tenant.refused(&["start", name]);
        assert!(
            why.contains(dimension) && why.contains("docker quota request"),
            "{why}"
        );
        let why = tenant.refused(&["run", "--rm", "--memory", "64m", IMAGE, "true"]);
        assert!(
            why.contains(&format!("nothing is left of the {dimension}")),
            "{why}"
        );
    }
    let told = told(&server, "bob");
    assert!(
        told.iter()
            .any(|t| t.contains("% of the runtime of bob is used")),
        "{told:?}"
    );
    server.put("/api/quotas/user/bob", json!({"maxRuntimeHours": 24}));
    wait_for("there to be more", || {
        (bob.docker(&["start", "long"]).code == 0).then_some(())
    });
}

#[test]
fn what_does_nothing_is_told_of_and_stopped_only_where_that_was_chosen() {
    let server = server("ports.first=46500", "violations.calm_s=0.5");
    let limits = json!({"maxCpuCores": 1, "maxMemoryGB": 1, "maxIdleTimeMinutes": 0.05});
    let ada = server.tenant("ada", 62_628, limits.clone());
    let bob = server.tenant("bob", 62_629, limits);
    let ladder = json!({"dimensions": {"idle": {"stopAfterSeconds": 0}}, "announceSeconds": 0});
    server.put("/api/quotas/user/ada", json!({"ladder": ladder}));
    let everywhere = json!({"steps": {"stopAfterSeconds": 0}, "announceSeconds": 0});
    server.put("/api/quotas/user/bob", json!({"ladder": everywhere}));
    run(&bob, "kept", &["--cpus", "0.1"], &["sleep", "1000"]);
    run(&ada, "busy", &["--cpus", "0.3"], &BUSY);
    run(&ada, "attended", &["--cpus", "0.1"], &["sleep", "1000"]);
    let mut within = ada
        .command(&["exec", "attended", "sleep", "1000"])
        .spawn()
        .unwrap();
    run(&ada, "quiet", &["--cpus", "0.1"], &["sleep", "1000"]);
    step(&server, "user=ada&dimension=idle", "quiet", "doneAt");
    wait_for("it to be stopped", || {
        (!runs(&server, "ada", "quiet")).then_some(())
    });
    wait_for("bob to be told", || {
        let told = told(&server, "bob");
        told.iter()
            .any(|t| t.starts_with("kept has done nothing for"))
            .then_some(())
    });
    assert!(runs(&server, "ada", "busy") && runs(&server, "ada", "attended"));
    ada.ok(&["start", "quiet"]);
    within.kill().unwrap();
    within.wait().unwrap();
    step(&server, "user=ada&dimension=idle", "attended", "doneAt");
    assert!(runs(&server, "bob", "kept"));
}

#[test]
fn what_only_watches_reports_what_it_would_have_refused_and_stopped() {
    let server = server("ports.first=46750", "violations.calm_s=0.5");
    let ada = server.tenant("ada", 62_630, json!({"maxMemoryGB": 0.1}));
    let ladder = json!({"steps": {"stopAfterSeconds": 0}, "announceSeconds": 0});
    server.put(
        "/api/quotas/user/ada",
        json!({"ladder": ladder, "mode": "shadow"}),
    );
    for name in ["one", "two", "three"] {
        run(&ada, name, &[], &STUBBORN);
    }
    let report = server.get("/api/quotas/shadow");
    let refused = report["refused"].as_array().unwrap();
    let memory = refused.iter().find(|r| r["dimension"] == "memory").unwrap();
    assert_eq!(
        (&memory["user"], &memory["entity"]),
        (&json!("ada"), &json!("ada"))
    );
    assert_eq!(memory["times"], 2, "{report}");
    let would = report["steps"].as_array().unwrap().iter();
    let names: Vec<&str> = would.map(|s| s["container"].as_str().unwrap()).collect();
    assert_eq!(names, ["three", "two"], "{report}");
    let said = server.plimsoll(&["shadow", "report"]);
    assert!(
        said.out.contains("user ada") && said.out.contains("three"),
        "{said:?}"
    );
    for name in ["one", "two", "three"] {
        assert!(runs(&server, "ada", name), "{name}");
    }
    let announced = steps(&server, "user=ada");
    assert!(announced.is_empty(), "{announced:?}");
    let later = server.get("/api/quotas/shadow?since=2100-01-01T00:00:00Z");
    assert_eq!(later["refused"], json!([]));
}
