//! What is written to a cgroup's files, in the order the kernel accepts.
//!
//! The kernel's rules that shape this, all of cgroup v1:
//!
//! - A CPU cap above that of any capped ancestor is EINVAL, and so is lowering one below a child's.
//!   So a tree is changed in two passes, raising from the top down, then lowering from the bottom
//!   up; at every step each capped level is at most its nearest capped ancestor.
//! - `memory.memsw.limit_in_bytes` (memory and swap) may never be below `memory.limit_in_bytes`: it
//!   is written first when raising and last when lowering. Both get the same value, so there is no
//!   swap beyond the memory that was asked for. A kernel without swap accounting lacks the file.
//! - A memory cap below what cannot be reclaimed is EBUSY, after the kernel has tried.
//!
//! On v2 any CPU cap is accepted and the lowest on the path holds. A memory cap below use is
//! accepted too, and the kernel then kills; nothing is killed by changing a limit here, so that
//! case is refused as busy before it is written.

use std::io;
use std::path::Path;

use plimsoll_core::units::{Bytes, MilliCpu};
use rustix::io::Errno;

use super::apply::{CapError, io_error};
use super::files::{keyed, parse_limit, read, write};
use super::{Driver, Hierarchy, ParentPath, Version};

/// The CFS period written with every quota, in microseconds: the kernel's default, and the
/// engine's.
const PERIOD_US: u64 = 100_000;

/// The smallest quota the kernel takes, 1 ms per period: 0.01 cores.
const QUOTA_MIN_US: u64 = 1_000;

/// A CPU cap as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RawCpu {
    quota_us: Option<u64>,
    period_us: u64,
}

impl RawCpu {
    pub(super) fn cap(self) -> Option<MilliCpu> {
        let quota = self.quota_us?;
        Some(MilliCpu(
            quota.saturating_mul(1000).div_ceil(self.period_us.max(1)),
        ))
    }

    pub(super) fn is(self, wanted: Option<MilliCpu>) -> bool {
        match wanted.map(quota_us) {
            None => self.quota_us.is_none(),
            wanted => self.quota_us == wanted && self.period_us == PERIOD_US,
        }
    }
}

fn quota_us(cap: MilliCpu) -> u64 {
    cap.0.saturating_mul(PERIOD_US / 1000).max(QUOTA_MIN_US)
}

/// Text of a file, or `None` when there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, CapError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error("read", path)(source)),
    }
}

fn put(path: &Path, text: &str) -> Result<(), CapError> {
    write(path, text).map_err(io_error("write", path))
}

fn has_errno(error: &CapError, errno: Errno) -> bool {
    matches!(error, CapError::Io { source, .. } if source.raw_os_error() == Some(errno.raw_os_error()))
}

/// A limit in the kernel's words.
fn limit_text(limit: Option<u64>, unlimited: &str) -> String {
    limit.map_or_else(|| unlimited.to_owned(), |limit| limit.to_string())
}

/// The whole pages in a memory cap, which is what the kernel keeps.
pub(super) fn whole_pages(cap: Bytes) -> u64 {
    let page = rustix::param::page_size() as u64;
    cap.0 / page * page
}

impl Hierarchy {
    /// Makes the directories of a cgroup and of those above; returns whether any was missing.
    pub(super) fn create(&self, path: &ParentPath) -> Result<bool, CapError> {
        let mut created = false;
        for level in path.levels() {
            for dir in self.dirs(&level).all() {
                if dir.is_dir() {
                    continue;
                }
                if self.version == Version::V2
                    && let Some(parent) = dir.parent()
                {
                    enable_controllers(parent)?;
                }
                match std::fs::create_dir(dir) {
                    Ok(()) => created = true,
                    // The engine was quicker.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(source) => return Err(io_error("create", dir)(source)),
                }
            }
            if created && level.depth() == 0 && self.version == Version::V1 {
                // Before Linux 5.11 a top-level v1 cgroup did not count its children.
                let file = self.dirs(&level).memory().join("memory.use_hierarchy");
                if read_if_there(&file)?.is_some_and(|text| text.trim() == "0") {
                    put(&file, "1")?;
                }
            }
        }
        Ok(created)
    }

    pub(super) fn raw_cpu(&self, dir: &Path) -> Result<Option<RawCpu>, CapError> {
        match self.version {
            Version::V1 => {
                let Some(quota) = read_if_there(&dir.join("cpu.cfs_quota_us"))? else {
                    return Ok(None);
                };
                let period = read_if_there(&dir.join("cpu.cfs_period_us"))?;
                let period_us = period.and_then(|text| text.trim().parse().ok());
                Ok(Some(RawCpu {
                    // -1 does not parse, and means no limit.
                    quota_us: quota.trim().parse().ok(),
                    period_us: period_us.unwrap_or(PERIOD_US),
                }))
            }
            Version::V2 => Ok(read_if_there(&dir.join("cpu.max"))?.map(|text| {
                let mut words = text.split_whitespace();
                RawCpu {
                    quota_us: words.next().and_then(|quota| quota.parse().ok()),
                    period_us: words
                        .next()
                        .and_then(|p| p.parse().ok())
                        .unwrap_or(PERIOD_US),
                }
            })),
        }
    }

    /// The first pass over a tree: lifts a CPU cap, and leaves one that has to go down.
    pub(super) fn raise_cpu(
        &self,
        path: &ParentPath,
        wanted: Option<MilliCpu>,
    ) -> Result<bool, CapError> {
        let Some(present) = self.raw_cpu(self.dirs(path).cpu())?.and_then(RawCpu::cap) else {
            return Ok(false);
        };
        if wanted.is_some_and(|wanted| wanted <= present) {
            return Ok(false);
        }
        match self.driver {
            Driver::Cgroupfs => self.write_cpu(path, wanted),
            Driver::Systemd => self.set_cpu_property(path, wanted).map(|()| true),
        }
    }

    pub(super) fn write_cpu(
        &self,
        path: &ParentPath,
        wanted: Option<MilliCpu>,
    ) -> Result<bool, CapError> {
        let dirs = self.dirs(path);
        let dir = dirs.cpu();
        let Some(present) = self.raw_cpu(dir)? else {
            return no_file(path, "cpu", wanted.is_some());
        };
        if present.is(wanted) {
            return Ok(false);
        }
        match self.put_cpu(dir, present, wanted.map(quota_us)) {
            Ok(()) => Ok(true),
            Err(error) if has_errno(&error, Errno::INVAL) => Err(self
                .why_invalid(path, dir, present, wanted)?
                .unwrap_or(error)),
            Err(error) => Err(error),
        }
    }

    fn put_cpu(&self, dir: &Path, present: RawCpu, quota_us: Option<u64>) -> Result<(), CapError> {
        match self.version {
            Version::V2 => put(
                &dir.join("cpu.max"),
                &format!("{} {PERIOD_US}", limit_text(quota_us, "max")),
            ),
            Version::V1 => {
                let quota_file = dir.join("cpu.cfs_quota_us");
                if present.period_us != PERIOD_US {
                    // Quota and period count by their ratio, and neither can be written alone
                    // without passing through a ratio nobody asked for, perhaps an invalid one.
                    // Nothing of ours writes another period, so the moment without a cap is for
                    // strangers' only.
                    put(&quota_file, "-1")?;
                    put(&dir.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                }
                put(&quota_file, &limit_text(quota_us, "-1"))
            }
        }
    }

    /// Explains the kernel's EINVAL. Where a child stands in the way, goes as low as it lets us.
    fn why_invalid(
        &self,
        path: &ParentPath,
        dir: &Path,
        present: RawCpu,
        wanted: Option<MilliCpu>,
    ) -> Result<Option<CapError>, CapError> {
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        let mut above = dir.parent();
        while let Some(ancestor) = above.filter(|dir| dir.starts_with(&self.root)) {
            if let Some(cap) = self.raw_cpu(ancestor)?.and_then(RawCpu::cap) {
                if cap < wanted {
                    let cgroup = path.clone();
                    return Ok(Some(CapError::CpuAboveAncestor {
                        cgroup,
                        wanted,
                        ancestor: cap,
                    }));
                }
                break;
            }
            above = ancestor.parent();
        }
        // A child that was just removed counts until the kernel is done with it; there is nothing to
        // see of it but that the cap does not go down.
        let below = self.largest_below(dir)?;
        let in_the_way = [below, present.cap()];
        let Some(child) = in_the_way.into_iter().flatten().find(|&cap| cap > wanted) else {
            return Ok(None);
        };
        if present.cap().is_none_or(|present| present > child) {
            self.put_cpu(dir, present, Some(quota_us(child)))?;
        }
        Ok(Some(CapError::CpuBelowChild {
            cgroup: path.clone(),
            wanted,
            child,
        }))
    }

    pub(super) fn write_memory(
        &self,
        path: &ParentPath,
        wanted: Option<Bytes>,
    ) -> Result<bool, CapError> {
        let dirs = self.dirs(path);
        let dir = dirs.memory();
        let target = wanted.map(whole_pages);
        let outcome = match self.version {
            Version::V1 => write_memory_v1(dir, target),
            Version::V2 => {
                if let Some(wanted) = wanted {
                    self.refuse_killing(path, wanted)?;
                }
                write_memory_v2(dir, target)
            }
        };
        match (outcome, wanted) {
            (Ok(Some(changed)), _) => Ok(changed),
            (Ok(None), _) => no_file(path, "memory", wanted.is_some()),
            (Err(error), Some(wanted)) if has_errno(&error, Errno::BUSY) => {
                Err(CapError::MemoryBusy {
                    cgroup: path.clone(),
                    wanted,
                    used: self.usage(dir),
                })
            }
            (Err(error), _) => Err(error),
        }
    }

    fn usage(&self, dir: &Path) -> Option<Bytes> {
        let file = match self.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        parse_limit(&read(&dir.join(file)).ok()?).map(Bytes)
    }

    /// v2 only: refuses a cap that the kernel could reach only by killing.
    pub(super) fn refuse_killing(&self, path: &ParentPath, wanted: Bytes) -> Result<(), CapError> {
        let dirs = self.dirs(path);
        let dir = dirs.memory();
        let Some(used) = self.usage(dir) else {
            return Ok(());
        };
        let stat = read_if_there(&dir.join("memory.stat"))?.unwrap_or_default();
        // Pages of tmpfs are in `file` but not on these lists: without swap they stay.
        let reclaimable: u64 = ["inactive_file", "active_file", "slab_reclaimable"]
            .iter()
            .filter_map(|key| keyed(&stat, key))
            .fold(0, u64::saturating_add);
        if used.0.saturating_sub(reclaimable) > wanted.0 {
            return Err(CapError::MemoryBusy {
                cgroup: path.clone(),
                wanted,
                used: Some(used),
            });
        }
        Ok(())
    }

    pub(super) fn write_pids(
        &self,
        path: &ParentPath,
        wanted: Option<u64>,
    ) -> Result<bool, CapError> {
        let file = self.dirs(path).pids().join("pids.max");
        let Some(present) = read_if_there(&file)? else {
            return no_file(path, "pids", wanted.is_some());
        };
        if parse_limit(&present) == wanted {
            return Ok(false);
        }
        put(&file, &limit_text(wanted, "max")).map(|()| true)
    }
}

/// Without its controller a cap cannot be set, and "no cap" is so already.
fn no_file(path: &ParentPath, controller: &'static str, is_wanted: bool) -> Result<bool, CapError> {
    if is_wanted {
        Err(CapError::NoController {
            cgroup: path.clone(),
            controller,
        })
    } else {
        Ok(false)
    }
}

/// `None` when there is no memory controller.
fn write_memory_v1(dir: &Path, target: Option<u64>) -> Result<Option<bool>, CapError> {
    let memory = dir.join("memory.limit_in_bytes");
    let memsw = dir.join("memory.memsw.limit_in_bytes");
    let Some(present) = read_if_there(&memory)? else {
        return Ok(None);
    };
    let present = parse_limit(&present);
    let present_memsw = read_if_there(&memsw)?.map(|text| parse_limit(&text));
    if present == target && present_memsw.is_none_or(|memsw| memsw == target) {
        return Ok(Some(false));
    }
    let text = limit_text(target, "-1");
    let no_limit = u64::MAX;
    match present_memsw {
        None => put(&memory, &text)?,
        Some(memsw_now) if target.unwrap_or(no_limit) > memsw_now.unwrap_or(no_limit) => {
            put(&memsw, &text)?;
            put(&memory, &text)?;
        }
        Some(_) => {
            put(&memory, &text)?;
            put(&memsw, &text)?;
        }
    }
    Ok(Some(true))
}

/// `None` when there is no memory controller.
fn write_memory_v2(dir: &Path, target: Option<u64>) -> Result<Option<bool>, CapError> {
    let mut changed = false;
    let swap_target = target.map(|_| 0);
    for (name, target, is_required) in [
        ("memory.max", target, true),
        ("memory.swap.max", swap_target, false),
    ] {
        let file = dir.join(name);
        match read_if_there(&file)? {
            Some(text) if parse_limit(&text) == target => {}
            Some(_) => {
                put(&file, &limit_text(target, "max"))?;
                changed = true;
            }
            None if is_required => return Ok(None),
            // A kernel without swap accounting.
            None => {}
        }
    }
    Ok(Some(changed))
}

/// v2: lets the children of `dir` have the controllers that caps and counters need, as far as `dir`
/// has them itself.
fn enable_controllers(dir: &Path) -> Result<(), CapError> {
    let available = read_if_there(&dir.join("cgroup.controllers"))?.unwrap_or_default();
    let file = dir.join("cgroup.subtree_control");
    let enabled = read_if_there(&file)?.unwrap_or_default();
    let has = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
    for name in ["cpu", "memory", "pids", "io"] {
        if has(&available, name) && !has(&enabled, name) {
            put(&file, &format!("+{name}"))?;
        }
    }
    Ok(())
}
