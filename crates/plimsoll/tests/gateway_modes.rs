//! Limits that only watch, and limits that change under containers that are there: on a real engine,
//! with the ordinary docker CLI.

mod common;

use common::{IMAGE, Server, Tenant, wait_for};
use serde_json::{Value, json};

const SLEEP: [&str; 3] = [IMAGE, "sleep", "1000"];

fn small() -> Value {
    json!({"maxMemoryGB": 0.5, "maxCpuCores": 1, "maxConcurrentContainers": 4})
}

fn run<'a>(name: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    [&["run", "-d", "--name", name], options, &SLEEP].concat()
}

/// What the engine holds a container to.
fn told(tenant: &Tenant, name: &str) -> Value {
    let format = "{{json .HostConfig}}";
    serde_json::from_str(&tenant.ok(&["inspect", name, "--format", format])).unwrap()
}

/// A file of a user's cgroup outside teams.
fn cgroup(server: &Server, user: &str, controller: &str, file: &str) -> String {
    let user = server.get(&format!("/api/users/{user}"))["id"]
        .as_str()
        .unwrap()
        .replace('-', "");
    let instance = server.instance();
    let path = format!("/sys/fs/cgroup/{controller}/{instance}/u{user}/{file}");
    std::fs::read_to_string(&path).unwrap().trim().to_owned()
}

/// In shadow mode a container runs as it would without Plimsoll, and its owner reads what would have
/// been refused.
#[test]
fn a_quota_in_shadow_mode_charges_and_warns_and_changes_nothing() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_000, small());
    server.put("/api/quotas/user/ada", json!({"mode": "shadow"}));
    let said = ada.docker(&run("free", &[]));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.err
            .contains("no memory limit given, running without one, charged as 128 MiB"),
        "{}",
        said.err
    );
    assert!(!said.err.contains("would have refused"), "{}", said.err);
    let host = told(&ada, "free");
    for limit in ["Memory", "MemorySwap", "NanoCpus"] {
        assert_eq!(host[limit], 0, "{limit}");
    }
    assert!(host["PidsLimit"].as_i64().is_none_or(|n| n <= 0), "{host}");
    // Charged as what would have been filled in, and not capped.
    let used = server.usage("ada");
    assert_eq!(used["reservedMemoryGB"], 128.0 / 1024.0);
    assert_eq!(used["reservedCpuCores"], 0.25);
    assert_eq!(cgroup(&server, "ada", "cpu", "cpu.cfs_quota_us"), "-1");
    assert_eq!(cgroup(&server, "ada", "pids", "pids.max"), "max");
    let memory = cgroup(&server, "ada", "memory", "memory.limit_in_bytes");
    assert!(memory.parse::<u64>().unwrap() > 1 << 50, "{memory}");

    let said = ada.docker(&run("big", &["--memory", "400m", "--cpus", "1.5"]));
    assert_eq!(said.code, 0, "{}", said.err);
    for line in [
        "plimsoll would have refused this: cpu asked 1.5, 0.75 of 1 free for user ada (shadow mode)",
        "plimsoll would have refused this: memory asked 400 MiB, 384 MiB of 512 MiB free for user \
         ada (shadow mode)",
    ] {
        assert!(said.err.contains(line), "{line}: {}", said.err);
    }
    let decided = server.get("/api/decisions?user=ada");
    let decision = &decided["items"][0];
    assert_eq!(decision["allowed"], true, "{decided}");
    assert_eq!(
        decision["violations"][1]["dimension"], "memory",
        "{decided}"
    );
    let open = server.get("/api/quotas/violations");
    assert_eq!(open["items"][0]["entity"], "ada", "{open}");
    // One that has no limit keeps its charge when another limit of it changes.
    let said = ada.docker(&["update", "--cpus", "0.5", "free"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("would have refused") || said.out.contains("would have refused"));
    let free = server.container("ada", "free").unwrap();
    assert_eq!(free["claim"]["memoryGB"], 128.0 / 1024.0);
    assert_eq!(free["claim"]["cpuCores"], 0.5);

    // What keeps tenants apart is no quota.
    assert!(
        ada.refused(&["run", "--privileged", IMAGE])
            .contains("plimsoll")
    );
    server.put("/api/quotas/user/ada", json!({"mode": "enforce"}));
    let refusal = ada.refused(&run("more", &["--memory", "64m", "--cpus", "0.1"]));
    assert!(refusal.contains("quota exceeded"), "{refusal}");
    assert!(!refusal.contains("would have"), "{refusal}");
}

/// Who answers for a container, its team or its user, decides what is filled in.
#[test]
fn the_mode_that_counts_is_the_owners() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_010, small());
    server.post("/api/teams", json!({"name": "ml"}));
    server.put("/api/teams/ml/members/ada", json!({}));
    server.put("/api/quotas/team/ml", json!({"mode": "shadow"}));
    ada.ok(&run("team", &["--label", "plimsoll.team=ml"]));
    assert_eq!(told(&ada, "team")["Memory"], 0);
    ada.ok(&run("own", &["--label", "plimsoll.team=-"]));
    assert_eq!(told(&ada, "own")["Memory"], 128 << 20);

    server.put("/api/quotas/team/ml", json!({"mode": "enforce"}));
    server.put("/api/quotas/user/ada", json!({"mode": "shadow"}));
    ada.ok(&run(
        "held",
        &["--label", "plimsoll.team=ml", "--cpus", "0.1"],
    ));
    assert_ne!(told(&ada, "held")["Memory"], 0);
    let refusal = ada.refused(&run(
        "big",
        &["--label", "plimsoll.team=ml", "--memory", "4g"],
    ));
    assert!(refusal.contains("in team ml"), "{refusal}");
    wait_for("nothing to be left over", || {
        server.container("ada", "big").is_none().then_some(())
    });
}

/// The command a refusal proposes first.
fn remedy(refusal: &str) -> Vec<String> {
    let (_, rest) = refusal.split_once("to fit: docker ").expect(refusal);
    let command = rest.lines().next().unwrap();
    let command = command.split(", or ").next().unwrap();
    command.split(' ').map(str::to_owned).collect()
}

/// A container that is there is made smaller by an update, not by flags of a run.
#[test]
fn a_refused_start_names_the_update_that_lets_it_start() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_020, small());
    ada.ok(&run("one", &["--memory", "400m", "--cpus", "0.8"]));
    ada.ok(&["stop", "-t", "0", "one"]);
    ada.ok(&run("two", &["--memory", "300m", "--cpus", "0.5"]));
    let refusal = ada.refused(&["start", "one"]);
    let update = remedy(&refusal);
    assert_eq!(update.join(" "), "update --cpus 0.5 --memory 212m one");
    ada.ok(&update.iter().map(String::as_str).collect::<Vec<_>>());
    ada.ok(&["start", "one"]);
    assert_eq!(server.usage("ada")["reservedMemoryGB"], 0.5);
    // One that grows too far is told in the same words.
    let refusal = ada.refused(&["update", "--memory", "300m", "one"]);
    assert_eq!(remedy(&refusal).join(" "), "update --memory 212m one");
}

/// A factor lets admission promise more than the kernel gives one container.
#[test]
fn a_start_the_kernel_would_refuse_is_refused_in_plain_words() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_030, small());
    ada.ok(&run("one", &["--memory", "64m", "--cpus", "0.5"]));
    ada.ok(&["stop", "-t", "0", "one"]);
    server.put(
        "/api/quotas/user/ada",
        json!({"maxCpuCores": 0.6, "overcommit": 2}),
    );
    // Behind Plimsoll's back, so that nothing made it smaller yet.
    let id = server.full_id("ada", "one");
    assert!(
        server
            .docker(&["update", "--cpus", "1", &id])
            .status
            .success()
    );
    let refusal = ada.refused(&["start", "one"]);
    assert!(refusal.contains("plimsoll: one has --cpus 1,"), "{refusal}");
    assert_eq!(server.container("ada", "one").unwrap()["state"], "stopped");
    let update = remedy(&refusal);
    assert_eq!(update.join(" "), "update --cpus 0.6 one");
    ada.ok(&update.iter().map(String::as_str).collect::<Vec<_>>());
    ada.ok(&["start", "one"]);
    let refusal = ada.refused(&["update", "--cpus", "0.7", "one"]);
    assert!(refusal.contains("at most 0.6"), "{refusal}");
}

/// Cores the engine gives a container.
fn cores(tenant: &Tenant, name: &str) -> f64 {
    told(tenant, name)["NanoCpus"].as_f64().unwrap() / 1e9
}

fn wait_for_cores(tenant: &Tenant, name: &str, wanted: f64) {
    wait_for(&format!("{name} to have {wanted} cores"), || {
        (cores(tenant, name) == wanted).then_some(())
    });
}

/// Until nothing is left to do: the caps task has run after the last change.
fn wait_for_claim(server: &Server, name: &str, cpu: f64, from: &Value) -> Value {
    wait_for(&format!("{name} to be charged {cpu}"), || {
        let container = server.container("ada", name)?;
        let is_so =
            container["claim"]["cpuCores"] == cpu && container["clampedFromCpuCores"] == *from;
        is_so.then_some(container)
    })
}

#[test]
fn containers_are_held_to_a_lowered_cpu_limit_and_get_it_back() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_040, small());
    ada.ok(&run("ended", &["--memory", "64m", "--cpus", "0.8"]));
    ada.ok(&["stop", "-t", "0", "ended"]);
    ada.ok(&run("runs", &["--memory", "64m", "--cpus", "0.8"]));
    ada.ok(&["update", "--cpus", "0.7", "runs"]);

    server.put("/api/quotas/user/ada", json!({"maxCpuCores": 0.5}));
    for (name, had) in [("ended", 0.8), ("runs", 0.7)] {
        wait_for_cores(&ada, name, 0.5);
        wait_for_claim(&server, name, 0.5, &json!(had));
    }
    wait_for("the cap above them", || {
        (cgroup(&server, "ada", "cpu", "cpu.cfs_quota_us") == "50000").then_some(())
    });
    let id = server.full_id("ada", "runs");
    assert_eq!(
        cgroup(&server, "ada", "cpu", &format!("{id}/cpu.cfs_quota_us")),
        "50000"
    );
    assert_eq!(server.usage("ada")["reservedCpuCores"], 0.5);
    wait_for("nobody to be over a limit", || {
        let open = server.get("/api/quotas/violations");
        open["items"].as_array()?.is_empty().then_some(())
    });
    let log = server.get("/api/audit");
    let entry = log["items"].as_array().unwrap().iter();
    let entry = entry
        .filter(|e| e["action"] == "container.clamp")
        .find(|e| e["entity"] == "ada/runs");
    assert_eq!(entry.unwrap()["actor"], "system", "{log}");

    // As much as there is, then all of it.
    server.put("/api/quotas/user/ada", json!({"maxCpuCores": 0.6}));
    for (name, had) in [("ended", 0.8), ("runs", 0.7)] {
        wait_for_cores(&ada, name, 0.6);
        wait_for_claim(&server, name, 0.6, &json!(had));
    }
    // What its owner chooses meanwhile is not undone.
    ada.ok(&["update", "--cpus", "0.3", "ended"]);
    wait_for_claim(&server, "ended", 0.3, &Value::Null);
    server.put("/api/quotas/user/ada", json!({"maxCpuCores": 1}));
    wait_for_cores(&ada, "runs", 0.7);
    wait_for_claim(&server, "runs", 0.7, &Value::Null);
    assert_eq!(cores(&ada, "ended"), 0.3);
    assert_eq!(
        cgroup(&server, "ada", "cpu", &format!("{id}/cpu.cfs_quota_us")),
        "70000"
    );
    // What else is in use does not make room.
    server.put("/api/quotas/user/ada", json!({"maxCpuCores": 0.5}));
    wait_for_claim(&server, "runs", 0.5, &json!(0.7));
    server.put("/api/quotas/user/ada", json!({"overcommit": 1.6}));
    ada.ok(&["start", "ended"]);
    let passes = || server.get("/readyz")["tasks"]["kernel caps"]["runs"].as_u64();
    let before = passes().unwrap();
    server.put(
        "/api/quotas/user/ada",
        json!({"maxCpuCores": 0.9, "overcommit": 1}),
    );
    wait_for("another pass over the caps", || {
        let raised = cgroup(&server, "ada", "cpu", "cpu.cfs_quota_us") == "90000";
        (raised && passes()? > before).then_some(())
    });
    assert_eq!(cores(&ada, "runs"), 0.5);
}

/// Wherever a crash comes, nothing is forgotten and nothing stays half done.
#[test]
fn a_crash_while_containers_are_held_or_let_go_is_made_good() {
    let mut server = Server::start();
    let ada = server.tenant("ada", 63_050, small());
    let names = ["one", "two", "three"];
    for name in names {
        ada.ok(&run(name, &["--memory", "64m", "--cpus", "0.6"]));
        ada.ok(&["stop", "-t", "0", name]);
    }
    ada.ok(&["start", "two"]);
    for round in 0..8 {
        let (limit, cpu, from) = match round % 2 {
            0 => (0.4, 0.4, json!(0.6)),
            _ => (1.0, 0.6, Value::Null),
        };
        server.put("/api/quotas/user/ada", json!({"maxCpuCores": limit}));
        // Later each time: before, between and after the steps.
        std::thread::sleep(std::time::Duration::from_millis(round * 9));
        server.crash_and_restart();
        for name in names {
            wait_for_cores(&ada, name, cpu);
            wait_for_claim(&server, name, cpu, &from);
        }
    }
}

/// A cap that cannot be lowered is one that somebody should know of.
#[test]
fn a_cap_that_the_kernel_holds_up_is_a_violation() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_060, small());
    ada.ok(&run("web", &["--memory", "64m", "--cpus", "0.2"]));
    let user = server.get("/api/users/ada")["id"]
        .as_str()
        .unwrap()
        .replace('-', "");
    let stranger = format!("/sys/fs/cgroup/cpu/{}/u{user}/stranger", server.instance());
    std::fs::create_dir(&stranger).unwrap();
    std::fs::write(format!("{stranger}/cpu.cfs_quota_us"), "80000").unwrap();
    server.put("/api/quotas/user/ada", json!({"maxCpuCores": 0.5}));
    let open = wait_for("the violation", || {
        let open = server.get("/api/quotas/violations");
        open["items"].as_array()?.first().cloned()
    });
    for (field, value) in [
        ("kind", json!("held")),
        ("entity", json!("ada")),
        ("dimension", json!("cpu")),
        ("limit", json!(0.5)),
        ("current", json!(0.8)),
    ] {
        assert_eq!(open[field], value, "{open}");
    }
    assert_eq!(cgroup(&server, "ada", "cpu", "cpu.cfs_quota_us"), "80000");
    std::fs::remove_dir(&stranger).unwrap();
    // The kernel takes a moment to forget a cgroup.
    wait_for("the violation to close", || {
        server.put("/api/quotas/user/ada", json!({"maxCpuCores": 0.6}));
        let open = server.get("/api/quotas/violations");
        open["items"].as_array()?.is_empty().then_some(())
    });
    assert_eq!(cgroup(&server, "ada", "cpu", "cpu.cfs_quota_us"), "60000");
}

/// A member's part of a team is a limit on the path, too; and a quota that only watches holds nobody.
#[test]
fn a_members_containers_are_held_to_their_part_of_the_team() {
    let server = Server::start();
    let ada = server.tenant("ada", 63_070, small());
    server.post("/api/teams", json!({"name": "ml"}));
    server.put(
        "/api/teams/ml/members/ada",
        json!({"allotment": {"maxCpuCores": 1, "maxMemoryGB": 1, "maxContainers": 9,
                             "maxConcurrentContainers": 9, "maxStorageGB": 50,
                             "maxTempStorageGB": 5, "maxPids": 4096}}),
    );
    ada.ok(&run(
        "web",
        &[
            "--label",
            "plimsoll.team=ml",
            "--memory",
            "64m",
            "--cpus",
            "0.8",
        ],
    ));
    server.put(
        "/api/teams/ml/members/ada",
        json!({"allotment": {"maxCpuCores": 0.5}}),
    );
    wait_for_cores(&ada, "web", 0.5);
    wait_for_claim(&server, "web", 0.5, &json!(0.8));
    server.put("/api/quotas/team/ml", json!({"mode": "shadow"}));
    wait_for_cores(&ada, "web", 0.8);
    wait_for_claim(&server, "web", 0.8, &Value::Null);
}
