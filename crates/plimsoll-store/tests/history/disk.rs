//! A disk that is full, and then is not. A real one: a small file system in memory. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plimsoll_store::StoreError;
use plimsoll_store::history::{Faults, History, Settings};

use crate::world::{DAY, SECOND, START, cpu, series, tick};

struct Disk {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Disk {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mount = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        let mounted = Command::new("mount")
            .args(mount)
            .arg(&path)
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting needs root");
        Self { path, _dir: dir }
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let file = self.path.join("filler");
        let full = fs::write(&file, vec![0u8; 64 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn add(history: &History, index: u64) -> Result<(), StoreError> {
    let points = (0..50).map(|entity| cpu(&format!("container:{entity}"), index));
    let at_ms = START + index.cast_signed() * 10 * SECOND;
    let points = points.collect();
    history.append(&tick(at_ms, points))
}

/// How many readings there are, each of them right.
fn seen(history: &History) -> usize {
    let found = series(
        history,
        "container:49",
        START,
        START + DAY,
        Some(10 * SECOND),
        START + DAY,
    );
    let values = found.points.iter().map(|p| p.max);
    assert!(values.eq(0..found.points.len() as u64));
    found.points.len()
}

fn open(path: &Path) -> History {
    History::open(path, Settings::default(), START).unwrap()
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_lost_when_there_is_space_again() {
    let disk = Disk::new("24m");
    let history = open(&disk.path);
    for index in 0..400 {
        add(&history, index).unwrap();
    }
    disk.fill();
    let mut refused = 0;
    // Over the end of an hour, which cannot be cut meanwhile.
    for index in 400..1000 {
        match add(&history, index) {
            Ok(()) => {}
            Err(StoreError::DiskFull) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(seen(&history) as u64, index + 1, "memory goes on");
    }
    assert!(refused > 100, "{refused}");
    disk.free();
    for index in 1000..1100 {
        add(&history, index).unwrap();
    }
    assert_eq!(history.faults(), Faults::default());
    drop(history);
    let history = open(&disk.path);
    assert_eq!(
        (seen(&history), history.faults()),
        (1100, Faults::default())
    );
}
