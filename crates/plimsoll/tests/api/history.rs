//! `/api/usage/.../history` and `/api/usage/analytics`, over a real history.

use plimsoll_core::metric::Metric;
use plimsoll_store::history::{Labels, Point, Tick};
use serde_json::{Value, json};

use crate::site::Site;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// The beginning of an hour that is over.
fn start(site: &Site) -> i64 {
    (site.app.clock.now_ms() / HOUR - 30) * HOUR
}

fn at(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap().to_string()
}

async fn id(site: &Site, path: &str) -> String {
    site.get(path).await["id"].as_str().unwrap().to_owned()
}

/// Half a core for five hours, read every half a minute.
async fn measured(site: &Site, points: &[(&str, u64)]) {
    for reading in 0..600 {
        let points = points.iter().map(|(entity, cpu)| Point {
            entity: (*entity).to_owned(),
            values: vec![(Metric::Cpu, *cpu), (Metric::Memory, 1 << 30)],
        });
        let tick = Tick {
            at_ms: start(site) + reading * MINUTE / 2,
            points: points.collect(),
            ..Tick::default()
        };
        site.app.history.append(&tick).unwrap();
    }
}

#[tokio::test]
async fn a_history_has_the_step_and_unit_asked_for() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    let ada = format!("user:{}", id(&site, "/api/users/ada").await);
    measured(&site, &[(&ada, 500)]).await;
    let start = start(&site);
    let path = |query: &str| {
        let (from, to) = (at(start), at(start + 5 * HOUR));
        format!("/api/usage/user/ada/history?from={from}&to={to}&{query}")
    };
    let hours = site.get(&path("metric=cpu&step=1h")).await;
    assert_eq!(
        (&hours["unit"], &hours["name"]),
        (&json!("cores"), &json!("ada"))
    );
    assert_eq!(hours["stepSeconds"], 3600.0);
    let expected: Vec<Value> = (0..5)
        .map(|h| json!([start + h * HOUR, 0.5, 0.5]))
        .collect();
    assert_eq!(hours["points"], Value::Array(expected));
    let raw = site.get(&path("metric=memory_gb&step=30s")).await;
    let points = raw["points"].as_array().unwrap();
    assert_eq!((points.len(), &points[0][1]), (600, &json!(1.0)));
    let fitting = site.get(&path("metric=memory")).await;
    assert_eq!(
        (&fitting["unit"], &fitting["points"][0][2]),
        (&json!("bytes"), &json!(1073741824.0))
    );
    assert!(fitting["points"].as_array().unwrap().len() <= 400);

    let table = site.get(&path("metric=cpu&step=1h&format=csv")).await;
    let lines: Vec<&str> = table.as_str().unwrap().lines().collect();
    assert_eq!((lines.len(), lines[0]), (6, "time,average,max,total"));
    assert_eq!(lines[2], format!("{},0.5,0.5,0.5", at(start + HOUR)));
    let mut request = site.request("GET", &path("metric=cpu"), &site.admin, None);
    request
        .headers_mut()
        .insert("accept", "text/csv".parse().unwrap());
    let answer = site.send(request).await;
    assert!(answer.header("content-type").starts_with("text/csv"));

    for (query, field) in [
        ("metric=cpus", "metric"),
        ("step=1h", "metric"),
        ("metric=cpu&step=1x", "step"),
        ("metric=cpu&format=xml", "format"),
        ("metric=cpu&stepp=1h", "stepp"),
    ] {
        let problem = site.ask("GET", &path(query), Value::Null).await;
        assert_eq!(
            problem.fails(422, "invalid_field")["field"],
            field,
            "{query}"
        );
    }
    let backward = format!(
        "/api/usage/system/history?metric=cpu&from={}",
        at(start + 90 * HOUR)
    );
    site.ask("GET", &backward, Value::Null)
        .await
        .fails(422, "invalid_field");
}

#[tokio::test]
async fn projects_and_hosts_have_a_history_for_those_who_may_see_it() {
    let site = Site::new().await;
    let ada = site.user("ada", "member").await;
    let bob = site.user("bob", "member").await;
    let add = async |token: &str| {
        let body = json!({"name": "thesis"});
        let made = site.by(token, "POST", "/api/projects", Some(body)).await;
        made.is(201)["id"].as_str().unwrap().to_owned()
    };
    let own = add(&ada).await;
    measured(
        &site,
        &[(&format!("project:{own}"), 500), ("host:a.example", 1500)],
    )
    .await;
    let (from, to) = (at(start(&site)), at(start(&site) + 5 * HOUR));
    let path = |of: &str| format!("/api/usage/{of}/history?metric=cpu&from={from}&to={to}&step=1h");
    let thesis = path("project/thesis");
    let shown = site.by(&ada, "GET", &thesis, None).await.is(200);
    assert_eq!(
        (
            &shown["entityType"],
            &shown["entityId"],
            &shown["points"][2][1]
        ),
        (&json!("project"), &json!(own), &json!(0.5))
    );
    let unseen = site.by(&bob, "GET", &thesis, None).await;
    unseen.fails(404, "not_found");

    let other = add(&bob).await;
    let several = site.ask("GET", &thesis, Value::Null).await;
    assert_eq!(several.fails(422, "invalid_field")["field"], "project");
    assert_eq!(
        site.get(&path(&format!("project/{own}"))).await["name"],
        "thesis"
    );
    let none = site.get(&path(&format!("project/{other}"))).await;
    assert_eq!(none["points"], json!([]));

    let host = site.get(&path("host/a.example")).await;
    assert_eq!(host["points"][0][1], 1.5, "{host}");
    let unseen = site.by(&ada, "GET", &path("host/a.example"), None).await;
    unseen.fails(403, "forbidden");
}

#[tokio::test]
async fn a_breakdown_tells_what_was_reserved_and_idle() {
    let site = Site::new().await;
    for reading in 0..600 {
        let point = |entity: &str, values: &[(Metric, u64)]| Point {
            entity: entity.to_owned(),
            values: values.to_vec(),
        };
        let tick = Tick {
            at_ms: start(&site) + reading * MINUTE / 2,
            points: vec![
                point("user:a", &[(Metric::Cpu, 600), (Metric::CpuReserved, 2000)]),
                point("user:b", &[(Metric::Cpu, 1000), (Metric::CpuReserved, 800)]),
                point("user:c", &[(Metric::CpuReserved, 1000)]),
                point("user:d", &[(Metric::Pids, 1), (Metric::CpuReserved, 0)]),
            ],
            ..Tick::default()
        };
        site.app.history.append(&tick).unwrap();
    }
    let (from, to) = (at(start(&site)), at(start(&site) + 5 * HOUR));
    let path = |more: &str| format!("/api/usage/analytics?groupBy=user&from={from}&to={to}&{more}");
    let body = site.get(&path("metric=cpu")).await;
    let items = body["items"].as_array().unwrap().iter();
    let rounded = |value: &Value| value.as_f64().map(f64::round);
    let found: Vec<_> = items
        .map(|item| {
            let key = item["key"].as_str().unwrap();
            let [total, reserved, idle] =
                ["total", "reservedTotal", "idleTotal"].map(|field| rounded(&item[field]));
            (key, total, reserved, idle)
        })
        .collect();
    assert_eq!(
        found,
        [
            ("b", Some(5.0), Some(4.0), Some(0.0)),
            ("a", Some(3.0), Some(10.0), Some(7.0)),
            ("c", Some(0.0), Some(5.0), Some(5.0)),
        ],
        "{body:#}"
    );
    let table = site.get(&path("metric=cpu&interval=1d&format=csv")).await;
    let mut lines = table.as_str().unwrap().lines();
    assert_eq!(
        lines.next(),
        Some("key,name,time,total,average,max,reserved,idle")
    );
    assert!(lines.all(|line| line.split(',').count() == 8), "{table}");
    let pids = site.get(&path("metric=pids")).await;
    assert_eq!(pids["items"][0].get("idleTotal"), None, "{pids:#}");
}

#[tokio::test]
async fn a_breakdown_shows_each_caller_what_is_theirs() {
    let site = Site::new().await;
    let bob = site.user("bob", "member").await;
    let ada = site.user("ada", "member").await;
    site.ask("POST", "/api/teams", json!({"name": "ml"}))
        .await
        .is(201);
    site.member("ml", "ada", json!({"role": "lead"})).await;
    site.member("ml", "bob", json!({})).await;
    let ids = [
        id(&site, "/api/users/ada").await,
        id(&site, "/api/users/bob").await,
        id(&site, "/api/teams/ml").await,
    ];
    let [ada_id, bob_id, team_id] = &ids;
    let labels = |name: &str, user: &str, team: Option<&String>, project: &str| Labels {
        name: Some(name.to_owned()),
        user: Some(user.to_owned()),
        team: team.cloned(),
        project: Some(project.to_owned()),
        ..Labels::default()
    };
    for (entity, labels) in [
        ("container:a", labels("web", ada_id, None, "shop")),
        (
            "container:b",
            labels("train", bob_id, Some(team_id), "vision"),
        ),
        ("container:c", labels("mine", bob_id, None, "shop")),
    ] {
        site.app.history.describe(entity, labels);
    }
    let (user_a, user_b) = (format!("user:{ada_id}"), format!("user:{bob_id}"));
    let team = format!("team:{team_id}");
    measured(
        &site,
        &[
            ("container:a", 1000),
            ("container:b", 2000),
            ("container:c", 500),
            (&user_a, 1000),
            (&user_b, 2500),
            (&team, 2000),
            ("system", 3500),
        ],
    )
    .await;
    let (from, to) = (at(start(&site)), at(start(&site) + 5 * HOUR));
    let path =
        |by: &str| format!("/api/usage/analytics?metric=cpu&from={from}&to={to}&groupBy={by}");
    for (caller, by, keys) in [
        (&site.admin, "container", vec!["b", "a", "c"]),
        (&ada, "container", vec!["b", "a"]),
        (&bob, "container", vec!["b", "c"]),
        (&site.admin, "project", vec!["vision", "shop"]),
        (&bob, "project", vec!["vision", "shop"]),
        (&ada, "user", vec![bob_id, ada_id]),
        (&bob, "user", vec![bob_id]),
        (&bob, "team", vec![team_id]),
    ] {
        let body = site.by(caller, "GET", &path(by), None).await.is(200);
        let items = body["items"].as_array().unwrap();
        let found: Vec<&str> = items.iter().map(|i| i["key"].as_str().unwrap()).collect();
        assert_eq!(found, keys, "{by}: {body:#}");
    }
    let shop = site.get(&path("project")).await["items"][1].clone();
    assert_eq!(
        (shop["name"].as_str(), shop["max"].as_f64()),
        (Some("shop"), Some(1.0))
    );
    let near = |value: &Value, expected: f64| {
        let value = value.as_f64().unwrap();
        assert!(
            (value - expected).abs() < expected * 0.01,
            "{value}, not {expected}"
        );
    };
    near(&shop["total"], 7.5);
    near(&shop["average"], 1.5);
    near(&shop["share"], 1.5 / 3.5);

    let more = "&interval=1h&compare=previous&percentile=99&limit=1";
    let body = site.get(&format!("{}{more}", path("container"))).await;
    assert_eq!(
        (&body["groups"], &body["intervalSeconds"]),
        (&json!(3), &json!(3600))
    );
    let first = &body["items"][0];
    assert_eq!(
        (first["name"].as_str(), &first["previousTotal"]),
        (Some("train"), &json!(0.0))
    );
    near(&first["percentile"], 2.0);
    let points = first["points"].as_array().unwrap();
    assert_eq!(points.len(), 5);
    near(&points[3][1], 2.0);
    let export = format!("/api/usage/export?from={from}&to={to}&metric=cpu");
    for (caller, rows) in [(&site.admin, 7), (&ada, 5), (&bob, 4)] {
        let table = site.by(caller, "GET", &export, None).await.is(200);
        let hours = table.as_str().unwrap().lines().count() - 1;
        assert_eq!(hours, rows * 5, "{table}");
    }
    let table = site.get(&format!("{}&format=csv", path("container"))).await;
    assert!(
        table.as_str().unwrap().contains("\"b\",\"train\","),
        "{table}"
    );
}
