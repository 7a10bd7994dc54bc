//! `GET /api/events`

use std::collections::HashMap;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use plimsoll::meter::{ContainerUse, Reading, Stranger, Usage, Whose};
use plimsoll_core::Dimension;
use plimsoll_core::admit::LevelKind;
use plimsoll_core::entity::UserId;
use plimsoll_store::{CHANGES_KEPT, Measured};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::site::Site;

/// One event: its name, id and data.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    name: String,
    id: String,
    data: Value,
}

/// A client that reads as it asks.
struct Follower {
    body: Incoming,
    rest: String,
    /// Signs of life so far.
    beats: usize,
}

impl Follower {
    async fn of(site: &Site, token: &str) -> Self {
        Self::after(site, token, "").await
    }

    /// Goes on after an event.
    async fn after(site: &Site, token: &str, id: &str) -> Self {
        let mut request = site.request("GET", "/api/events", token, None);
        if !id.is_empty() {
            let headers = request.headers_mut();
            headers.insert("last-event-id", id.parse().unwrap());
        }
        let stream = TcpStream::connect(site.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut follower = Self {
            body: response.into_body(),
            rest: String::new(),
            beats: 0,
        };
        assert_eq!(follower.next().await.unwrap().name, "hello");
        follower
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let told = (!event.starts_with(':')).then(|| told(event));
                self.beats += usize::from(told.is_none());
                self.rest = rest.to_owned();
                if told.is_some() {
                    return told;
                }
                continue;
            }
            let frame = self.body.frame().await?.ok()?;
            self.rest += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
        }
    }

    /// Waits through silence.
    async fn beat(&mut self) {
        while !self.rest.starts_with(':') {
            let frame = self.body.frame().await.unwrap().unwrap();
            self.rest += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
        }
    }

    /// The next event of this name.
    async fn until(&mut self, name: &str) -> Told {
        loop {
            let told = self.next().await.expect("events go on");
            if told.name == name {
                return told;
            }
        }
    }
}

fn told(event: &str) -> Told {
    let field = |name: &str| {
        let mut found = event.lines().filter_map(|line| line.strip_prefix(name));
        found.next().unwrap_or_default().trim().to_owned()
    };
    Told {
        name: field("event:"),
        id: field("id:"),
        data: serde_json::from_str(&field("data:")).unwrap_or_default(),
    }
}

/// A team `ml` led by ada with bob in it, and eve outside; their tokens.
async fn people(site: &Site) -> HashMap<&'static str, String> {
    let mut tokens = HashMap::from([("root", site.admin.clone())]);
    for name in ["ada", "bob", "eve"] {
        tokens.insert(name, site.user(name, "member").await);
    }
    site.ask("POST", "/api/teams", json!({"name": "ml"}))
        .await
        .is(201);
    site.member("ml", "ada", json!({"role": "lead"})).await;
    site.member("ml", "bob", json!({})).await;
    tokens
}

async fn id_of(site: &Site, user: &str) -> UserId {
    let user = site.get(&format!("/api/users/{user}")).await;
    user["id"].as_str().unwrap().parse().unwrap()
}

/// As many changes as there are in one transaction: violations of nobody.
async fn burst(site: &Site, count: usize) {
    let measured = |_| Measured {
        level: LevelKind::User,
        entity: uuid::Uuid::now_v7(),
        name: "nobody".into(),
        dimension: Dimension::Cpu,
        limit: Some(1),
        used: 2,
        behind: Some(Vec::new()),
    };
    let all = (0..count).map(measured).collect();
    site.app
        .store
        .follow_use(&[Dimension::Cpu], all, 0, 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn everybody_is_told_what_they_may_see_and_nothing_else() {
    let site = Site::new().await;
    let tokens = people(&site).await;
    let mut followers = HashMap::new();
    for (name, token) in &tokens {
        followers.insert(*name, Follower::of(&site, token).await);
    }
    let made = site.reserve("bob", 1.0).await.is(201);
    let own = site.reserve("eve", 1.0).await.is(201);
    for (name, expected) in [
        ("bob", &made["id"]),
        ("ada", &made["id"]),
        ("root", &made["id"]),
        ("eve", &own["id"]),
    ] {
        let follower = followers.get_mut(name).unwrap();
        // Of one transaction, in either order.
        let mut told = [
            follower.next().await.unwrap(),
            follower.next().await.unwrap(),
        ];
        told.sort_by(|a, b| a.name.cmp(&b.name));
        let [decision, reservation] = told;
        assert_eq!(reservation.name, "reservation");
        let (decision, reservation) = (decision.data, reservation.data);
        assert_eq!(&reservation["id"], expected, "{name}: {reservation}");
        assert_eq!(reservation["kind"], "container");
        assert_eq!(reservation["state"], "pending");
        assert_eq!(&decision["reservation"], expected, "{name}: {decision}");
    }

    let quota = json!({"maxMemoryGB": 0.5});
    site.ask("PUT", "/api/quotas/user/bob", quota).await.is(200);
    let token = json!({"user": "eve"});
    site.ask("POST", "/api/tokens", token).await.is(201);
    let quota = json!({"maxMemoryGB": 4});
    site.ask("PUT", "/api/quotas/user/eve", quota).await.is(200);
    for (name, expected) in [
        ("bob", "bob"),
        ("ada", "bob"),
        ("root", "bob"),
        // Neither of bob's quota nor of a token's id.
        ("eve", "eve"),
    ] {
        let told = followers.get_mut(name).unwrap().until("change").await.data;
        assert_eq!(told["action"], "quota.change", "{name}: {told}");
        assert_eq!(told["entity"], expected, "{name}: {told}");
    }
}

#[tokio::test]
async fn a_violation_is_told_when_it_opens_and_when_it_ends() {
    let site = Site::new().await;
    let tokens = people(&site).await;
    let mut bob = Follower::of(&site, &tokens["bob"]).await;
    let mut eve = Follower::of(&site, &tokens["eve"]).await;
    let entity = id_of(&site, "bob").await.0;
    for (used, at_ms) in [(2, 1), (3, 2), (1, 3)] {
        let measured = Measured {
            level: LevelKind::User,
            entity,
            name: "bob".into(),
            dimension: Dimension::Cpu,
            limit: Some(1),
            used,
            behind: Some(Vec::new()),
        };
        site.app
            .store
            .follow_use(&[Dimension::Cpu], vec![measured], 0, at_ms)
            .await
            .unwrap();
        if used == 2 {
            assert_eq!(bob.until("violation").await.data["open"], true);
        }
    }
    let ended = bob.until("violation").await.data;
    assert_eq!(
        (&ended["open"], &ended["dimension"]),
        (&json!(false), &json!("cpu"))
    );
    site.reserve("eve", 0.1).await.is(201);
    assert_ne!(eve.next().await.unwrap().name, "violation", "none of hers");
}

#[tokio::test]
async fn every_reading_is_told_with_what_is_reserved() {
    let site = Site::new().await;
    let tokens = people(&site).await;
    let claim =
        json!({"user": "bob", "resourceRequest": {"cpuCores": 1, "memoryGB": 1, "storageGB": 1}});
    let made = site.ask("POST", "/api/reservations", claim).await.is(201);
    let id = "c".repeat(64);
    let path = format!("/api/reservations/{}/commit", made["id"].as_str().unwrap());
    site.ask("POST", &path, json!({"containerId": id}))
        .await
        .is(200);
    let mut followers = HashMap::new();
    for (name, token) in &tokens {
        followers.insert(*name, Follower::of(&site, token).await);
    }
    let bob = Whose::User(id_of(&site, "bob").await);
    let usage = Usage {
        cpu_milli: 500,
        containers: 1,
        ..Usage::default()
    };
    let used = ContainerUse {
        cpu_milli: Some(500),
        updated_ms: 7,
        ..ContainerUse::default()
    };
    site.app.meter.publish(Reading {
        entities: HashMap::from([(bob, usage), (Whose::System, usage)]),
        containers: HashMap::from([(id.clone(), used), ("d".repeat(64), used)]),
        ..Reading::default()
    });
    for (name, expected) in [
        (
            "root",
            vec!["container", "container", "system", "team", "user"],
        ),
        ("ada", vec!["container", "team", "user"]),
        ("bob", vec!["container", "team", "user"]),
        ("eve", vec![]),
    ] {
        let told = followers.get_mut(name).unwrap().until("usage").await.data;
        let items = told["items"].as_array().unwrap();
        let mut kinds: Vec<_> = items
            .iter()
            .map(|i| i["entityType"].as_str().unwrap())
            .collect();
        kinds.sort_unstable();
        assert_eq!(kinds, expected, "{name}: {told:#}");
        let of = |kind: &str| {
            items
                .iter()
                .find(|i| i["entityType"] == kind && !i["name"].is_null())
        };
        let Some(user) = of("user") else { continue };
        assert_eq!(
            (&user["name"], &user["cpuCores"]),
            (&json!("bob"), &json!(0.5))
        );
        assert_eq!(user["reservedCpuCores"], 1.0);
        assert_eq!(of("team").unwrap()["reservedMemoryGB"], 1.0);
        let container = items.iter().find(|i| i["entityId"] == id.as_str()).unwrap();
        assert_eq!(container["reservedCpuCores"], 1.0, "{container}");
    }
    // Whoever comes later is told the last reading at once.
    let mut late = Follower::of(&site, &tokens["bob"]).await;
    assert_eq!(late.next().await.unwrap().name, "usage");
}

#[tokio::test]
async fn a_follower_goes_on_where_it_was_and_is_told_what_is_gone() {
    let site = Site::new().await;
    site.user("bob", "member").await;
    let mut follower = Follower::of(&site, &site.admin).await;
    site.reserve("bob", 0.1).await.is(201);
    let last = follower.until("decision").await;
    drop(follower);
    let made = site.reserve("bob", 0.1).await.is(201);
    let mut again = Follower::after(&site, &site.admin, &last.id).await;
    // The decision and the reservation are of one transaction, in either order.
    let told = again.until("decision").await;
    let first = told.data["reservation"] == made["id"] || {
        again.until("decision").await.data["reservation"] == made["id"]
    };
    assert!(first, "{told:?}");

    burst(&site, CHANGES_KEPT + 10).await;
    let mut late = Follower::after(&site, &site.admin, &last.id).await;
    let missed = late.next().await.unwrap();
    assert_eq!(missed.name, "missed");
    assert!(missed.data["changes"].as_u64().unwrap() >= 10, "{missed:?}");
    assert_eq!(late.next().await.unwrap().name, "violation", "it goes on");

    // Of another run of the server, or nonsense.
    for id in ["0198-7", "x"] {
        let mut lost = Follower::after(&site, &site.admin, id).await;
        let missed = lost.next().await.unwrap();
        assert_eq!(
            (missed.name.as_str(), missed.data),
            ("missed", json!({"changes": null}))
        );
        site.reserve("bob", 0.1).await.is(201);
        lost.until("reservation").await;
    }
}

#[tokio::test]
async fn an_access_that_ends_ends_the_events() {
    let site = Site::new().await;
    site.user("bob", "member").await;
    let made = json!({"user": "bob"});
    let made = site.ask("POST", "/api/tokens", made).await.is(201);
    let mut revoked = Follower::of(&site, made["token"].as_str().unwrap()).await;
    let path = format!("/api/tokens/{}", made["id"].as_str().unwrap());
    site.ask("DELETE", &path, Value::Null).await.is(204);
    while revoked.next().await.is_some() {}

    let until = jiff::Timestamp::from_millisecond(site.app.clock.now_ms() + 60_000).unwrap();
    let short = site
        .token("bob", json!({"expiresAt": until.to_string()}))
        .await;
    let mut expired = Follower::of(&site, &short).await;
    site.app.clock.advance(Duration::from_secs(61));
    site.reserve("bob", 0.1).await.is(201);
    while expired.next().await.is_some() {}
}

/// A reading that takes a while to send.
fn large() -> Reading {
    let stranger = |number: u32| Stranger {
        id: format!("{number:064}"),
        name: "n".repeat(200),
        image: "i".repeat(200),
        started_ms: 0,
    };
    let strangers: Vec<Stranger> = (0..2000).map(stranger).collect();
    let containers = strangers.iter();
    let containers = containers.map(|s| (s.id.clone(), ContainerUse::default()));
    Reading {
        containers: containers.collect(),
        strangers,
        ..Reading::default()
    }
}

/// A client that asks and does not read.
async fn stuck(site: &Site) -> TcpStream {
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let request = format!(
        "GET /api/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        site.admin
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Publishes readings until one that reads has had so many.
async fn readings(site: &Site, follower: &mut Follower, count: u64) {
    for _ in 0..count {
        site.app.meter.publish(large());
        follower.until("usage").await;
    }
}

#[tokio::test]
async fn whoever_does_not_read_holds_nobody_up_and_is_told_what_they_missed() {
    let site = Site::new().await;
    let mut reader = Follower::of(&site, &site.admin).await;
    let mut slow = Follower::of(&site, &site.admin).await;
    // More than the buffers in between hold.
    readings(&site, &mut reader, 24).await;
    burst(&site, CHANGES_KEPT + 10).await;
    reader.until("missed").await;
    let mut missed = Vec::new();
    while missed.len() < 2 {
        let told = slow.until("missed").await.data;
        let what = if told["changes"].is_null() {
            "readings"
        } else {
            "changes"
        };
        assert!(told[what].as_u64().unwrap() > 0, "{told}");
        missed.push(what);
    }
    missed.sort_unstable();
    assert_eq!(missed, ["changes", "readings"]);
    slow.until("usage").await;
}

#[tokio::test]
async fn a_server_that_ends_waits_for_no_follower() {
    let site = Site::new().await;
    let mut reader = Follower::of(&site, &site.admin).await;
    let unread = stuck(&site).await;
    readings(&site, &mut reader, 24).await;
    site.end().await;
    while reader.next().await.is_some() {}
    drop(unread);
}

#[tokio::test]
async fn silence_has_signs_of_life() {
    let site = Site::new().await;
    let mut follower = Follower::of(&site, &site.admin).await;
    follower.beat().await;
    site.user("bob", "member").await;
    assert_eq!(follower.next().await.unwrap().data["action"], "user.add");
    assert!(follower.beats > 0);
}

#[tokio::test]
async fn a_follower_is_a_connection() {
    let site = Site::limited(
        plimsoll::api::Bounds::default(),
        plimsoll::config::Limits {
            connections_per_user: 1,
            ..plimsoll::config::Limits::default()
        },
    )
    .await;
    let follower = Follower::of(&site, &site.admin).await;
    let turned_away = async || site.by("", "GET", "/healthz", None).await.status;
    assert_eq!(turned_away().await, 429);
    drop(follower);
    while turned_away().await != 200 {}
}
