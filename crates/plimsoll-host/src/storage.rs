//! How much a folder holds.
//!
//! A walk, file by file, for filesystems that keep no account of it. Whoever owns the folder may change
//! it meanwhile: nothing is followed out of it, neither by links nor onto other filesystems.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::ops::AddAssign;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// What a folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Disk space, each file once however many names it has, bytes.
    pub bytes: u64,
    /// Files and folders.
    pub files: u64,
    /// Folders that could not be looked into: too deep, or gone meanwhile.
    pub skipped: u64,
}

impl AddAssign for Held {
    fn add_assign(&mut self, more: Self) {
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.files += more.files;
        self.skipped += more.skipped;
    }
}

/// Entries between two pauses.
const BATCH: u64 = 1000;

/// Walks a folder. `pause` is called after every thousand entries.
///
/// # Errors
/// When the folder itself cannot be opened.
pub fn walk(root: &Path, mut pause: impl FnMut()) -> io::Result<Held> {
    let root = rustix::fs::open(root, FOLDER, Mode::empty())?;
    let mut held = Held::default();
    add(&mut held, &rustix::fs::fstat(&root)?);
    let mut seen = HashSet::new();
    let mut waiting = vec![c".".to_owned()];
    // Paths are opened anew from the root, so that depth costs no descriptors.
    while let Some(path) = waiting.pop() {
        let Ok(mut dir) = open_beneath(&root, &path).and_then(|dir| Ok(Dir::new(dir)?)) else {
            held.skipped += 1;
            continue;
        };
        while let Some(Ok(entry)) = dir.read() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = dir.fd().and_then(|dir| stat(&dir, name)) else {
                continue;
            };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_folder {
                waiting.push(joined(&path, name));
            } else if stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            add(&mut held, &stat);
            if held.files.is_multiple_of(BATCH) {
                pause();
            }
        }
    }
    Ok(held)
}

/// Files beside `path` whose names begin with its own: a log and those it was rotated to.
///
/// # Errors
/// When the folder cannot be read.
pub fn with_siblings(path: &Path) -> io::Result<Held> {
    let mut held = Held::default();
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(held);
    };
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let other = entry.file_name();
        if other
            .as_encoded_bytes()
            .starts_with(name.as_encoded_bytes())
            && let Ok(stat) = rustix::fs::lstat(entry.path())
        {
            add(&mut held, &stat);
        }
    }
    Ok(held)
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn open_beneath(root: &OwnedFd, path: &CStr) -> io::Result<OwnedFd> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(root, path, FOLDER, Mode::empty(), within) {
            // Something on the path was renamed meanwhile.
            Err(Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
}

fn stat(dir: &impl AsFd, name: &CStr) -> rustix::io::Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

/// The kernel counts blocks of 512 bytes whatever the filesystem's are.
fn add(held: &mut Held, stat: &Stat) {
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    held.bytes = held.bytes.saturating_add(blocks.saturating_mul(512));
    held.files += 1;
}

fn joined(path: &CStr, name: &CStr) -> CString {
    let bytes = [path.to_bytes(), b"/", name.to_bytes()].concat();
    CString::new(bytes).expect("neither part holds a zero byte")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn blocks(path: &Path) -> u64 {
        fs::symlink_metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn each_file_counts_once_and_nothing_outside_does() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("big"), vec![1; 1 << 20]).unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/file"), vec![1; 300_000]).unwrap();
        fs::hard_link(at("a/b/file"), at("twice")).unwrap();
        symlink(outside.path(), at("a/away")).unwrap();
        symlink(outside.path().join("big"), at("far")).unwrap();
        // Long, and takes nothing.
        fs::File::create(at("sparse"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        let all = ["", "a", "a/b", "a/b/file", "a/away", "far", "sparse"];
        let expected = Held {
            bytes: all.iter().map(|name| blocks(&at(name))).sum(),
            files: all.len() as u64,
            skipped: 0,
        };
        assert_eq!(walk(dir.path(), || {}).unwrap(), expected);
        assert!(expected.bytes < 1 << 20);
        assert!(walk(&at("far"), || {}).is_err() && walk(&at("none"), || {}).is_err());
    }

    #[test]
    fn a_walk_pauses_and_too_deep_a_folder_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in 0..2500 {
            fs::write(dir.path().join(name.to_string()), "").unwrap();
        }
        let mut pauses = 0;
        let held = walk(dir.path(), || pauses += 1).unwrap();
        assert_eq!((held.files, pauses), (2501, 2));

        let deep = tempfile::tempdir().unwrap();
        let mut at = rustix::fs::open(deep.path(), FOLDER, Mode::empty()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..30 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, FOLDER, Mode::empty()).unwrap();
        }
        let held = walk(deep.path(), || {}).unwrap();
        assert_eq!(held.skipped, 1, "{held:?}");
    }

    #[test]
    fn a_log_counts_with_those_it_was_rotated_to() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["x-json.log", "x-json.log.1", "other"] {
            fs::write(dir.path().join(name), vec![1; 5000]).unwrap();
        }
        let log = dir.path().join("x-json.log");
        assert_eq!(with_siblings(&log).unwrap().bytes, blocks(&log) * 2);
    }
}
