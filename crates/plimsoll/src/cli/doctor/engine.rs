//! The container engine: is it there, and does Plimsoll know its kind?

use std::path::Path;

use plimsoll_host::engine::{API_SPOKEN, ApiVersion, Engine, EngineError, EngineInfo};

use super::{Check, at, dockerd};
use crate::config::{Address, Config};
use crate::engine_tls;
use crate::tasks::in_full;

/// The API version that the tests run on.
const API_TESTED: ApiVersion = ApiVersion {
    major: 1,
    minor: 41,
};

pub(super) async fn check(config: &Config, root: &Path) -> (Vec<Check>, Option<EngineInfo>) {
    let (engine, place) = match Address::of(&config.engine) {
        Address::Unix(path) => {
            let socket = at(root, path);
            (Engine::new(&socket), socket.display().to_string())
        }
        Address::Tls(_) => match engine_tls::engine(config) {
            Ok(engine) => (engine, config.engine.clone()),
            Err(error) => {
                let fix = "plimsoll ca init, or put ca.pem, cert.pem and key.pem for the engine into \
                           tls/engine of the data directory";
                return (vec![Check::fail("engine", in_full(&error), fix)], None);
            }
        },
    };
    let mut checks = Vec::new();
    let version = match engine.negotiate().await {
        Ok(version) => version,
        Err(error @ EngineError::NoCommonVersion { .. }) => {
            let fix = format!(
                "use an engine that speaks an API version from {} to {}",
                API_SPOKEN.start(),
                API_SPOKEN.end()
            );
            return (vec![Check::fail("engine", in_full(&error), fix)], None);
        }
        Err(error) => {
            let fix = "start it (systemctl start docker), run doctor as root, or set `engine` in \
                       the configuration";
            return (vec![Check::fail("engine", in_full(&error), fix)], None);
        }
    };
    checks.push(Check::good(
        "engine",
        format!("version {} at {place}", version.engine),
    ));
    let range = format!(
        "API {} (of {} to {})",
        version.api, version.api_min, version.api_max
    );
    checks.push(if version.api == API_TESTED {
        Check::good("engine API", range)
    } else {
        Check::warn(
            "engine API",
            format!("{range} is spoken; Plimsoll is tested with {API_TESTED}"),
            "try a container as a tenant before others do, and report what differs",
        )
    });
    let info = match engine.info().await {
        Ok(info) => info,
        Err(error) => {
            let fix = "look into the engine's log: journalctl -u docker";
            checks.push(Check::fail("engine info", in_full(&error), fix));
            return (checks, None);
        }
    };
    checks.push(storage(&info));
    let setup = dockerd::read(root);
    if let Some(why) = &setup.unreadable {
        checks.push(Check::warn(
            "daemon.json",
            format!("/etc/docker/daemon.json is not JSON: {why}"),
            "mend it: the engine will not start with it again",
        ));
    }
    checks.push(packet_filter(&setup, root));
    (checks, Some(info))
}

fn storage(info: &EngineInfo) -> Check {
    match info.driver.as_str() {
        driver @ ("btrfs" | "zfs" | "devicemapper") => Check::good(
            "storage driver",
            format!("{driver}, which holds a container to its size"),
        ),
        driver => Check::warn(
            "storage driver",
            format!(
                "{driver} does not hold a container to its size everywhere; storage is charged and measured"
            ),
            "for a hard bound keep the engine's data on XFS with project quotas, or use btrfs or zfs",
        ),
    }
}

fn packet_filter(setup: &dockerd::Dockerd, root: &Path) -> Check {
    let places = ["/usr/sbin/iptables", "/sbin/iptables", "/usr/bin/iptables"];
    let installed = places
        .iter()
        .any(|path| at(root, path).symlink_metadata().is_ok());
    if !installed {
        Check::warn(
            "iptables",
            "iptables is not installed: published ports and bridge networks do not work",
            "apt-get install iptables, and restart the engine",
        )
    } else if !setup.iptables {
        Check::fail(
            "iptables",
            "the engine is told to leave the packet filter alone (iptables: false): tenants reach each \
             other's containers",
            "remove that from /etc/docker/daemon.json, or write the rules yourself",
        )
    } else {
        Check::good("iptables", "installed")
    }
}
