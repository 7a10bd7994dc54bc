//! The data directory, the ledger in it, the disk under it, and the folders of the sockets.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use http::Method;
use plimsoll_core::units::Bytes;
use plimsoll_host::capacity;
use plimsoll_host::engine::EngineInfo;
use plimsoll_store::{LEDGER_FILE, Store, StoreError};
use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::super::client::Client;
use super::{Check, Status, at};
use crate::clock::Clock;
use crate::config::Config;
use crate::tasks::in_full;

/// Below this much free space there is a warning.
const DISK_LOW: Bytes = Bytes(1 << 30);
/// Below this much the ledger may stop at any moment.
const DISK_OUT: Bytes = Bytes(100 << 20);

pub(super) async fn check(config: &Config, root: &Path, info: Option<&EngineInfo>) -> Vec<Check> {
    let data_dir = at(root, &config.data_dir);
    let mut checks = Vec::new();
    let closed = access(&data_dir, Access::READ_OK | Access::EXEC_OK) == Err(Errno::ACCESS);
    if closed {
        checks.push(Check::warn(
            "data",
            format!(
                "{} is closed to this user, as it should be",
                data_dir.display()
            ),
            "run doctor as root to have the ledger checked",
        ));
    } else if data_dir.is_dir() {
        checks.push(folder(&data_dir));
        checks.push(ledger(config, root, &data_dir).await);
        checks.push(measured(&data_dir));
    } else {
        checks.push(Check::good(
            "data",
            format!(
                "{} is not there yet; the server makes it",
                data_dir.display()
            ),
        ));
    }
    checks.extend(disk("disk", &data_dir));
    if let Some(info) = info {
        checks.extend(disk("engine's disk", &at(root, &info.docker_root_dir)));
    }
    let sockets = config
        .gateway_sockets()
        .chain([config.api_socket.as_path()]);
    let folders: BTreeSet<&Path> = sockets.filter_map(Path::parent).collect();
    checks.extend(folders.into_iter().map(|dir| socket_folder(&at(root, dir))));
    checks
}

fn folder(dir: &Path) -> Check {
    let shown = dir.display();
    if let Err(error) = access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let found = format!("{shown} cannot be written: {error}");
        return Check::fail(
            "data",
            found,
            "run as root, or mount its file system writable",
        );
    }
    match std::fs::metadata(dir) {
        Ok(meta) if meta.mode() & 0o077 != 0 => Check::warn(
            "data",
            format!("{shown} is open to others (mode {:o})", meta.mode() & 0o777),
            format!("chmod 700 {shown}: it holds the administrator's token and everybody's use"),
        ),
        _ => Check::good("data", shown.to_string()),
    }
}

/// The ledger is checked here where no server has it, else the server is asked.
async fn ledger(config: &Config, root: &Path, data_dir: &Path) -> Check {
    if !data_dir.join(LEDGER_FILE).exists() {
        return Check::good("ledger", "there is none yet; the server makes it");
    }
    let store = match Store::open(data_dir, Clock::default().now_ms()) {
        Ok(store) => store,
        Err(StoreError::Locked { .. }) => return ready(&at(root, &config.api_socket)).await,
        Err(error) => {
            let fix = "run doctor as root; where the file is damaged, restore the last backup";
            return Check::fail("ledger", in_full(&error), fix);
        }
    };
    match store.check().await {
        Ok(differences) if differences.is_empty() => Check::good(
            "ledger",
            "sound: every balance is explained by its reservations",
        ),
        Ok(differences) => Check::fail(
            "ledger",
            differences.join("; "),
            "keep a copy of the data directory, and restore the last backup",
        ),
        Err(error) => Check::fail("ledger", in_full(&error), "restore the last backup"),
    }
}

/// What was measured: a server may have it open.
fn measured(data_dir: &Path) -> Check {
    let fix = "stop the server and restore the last backup, or go on: what does not read back is left out";
    match plimsoll_store::check_measured(data_dir) {
        Ok(found) if found.is_empty() => Check::good("history", "what was measured reads back"),
        Ok(found) => Check::warn("history", found.join("; "), fix),
        Err(error) => Check::warn("history", in_full(&error), fix),
    }
}

async fn ready(socket: &Path) -> Check {
    let client = Client::at_socket(socket.to_owned());
    match client.exchange(Method::GET, "/readyz", None).await {
        Ok((_, answer)) if answer["ready"] == true => Check::good(
            "server",
            format!("running and ready at {}", socket.display()),
        ),
        Ok((_, answer)) => {
            let part = |name: &str| match answer[name].as_str() {
                Some("ok") | None => None,
                Some(why) => Some(format!("{name}: {why}")),
            };
            let why: Vec<String> = ["ledger", "engine"].into_iter().filter_map(part).collect();
            Check::fail(
                "server",
                format!("running, but not ready: {}", why.join("; ")),
                "mend what it names; its log says more: journalctl -u plimsoll",
            )
        }
        Err(error) => Check::fail(
            "server",
            format!(
                "a server has the data directory, but does not answer: {}",
                in_full(&error)
            ),
            "look at its log (journalctl -u plimsoll), and restart it",
        ),
    }
}

/// Free space where `dir` is, or will be.
fn disk(name: &'static str, dir: &Path) -> Option<Check> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let disk = match capacity::disk(there) {
        Ok(disk) => disk,
        Err(error) => {
            let fix = "run doctor as root";
            return Some(Check::warn(name, in_full(&error), fix));
        }
    };
    let found = format!(
        "{} of {} free at {}",
        disk.available,
        disk.total,
        there.display()
    );
    let fix = "free some: docker system df shows what the engine holds";
    Some(if disk.available < DISK_OUT {
        Check::fail(name, found, fix)
    } else if disk.available < DISK_LOW {
        Check::warn(name, found, fix)
    } else {
        Check::good(name, found)
    })
}

/// Whoever can write the folder can put their own socket in place of ours; who cannot pass it cannot
/// reach the socket.
fn socket_folder(dir: &Path) -> Check {
    let shown = dir.display();
    let Ok(meta) = std::fs::metadata(dir) else {
        return Check::good(
            "sockets",
            format!("{shown} is not there yet; the server makes it"),
        );
    };
    let mode = meta.mode();
    let sticky = mode & 0o1000 != 0;
    let check = |status, why: &str, fix: String| Check {
        name: "sockets",
        status,
        found: format!("{shown} {why} (mode {:o})", mode & 0o7777),
        fix: Some(fix),
    };
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != me {
        let why = "belongs to somebody who could replace the sockets in it";
        check(Status::Fail, why, format!("chown root: {shown}"))
    } else if mode & 0o022 != 0 && !sticky {
        let why = "can be written by others, who could replace the sockets in it";
        check(Status::Fail, why, format!("chmod 755 {shown}"))
    } else if mode & 0o001 == 0 {
        let why = "is closed to tenants, who then cannot reach the sockets in it";
        check(Status::Warn, why, format!("chmod 755 {shown}"))
    } else {
        Check::good(
            "sockets",
            format!("{shown} lets everybody in and nobody write"),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_folder_of_the_sockets_is_passable_and_not_writable() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("run");
        assert_eq!(socket_folder(&dir).status, Status::Good);
        fs::create_dir(&dir).unwrap();
        for (mode, status) in [
            (0o755, Status::Good),
            (0o1777, Status::Good),
            (0o700, Status::Warn),
            (0o777, Status::Fail),
            (0o775, Status::Fail),
        ] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(socket_folder(&dir).status, status, "{mode:o}");
        }
    }

    #[tokio::test]
    async fn a_ledger_is_checked_and_one_that_is_none_fails() {
        let root = tempfile::tempdir().unwrap();
        let config = Config::default();
        let of = async |dir: &Path| ledger(&config, root.path(), dir).await;
        let sound = root.path().join("sound");
        fs::create_dir(&sound).unwrap();
        assert_eq!(of(&sound).await.status, Status::Good, "none yet");
        let store = Store::open(&sound, 0).unwrap();
        let served = of(&sound).await;
        assert_eq!(served.name, "server", "it is in use, so a server is asked");
        assert_eq!(served.status, Status::Fail, "which does not answer");
        drop(store);

        let other = root.path().join("other");
        drop(Store::open(&other, 0).unwrap());
        assert_eq!(of(&other).await.status, Status::Good);

        let damaged = root.path().join("damaged");
        fs::create_dir(&damaged).unwrap();
        let text = "this is no database, whatever it is called";
        fs::write(damaged.join(LEDGER_FILE), text).unwrap();
        assert_eq!(of(&damaged).await.status, Status::Fail);
    }
}
