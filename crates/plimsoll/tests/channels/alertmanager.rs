//! What fires, at a real Alertmanager.

use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Method;
use plimsoll::http_client::{ANSWER_MAX, Client};
use serde_json::{Value, json};

use crate::common::{Server, free_port, wait_for};
use crate::{server, user};

/// Alertmanager, on a port of its own.
struct Alertmanager {
    dir: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Alertmanager {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let port = free_port();
        let process = spawn(&dir, port);
        let one = Self { dir, port, process };
        one.wait();
        one
    }

    fn wait(&self) {
        let server = (Ipv4Addr::LOCALHOST, self.port);
        wait_for("Alertmanager", || TcpStream::connect(server).ok());
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn restart(&mut self) {
        self.process = spawn(&self.dir, self.port);
        self.wait();
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it takes to be firing.
    fn active(&self) -> Vec<Value> {
        let url = format!("{}/api/v2/alerts", self.url()).parse().unwrap();
        let client = Client::new(Duration::from_secs(10), None, ANSWER_MAX);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let asked = client.ask(Method::GET, &url, None, &[], Vec::new());
        let answer = runtime.block_on(asked).unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    fn wait_for(&self, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} alerts"), || {
            let active = self.active();
            (active.len() == count).then_some(active)
        })
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(dir: &tempfile::TempDir, port: u16) -> Child {
    Command::new("prometheus-alertmanager")
        .arg(format!(
            "--config.file={}",
            dir.path().join("config.yml").display()
        ))
        .arg(format!(
            "--storage.path={}",
            dir.path().join("data").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("scripts/test.sh installs it")
}

/// A limit that is exceeded, or holds again.
fn limit(server: &Server, gigabytes: u64) {
    server.put("/api/quotas/user/ada", json!({"maxMemoryGB": gigabytes}));
}

#[test]
fn what_fires_is_kept_firing_and_ends() {
    let mut alertmanager = Alertmanager::start();
    let mut server = server(&[
        format!("notify.alertmanager_url={}", alertmanager.url()),
        "notify.alertmanager_interval_s=0.3".into(),
        "notify.server_url=https://plimsoll.lab".into(),
    ]);
    user(&server, "ada", None);
    server.post(
        "/api/reservations",
        json!({"user": "ada", "resourceRequest": {"memoryGB": 4}, "idempotencyKey": "a", "ttlSeconds": 600}),
    );
    assert_eq!(alertmanager.active(), Vec::<Value>::new());
    limit(&server, 2);
    let active = alertmanager.wait_for(1);
    let labels = &active[0]["labels"];
    assert_eq!(
        (&labels["name"], &labels["part"]),
        (&json!("ada"), &json!("memory"))
    );
    let link = active[0]["generatorURL"].as_str().unwrap();
    assert!(link.starts_with("https://plimsoll.lab/"), "{link}");

    // It is told again before its time is up, and one that forgot everything learns it anew.
    wait_for("another posting", || {
        (alertmanager.active().first()?["endsAt"] != active[0]["endsAt"]).then_some(())
    });
    alertmanager.end();
    std::fs::remove_dir_all(alertmanager.dir.path().join("data")).unwrap();
    alertmanager.restart();
    alertmanager.wait_for(1);

    limit(&server, 8);
    alertmanager.wait_for(0);
    limit(&server, 2);
    alertmanager.wait_for(1);
    // Nobody is there to say that it is over: it ends by itself.
    server.crash();
    alertmanager.wait_for(0);
    server.restart();
    alertmanager.wait_for(1);
}
