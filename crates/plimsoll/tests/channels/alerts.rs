//! What is watched, from what happens to who is told.

use serde_json::{Value, json};

use crate::common::{Server, wait_for};
use crate::{server, user};

/// What administrators, or a user, were told of this kind, the first first.
fn told(server: &Server, kind: &str) -> Vec<Value> {
    let inbox = server.get("/api/notifications?limit=1000");
    let all = inbox["items"].as_array().unwrap().iter().rev();
    all.filter(|told| told["kind"] == kind).cloned().collect()
}

fn wait_told(server: &Server, kind: &str, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} of {kind}"), || {
        let told = told(server, kind);
        (told.len() >= count).then_some(told)
    })
}

fn reserve(server: &Server, user: &str, gigabytes: u64) {
    server.post(
        "/api/reservations",
        json!({"user": user, "resourceRequest": {"memoryGB": gigabytes},
               "idempotencyKey": user, "ttlSeconds": 600}),
    );
}

fn limit(server: &Server, path: &str, gigabytes: u64) {
    let quota = json!({"maxMemoryGB": gigabytes});
    server.put(&format!("/api/quotas/{path}"), quota);
}

/// Waits until alerts were looked at `times` more.
fn looks(server: &Server, times: u64) {
    let runs = || {
        let (_, ready) = server.api("GET", "/readyz", None);
        ready["tasks"]["alerts"]["runs"].as_u64().unwrap_or(0)
    };
    let before = runs();
    wait_for("looks", || (runs() >= before + times).then_some(()));
}

#[test]
fn an_exceeded_limit_is_told_once_over_restarts_and_its_end_too() {
    let mut server = server(&[]);
    user(&server, "ada", None);
    reserve(&server, "ada", 4);
    looks(&server, 2);
    assert_eq!(told(&server, "violation"), Vec::<Value>::new());
    limit(&server, "system", 1);
    let first = wait_told(&server, "violation", 1);
    assert_eq!(first[0]["resolved"], false);
    let title = first[0]["title"].as_str().unwrap();
    assert!(
        title.contains("memory is over the limit of the system"),
        "{title}"
    );
    server.crash_and_restart();
    looks(&server, 5);
    assert_eq!(
        told(&server, "violation").len(),
        first.len(),
        "told already"
    );
    server.crash();
    server.restart();
    limit(&server, "system", 64);
    let all = wait_told(&server, "violation", 2 * first.len());
    assert_eq!(all.last().unwrap()["resolved"], true);
    looks(&server, 5);
    assert_eq!(told(&server, "violation").len(), all.len());
}

#[test]
fn rules_of_ones_own_fire_and_silences_hold_them() {
    let server = server(&[]);
    user(&server, "ada", None);
    let said = |args: &[&str]| {
        let said = server.plimsoll(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.out
    };
    // What is wrong is told, and changes nothing.
    for wrong in [
        json!({"metric": "cpus", "steps": [{"at": 1}]}),
        json!({"metric": "quota", "steps": []}),
        json!({"metric": "quota", "steps": [{"at": 90}, {"at": 80}]}),
        json!({"metric": "quota", "steps": [{"at": 80, "clear": 90}]}),
        json!({"metric": "quota", "steps": [{"at": -1}]}),
        json!({"metric": "quota", "steps": [{"at": 80}], "forSeconds": -1}),
    ] {
        let (status, answer) = server.api("PUT", "/api/alerts/rules/odd", Some(&wrong));
        assert_eq!(status, 422, "{wrong}: {answer}");
    }
    said(&[
        "alert",
        "silence",
        "--name",
        "local",
        "--until",
        "1h",
        "--reason",
        "maintenance",
    ]);
    let trouble = "alert set trouble --metric trouble --step 1 --for 0 --keep 0";
    said(&trouble.split(' ').collect::<Vec<_>>());
    wait_for("the engine to be missed", || {
        said(&["alert", "list"])
            .contains("the task reconcile fails")
            .then_some(())
    });
    assert!(said(&["alert", "list"]).contains("firing, silenced"));
    assert_eq!(told(&server, "trouble"), Vec::<Value>::new());
    let silences = server.get("/api/alerts/silences");
    let id = silences["items"][0]["id"].as_str().unwrap().to_owned();
    said(&["alert", "unsilence", &id]);
    let first = wait_told(&server, "trouble", 1);
    assert_eq!(first[0]["severity"], "critical");
    // A rule that is gone is silent.
    said(&["alert", "remove", "trouble"]);
    wait_for("silence", || {
        let fires = said(&["alert", "list"]);
        (!fires.contains("reconcile")).then_some(())
    });
    assert!(!said(&["alert", "rules"]).contains("trouble"));
    let rules = "alert set mine --metric memory_reserved --step 1000000000 --for 0 --level user";
    said(&rules.split(' ').collect::<Vec<_>>());
    reserve(&server, "ada", 4);
    let fires = || {
        let alerts = server.get("/api/alerts");
        let all = alerts["items"].as_array().unwrap().clone();
        all.into_iter()
            .find(|a| a["rule"] == "mine" && a["state"] == "firing")
    };
    let fires = wait_for("it to fire", fires);
    assert_eq!(
        (&fires["about"]["name"], &fires["step"]),
        (&json!("ada"), &json!(1e9))
    );
}
