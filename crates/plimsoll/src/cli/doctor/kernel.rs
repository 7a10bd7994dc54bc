//! Cgroups: what holds tenants to their limits when they run.

use std::path::Path;

use plimsoll_host::cgroup::{Driver, Hierarchy, Version};
use plimsoll_host::engine::EngineInfo;

use super::{Check, at};
use crate::config::Config;
use crate::install::{Target, UNITS};
use crate::tasks::in_full;

pub(super) fn check(config: &Config, root: &Path, info: Option<&EngineInfo>) -> Vec<Check> {
    let cgroups = at(root, &config.cgroup_root);
    // Without an engine its driver is unknown; what is mounted can be looked at all the same.
    let driver = match info.map(|info| info.cgroup_driver.parse::<Driver>()) {
        Some(Ok(driver)) => Some(driver),
        Some(Err(error)) => {
            let fix = "set native.cgroupdriver=systemd (cgroup v2) or cgroupfs (v1) in \
                       /etc/docker/daemon.json, and restart the engine";
            return vec![Check::fail("cgroup driver", error.to_string(), fix)];
        }
        None => None,
    };
    let hierarchy = match Hierarchy::detect(&cgroups, driver.unwrap_or(Driver::Cgroupfs)) {
        Ok(hierarchy) => hierarchy,
        Err(error) => {
            let fix = "mount cgroups there, or set `cgroup_root` in the configuration";
            return vec![Check::fail("cgroups", in_full(&error), fix)];
        }
    };
    let version = hierarchy.version();
    let mut checks = vec![layout(version, driver)];
    checks.extend(controllers(&cgroups, version));
    checks.push(swap(&cgroups, root, version));
    checks.push(boot_caps(root));
    checks
}

fn layout(version: Version, driver: Option<Driver>) -> Check {
    let name = match version {
        Version::V1 => "cgroup v1",
        Version::V2 => "cgroup v2",
    };
    match (version, driver) {
        (_, None) => Check::good("cgroups", name),
        (Version::V1, Some(Driver::Cgroupfs)) | (Version::V2, Some(Driver::Systemd)) => {
            let driver = if version == Version::V1 {
                "cgroupfs"
            } else {
                "systemd"
            };
            Check::good("cgroups", format!("{name}, by {driver}"))
        }
        (Version::V1, Some(Driver::Systemd)) => Check::warn(
            "cgroups",
            "cgroup v1 by systemd, which Plimsoll is not tested with",
            "use cgroup v2 (the default since Debian 11), or the cgroupfs driver",
        ),
        (Version::V2, Some(Driver::Cgroupfs)) => Check::warn(
            "cgroups",
            "cgroup v2 by cgroupfs, which Plimsoll is not tested with",
            "where systemd runs, set native.cgroupdriver=systemd in /etc/docker/daemon.json",
        ),
    }
}

fn controllers(cgroups: &Path, version: Version) -> Vec<Check> {
    const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
    let has: Box<dyn Fn(&str) -> bool> = match version {
        Version::V1 => Box::new(|name| cgroups.join(name).is_dir()),
        Version::V2 => {
            let file = cgroups.join("cgroup.controllers");
            let text = std::fs::read_to_string(file).unwrap_or_default();
            Box::new(move |name| text.split_whitespace().any(|word| word == name))
        }
    };
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return vec![Check::good("controllers", NEEDED.join(", "))];
    }
    let fix = "boot with cgroup_enable=memory (on some boards), and a kernel built with them";
    missing
        .into_iter()
        .map(|name| {
            Check::fail(
                "controllers",
                format!("the controller {name} is missing"),
                fix,
            )
        })
        .collect()
}

fn swap(cgroups: &Path, root: &Path, version: Version) -> Check {
    let swaps = std::fs::read_to_string(at(root, "/proc/swaps")).unwrap_or_default();
    // The first line is the heading.
    let swaps_on = swaps.lines().nth(1).is_some();
    let counted =
        version == Version::V2 || cgroups.join("memory/memory.memsw.limit_in_bytes").exists();
    match (swaps_on, counted) {
        (true, true) => Check::good("swap", "on, and counted with memory"),
        (false, true) => Check::good("swap", "off; it would be counted with memory"),
        (false, false) => Check::good("swap", "off, so it need not be counted"),
        (true, false) => Check::warn(
            "swap",
            "on, but not counted: a container at its memory limit goes on in swap",
            "boot with swapaccount=1, or turn swap off: swapoff -a",
        ),
    }
}

fn boot_caps(root: &Path) -> Check {
    let unit = at(root, "/etc/systemd/system").join(UNITS[0]);
    if unit.exists() {
        return Check::good(
            "caps at boot",
            format!("{} restores them before the engine", UNITS[0]),
        );
    }
    let found = "after a boot the engine starts containers before their tenants' caps are there";
    let fix = if Target::new(root).has_systemd() {
        "plimsoll install"
    } else {
        "let your init system run `plimsoll caps restore` before it starts the engine"
    };
    Check::warn("caps at boot", found, fix)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Status;
    use super::*;

    fn v1(names: &[&str]) -> (tempfile::TempDir, Config) {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir_all(root.path().join("sys/fs/cgroup").join(name)).unwrap();
        }
        fs::create_dir_all(root.path().join("proc")).unwrap();
        (root, Config::default())
    }

    fn status(checks: &[Check], name: &str) -> Status {
        checks
            .iter()
            .find(|c| c.name == name)
            .unwrap_or_else(|| panic!("{name} in {checks:?}"))
            .status
    }

    #[test]
    fn missing_cgroups_and_controllers_fail() {
        let (root, config) = v1(&[]);
        assert_eq!(
            status(&check(&config, root.path(), None), "cgroups"),
            Status::Fail
        );
        let (root, config) = v1(&["cpu", "cpuacct", "memory"]);
        let checks = check(&config, root.path(), None);
        assert_eq!(status(&checks, "controllers"), Status::Fail);
        assert!(checks.iter().any(|c| c.found.contains("pids")));
        fs::create_dir_all(root.path().join("sys/fs/cgroup/pids")).unwrap();
        assert_eq!(
            status(&check(&config, root.path(), None), "controllers"),
            Status::Good
        );
    }

    #[test]
    fn swap_that_is_on_must_be_counted() {
        let (root, config) = v1(&["cpu", "cpuacct", "memory", "pids"]);
        let swaps = root.path().join("proc/swaps");
        let memsw = root
            .path()
            .join("sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
        for (on, counted, expected) in [
            (false, false, Status::Good),
            (true, false, Status::Warn),
            (true, true, Status::Good),
            (false, true, Status::Good),
        ] {
            fs::write(
                &swaps,
                if on {
                    "Filename\n/dev/sda2 partition\n"
                } else {
                    "Filename\n"
                },
            )
            .unwrap();
            let _ = fs::remove_file(&memsw);
            if counted {
                fs::write(&memsw, "1").unwrap();
            }
            assert_eq!(
                status(&check(&config, root.path(), None), "swap"),
                expected,
                "{on} {counted}"
            );
        }
    }

    #[test]
    fn the_boot_unit_is_looked_for() {
        let (root, config) = v1(&["cpu", "cpuacct", "memory", "pids"]);
        assert_eq!(
            status(&check(&config, root.path(), None), "caps at boot"),
            Status::Warn
        );
        let units = root.path().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join(UNITS[0]), "").unwrap();
        assert_eq!(
            status(&check(&config, root.path(), None), "caps at boot"),
            Status::Good
        );
    }
}
