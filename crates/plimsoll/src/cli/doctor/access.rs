//! Who walks past Plimsoll: everybody who reaches the engine, or root, some other way.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::accounts::{Accounts, sudo_rules};
use super::{Check, at, dockerd, named};
use crate::config::{Address, Config};

pub(super) fn check(config: &Config, root: &Path) -> Vec<Check> {
    let accounts = Accounts::read(root);
    // An engine that is reached over TLS has its usual socket, too.
    let socket = match Address::of(&config.engine) {
        Address::Unix(path) => path,
        Address::Tls(_) => Path::new("/var/run/docker.sock"),
    };
    let mut checks = engine_socket(&at(root, socket), &accounts);
    checks.push(docker_group(&accounts));
    checks.push(sudo(root, &accounts));
    let roots = accounts.other_roots();
    if !roots.is_empty() {
        checks.push(Check::warn(
            "uid 0",
            format!("{} are root under another name", named(&roots)),
            "give them uids of their own: usermod -u",
        ));
    }
    checks.push(tcp(root));
    checks.push(other_engines(root));
    checks
}

fn engine_socket(socket: &Path, accounts: &Accounts) -> Vec<Check> {
    let shown = socket.display();
    let Ok(meta) = std::fs::metadata(socket) else {
        return vec![Check::good(
            "engine socket",
            format!("{shown} is not there"),
        )];
    };
    let mode = meta.mode();
    if mode & 0o002 != 0 {
        return vec![Check::fail(
            "engine socket",
            format!(
                "everybody may open {shown} (mode {:o}) and so is root here",
                mode & 0o777
            ),
            format!("chmod 660 {shown}; chgrp root {shown}"),
        )];
    }
    let mut checks = Vec::new();
    if meta.uid() != 0 {
        let owner = accounts.user(meta.uid());
        checks.push(Check::warn(
            "engine socket",
            format!("{shown} belongs to {owner}, who walks past Plimsoll"),
            format!("chown root {shown}"),
        ));
    }
    let group = accounts.group(meta.gid());
    let members = accounts.members(meta.gid());
    if mode & 0o020 != 0 && !members.is_empty() && group != "docker" {
        checks.push(Check::warn(
            "engine socket",
            format!(
                "group {group} may open {shown}: {} walk past Plimsoll",
                named(&members)
            ),
            format!("gpasswd -d NAME {group}, or chgrp root {shown}"),
        ));
    }
    if checks.is_empty() {
        let found = format!(
            "{shown} is open to root and group {group} (mode {:o})",
            mode & 0o777
        );
        checks.push(Check::good("engine socket", found));
    }
    checks
}

fn docker_group(accounts: &Accounts) -> Check {
    let members = accounts
        .gid("docker")
        .map_or_else(Vec::new, |gid| accounts.members(gid));
    match members.first() {
        None => Check::good("docker group", "nobody is in group docker"),
        Some(first) => Check::warn(
            "docker group",
            format!(
                "in group docker, and so root here, past every quota: {}",
                named(&members)
            ),
            format!(
                "gpasswd -d {first} docker, and let them log in again; the gateway serves them"
            ),
        ),
    }
}

fn sudo(root: &Path, accounts: &Accounts) -> Check {
    let rules = match sudo_rules(root) {
        Ok(rules) => rules,
        Err((path, error)) => {
            let found = format!("{} cannot be read: {error}", path.display());
            return Check::warn("sudo", found, "run doctor as root");
        }
    };
    let mut people = BTreeSet::new();
    let mut silent = BTreeSet::new();
    for rule in &rules {
        let whom = match rule.who.strip_prefix('%') {
            Some(group) => accounts
                .gid(group)
                .map_or_else(Vec::new, |gid| accounts.members(gid)),
            None => vec![rule.who.clone()],
        };
        if rule.no_password && !whom.is_empty() {
            silent.insert(rule.place.clone());
        }
        people.extend(whom);
    }
    let people: Vec<String> = people.into_iter().collect();
    if people.is_empty() {
        return Check::good("sudo", "nobody becomes root by it");
    }
    let mut found = format!("become root by sudo, past every quota: {}", named(&people));
    if !silent.is_empty() {
        let places: Vec<String> = silent.into_iter().collect();
        found.push_str(&format!("; without a password by {}", named(&places)));
    }
    let fix = "that is right for administrators; take tenants out (gpasswd -d NAME sudo, visudo)";
    Check::warn("sudo", found, fix)
}

fn tcp(root: &Path) -> Check {
    let setup = dockerd::read(root);
    let open = setup.tcp();
    if open.is_empty() {
        Check::good("engine over TCP", "it does not listen on the network")
    } else if setup.tls_verify {
        Check::warn(
            "engine over TCP",
            format!(
                "it listens on {} for whoever has a client certificate",
                named(&open)
            ),
            "keep those certificates with administrators, or remove the address",
        )
    } else {
        Check::fail(
            "engine over TCP",
            format!(
                "it listens on {} without asking for a certificate: whoever reaches that is root here",
                named(&open)
            ),
            "remove the address (hosts in /etc/docker/daemon.json, -H in its unit), or set tlsverify",
        )
    }
}

fn other_engines(root: &Path) -> Check {
    let mut found = Vec::new();
    let containerd = at(root, "/run/containerd/containerd.sock");
    if std::fs::metadata(&containerd).is_ok_and(|meta| meta.mode() & 0o002 != 0) {
        return Check::fail(
            "other engines",
            format!(
                "everybody may open {} and so is root here",
                containerd.display()
            ),
            format!("chmod 660 {}", containerd.display()),
        );
    }
    if ["/usr/bin/podman", "/usr/local/bin/podman"]
        .iter()
        .any(|p| at(root, p).exists())
    {
        found.push("podman".to_owned());
    }
    let users = std::fs::read_dir(at(root, "/run/user"))
        .into_iter()
        .flatten()
        .flatten();
    let rootless = users
        .filter(|dir| dir.path().join("docker.sock").exists())
        .count();
    let rootless = rootless.max(dockerd::read(root).rootless);
    if rootless > 0 {
        found.push(format!("{rootless} rootless docker"));
    }
    if found.is_empty() {
        Check::good("other engines", "none found")
    } else {
        Check::warn(
            "other engines",
            format!("{}: containers there are not counted", found.join(", ")),
            "remove them, or bound their users: systemctl set-property user-UID.slice MemoryMax=...",
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Status;
    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new(files: &[(&str, &str, u32)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for (path, content, mode) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Self(root)
        }

        fn find(&self, name: &str) -> Check {
            let checks = check(&Config::default(), self.0.path());
            let found = checks.iter().find(|check| check.name == name);
            found
                .unwrap_or_else(|| panic!("{name} in {checks:?}"))
                .clone()
        }
    }

    const PASSWD: &str = "root:x:0:0::/:\nada:x:1000:1000::/:\nben:x:1001:1001::/:\n";

    #[test]
    fn each_way_past_is_found_and_named() {
        for (files, name, status, says) in [
            (&[][..], "docker group", Status::Good, "nobody"),
            (
                &[("etc/group", "docker:x:999:ada,ben\n", 0o644)],
                "docker group",
                Status::Warn,
                "ada and ben",
            ),
            (
                &[("var/run/docker.sock", "", 0o666)],
                "engine socket",
                Status::Fail,
                "everybody",
            ),
            (
                &[("var/run/docker.sock", "", 0o660)],
                "engine socket",
                Status::Good,
                "mode 660",
            ),
            (
                &[("etc/sudoers", "%sudo ALL=(ALL) ALL\n", 0o440)],
                "sudo",
                Status::Good,
                "nobody",
            ),
            (
                &[
                    ("etc/sudoers", "%sudo ALL=(ALL) ALL\n", 0o440),
                    ("etc/group", "sudo:x:27:ada\n", 0o644),
                ],
                "sudo",
                Status::Warn,
                "past every quota: ada",
            ),
            (
                &[("etc/sudoers.d/ben", "ben ALL=(ALL) NOPASSWD: ALL\n", 0o440)],
                "sudo",
                Status::Warn,
                "ben; without a password by ben:1",
            ),
            (
                &[(
                    "etc/docker/daemon.json",
                    r#"{"hosts":["tcp://0.0.0.0:2375"]}"#,
                    0o644,
                )],
                "engine over TCP",
                Status::Fail,
                "tcp://0.0.0.0:2375",
            ),
            (
                &[(
                    "etc/docker/daemon.json",
                    r#"{"hosts":["tcp://:2376"],"tlsverify":true}"#,
                    0o644,
                )],
                "engine over TCP",
                Status::Warn,
                "certificate",
            ),
            (&[], "engine over TCP", Status::Good, "does not listen"),
            (
                &[("usr/bin/podman", "", 0o755)],
                "other engines",
                Status::Warn,
                "podman",
            ),
            (
                &[("run/user/1000/docker.sock", "", 0o600)],
                "other engines",
                Status::Warn,
                "rootless",
            ),
            (
                &[("run/containerd/containerd.sock", "", 0o666)],
                "other engines",
                Status::Fail,
                "everybody",
            ),
            (
                &[("etc/passwd", "root:x:0:0::/:\ntoor:x:0:0::/:\n", 0o644)],
                "uid 0",
                Status::Warn,
                "toor",
            ),
        ] {
            let mut all = vec![("etc/passwd", PASSWD, 0o644)];
            all.extend_from_slice(files);
            let check = Host::new(&all).find(name);
            assert_eq!(check.status, status, "{files:?}: {check:?}");
            assert!(check.found.contains(says), "{files:?}: {check:?}");
            assert_eq!(check.fix.is_some(), status != Status::Good, "{check:?}");
        }
    }
}
