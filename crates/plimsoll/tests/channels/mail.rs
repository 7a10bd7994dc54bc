//! Mail through a real mail server.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::wait_for;
use crate::sinks::{Sink, ids};
use crate::{server, status, tell, user};

fn keys(sink: &Sink, tls: &str) -> Vec<String> {
    vec![
        format!("notify.mail_server=127.0.0.1:{}", sink.port),
        format!("notify.mail_tls={tls}"),
        "notify.mail_from=plimsoll@lab.example".into(),
        "notify.mail_admins=admins@lab.example".into(),
        "notify.server_url=https://plimsoll.lab".into(),
        format!("notify.ca_file={}", sink.path("ca.pem").display()),
    ]
}

/// By address.
fn to<'a>(kept: &'a [Value], address: &str) -> Vec<&'a Value> {
    let theirs = |mail: &&Value| mail["to"] == json!([address]);
    kept.iter().filter(theirs).collect()
}

#[test]
fn mail_reaches_who_wants_it_and_the_administrators() {
    for (tls, args) in [
        ("starttls", &["starttls", "plimsoll:secret"][..]),
        ("tls", &["tls"][..]),
        ("none", &[][..]),
    ] {
        let mut sink = Sink::mail(args);
        sink.start();
        let mut keys = keys(&sink, tls);
        if args.len() > 1 {
            let file = sink.path("password");
            std::fs::write(&file, "secret\n").unwrap();
            keys.push("notify.mail_user=plimsoll".into());
            keys.push(format!("notify.mail_password_file={}", file.display()));
        }
        let server = server(&keys);
        user(&server, "ada", Some("ada@lab.example"));
        user(&server, "ben", Some("ben@lab.example"));
        user(&server, "eve", None);
        let (status, _) = server.api("PATCH", "/api/users/ben", Some(&json!({"mail": false})));
        assert_eq!(status, 200);
        for name in ["ben", "eve", "ada"] {
            tell(&server, name, 1);
        }
        server.post(
            "/api/requests",
            json!({"user": "ada", "team": "-", "add": {"maxMemoryGB": 1}, "reason": "thesis: größer"}),
        );
        let kept = sink.wait("taken", 3);
        assert_eq!(kept.len(), 3, "{kept:?}");
        let upgraded = tls == "starttls";
        assert!(kept.iter().all(|m| m["upgraded"] == upgraded), "{kept:?}");
        assert_eq!(to(&kept, "ada@lab.example").len(), 2);
        let quota = |mail: &&Value| mail["subject"] == "The quota of ada has changed";
        let hers = kept.iter().find(quota).unwrap();
        let shared = to(&kept, "admins@lab.example")[0];
        assert_eq!(hers["from"], "plimsoll@lab.example");
        assert_eq!(hers["automatic"], "auto-generated");
        let body = hers["body"].as_str().unwrap();
        for part in ["memory: 1 GiB", "since: ", "by: ", "https://plimsoll.lab/"] {
            assert!(body.contains(part), "{part} in {body}");
        }
        assert!(shared["body"].as_str().unwrap().contains("thesis: größer"));
        assert!(hers["id"].as_str().unwrap().ends_with(".mail@lab.example>"));
        assert!(!server.log().contains("secret"), "{}", server.log());
    }
}

#[test]
fn nothing_is_sent_to_a_server_that_cannot_prove_who_it_is() {
    let mut sink = Sink::mail(&["starttls"]);
    sink.start();
    let mut keys = keys(&sink, "starttls");
    keys.retain(|key| !key.contains("ca_file"));
    let server = server(&keys);
    user(&server, "ada", Some("ada@lab.example"));
    tell(&server, "ada", 1);
    wait_for("a refusal", || {
        let said = status(&server, "mail").to_string();
        said.contains("certificate").then_some(())
    });
    assert_eq!(sink.kept("seen"), Vec::<Value>::new());
}

#[test]
fn one_refusal_holds_up_nobody_else() {
    let mut sink = Sink::mail(&[]);
    sink.start();
    let server = server(&keys(&sink, "none"));
    for name in ["nobody", "later", "ada"] {
        user(&server, name, Some(&format!("{name}@lab.example")));
        tell(&server, name, 2);
    }
    let kept = sink.wait("taken", 4);
    assert_eq!(to(&kept, "later@lab.example").len(), 2, "tried again");
    assert_eq!(to(&kept, "ada@lab.example").len(), 2);
    let refused = sink.wait("refused", 3);
    assert_eq!(to(&refused, "nobody@lab.example").len(), 0);
    let gone = refused.iter().filter(|r| r["to"] == "nobody@lab.example");
    assert_eq!(gone.count(), 2, "no mailbox: once each");
}

#[test]
fn a_server_that_is_down_slow_or_killed_loses_nothing() {
    let mut sink = Sink::mail(&[]);
    let mut keys = keys(&sink, "none");
    keys.push("notify.timeout_s=1".into());
    let mut server = server(&keys);
    user(&server, "ada", Some("ada@lab.example"));
    tell(&server, "ada", 12);
    wait_for("the server to be missed", || {
        let said = status(&server, "mail").to_string();
        said.contains("refused").then_some(())
    });
    // Slow: each try runs out of time.
    std::fs::write(sink.path("hold"), "").unwrap();
    sink.start();
    let first = sink.wait("seen", 1);
    wait_for("the time to be out", || {
        let said = status(&server, "mail").to_string();
        said.contains("no answer within").then_some(())
    });
    // Killed with mail on the way.
    let before = sink.kept("seen").len();
    sink.wait("seen", before + 1);
    server.crash();
    sink.stop();
    std::fs::remove_file(sink.path("hold")).unwrap();
    sink.start();
    server.restart();
    let whole = || {
        let kept = sink.kept("taken");
        let different: BTreeSet<String> = ids(&kept).into_iter().collect();
        (different.len() == 12).then_some(different)
    };
    let different = wait_for("all mail", whole);
    assert!(
        different.contains(&first[0]["id"].to_string()),
        "its key is kept"
    );
}

#[test]
fn connections_serve_many_mails() {
    let mut sink = Sink::mail(&[]);
    let server = server(&keys(&sink, "none"));
    user(&server, "ada", Some("ada@lab.example"));
    tell(&server, "ada", 60);
    sink.start();
    let kept = sink.wait("taken", 60);
    let lines: BTreeSet<String> = kept.iter().map(|m| m["peer"].to_string()).collect();
    // Tries while it was down may have left some for a run of their own.
    assert!(lines.len() <= 20, "{} connections", lines.len());
}
