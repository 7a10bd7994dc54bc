//! The data directory: one server, one schema, a disk that may be full, a file that may be tampered
//! with.

use std::path::Path;
use std::process::Command;

use plimsoll_core::{Dimension, State};
use plimsoll_store::{LEDGER_FILE, SCHEMA_VERSION, Store, StoreError};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::world::{World, container, cpu};

#[tokio::test]
async fn a_second_server_is_told_who_has_the_directory() {
    let w = World::new().await;
    let pid = std::process::id().to_string();
    assert_refused!(
        Store::open(w.path(), 0),
        StoreError::Locked { .. },
        pid.as_str()
    );
    // The lock goes with the server, at once.
    let ada = w.user("ada").await;
    let w = w.restarted().await;
    assert_eq!(w.store.user("ada").unwrap().id, ada);
}

#[tokio::test]
async fn a_restart_keeps_everything_and_fences_the_host() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    let id = w.run(ada, container(1000)).await;
    let epoch = w.lease.epoch;
    let w = w.restarted().await;
    assert_eq!(w.lease.epoch, epoch + 1);
    assert_eq!(w.user_cpu(ada), 1000);
    w.store.release(id, w.now()).await.unwrap();
    assert_eq!(w.user_cpu(ada), 0);
    w.sound().await;
}

/// The ledger as the disk has it when the machine loses power: everything up to `end` of the log.
fn as_left(w: &World, end: u64) -> TempDir {
    let left = TempDir::new().unwrap();
    let log = format!("{LEDGER_FILE}-wal");
    for file in [LEDGER_FILE, &log] {
        std::fs::copy(w.path().join(file), left.path().join(file)).unwrap();
    }
    let copy = std::fs::File::options()
        .write(true)
        .open(left.path().join(log));
    copy.unwrap().set_len(end).unwrap();
    left
}

#[tokio::test]
async fn what_was_only_seen_is_lost_with_the_power_and_seen_again() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.set(ada.0, Dimension::Cpu, 1000).await;
    let log = w.path().join(format!("{LEDGER_FILE}-wal"));
    let written = || std::fs::metadata(&log).unwrap().len();

    let id = w
        .reserve(ada, container(1000))
        .await
        .reservation
        .unwrap()
        .id;
    let reserved = written();
    let name = w.container_of(id);
    let bound = w.store.commit_keyed(id, name.clone(), w.deed()).await;
    assert!(bound.unwrap().reservation.is_some());
    assert!(
        written() > reserved,
        "the binding is written, if not waited for"
    );
    {
        let w = World::over(as_left(&w, reserved)).await;
        let pending = w.store.reservation(id).unwrap();
        assert_eq!((pending.state, pending.container), (State::Pending, None));
        // It is charged all the same, and the engine shows whose the container is.
        assert_eq!(w.user_cpu(ada), 1000);
        let again = w
            .store
            .bound(id, name.clone(), State::Active, w.now())
            .await;
        assert_eq!(again.unwrap().container, Some(name));
        assert_eq!(w.user_cpu(ada), 1000);
        w.sound().await;
    }

    // What is decided on what was seen is never on the disk without it.
    w.store.release(id, w.now()).await.unwrap();
    let released = written();
    let next = w
        .reserve(ada, container(1000))
        .await
        .reservation
        .unwrap()
        .id;
    for end in [reserved, released, written()] {
        let w = World::over(as_left(&w, end)).await;
        assert_eq!(w.user_cpu(ada), if end == released { 0 } else { 1000 });
        assert_eq!(w.store.reservation(next).is_ok(), end == written());
        w.sound().await;
    }
}

/// Everything that defines the ledger and was there when it was made.
fn made_of(path: &Path) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut text = Vec::new();
    for sql in [
        "SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name",
        "SELECT idx || name || unit FROM dimension ORDER BY idx",
        "SELECT name || limits || defaults FROM quota_class ORDER BY name",
        "SELECT entity_id || limits || version FROM quota ORDER BY entity_id",
        "SELECT user_version FROM pragma_user_version",
    ] {
        let mut statement = db.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| {
            row.get::<_, rusqlite::types::Value>(0)
                .map(|v| format!("{v:?}"))
        });
        text.extend(rows.unwrap().map(Result::unwrap));
    }
    text
}

#[test]
fn opening_again_changes_nothing() {
    let dir = TempDir::new().unwrap();
    drop(Store::open(dir.path(), 0).unwrap());
    let first = made_of(&dir.path().join(LEDGER_FILE));
    drop(Store::open(dir.path(), 99).unwrap());
    assert_eq!(made_of(&dir.path().join(LEDGER_FILE)), first);
    assert!(first.iter().any(|line| line.contains("gib_hours_month")));
}

#[test]
fn a_newer_schema_is_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(Store::open(dir.path(), 0).unwrap());
    let path = dir.path().join(LEDGER_FILE);
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let known = format!("up to {SCHEMA_VERSION}");
    assert_refused!(
        Store::open(dir.path(), 0),
        StoreError::SchemaTooNew { found: 99, .. },
        known.as_str()
    );
    assert_refused!(
        Store::open(dir.path(), 0),
        StoreError::SchemaTooNew { .. },
        "99"
    );
}

#[test]
fn what_is_no_ledger_is_not_overwritten() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(LEDGER_FILE);
    std::fs::write(&path, "a letter, not a ledger, ".repeat(200)).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_refused!(Store::open(dir.path(), 0), StoreError::Sqlite(_));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_refused!(Store::open(&file, 0), StoreError::Io { .. }, "file");
}

#[tokio::test]
async fn tampering_with_a_balance_is_found() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.run(ada, container(1000)).await;
    w.sound().await;
    let tamper = |sql: &str| w.shell().execute(sql, []).unwrap();
    tamper("UPDATE account SET reserved = '[1]' WHERE key = 'system'");
    let found = w.store.check().await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("system"), "{found:?}");
    tamper("DELETE FROM account WHERE key LIKE 'user:%'");
    let found = w.store.check().await.unwrap();
    assert!(
        found.iter().any(|line| line.contains(&ada.to_string())),
        "{found:?}"
    );
}

#[tokio::test]
async fn tampering_with_what_a_team_is_made_of_is_found() {
    let w = World::new().await;
    let (ada, ml) = (w.user("ada").await, w.team("ml").await);
    w.join(ml, ada, 1000).await;
    w.sound().await;
    for sql in [
        "UPDATE team SET pool = '[1]'",
        "UPDATE team SET pool = '[]', total = '[]'",
        "DELETE FROM member",
    ] {
        w.shell().execute(sql, []).unwrap();
        let found = w.store.check().await.unwrap();
        assert!(
            found.iter().any(|line| line.contains("team ml")),
            "{sql}: {found:?}"
        );
    }
}

/// What another connection wrote is seen by the next decision, and by the next charge.
#[tokio::test]
async fn nothing_that_was_read_outlives_a_foreign_write() {
    let w = World::new().await;
    let ada = w.user("ada").await;
    w.run(ada, cpu(1000)).await;
    assert!(w.reserve(ada, cpu(1000)).await.decision.allowed);
    let shell = w.shell();
    shell
        .execute(
            "UPDATE quota SET limits = json_set(limits, '$[0]', 1500) WHERE entity_id = ?1",
            [ada.to_string()],
        )
        .unwrap();
    assert!(
        !w.store
            .evaluate(&w.claim(ada, cpu(1)))
            .unwrap()
            .verdict
            .allowed()
    );
    assert!(!w.reserve(ada, cpu(1)).await.decision.allowed);
    w.sound().await;
}

/// A file system of two MiB, gone with the value. `None` where mounting is not allowed.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "plimsoll-test"])
            .arg(dir.path())
            .output();
        mounted.is_ok_and(|m| m.status.success()).then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_passes() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a small file system cannot be mounted here");
        return;
    };
    let data = TempDir::new_in(disk.0.path()).unwrap();
    let w = World::over(data).await;
    let ada = w.user("ada").await;
    for d in Dimension::CHARGED {
        w.set(ada.0, d, 1 << 50).await;
    }
    let first = w.run(ada, cpu(1)).await;
    let mut held = 1;
    // Leave a little room, so that it runs out in the middle of the work.
    let filler = disk.0.path().join("filler");
    let free = free_bytes(disk.0.path());
    std::fs::write(
        &filler,
        vec![0; usize::try_from(free - (64 << 10)).unwrap()],
    )
    .unwrap();
    let full = loop {
        let new = w.request(w.claim(ada, cpu(1)));
        match w.store.reserve(new).await {
            Ok(admission) => {
                assert!(admission.decision.allowed);
                held += 1;
            }
            Err(error) => break error,
        }
        assert!(held < 10_000, "the disk does not fill");
    };
    assert!(matches!(full, StoreError::DiskFull), "{full:?}");
    let said = full.to_string();
    assert!(said.contains("free some space"), "{said}");
    // Still full, still answering, still the same.
    let again = w.store.add_user(w.new_user("bob"), w.actor()).await;
    assert_refused!(again, StoreError::DiskFull);
    assert_refused!(w.store.user("bob"), StoreError::NotFound { .. });
    assert_eq!(w.user_cpu(ada), held);
    w.sound().await;
    std::fs::remove_file(&filler).unwrap();
    w.store.release(first, w.now()).await.unwrap();
    w.user("bob").await;
    assert!(w.reserve(ada, cpu(1)).await.decision.allowed);
    assert_eq!(w.user_cpu(ada), held);
    w.sound().await;
    let w = w.restarted().await;
    assert_eq!(w.user_cpu(ada), held);
    w.sound().await;
}

fn free_bytes(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}
