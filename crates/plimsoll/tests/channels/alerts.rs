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
