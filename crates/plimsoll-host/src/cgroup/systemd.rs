//! Caps on slices, through systemd.
//!
//! A slice's files belong to systemd: what is written to them directly is undone at its next
//! daemon-reload. Caps are set as properties, which it keeps in `/run` until the next boot.
//!
//! This runs `systemctl` instead of speaking D-Bus. Caps change when a person changes a limit or a
//! cgroup is new, so a process of 10 ms does not matter, while a D-Bus library (zbus and its
//! macros) would be among the slowest dependencies to compile.

use std::process::Command;

use plimsoll_core::units::{Bytes, MilliCpu};

use super::files::parse_limit;
use super::kernel::{read_if_there, whole_pages};
use super::{Applied, CapError, Caps, Hierarchy, ParentPath, Version};

/// `CPUQuota=` in percent of one CPU with one decimal, which is a thousandth of a core; empty
/// resets.
fn cpu_quota(cap: Option<MilliCpu>) -> String {
    match cap {
        None => "CPUQuota=".to_owned(),
        Some(MilliCpu(milli)) => {
            // As with cgroupfs, the kernel takes nothing below 0.01 cores.
            let milli = milli.max(10);
            format!("CPUQuota={}.{}%", milli / 10, milli % 10)
        }
    }
}

fn limit(name: &str, limit: Option<u64>) -> String {
    match limit {
        None => format!("{name}=infinity"),
        Some(limit) => format!("{name}={limit}"),
    }
}

impl Hierarchy {
    pub(super) fn apply_systemd(&self, path: &ParentPath, caps: Caps) -> Result<Applied, CapError> {
        let dirs = self.dirs(path);
        let mut applied = Applied {
            created: !dirs.main().is_dir(),
            ..Applied::default()
        };
        let mut properties = Vec::new();

        // A file that is not there means that systemd has not turned the controller on for this
        // slice, which it does when a limit is set.
        let cpu_is_so = match self.raw_cpu(dirs.cpu())? {
            Some(present) => present.is(caps.cpu),
            None => caps.cpu.is_none(),
        };
        if !cpu_is_so {
            properties.push(cpu_quota(caps.cpu));
        }
        let is_so = |file: std::path::PathBuf, wanted: Option<u64>| {
            Ok::<_, CapError>(match read_if_there(&file)? {
                Some(text) => parse_limit(&text) == wanted,
                None => wanted.is_none(),
            })
        };
        let (memory_file, swap_file) = match self.version {
            Version::V1 => ("memory.limit_in_bytes", None),
            Version::V2 => ("memory.max", Some("memory.swap.max")),
        };
        let memory = caps.memory.map(whole_pages);
        let memory_is_so = is_so(dirs.memory().join(memory_file), memory)?;
        let swap = memory.map(|_| 0);
        let swap_is_so = match swap_file {
            // Without the memory controller the file is missing, and without swap accounting too.
            Some(name) if dirs.memory().join(name).exists() => {
                is_so(dirs.memory().join(name), swap)?
            }
            _ => memory_is_so,
        };
        if !(memory_is_so && swap_is_so) {
            match caps
                .memory
                .map_or(Ok(()), |wanted: Bytes| self.refuse_killing(path, wanted))
            {
                Ok(()) => {
                    properties.push(limit("MemoryMax", memory));
                    properties.push(limit("MemorySwapMax", swap));
                }
                Err(error) => applied.refused.push(error),
            }
        }
        if !is_so(dirs.pids().join("pids.max"), caps.pids)? {
            properties.push(limit("TasksMax", caps.pids));
        }

        // Caps before the slice starts, so it never runs without them.
        if !properties.is_empty() {
            let mut arguments = vec!["set-property".to_owned(), "--runtime".to_owned()];
            arguments.push(path.slice());
            arguments.extend(properties);
            self.systemctl("cap", path, &arguments)?;
            applied.changed = true;
        }
        if applied.created {
            self.systemctl("start", path, &["start".to_owned(), path.slice()])?;
        }
        Ok(applied)
    }

    pub(super) fn set_cpu_property(
        &self,
        path: &ParentPath,
        cap: Option<MilliCpu>,
    ) -> Result<(), CapError> {
        let arguments = [
            "set-property".to_owned(),
            "--runtime".to_owned(),
            path.slice(),
            cpu_quota(cap),
        ];
        self.systemctl("cap", path, &arguments)
    }

    /// Stops a slice that is empty, and forgets its caps. Stopping one that is not would stop its
    /// containers: callers look first.
    pub(super) fn stop_slice(&self, path: &ParentPath) -> Result<(), CapError> {
        self.systemctl("stop", path, &["stop".to_owned(), path.slice()])?;
        self.systemctl("revert", path, &["revert".to_owned(), path.slice()])
    }

    fn systemctl(
        &self,
        action: &'static str,
        path: &ParentPath,
        arguments: &[String],
    ) -> Result<(), CapError> {
        let output = Command::new(&self.systemctl)
            .args(arguments)
            .output()
            .map_err(|source| CapError::NoSystemctl {
                program: self.systemctl.clone(),
                unit: path.slice(),
                source,
            })?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(CapError::Systemd {
            action,
            unit: path.slice(),
            message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_in_systemds_units() {
        assert_eq!(cpu_quota(Some(MilliCpu(1500))), "CPUQuota=150.0%");
        assert_eq!(cpu_quota(Some(MilliCpu(123))), "CPUQuota=12.3%");
        assert_eq!(cpu_quota(Some(MilliCpu(1))), "CPUQuota=1.0%");
        assert_eq!(cpu_quota(None), "CPUQuota=");
        assert_eq!(limit("TasksMax", Some(10)), "TasksMax=10");
        assert_eq!(limit("MemoryMax", None), "MemoryMax=infinity");
    }
}
