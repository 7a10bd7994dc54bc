//! The dashboard in `deploy/` asks for series that there are: every query of it, asked of a real Prometheus
//! that reads a real server.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{IMAGE, Server, free_port, wait_for};
use serde_json::{Value, json};

/// A Prometheus on a port of its own.
struct Prometheus {
    process: Child,
    port: u16,
}

impl Prometheus {
    fn start(dir: &Path, port: u16, listen: &str, token: &Path) -> Self {
        let config = dir.join("prometheus.yml");
        let scrape = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": [{
            "job_name": "plimsoll",
            "authorization": {"credentials_file": token},
            "static_configs": [{"targets": [listen]}],
        }]});
        // JSON is YAML.
        std::fs::write(&config, scrape.to_string()).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("series").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-remote-write-receiver")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/test.sh installs it");
        Self { process, port }
    }

    /// How many series a query gives; `None` while nobody answers.
    fn series(&self, query: &str) -> Option<usize> {
        let asked = Command::new("curl")
            .args([
                "-fsS",
                "--get",
                "--data-urlencode",
                &format!("query={query}"),
            ])
            .arg(format!("http://127.0.0.1:{}/api/v1/query", self.port))
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&asked.stdout).ok()?;
        Some(answer["data"]["result"].as_array()?.len())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every query, with what a viewer chooses filled in.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array());
    let queries = targets.flatten().map(|target| {
        let query = target["expr"].as_str().unwrap();
        let chosen = query.replace("$type", "user").replace("$entity", ".*");
        chosen.replace("$__rate_interval", "1m")
    });
    queries.collect()
}

#[test]
fn every_query_of_the_dashboard_has_an_answer() {
    let text = include_str!("../../../deploy/grafana-plimsoll.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "{queries:#?}");
    assert!(
        !queries.iter().any(|query| query.contains('$')),
        "{queries:#?}"
    );

    let port = free_port();
    let remote = format!("metrics.remote_write_url=http://127.0.0.1:{port}/api/v1/write");
    let set = ["metering.interval_s=0.5", "ports.first=45000", &remote];
    let set: Vec<&str> = set.iter().flat_map(|key| ["--set", key]).collect();
    let server = Server::start_with(&common::engine(), &set);
    let limits = json!({"maxMemoryGB": 1, "maxCpuCores": 1});
    server.put("/api/quotas/system", limits.clone());
    let ada = server.tenant("ada", 62_660, limits);
    server.post("/api/projects", json!({"name": "thesis", "user": "ada"}));
    let run = ["run", "-d", "--memory", "64m", "--cpus", "0.1"];
    let rest = [
        "--label",
        "plimsoll.project=thesis",
        IMAGE,
        "sh",
        "-c",
        "while :; do :; done",
    ];
    ada.ok(&[&run[..], &rest].concat());

    let log = server.log();
    let listen = log.split("listen=\"").nth(1).unwrap();
    let listen = listen.split('"').next().unwrap();
    let dir = common::directory();
    let token = server.path("data").join("admin.token");
    let prometheus = Prometheus::start(dir.path(), port, listen, &token);
    for query in queries {
        wait_for(&query, || {
            prometheus.series(&query).filter(|found| *found > 0)
        });
    }
}
