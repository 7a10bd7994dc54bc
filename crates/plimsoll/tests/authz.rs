//! The authorization plugin in a real engine of its own, reached by TLS past the gateway.
//!
//! The engine has its own network, mounts and data; Plimsoll's certificates are the engine's, too.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are outside the server: they may look at the environment"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{IMAGE, Said, Server, said, wait_for};
use serde_json::{Value, json};

const ENDPOINT: &str = "tcp://127.0.0.1:2376";

struct Engine {
    dir: tempfile::TempDir,
    process: Child,
}

impl Engine {
    /// An engine that asks the plugin `plimsoll` in its folder `plugins`, with an authority's files.
    fn start(tls: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("plugins")).unwrap();
        let inner = r#"
            cd "$1" && ip link set lo up && mount -t tmpfs tmpfs /run && mkdir -p /run/docker/plugins &&
            mount --bind plugins /run/docker/plugins &&
            exec dockerd --host "unix://$1/docker.sock" --host tcp://127.0.0.1:2376 \
                --tlsverify --tlscacert "$2/ca.pem" --tlscert "$2/server.pem" --tlskey "$2/server.key" \
                --authorization-plugin plimsoll --data-root "$1/data" --pidfile "$1/pid" \
                --bridge none --iptables=false --ip-masq=false
        "#;
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private"])
            .args(["bash", "-c", inner, "engine"])
            .args([dir.path(), tls])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let engine = Self { dir, process };
        // Before it has made its namespaces it is still in the host's.
        wait_for("the engine's socket", || {
            engine.path("docker.sock").exists().then_some(())
        });
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pid(&self) -> String {
        self.process.id().to_string()
    }

    /// A program in the engine's network.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid(), program]);
        command.stdin(Stdio::null());
        command
    }

    /// docker with a certificate.
    fn by(&self, certs: &Path, args: &[&str]) -> Said {
        let mut command = self.inside("docker");
        command
            .args(args)
            .env("DOCKER_HOST", ENDPOINT)
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", certs)
            .env("DOCKER_CONFIG", self.path("config"));
        said(&command.output().unwrap())
    }

    /// The bare API with a certificate: status and answer.
    fn ask(&self, certs: &Path, method: &str, path: &str, more: &[&str]) -> (String, Value) {
        let mut command = self.inside("curl");
        command.args(["-sS", "-w", "\n%{http_code}", "-X", method]);
        for (flag, file) in [
            ("--cacert", "ca.pem"),
            ("--cert", "cert.pem"),
            ("--key", "key.pem"),
        ] {
            command.arg(flag).arg(certs.join(file));
        }
        let url = ENDPOINT.replace("tcp", "https") + path;
        let said = said(&command.args(more).arg(url).output().unwrap());
        let (body, status) = said.out.rsplit_once('\n').expect(&said.err);
        let body = serde_json::from_str(body).unwrap_or_else(|_| json!(body));
        (status.to_owned(), body)
    }

    /// The bare API as Plimsoll itself.
    fn inspect(&self, tls: &Path, container: &str) -> Value {
        let path = format!("/v1.41/containers/{container}/json");
        self.ask(&tls.join("engine"), "GET", &path, &[]).1
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.pid()).status();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("--- the engine's log, last line first\n{}", last.join("\n"));
        }
    }
}

/// An engine, the server that is its plugin, and the authority both trust.
fn both() -> (Engine, Server, PathBuf) {
    let dir = common::directory();
    let data = dir.path().join("data");
    common::make_authority(&data);
    let tls = data.join("tls");
    let engine = Engine::start(&tls);
    let plugin = engine.path("plugins/plimsoll.sock");
    let extra = ["--authz-socket", plugin.to_str().unwrap()];
    let prefix = ["nsenter", "--net", "--target", &engine.pid()];
    let server = Server::start_in(dir, ENDPOINT, &extra, &prefix);
    let image = Command::new("docker")
        .args(["-H", &common::engine(), "save", "-o"])
        .arg(engine.path("image.tar"))
        .arg(IMAGE)
        .output()
        .unwrap();
    assert!(image.status.success(), "{image:?}");
    let file = engine.path("image.tar");
    let loaded = engine.by(&tls.join("engine"), &["load", "-i", file.to_str().unwrap()]);
    assert_eq!(loaded.code, 0, "{loaded:?}");
    (engine, server, tls)
}

fn certificate(server: &Server, name: &str) -> PathBuf {
    let certs = server.path(&format!("{name}-certs"));
    let made = server.plimsoll(&["user", "cert", name, "--out", certs.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{made:?}");
    certs
}

#[track_caller]
fn denied(said: &Said, why: &str) {
    assert_ne!(said.code, 0, "{said:?}");
    assert!(
        said.err.contains("authorization denied by plugin plimsoll"),
        "{said:?}"
    );
    assert!(said.err.contains(why), "{why}: {said:?}");
}

#[test]
fn the_engines_own_door_has_the_same_rules() {
    // That the server is ready at all says that Plimsoll's own certificate passes.
    let (engine, mut server, tls) = both();
    let limits = json!({"maxMemoryGB": 0.5, "maxCpuCores": 1, "maxConcurrentContainers": 4});
    let at_the_gateway = server.tenant("ada", 62_200, limits.clone());
    server.tenant("ben", 62_201, limits);
    let (ada, ben) = (certificate(&server, "ada"), certificate(&server, "ben"));

    let socket = engine.path("docker.sock");
    let mut nobody = Command::new("docker");
    nobody.arg("-H").arg(format!("unix://{}", socket.display()));
    denied(
        &said(&nobody.arg("ps").output().unwrap()),
        "does not know who asks",
    );
    for args in [
        &["ps"][..],
        &["images"],
        &["info"],
        &["events"],
        &["system", "df"],
    ] {
        denied(&engine.by(&ada, args), "use Plimsoll's own endpoint");
    }
    for args in [
        &["pull", "busybox"][..],
        &["volume", "create", "v"],
        &["network", "create", "n"],
    ] {
        denied(&engine.by(&ada, args), "is not open here");
    }
    denied(
        &engine.by(&ada, &["create", "--privileged", IMAGE]),
        "--privileged is not allowed",
    );
    denied(
        &engine.by(&ada, &["create", IMAGE]),
        "through Plimsoll's own endpoint",
    );

    // What was made at the gateway is hers at the engine, by the engine's names for it.
    at_the_gateway.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "none",
        "--memory",
        "64m",
        "--cpus",
        "0.2",
        IMAGE,
        "sleep",
        "1000",
    ]);
    let id = server.full_id("ada", "web");
    let seen = engine.inspect(&tls, &id);
    let name = seen["Name"]
        .as_str()
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    for reference in [&id, &id[..12], &name] {
        let said = engine.by(&ada, &["inspect", "--type", "container", reference]);
        assert_eq!(said.code, 0, "{reference}: {said:?}");
        denied(&engine.by(&ben, &["logs", reference]), "No such container");
    }
    denied(&engine.by(&ada, &["logs", &id[..4]]), "No such container");
    let said = engine.by(&ada, &["exec", &id, "echo", "hello"]);
    assert_eq!(said.out.trim(), "hello", "{said:?}");
    denied(
        &engine.by(&ada, &["exec", "--privileged", &id, "true"]),
        "--privileged",
    );
    for args in [
        &["restart", &id][..],
        &["update", "--memory", "1g", &id],
        &["rename", &id, "x1"],
        &["export", &id],
        &["cp", &format!("{id}:/etc/hostname"), "-"],
    ] {
        denied(&engine.by(&ada, args), "Plimsoll's own endpoint");
    }
    assert_eq!(engine.by(&ada, &["stop", "-t", "0", &id]).code, 0);
    denied(&engine.by(&ada, &["start", &id]), "Plimsoll's own endpoint");
    at_the_gateway.ok(&["start", "web"]);

    bodies_that_were_not_shown(&engine, &ada, &id);
    a_reserved_create(&engine, &server, &tls, (&ada, &ben), &seen);

    let serial = server.get("/api/users/ada/certs")["items"][0]["serial"].clone();
    let path = format!("/api/certs/{}", serial.as_str().unwrap());
    server.api("DELETE", &path, None);
    denied(&engine.by(&ada, &["logs", &id]), "was revoked");
    assert_eq!(engine.by(&ada, &["version"]).code, 1);

    // Without its plugin the engine lets nobody in.
    server.crash();
    let (status, body) = engine.ask(&ben, "GET", "/version", &[]);
    assert_eq!(status, "500", "{body}");
    server.restart();
    assert_eq!(engine.by(&ben, &["version"]).code, 0);
    engine.by(&tls.join("engine"), &["rm", "-f", &id]);
}

/// The engine reads forms and long bodies that it does not show.
fn bodies_that_were_not_shown(engine: &Engine, ada: &Path, id: &str) {
    let long = engine.path("long.json");
    let padding = " ".repeat(1 << 20);
    std::fs::write(
        &long,
        format!("{{\"Image\": \"{IMAGE}\",{padding}\"HostConfig\": {{\"Privileged\": true}}}}"),
    )
    .unwrap();
    let long = format!("@{}", long.display());
    let json = "Content-Type: application/json";
    let form = "Content-Type: application/x-www-form-urlencoded";
    let kill = format!("/v1.41/containers/{id}/kill");
    let start = format!("/v1.41/containers/{id}/start");
    for (path, more) in [
        (
            "/v1.41/containers/create",
            vec!["-H", json, "--data-binary", &long],
        ),
        (
            "/v1.41/containers/create",
            vec![
                "-H",
                json,
                "-H",
                "Transfer-Encoding: chunked",
                "-d",
                "{\"Image\":\"x\"}",
            ],
        ),
        (
            "/v1.41/containers/create",
            vec!["-H", "Content-Type: text/plain", "-d", "{\"Image\":\"x\"}"],
        ),
        (
            "/v1.41/containers/create",
            vec!["-H", json, "-d", "{\"Image\":\"x\",\"image\":\"y\"}"],
        ),
        (&kill, vec!["-H", form, "-d", "signal=KILL"]),
        (&start, vec!["-H", json, "-d", "{\"Binds\":[\"/:/host\"]}"]),
        (
            "/v1.41/containers/create?name=a&name=b",
            vec!["-H", json, "-d", "{}"],
        ),
        ("/v1.41/containers%2fcreate", vec!["-H", json, "-d", "{}"]),
        ("/v1.23/containers/create", vec!["-H", json, "-d", "{}"]),
    ] {
        let (status, body) = engine.ask(ada, "POST", path, &more);
        assert!(status == "403", "{path} {more:?}: {status} {body}");
    }
}

/// A platform reserves, and writes what Plimsoll would have written.
fn a_reserved_create(
    engine: &Engine,
    server: &Server,
    tls: &Path,
    (ada, ben): (&Path, &Path),
    like: &Value,
) {
    let ask = json!({"cpuCores": 0.2, "memoryGB": 0.0625, "pids": 512, "storageGB": 10, "tempStorageGB": 1});
    let reserved = server.post(
        "/api/reservations",
        json!({"user": "ada", "resourceRequest": ask, "containerName": "job"}),
    );
    let id = reserved["id"].as_str().unwrap();
    let mut labels = like["Config"]["Labels"].clone();
    labels["plimsoll.reservation"] = json!(id);
    let host = &like["HostConfig"];
    let mut body = json!({
        "Image": like["Image"], "Cmd": ["sleep", "1000"], "Labels": labels,
        "AttachStdin": false, "AttachStdout": false, "AttachStderr": false, "Tty": false,
        "OpenStdin": false, "StdinOnce": false, "HostConfig": {},
    });
    for field in [
        "CgroupParent",
        "CgroupnsMode",
        "IpcMode",
        "NanoCpus",
        "Memory",
        "MemorySwap",
        "PidsLimit",
        "ShmSize",
        "LogConfig",
        "RestartPolicy",
        "AutoRemove",
        "PublishAllPorts",
        "ReadonlyRootfs",
    ] {
        body["HostConfig"][field] = host[field].clone();
    }
    body["HostConfig"]["NetworkMode"] = json!("none");
    let own = like["Name"].as_str().unwrap().trim_start_matches('/');
    let name = own.replace(".web", ".job");
    let create = |certs: &Path, name: &str, body: &Value| {
        let path = format!("/v1.41/containers/create?name={name}");
        let more = [
            "-H",
            "Content-Type: application/json",
            "-d",
            &body.to_string(),
        ];
        let (status, answer) = engine.ask(certs, "POST", &path, &more);
        (
            status,
            answer["message"].as_str().unwrap_or_default().to_owned(),
            answer,
        )
    };
    for (field, value) in [
        ("CgroupParent", json!("")),
        ("PidsLimit", Value::Null),
        ("Memory", json!(128 << 20)),
        ("CgroupnsMode", json!("")),
        ("NetworkMode", json!("bridge")),
    ] {
        let mut other = body.clone();
        other["HostConfig"][field] = value;
        let (status, message, _) = create(ada, &name, &other);
        assert_eq!(status, "403", "{field}: {message}");
    }
    let (status, message, _) = create(ada, "job", &body);
    assert_eq!(status, "403");
    assert!(
        message.contains(&format!("the name must be {name}")),
        "{message}"
    );
    let (status, message, _) = create(ben, &name, &body);
    assert_eq!(status, "403");
    assert!(message.contains("no reservation"), "{message}");
    let (status, message, made) = create(ada, &name, &body);
    assert_eq!(status, "201", "{message}");
    // Bound before its maker hears of it, good for one, and startable once.
    let container = made["Id"].as_str().unwrap();
    assert_eq!(server.full_id("ada", "job"), container);
    let (status, message, _) = create(ada, &name, &body);
    assert_eq!(status, "403");
    assert!(message.contains("waits for its container"), "{message}");
    let started = engine.by(ada, &["start", container]);
    assert_eq!(started.code, 0, "{started:?}");
    assert_eq!(engine.inspect(tls, container)["State"]["Running"], true);
    assert_eq!(server.container("ada", "job").unwrap()["state"], "active");
    assert_eq!(engine.by(ada, &["rm", "-f", container]).code, 0);
    wait_for("the charge to go", || {
        server.container("ada", "job").is_none().then_some(())
    });
}
