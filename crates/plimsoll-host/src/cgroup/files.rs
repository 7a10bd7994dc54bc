//! Reading and writing single cgroup files.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

/// A limit file's value; `None` means no limit (`max`, -1, or v1's page counter maximum).
pub(super) fn parse_limit(text: &str) -> Option<u64> {
    // v1 writes the largest multiple of the page size below 2^63 for "no limit".
    const V1_UNLIMITED: u64 = 1 << 62;
    text.trim()
        .parse()
        .ok()
        .filter(|&limit| limit < V1_UNLIMITED)
}

pub(super) fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

/// Writes to a file that the kernel made; never makes one.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// The value behind `key ` in a flat keyed file such as `memory.stat`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

/// The names of the directories in `dir`: a cgroup's children. Empty when `dir` is not there.
pub(super) fn children(dir: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}
