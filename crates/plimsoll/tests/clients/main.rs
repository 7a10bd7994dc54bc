//! Clients that others wrote, each as a tenant of the gateway: docker-py by its own tests, and
//! testcontainers. `scripts/clients.sh` fetches them and runs this.

#![allow(
    clippy::disallowed_methods,
    reason = "where the clients are is said in the environment"
)]

#[path = "../common/mod.rs"]
mod common;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::account::Account;
use common::{Server, Tenant, said};
use serde_json::json;

/// What the clients' tests want of the images they pull: a user and a folder.
const DOCKERFILE: &str = "FROM plimsoll/example
RUN echo postgres:x:70:70::/:/bin/sh >>/etc/passwd && mkdir -p /var/opt
";

/// A tenant with an account and a home, and what they run.
struct Desk {
    // Dropped in this order.
    server: Server,
    account: Account,
}

impl Desk {
    /// Publishes from `port` on: servers side by side share the rest of a host.
    fn new(uid: u32, port: u16) -> Self {
        let ports = format!("ports.first={port}");
        let server = Server::start_with(
            &common::engine(),
            &["--set", &ports, "--set", "networks.per_user_max=20"],
        );
        let account = Account::new(uid);
        let limits = json!({"maxMemoryGB": 2, "maxCpuCores": 1, "maxStorageGB": 200,
                            "maxContainers": 300, "maxConcurrentContainers": 5});
        let tenant = server.tenant("ada", uid, limits);
        make_images(&tenant);
        account.folder("tmp");
        // Of its own: no other account reads what is below root's home.
        let fetched = std::env::var_os("PLIMSOLL_CLIENTS").expect("scripts/clients.sh runs this");
        copy(&PathBuf::from(fetched), &server.path("clients"));
        // Where a client without a configuration writes one.
        account.own(&server.path("clients/docker-py"), 0o755);
        Self { server, account }
    }

    /// Runs Python in the clients' folder, and expects it to succeed.
    fn python(&self, args: &[&str]) {
        let clients = self.server.path("clients");
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        copy(&here, &clients.join("here"));
        let paths = [clients.join("site"), clients.join("here")];
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(args)
            .uid(self.account.uid)
            .gid(self.account.gid)
            .env_clear()
            .env("PATH", "/nonexistent")
            .env("HOME", &self.account.home)
            .env("TMPDIR", self.account.home.join("tmp"))
            .env("PYTHONPATH", std::env::join_paths(paths).unwrap())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TESTCONTAINERS_RYUK_DISABLED", "true")
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.server.path("docker.sock").display()),
            )
            .current_dir(clients.join("docker-py"))
            .stdin(Stdio::null());
        let said = said(&command.output().unwrap());
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        println!("{}", said.out);
    }

    /// docker-py's tests of these files and folders.
    fn docker_py(&self, files: &[String]) {
        let mut args = vec!["-m", "pytest", "-p", "no:cacheprovider", "-p", "expected"];
        args.extend(["--timeout", "120", "--quiet"]);
        args.extend(files.iter().map(String::as_str));
        self.python(&args);
    }
}

/// Names of the tenant's own, as if they had pulled them.
fn make_images(tenant: &Tenant) {
    let mut build = vec!["build", "--quiet"];
    for name in ["alpine:3.10", "alpine:latest", "busybox:latest"] {
        build.extend(["--tag", name]);
    }
    build.push("-");
    let command = &mut tenant.command(&build);
    let built = common::fed(command.env("DOCKER_BUILDKIT", "0"), DOCKERFILE.as_bytes());
    assert_eq!(built.code, 0, "{}", built.err);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .args(["--recursive", "--no-target-directory"])
        .args([from, to])
        .status();
    assert!(copied.unwrap().success());
    let opened = Command::new("chmod").args(["-R", "a+rX"]).arg(to).status();
    assert!(opened.unwrap().success());
}

/// What docker-py tests with, by `wanted`.
fn files(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let fetched = std::env::var_os("PLIMSOLL_CLIENTS").expect("scripts/clients.sh runs this");
    let folder = PathBuf::from(fetched).join("docker-py/tests/integration");
    let names = folder.read_dir().unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let tests = names.filter(|name| name.ends_with("_test.py") || name == "credentials");
    let mut found: Vec<String> = tests
        .filter(|name| wanted(name))
        .map(|name| format!("tests/integration/{name}"))
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

#[test]
#[ignore = "scripts/clients.sh fetches what it needs"]
fn docker_py_containers() {
    Desk::new(64_200, 21_000).docker_py(&files(|name| name == "api_container_test.py"));
}

#[test]
#[ignore = "scripts/clients.sh fetches what it needs"]
fn docker_py_models() {
    Desk::new(64_201, 21_500).docker_py(&files(|name| name.starts_with("models_")));
}

#[test]
#[ignore = "scripts/clients.sh fetches what it needs"]
fn docker_py_everything_else() {
    let other = |name: &str| !name.starts_with("models_") && name != "api_container_test.py";
    Desk::new(64_202, 22_000).docker_py(&files(other));
}

#[test]
#[ignore = "scripts/clients.sh fetches what it needs"]
fn testcontainers() {
    Desk::new(64_203, 22_500).python(&["../here/containers.py"]);
}
