//! Webhooks: a program that checks signatures, and a chat.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::wait_for;
use crate::sinks::{Sink, ids};
use crate::{server, status, tell, user};

fn keys(sink: &Sink, scheme: &str) -> Vec<String> {
    vec![
        format!("notify.webhook_url={scheme}://127.0.0.1:{}/hook", sink.port),
        format!(
            "notify.webhook_secret_file={}",
            sink.path("secret").display()
        ),
        format!("notify.ca_file={}", sink.path("ca.pem").display()),
        "notify.timeout_s=1".into(),
    ]
}

#[test]
fn everything_anybody_is_told_is_signed() {
    for (scheme, args) in [("http", &[][..]), ("https", &["tls"][..])] {
        let mut sink = Sink::web(args);
        sink.start();
        let server = server(&keys(&sink, scheme));
        user(&server, "ada", None);
        tell(&server, "ada", 3);
        let kept = sink.wait("taken", 3);
        assert!(kept.iter().all(|k| k["right"] == true), "{kept:?}");
        let body = &kept[0]["body"];
        assert_eq!(body["type"], "quota.changed");
        assert_eq!(body["data"]["about"]["name"], "ada");
        assert!(body["timestamp"].as_str().unwrap().ends_with('Z'));
        let different: BTreeSet<String> = ids(&kept).into_iter().collect();
        assert_eq!(different.len(), 3);
    }
}

#[test]
fn a_server_does_not_start_with_nothing_to_sign_with() {
    let sink = Sink::web(&[]);
    let tried = |keys: &[String]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        for (flag, name) in [
            ("--data-dir", "data"),
            ("--api-socket", "a"),
            ("--gateway", "g"),
        ] {
            command.arg(flag).arg(sink.path(name));
        }
        for key in keys {
            command.args(["--set", key]);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = tried(&keys(&sink, "http")[..1]);
    assert!(said.contains("notify.webhook_secret_file"), "{said}");
    std::fs::write(sink.path("secret"), "hunter2").unwrap();
    let said = tried(&keys(&sink, "http")[..2]);
    assert!(said.contains("does not hold what it should"), "{said}");
    assert!(!said.contains("hunter2"));
}

/// How many messages these are: one whose answer came too late comes again.
fn different(kept: &[Value]) -> usize {
    ids(kept).into_iter().collect::<BTreeSet<String>>().len()
}

#[test]
fn trouble_on_the_other_side_loses_nothing_and_keeps_keys() {
    let mut sink = Sink::web(&[]);
    let mut server = server(&keys(&sink, "http"));
    user(&server, "ada", None);
    tell(&server, "ada", 12);
    wait_for("the server to be missed", || {
        let said = status(&server, "webhook").to_string();
        said.contains("refused").then_some(())
    });
    // In trouble, then without use for it, then slow.
    for mode in ["500", "400", "hold"] {
        sink.answers(mode);
        if mode == "500" {
            sink.start();
        }
        wait_for(mode, || {
            let kept = sink.kept("taken");
            kept.iter().any(|k| k["mode"] == mode).then_some(())
        });
    }
    // Killed while it waits for answers.
    server.crash();
    sink.answers("200");
    server.restart();
    let taken = || -> Vec<Value> {
        let mut kept = sink.kept("taken");
        kept.retain(|k| k["mode"] == "200");
        kept
    };
    let kept = wait_for("all of it", || {
        let kept = taken();
        (different(&kept) == 12).then_some(kept)
    });
    let all = sink.kept("taken");
    assert!(all.iter().all(|k| k["right"] == true), "{all:?}");
    for tried in &all {
        let same = kept.iter().find(|k| k["id"] == tried["id"]);
        assert_eq!(same.unwrap()["body"], tried["body"], "the same each time");
    }
}

#[test]
fn a_chat_is_told_what_administrators_are() {
    let mut sink = Sink::web(&[]);
    sink.start();
    let file = sink.path("slack");
    std::fs::write(
        &file,
        format!("http://127.0.0.1:{}/T0/secretpath\n", sink.port),
    )
    .unwrap();
    let server = server(&[format!("notify.slack_url_file={}", file.display())]);
    user(&server, "ada", None);
    tell(&server, "ada", 1);
    server.post(
        "/api/requests",
        json!({"user": "ada", "team": "-", "add": {"maxMemoryGB": 1}, "reason": "<!channel>"}),
    );
    let kept = sink.wait("taken", 1);
    let text = kept[0]["body"]["text"].as_str().unwrap();
    assert!(text.contains("reason: &lt;!channel&gt;"), "{text}");
    sink.answers("500");
    tell(&server, "ada", 1);
    server.post(
        "/api/requests",
        json!({"user": "ada", "team": "-", "add": {"maxMemoryGB": 2}, "reason": "more"}),
    );
    wait_for("a failure", || {
        let said = status(&server, "slack").to_string();
        said.contains("500").then_some(())
    });
    assert_eq!(sink.kept("taken").last().unwrap()["mode"], "500");
    assert!(!server.log().contains("secretpath"), "{}", server.log());
}

#[test]
fn a_test_message_shows_whether_a_way_works() {
    let mut sink = Sink::web(&[]);
    let server = server(&keys(&sink, "http"));
    let said = |args: &[&str]| {
        let said = server.plimsoll(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.out
    };
    said(&["notify", "test"]);
    wait_for("what is wrong", || {
        let waiting = said(&["notify", "deliveries", "--state", "waiting"]);
        waiting.contains("Connection refused").then_some(())
    });
    sink.start();
    assert_eq!(sink.wait("taken", 1)[0]["body"]["type"], "test");
    wait_for("its end", || {
        let sent = said(&["notify", "deliveries", "--state", "sent"]);
        sent.contains("webhook").then_some(())
    });
}
