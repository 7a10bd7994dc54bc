//! Caps: what they are, reading them, and making one cgroup's or a whole tree's so.
//!
//! What the kernel wants written, and in which order, is in [`super::kernel`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use plimsoll_core::units::{Bytes, MilliCpu};

use super::files::{children, parse_limit};
use super::kernel::{RawCpu, read_if_there};
use super::{Driver, Hierarchy, ParentPath, Version};

/// The caps of one cgroup; `None` means no cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    /// CPU time per time. Below 0.01 cores the kernel holds 0.01.
    pub cpu: Option<MilliCpu>,
    /// Memory, rounded down to whole pages. There is no swap beyond it.
    pub memory: Option<Bytes>,
    /// Processes and threads. Give about 10 more than the containers' own limits sum to: the
    /// runtime starts its init inside the cgroup, and a container at the cap would not start.
    pub pids: Option<u64>,
}

/// What making caps so came to.
#[derive(Debug, Default)]
pub struct Applied {
    /// The cgroup was not there before.
    pub created: bool,
    /// Something was written.
    pub changed: bool,
    /// Caps that could not be set; the others were.
    pub refused: Vec<CapError>,
}

/// A cap cannot be read or set.
#[derive(Debug, thiserror::Error)]
pub enum CapError {
    /// Lowering the CPU cap below what a child is allowed (v1). The children have to be lowered
    /// first, through the engine.
    #[error(
        "the CPU cap of {cgroup} cannot go to {wanted} cores while a child may use {child}: lower \
         the child first"
    )]
    CpuBelowChild {
        /// The cgroup.
        cgroup: ParentPath,
        /// The cap wanted.
        wanted: MilliCpu,
        /// The largest cap among its children, which is now this cgroup's cap too unless that was
        /// lower already.
        child: MilliCpu,
    },
    /// A CPU cap above a capped ancestor's (v1).
    #[error(
        "the CPU cap of {cgroup} cannot go to {wanted} cores while a cgroup above it is held to \
         {ancestor}: raise that one first"
    )]
    CpuAboveAncestor {
        /// The cgroup.
        cgroup: ParentPath,
        /// The cap wanted.
        wanted: MilliCpu,
        /// The nearest capped ancestor's.
        ancestor: MilliCpu,
    },
    /// The cgroup holds more memory than the cap that cannot be reclaimed. The old cap stays.
    #[error(
        "the memory cap of {cgroup} cannot go to {wanted} while {} in use cannot be freed: \
         stop or shrink something in it, or try again later",
        .used.map_or_else(|| "what is".to_owned(), |used| used.to_string())
    )]
    MemoryBusy {
        /// The cgroup.
        cgroup: ParentPath,
        /// The cap wanted.
        wanted: Bytes,
        /// What it uses.
        used: Option<Bytes>,
    },
    /// The controller that would hold the cap is off.
    #[error(
        "{cgroup} has no {controller} controller, so its {controller} cap cannot be held: enable it \
         on the kernel's command line"
    )]
    NoController {
        /// The cgroup.
        cgroup: ParentPath,
        /// `cpu`, `memory` or `pids`.
        controller: &'static str,
    },
    /// A cgroup file or directory cannot be read, made, written or removed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// systemd cannot be asked.
    #[error("cannot run {} to ask systemd for the cgroup {unit}", program.display())]
    NoSystemctl {
        /// The program.
        program: PathBuf,
        /// The slice.
        unit: String,
        /// Why it failed.
        source: io::Error,
    },
    /// systemd refused.
    #[error("systemd refused to {action} {unit}: {message}")]
    Systemd {
        /// What was tried.
        action: &'static str,
        /// The slice.
        unit: String,
        /// Its words.
        message: String,
    },
}

/// For `map_err`: an I/O error with what was tried on what.
pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> CapError + use<> {
    let path = path.to_owned();
    move |source| CapError::Io {
        action,
        path,
        source,
    }
}

impl Hierarchy {
    /// The caps that a cgroup of Plimsoll's carries; `None` when it does not exist.
    ///
    /// # Errors
    /// [`CapError::Io`].
    pub fn read_caps(&self, path: &ParentPath) -> Result<Option<Caps>, CapError> {
        let dirs = self.dirs(path);
        if !dirs.main().is_dir() {
            return Ok(None);
        }
        let memory_file = match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        let limit = |file: PathBuf| {
            Ok::<_, CapError>(read_if_there(&file)?.and_then(|text| parse_limit(&text)))
        };
        Ok(Some(Caps {
            cpu: self.raw_cpu(dirs.cpu())?.and_then(RawCpu::cap),
            memory: limit(dirs.memory().join(memory_file))?.map(Bytes),
            pids: limit(dirs.pids().join("pids.max"))?,
        }))
    }

    /// Makes the caps of one cgroup so, making it and those above it where they are missing. Writes
    /// only what differs. A cap that the kernel refuses is in [`Applied::refused`] and leaves the
    /// others as wanted.
    ///
    /// On v1 a CPU cap that would be below a child's is lowered as far as the largest child.
    ///
    /// # Errors
    /// [`CapError`] when the cgroup cannot be made or systemd cannot be asked.
    pub fn apply(&self, path: &ParentPath, caps: Caps) -> Result<Applied, CapError> {
        match self.driver {
            Driver::Systemd => self.apply_systemd(path, caps),
            Driver::Cgroupfs => {
                let mut applied = Applied {
                    created: self.create(path)?,
                    ..Applied::default()
                };
                for outcome in [
                    self.write_cpu(path, caps.cpu),
                    self.write_memory(path, caps.memory),
                    self.write_pids(path, caps.pids),
                ] {
                    match outcome {
                        Ok(changed) => applied.changed |= changed,
                        Err(error) => applied.refused.push(error),
                    }
                }
                Ok(applied)
            }
        }
    }

    /// Makes the caps of many cgroups so, in an order the kernel accepts whatever they were before.
    /// One result a cgroup, those nearest the root first; a failure at one does not stop the
    /// others.
    ///
    /// `desired` holds each level's own limits. The CPU cap written is the limit where that is
    /// lower than the nearest capped level above, else none: the one above holds it already, and on
    /// v1 a higher one is an error. Levels above that `desired` does not name keep the cap they
    /// have.
    pub fn apply_tree(
        &self,
        desired: &[(ParentPath, Caps)],
    ) -> Vec<(ParentPath, Result<Applied, CapError>)> {
        let tree = self.effective(desired);
        let mut raised = vec![false; tree.len()];
        if self.version == Version::V1 {
            for ((path, caps), raised) in tree.iter().zip(&mut raised) {
                // What fails here fails again below, and is reported there.
                *raised = self.raise_cpu(path, caps.cpu).unwrap_or(false);
            }
        }
        let mut outcomes: Vec<_> = tree
            .into_iter()
            .zip(raised)
            .rev()
            .map(|((path, caps), raised)| {
                let mut outcome = self.apply(&path, caps);
                if let Ok(applied) = &mut outcome {
                    applied.changed |= raised;
                }
                (path, outcome)
            })
            .collect();
        outcomes.reverse();
        outcomes
    }

    /// The caps to write for each level, those nearest the root first.
    fn effective(&self, desired: &[(ParentPath, Caps)]) -> Vec<(ParentPath, Caps)> {
        let wanted: BTreeMap<&ParentPath, Caps> = desired.iter().map(|(p, c)| (p, *c)).collect();
        let mut levels: Vec<_> = wanted.into_iter().collect();
        levels.sort_by_key(|(path, _)| path.depth());

        // The lowest cap from the root down to each level seen so far.
        let mut lowest: BTreeMap<ParentPath, Option<MilliCpu>> = BTreeMap::new();
        let mut tree = Vec::with_capacity(levels.len());
        for (path, mut caps) in levels {
            let mut above = None;
            for level in path.levels() {
                if level == *path {
                    break;
                }
                above = *lowest.entry(level.clone()).or_insert_with(|| {
                    let kept = self
                        .read_caps(&level)
                        .ok()
                        .flatten()
                        .and_then(|caps| caps.cpu);
                    kept.or(above)
                });
            }
            caps.cpu = caps
                .cpu
                .filter(|&own| above.is_none_or(|above| own < above));
            lowest.insert(path.clone(), caps.cpu.or(above));
            tree.push((path.clone(), caps));
        }
        tree
    }

    /// The largest CPU cap among the cgroups directly below, or, below one without a cap, among its
    /// own children; `None` when nothing below has one. On v1 the cap cannot go lower than this.
    /// Containers that do not run have no cgroup and do not count.
    ///
    /// # Errors
    /// [`CapError::Io`].
    pub fn largest_child_cpu(&self, path: &ParentPath) -> Result<Option<MilliCpu>, CapError> {
        self.largest_below(self.dirs(path).cpu())
    }

    pub(super) fn largest_below(&self, dir: &Path) -> Result<Option<MilliCpu>, CapError> {
        let mut largest = None;
        for child in children(dir).map_err(io_error("list", dir))? {
            let cap = match self.raw_cpu(&child)?.and_then(RawCpu::cap) {
                Some(cap) => Some(cap),
                None => self.largest_below(&child)?,
            };
            largest = largest.max(cap);
        }
        Ok(largest)
    }

    /// Removes a cgroup that has neither processes nor children; returns whether it is gone now.
    ///
    /// # Errors
    /// [`CapError`] when something other than its being in use stands in the way.
    pub fn remove_if_empty(&self, path: &ParentPath) -> Result<bool, CapError> {
        let places = self.every_place(path)?;
        for dir in &places {
            if !children(dir).map_err(io_error("list", dir))?.is_empty() {
                return Ok(false);
            }
            let processes = read_if_there(&dir.join("cgroup.procs"))?;
            if processes.is_some_and(|text| !text.trim().is_empty()) {
                return Ok(false);
            }
        }
        if self.driver == Driver::Systemd && !places.is_empty() {
            self.stop_slice(path)?;
        }
        for dir in &places {
            match std::fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // A container came in between.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(false),
                Err(source) => return Err(io_error("remove", dir)(source)),
            }
        }
        Ok(true)
    }

    /// Where this cgroup exists: the engine makes it under every v1 controller, and in the v2 tree
    /// beside them.
    fn every_place(&self, path: &ParentPath) -> Result<Vec<PathBuf>, CapError> {
        let relative = self.relative(path);
        let roots = match self.version {
            Version::V2 => vec![self.root.clone()],
            // Links (cpu -> cpu,cpuacct) are not directories here, so each tree counts once.
            Version::V1 => children(&self.root).map_err(io_error("list", &self.root))?,
        };
        Ok(roots
            .into_iter()
            .map(|root| root.join(&relative))
            .filter(|dir| dir.is_dir())
            .collect())
    }
}
