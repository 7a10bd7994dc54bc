//! Who has an account on the host and none here: refused in words that help, or given one.

mod common;

use std::process::Stdio;

use common::account::Account;
use common::{IMAGE, Server, Tenant};
use serde_json::{Value, json};

fn server(more: &[&str]) -> Server {
    Server::start_with(&common::engine(), more)
}

const PROVISION: [&str; 2] = ["--set", "tenants.provision_class=student"];

fn caller(server: &Server, uid: u32) -> Tenant {
    Tenant {
        uid,
        host: format!("unix://{}", server.path("docker.sock").display()),
    }
}

fn names(server: &Server) -> Vec<String> {
    let users = server.get("/api/users");
    let users = users["items"].as_array().unwrap().clone();
    let name = |user: &Value| user["name"].as_str().unwrap().to_owned();
    users.iter().map(name).collect()
}

/// The audit log's entries that made this user.
fn made(server: &Server, user: &str) -> Vec<Value> {
    let audit = server.get("/api/audit");
    let entries = audit["items"].as_array().unwrap().clone();
    let made = |entry: &Value| entry["action"] == "user.add" && entry["entity"] == user;
    entries.into_iter().filter(made).collect()
}

#[test]
fn without_provisioning_a_person_is_told_the_command_that_lets_them_in() {
    let server = server(&["--set", "tenants.contact=the front desk"]);
    let account = Account::new(60_900);
    let said = caller(&server, account.uid).refused(&["ps"]);
    let command = format!("user add {} --uid {}", account.name, account.uid);
    assert!(said.contains("the front desk"), "{said}");
    assert!(said.contains(&format!("`plimsoll {command}`")), "{said}");
    assert_eq!(names(&server), [""; 0]);
    // What it says, works.
    let words: Vec<_> = command.split(' ').collect();
    assert_eq!(server.plimsoll(&words).code, 0);
    caller(&server, account.uid).ok(&["ps"]);
}

#[test]
fn a_first_visit_makes_a_user_with_the_classs_quota() {
    let server = server(&[&PROVISION[..], &["--set", "ports.first=42000"]].concat());
    let account = Account::new(60_901);
    let new = caller(&server, account.uid);
    let run = [
        "run",
        "--rm",
        "--memory",
        "32m",
        IMAGE,
        "echo",
        "works at once",
    ];
    assert_eq!(new.ok(&run), "works at once");
    let user = server.get(&format!("/api/users/{}", account.name));
    assert_eq!(
        (&user["osUid"], &user["role"]),
        (&json!(60_901), &json!("member"))
    );

    // The quota is that of one made by hand.
    server.post("/api/users", json!({"name": "ben", "class": "student"}));
    let quota = |name: &str| {
        let mut quota = server.get(&format!("/api/quotas/user/{name}"));
        for own in [
            "entityId",
            "name",
            "createdAt",
            "updatedAt",
            "id",
            "remaining",
            "reserved",
        ] {
            quota.as_object_mut().unwrap().remove(own);
        }
        quota
    };
    assert_eq!(quota(&account.name), quota("ben"));
    assert_eq!(quota("ben")["quotaType"], "student");
    let made = made(&server, &account.name);
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(made[0]["actor"], "gateway");
    assert_eq!(made[0]["reason"], "provisioned for uid 60901");
    // And it holds.
    let most = quota("ben")["maxMemoryGB"].as_f64().unwrap();
    let more = format!("{}m", (most * 1024.0) as u64 + 1);
    let refused = new.refused(&["run", "--rm", "--memory", &more, IMAGE, "true"]);
    assert!(refused.contains("quota exceeded"), "{refused}");
}

#[test]
fn nobody_in_particular_gets_no_user() {
    let server = server(&PROVISION);
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    for (uid, name) in [
        (0, "root"),
        (1, "daemon"),
        (65_534, "nobody"),
        (60_909, "NAME"),
    ] {
        assert_eq!(
            accounts.contains(&format!("{name}:x:{uid}:")),
            name != "NAME",
            "{name}"
        );
        let said = caller(&server, uid).refused(&["ps"]);
        let told = format!("`plimsoll user add {name} --uid {uid}`");
        assert!(said.contains(&told), "{said}");
    }
    assert_eq!(names(&server), [""; 0]);
}

#[test]
fn many_first_requests_at_once_make_one_user() {
    let server = server(&PROVISION);
    let account = Account::new(60_902);
    let new = caller(&server, account.uid);
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let mut command = new.command(&["ps", "-q"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in asking {
        let said = common::said(&child.wait_with_output().unwrap());
        assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
    }
    assert_eq!(names(&server), [account.name.as_str()]);
    assert_eq!(made(&server, &account.name).len(), 1);
}

#[test]
fn a_name_that_is_taken_stays_its_owners() {
    let server = server(&PROVISION);
    let account = Account::new(60_903);
    server.post("/api/users", json!({"name": account.name, "osUid": 60_908}));
    caller(&server, account.uid).ok(&["ps"]);
    assert_eq!(names(&server), [account.name.as_str(), "u60903"]);
    let taken = server.get(&format!("/api/users/{}", account.name));
    assert_eq!(taken["osUid"], 60_908);
}

#[test]
fn only_members_of_the_named_groups_are_let_in() {
    let (member, other) = (Account::new(60_904), Account::new(60_905));
    let groups = format!("tenants.provision_groups=no-such-group,{}", member.name);
    let server = server(&[&PROVISION[..], &["--set", &groups]].concat());
    caller(&server, member.uid).ok(&["ps"]);
    let said = caller(&server, other.uid).refused(&["ps"]);
    assert!(said.contains("has no account here"), "{said}");
    assert_eq!(names(&server), [member.name.as_str()]);
}
