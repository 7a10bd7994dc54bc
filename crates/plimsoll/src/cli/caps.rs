//! `plimsoll caps restore`: the tenants' cgroup limits, at boot, before the engine starts containers.
//!
//! The engine does not run yet, so nothing can be asked of it: how it lays out cgroups is read from
//! its own configuration.

use std::path::Path;

use plimsoll_host::cgroup::{Driver, Hierarchy, Instance};
use plimsoll_store::{LEDGER_FILE, Store, StoreError};
use serde_json::json;

use super::answer::Answer;
use super::args::Global;
use super::doctor::dockerd;
use super::error::CliError;
use crate::caps::{of_host, outcome, tree};
use crate::clock::Clock;
use crate::config::{Config, Sources};
use crate::tasks::in_full;

pub(super) async fn restore(global: &Global) -> Result<Answer, CliError> {
    let (config, _) = Sources::of_process(global.config.clone()).load()?;
    let said = restored(&config, Path::new("/")).await?;
    Ok(Answer::new(json!({"outcome": said}), format!("{said}\n")))
}

async fn restored(config: &Config, root: &Path) -> Result<String, CliError> {
    let failed = |error: &dyn std::error::Error| CliError::Caps(in_full(error));
    if !config.data_dir.join(LEDGER_FILE).exists() {
        return Ok("there is no ledger yet, and so no caps".to_owned());
    }
    let store = match Store::open(&config.data_dir, Clock::default().now_ms()) {
        Ok(store) => store,
        Err(StoreError::Locked { .. }) => {
            return Ok("the server is running and sets the caps itself".to_owned());
        }
        Err(error) => return Err(failed(&error)),
    };
    let folders = crate::folders::restore(config, &store).await;
    let instance: Instance = config.instance.parse().map_err(|error| failed(&error))?;
    let levels = of_host(&store, &instance, &config.host)
        .await
        .map_err(|error| failed(&error))?;
    if levels.is_empty() {
        return Ok("nobody holds anything here, and so there are no caps".to_owned());
    }
    let driver = driver(config, root);
    let hierarchy =
        Hierarchy::detect(&config.cgroup_root, driver).map_err(|error| failed(&error))?;
    let caps = outcome(&hierarchy.apply_tree(&tree(&levels))).map_err(CliError::Caps)?;
    match folders {
        Ok(0) => Ok(caps),
        Ok(containers) => Ok(format!(
            "{caps}; folders of {containers} containers mounted"
        )),
        Err(why) => Err(CliError::Caps(why)),
    }
}

/// The driver the engine will use: the configured one, else its own choice, which is systemd on
/// cgroup v2 where systemd runs.
fn driver(config: &Config, root: &Path) -> Driver {
    let configured = dockerd::read(root).cgroup_driver;
    if let Some(driver) = configured.and_then(|name| name.parse().ok()) {
        return driver;
    }
    let v2 = config.cgroup_root.join("cgroup.controllers").exists();
    if v2 && root.join("run/systemd/system").is_dir() {
        Driver::Systemd
    } else {
        Driver::Cgroupfs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_without_a_ledger_has_no_caps_and_gets_no_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: dir.path().join("data"),
            ..Config::default()
        };
        let said = restored(&config, dir.path()).await.unwrap();
        assert!(said.contains("no ledger"), "{said}");
        assert!(!config.data_dir.exists());
    }

    #[test]
    fn the_driver_is_the_engines_choice_before_the_engine_runs() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let config = Config {
            cgroup_root: root.join("cgroup"),
            ..Config::default()
        };
        std::fs::create_dir_all(&config.cgroup_root).unwrap();
        assert_eq!(driver(&config, root), Driver::Cgroupfs);
        std::fs::write(
            config.cgroup_root.join("cgroup.controllers"),
            "cpu memory pids",
        )
        .unwrap();
        assert_eq!(driver(&config, root), Driver::Cgroupfs, "no systemd runs");
        std::fs::create_dir_all(root.join("run/systemd/system")).unwrap();
        assert_eq!(driver(&config, root), Driver::Systemd);
        std::fs::create_dir_all(root.join("etc/docker")).unwrap();
        let json = r#"{"exec-opts": ["native.cgroupdriver=cgroupfs"]}"#;
        std::fs::write(root.join("etc/docker/daemon.json"), json).unwrap();
        assert_eq!(driver(&config, root), Driver::Cgroupfs);
    }
}
