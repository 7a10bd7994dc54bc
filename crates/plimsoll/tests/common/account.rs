//! People with an account on the host.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{Server, Tenant};

/// An account of the host with a home, removed when dropped.
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
    _dir: tempfile::TempDir,
}

impl Account {
    pub fn new(uid: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let name = format!("plimsoll-t{uid}");
        let home = dir.path().join("home");
        let made = Command::new("useradd")
            .args([
                "--uid",
                &uid.to_string(),
                "--user-group",
                "--create-home",
                "--home-dir",
            ])
            .arg(&home)
            .args([
                "--key",
                "UID_MAX=70000",
                "--shell",
                "/usr/sbin/nologin",
                &name,
            ])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self {
            name,
            uid,
            gid: std::fs::metadata(&home).unwrap().gid(),
            home,
            _dir: dir,
        }
    }

    /// A folder or file of theirs.
    pub fn own(&self, path: &Path, mode: u32) {
        chown(path, Some(self.uid), Some(self.gid)).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.home.join(name);
        std::fs::create_dir(&path).unwrap();
        self.own(&path, 0o755);
        path
    }

    /// The same person as a user with room for small things.
    pub fn tenant(&self, server: &Server, name: &str) -> Tenant {
        let limits = json!({"maxMemoryGB": 1, "maxCpuCores": 2, "maxStorageGB": 20});
        server.tenant(name, self.uid, limits)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}
