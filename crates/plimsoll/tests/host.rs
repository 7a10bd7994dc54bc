//! `install`, `uninstall` and `doctor` on folders that stand for hosts.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use common::Server;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_plimsoll");

/// Where a coverage run collects what a program did: the one variable that is kept.
fn kept() -> Option<(&'static str, std::ffi::OsString)> {
    let name = "LLVM_PROFILE_FILE";
    std::env::var_os(name).map(|value| (name, value))
}

/// Runs the binary in an empty environment; exit code, stdout, stderr.
fn plimsoll(words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(BINARY);
    command.env_clear().envs(kept()).args(words);
    outcome(&mut command)
}

fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Everything below a folder: the path, and what it is.
fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let kind = entry.file_type().unwrap();
            let mode = fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
            let what = if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_dir() {
                format!("dir {mode:o}")
            } else {
                format!("file {mode:o}")
            };
            found.insert(name, what);
            if kind.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

struct Root(tempfile::TempDir);

impl Root {
    /// A host with systemd and some folders of its own.
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        root.write("usr/lib/systemd/systemd", "");
        root.write("etc/profile.d/other.sh", "");
        root
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap()
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        let root = self.0.path().to_str().unwrap();
        let (verb, rest) = words.split_first().unwrap();
        let mut all = vec![*verb, "--root", root];
        all.extend(rest);
        plimsoll(&all)
    }

    fn tree(&self) -> BTreeMap<String, String> {
        tree(self.0.path())
    }
}

#[test]
fn install_makes_exactly_its_files_and_uninstall_takes_exactly_those() {
    let root = Root::new();
    let before = root.tree();
    let (code, dry, err) = root.run(&["install", "--dry-run"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(root.tree(), before, "a dry run changes nothing");

    let (code, said, err) = root.run(&["install"]);
    assert_eq!(code, 0, "{err}");
    let steps = |text: &str| text.split("\n\n").next().unwrap().to_owned();
    assert_eq!(
        steps(&dry).trim(),
        steps(&said).trim(),
        "the dry run told what happened"
    );
    let made: Vec<(String, String)> = root
        .tree()
        .into_iter()
        .filter(|(path, _)| !before.contains_key(path))
        .collect();
    let expected = [
        ("etc/plimsoll", "dir 755"),
        ("etc/plimsoll/installed", "file 644"),
        ("etc/plimsoll/plimsoll.toml", "file 644"),
        ("etc/profile.d/plimsoll.sh", "file 644"),
        ("etc/systemd", "dir 755"),
        ("etc/systemd/system", "dir 755"),
        ("etc/systemd/system/docker.service.wants", "dir 755"),
        (
            "etc/systemd/system/docker.service.wants/plimsoll-caps.service",
            "-> /etc/systemd/system/plimsoll-caps.service",
        ),
        ("etc/systemd/system/multi-user.target.wants", "dir 755"),
        (
            "etc/systemd/system/multi-user.target.wants/plimsoll.service",
            "-> /etc/systemd/system/plimsoll.service",
        ),
        ("etc/systemd/system/plimsoll-caps.service", "file 644"),
        ("etc/systemd/system/plimsoll.service", "file 644"),
        ("usr/local", "dir 755"),
        ("usr/local/bin", "dir 755"),
        ("usr/local/bin/plimsoll", "file 755"),
        ("usr/local/lib", "dir 755"),
        ("usr/local/lib/docker", "dir 755"),
        ("usr/local/lib/docker/cli-plugins", "dir 755"),
        (
            "usr/local/lib/docker/cli-plugins/docker-quota",
            "-> /usr/local/bin/plimsoll",
        ),
    ];
    let expected: Vec<_> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    assert_eq!(made, expected);

    let (code, _, err) = root.run(&["install"]);
    assert_eq!(code, 0, "again is fine: {err}");
    let (code, _, err) = root.run(&["uninstall", "--dry-run"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        root.tree().len(),
        before.len() + expected.len(),
        "a dry run removes nothing"
    );
    let (code, _, err) = root.run(&["uninstall"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(root.tree(), before);
    let (code, _, err) = root.run(&["uninstall"]);
    assert_eq!(code, 1);
    assert!(err.contains("nothing is installed"), "{err}");
}

#[test]
fn what_people_changed_stays_until_it_is_purged() {
    let root = Root::new();
    root.run(&["install"]);
    let config = "lisen = \"uninstall does not mind\"\n";
    root.write("etc/plimsoll/plimsoll.toml", config);
    root.write("var/lib/plimsoll/ledger.db", "data");
    let (code, said, _) = root.run(&["install"]);
    assert_eq!(code, 0);
    assert!(
        said.contains("keep   /etc/plimsoll/plimsoll.toml"),
        "{said}"
    );
    assert_eq!(root.read("etc/plimsoll/plimsoll.toml"), config);

    let (code, said, err) = root.run(&["uninstall"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        said.contains("keep   /etc/plimsoll/plimsoll.toml (it was changed since"),
        "{said}"
    );
    assert!(
        said.contains("keep   /var/lib/plimsoll (the data"),
        "{said}"
    );
    assert_eq!(root.read("etc/plimsoll/plimsoll.toml"), config);
    assert_eq!(root.read("var/lib/plimsoll/ledger.db"), "data");
    assert!(!root.0.path().join("usr/local/bin/plimsoll").exists());

    root.run(&["install"]);
    let (code, _, err) = root.run(&["uninstall", "--purge"]);
    assert_eq!(code, 2, "a purge has to know where the data is: {err}");
    assert!(root.0.path().join("usr/local/bin/plimsoll").exists());
    root.write("etc/plimsoll/plimsoll.toml", "host = \"node1\"\n");
    let (code, _, err) = root.run(&["uninstall", "--purge"]);
    assert_eq!(code, 0, "{err}");
    for gone in ["var/lib/plimsoll", "etc/plimsoll"] {
        assert!(!root.0.path().join(gone).exists(), "{gone}");
    }
}

#[test]
fn purging_spares_a_folder_without_a_ledger_and_one_in_use() {
    let root = Root::new();
    root.run(&["install"]);
    root.write("etc/plimsoll/plimsoll.toml", "data_dir = \"/home\"\n");
    root.write("home/ada/thesis", "all of it");
    let (code, _, err) = root.run(&["uninstall", "--purge"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(root.read("home/ada/thesis"), "all of it");

    let server = Server::without_engine();
    let root = server.path("");
    let root = root.to_str().unwrap();
    plimsoll(&["install", "--root", root]);
    let config = "data_dir = \"/data\"\n";
    fs::write(server.path("etc/plimsoll/plimsoll.toml"), config).unwrap();
    let (code, _, err) = plimsoll(&["uninstall", "--purge", "--root", root]);
    assert_eq!(code, 1);
    assert!(err.contains("a server is using"), "{err}");
    assert!(server.path("data/ledger.db").exists());
}

#[test]
fn a_file_of_somebody_elses_is_not_overwritten_and_nothing_half_done() {
    let root = Root::new();
    root.write("etc/profile.d/plimsoll.sh", "somebody's own");
    let before = root.tree();
    let (code, _, err) = root.run(&["install"]);
    assert_eq!(code, 1);
    assert!(
        err.contains("etc/profile.d/plimsoll.sh") && err.contains("--force"),
        "{err}"
    );
    assert_eq!(root.tree(), before);
    let (code, _, err) = root.run(&["install", "--force"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        root.read("etc/profile.d/plimsoll.sh")
            .contains("DOCKER_HOST")
    );
}

#[test]
fn without_systemd_the_units_are_left_out_and_that_is_said() {
    let root = Root::new();
    fs::remove_file(root.0.path().join("usr/lib/systemd/systemd")).unwrap();
    let (code, said, err) = root.run(&["install"]);
    assert_eq!(code, 0, "{err}");
    assert!(said.contains("skip   there is no systemd here"), "{said}");
    assert!(said.contains("plimsoll caps restore"), "{said}");
    assert!(!root.0.path().join("etc/systemd").exists());
    assert!(root.0.path().join("usr/local/bin/plimsoll").exists());
}

fn checks(out: &str) -> BTreeMap<String, Value> {
    let all: Value = serde_json::from_str(out).expect("JSON");
    let list = all["checks"].as_array().expect("a list").clone();
    let named = list
        .into_iter()
        .map(|check| (check["name"].as_str().unwrap().to_owned(), check));
    named.collect()
}

#[test]
fn doctor_finds_what_is_wrong_with_a_host() {
    let root = Root::new();
    root.write("etc/group", "docker:x:999:ada,ben\nsudo:x:27:cleo\n");
    root.write("etc/sudoers", "%sudo ALL=(ALL:ALL) ALL\n");
    root.write(
        "etc/docker/daemon.json",
        r#"{"hosts": ["tcp://0.0.0.0:2375"]}"#,
    );
    root.write("etc/plimsoll/plimsoll.toml", "lisen = 1\n");
    fs::create_dir_all(root.0.path().join("run/plimsoll")).unwrap();
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(root.0.path().join("run/plimsoll"), open).unwrap();
    let (code, out, err) = root.run(&["doctor", "--json"]);
    assert_eq!(code, 1, "{err}");
    let found = checks(&out);
    for (name, status) in [
        ("configuration", "fail"),
        ("engine", "fail"),
        ("cgroups", "fail"),
        ("sockets", "fail"),
        ("engine over TCP", "fail"),
        ("docker group", "warn"),
        ("sudo", "warn"),
        ("other engines", "ok"),
    ] {
        assert_eq!(found[name]["status"], status, "{name}: {}", found[name]);
        assert_eq!(found[name]["fix"].is_string(), status != "ok", "{name}");
    }
    let (code, page, _) = root.run(&["doctor"]);
    assert_eq!(code, 1);
    assert!(
        page.contains("ada and ben") && page.contains("cleo"),
        "{page}"
    );
    for line in page.lines() {
        // A path that is longer than a line cannot be broken.
        let breaks = line.trim().contains(' ');
        assert!(
            line.chars().count() <= 80 || !breaks || line.contains("/tmp"),
            "{line}"
        );
    }
}

#[test]
fn doctor_on_this_host_knows_the_engine_and_the_running_server() {
    let server = Server::start();
    let mut command = Command::new(BINARY);
    command
        .env_clear()
        .envs(kept())
        .env("PLIMSOLL_ENGINE", common::engine())
        .env("PLIMSOLL_DATA_DIR", server.path("data"))
        .env("PLIMSOLL_API_SOCKET", server.path("api.sock"))
        .args(["doctor", "--json"]);
    let (_, out, _) = outcome(&mut command);
    let found = checks(&out);
    for name in ["engine", "cgroups", "controllers", "server"] {
        assert_eq!(found[name]["status"], "ok", "{}", found[name]);
    }
}
