//! What people are told reaches them over real servers, once, whatever fails on the way.

#![allow(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests are outside the server: they may look at the clock"
)]

mod alertmanager;
mod alerts;
#[path = "../common/mod.rs"]
mod common;
mod mail;
mod sinks;
mod webhook;

use common::Server;
use serde_json::{Value, json};

/// A server without an engine, with these keys set.
fn server(keys: &[String]) -> Server {
    let fast = [
        "notify.interval_s=0.1",
        "notify.retry_s=0.1",
        "alerts.interval_s=0.1",
        "alerts.group_wait_s=0.1",
        "alerts.group_interval_s=0.1",
    ];
    let mut all = Vec::new();
    for key in fast {
        all.extend(["--set", key]);
    }
    for key in keys {
        all.extend(["--set", key.as_str()]);
    }
    Server::start_with("unix:///nonexistent/docker.sock", &all)
}

fn user(server: &Server, name: &str, email: Option<&str>) {
    server.post("/api/users", json!({"name": name, "email": email}));
}

/// Has somebody be told of so many changes.
fn tell(server: &Server, name: &str, times: usize) {
    for gigabytes in 1..=times {
        let quota = json!({"maxMemoryGB": gigabytes});
        server.put(&format!("/api/quotas/user/{name}"), quota);
    }
}

/// What the last run of a channel said.
fn status(server: &Server, channel: &str) -> Value {
    let (_, ready) = server.api("GET", "/readyz", None);
    ready["tasks"][channel].clone()
}
