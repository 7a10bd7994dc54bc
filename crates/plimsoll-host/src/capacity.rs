//! How much CPU, memory and disk the host has.
//!
//! What a quota makes of it (percentages, overcommit) is not decided here.

use std::io;
use std::path::{Path, PathBuf};

use plimsoll_core::units::Bytes;

/// CPUs and memory of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// CPUs that are online, at least 1.
    pub cpus: u32,
    /// Physical memory the kernel manages (`MemTotal`).
    pub memory: Bytes,
}

/// Size of the filesystem that holds a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes in the filesystem.
    pub total: Bytes,
    /// Bytes an unprivileged process may still write.
    pub available: Bytes,
    /// Bytes in use.
    pub used: Bytes,
}

/// The host's size cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum CapacityError {
    /// A file of the kernel's, or the disk, cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of the kernel's says something this code does not understand.
    #[error("{} does not say {what}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
}

/// CPUs online (from `sys_root/devices/system/cpu/online`) and memory (from `proc_root/meminfo`).
///
/// # Errors
/// [`CapacityError`] when either file is missing or makes no sense.
pub fn read(proc_root: &Path, sys_root: &Path) -> Result<Capacity, CapacityError> {
    let path = sys_root.join("devices/system/cpu/online");
    let cpus = match parse_cpu_list(&read_file(&path)?) {
        Some(cpus) if cpus > 0 => cpus,
        _ => {
            return Err(CapacityError::Unreadable {
                path,
                what: "which CPUs are online",
            });
        }
    };
    let path = proc_root.join("meminfo");
    let memory = read_file(&path)?
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .and_then(|kib| kib.checked_mul(1024))
        .map(Bytes);
    let Some(memory) = memory else {
        return Err(CapacityError::Unreadable {
            path,
            what: "how much memory there is",
        });
    };
    Ok(Capacity { cpus, memory })
}

/// Size of the filesystem under `dir`, such as the engine's root directory.
///
/// # Errors
/// [`CapacityError::Io`] when `dir` cannot be asked.
pub fn disk(dir: &Path) -> Result<Disk, CapacityError> {
    let stat = rustix::fs::statvfs(dir).map_err(|errno| CapacityError::Io {
        path: dir.to_owned(),
        source: errno.into(),
    })?;
    let bytes = |blocks: u64| Bytes(blocks.saturating_mul(stat.f_frsize));
    Ok(Disk {
        total: bytes(stat.f_blocks),
        available: bytes(stat.f_bavail),
        used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
    })
}

fn read_file(path: &Path) -> Result<String, CapacityError> {
    std::fs::read_to_string(path).map_err(|source| CapacityError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Counts the CPUs in the kernel's list format: `0-3,8,10-11`.
fn parse_cpu_list(text: &str) -> Option<u32> {
    let mut count = 0_u32;
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_count_as_the_kernel_writes_them() {
        for (list, cpus) in [("0\n", 1), ("0-1\n", 2), ("0-3,8,10-11\n", 7)] {
            assert_eq!(parse_cpu_list(list), Some(cpus), "{list:?}");
        }
        for wrong in ["", "\n", "a", "3-1", "0-4294967295"] {
            assert_eq!(parse_cpu_list(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn reads_a_hosts_files_and_names_the_one_that_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let cpu = dir.path().join("devices/system/cpu");
        std::fs::create_dir_all(&cpu).unwrap();
        std::fs::write(cpu.join("online"), "0-3\n").unwrap();
        std::fs::write(
            dir.path().join("meminfo"),
            "MemTotal:    2048 kB\nMemFree: 1 kB\n",
        )
        .unwrap();
        assert_eq!(
            read(dir.path(), dir.path()).unwrap(),
            Capacity {
                cpus: 4,
                memory: Bytes(2 << 20)
            }
        );

        std::fs::write(dir.path().join("meminfo"), "nothing\n").unwrap();
        let error = read(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("meminfo does not say how much memory there is"),
            "{error}"
        );
    }

    #[test]
    fn this_host_has_a_size() {
        let capacity = read(Path::new("/proc"), Path::new("/sys")).unwrap();
        assert_eq!(
            u64::from(capacity.cpus) >= 1,
            capacity.memory > Bytes(1 << 20),
            "a host has both: {capacity:?}"
        );
        let disk = disk(Path::new("/")).unwrap();
        assert!(
            disk.used <= disk.total && disk.available <= disk.total,
            "{disk:?}"
        );
        assert!(disk.total > Bytes(0));
    }
}
