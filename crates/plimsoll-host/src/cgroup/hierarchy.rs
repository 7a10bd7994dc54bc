//! How a host lays its cgroups out.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::ParentPath;
use crate::ids::ContainerId;

/// Who makes cgroups for the engine; the engine's `CgroupDriver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// The engine writes to the cgroup filesystem itself.
    Cgroupfs,
    /// The engine asks systemd; cgroups are slices and scopes.
    Systemd,
}

/// The engine names a driver that Plimsoll does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine's cgroup driver is {0:?}; Plimsoll works with \"cgroupfs\" and \"systemd\"")]
pub struct UnknownDriver(pub String);

impl FromStr for Driver {
    type Err = UnknownDriver;

    fn from_str(text: &str) -> Result<Self, UnknownDriver> {
        match text {
            "cgroupfs" => Ok(Self::Cgroupfs),
            "systemd" => Ok(Self::Systemd),
            other => Err(UnknownDriver(other.to_owned())),
        }
    }
}

/// The generation of cgroups that controls the host's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A tree per controller, possibly beside a v2 tree that controls nothing.
    V1,
    /// One tree.
    V2,
}

/// The host's cgroups cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// The root cannot be read.
    #[error("cannot read the cgroup root {}", root.display())]
    Io {
        /// The cgroup root.
        root: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Neither a v2 tree nor the v1 trees that matter.
    #[error(
        "{} holds no usable cgroups: it has neither cgroup.controllers (v2) nor the controllers cpu, \
         cpuacct and memory (v1)",
        root.display()
    )]
    NoHierarchy {
        /// The cgroup root.
        root: PathBuf,
    },
}

/// How a host lays its cgroups out.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    pub(super) root: PathBuf,
    pub(super) version: Version,
    pub(super) driver: Driver,
    pub(super) systemctl: PathBuf,
}

/// The directories of one cgroup: one a controller on v1, a single one on v2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupDirs {
    /// A directory per controller.
    V1 {
        /// `cpu.*`: quota and throttling.
        cpu: PathBuf,
        /// `cpuacct.*`: CPU time.
        cpuacct: PathBuf,
        /// `memory.*`.
        memory: PathBuf,
        /// `pids.*`.
        pids: PathBuf,
        /// `blkio.*`: read, and made by the engine.
        blkio: PathBuf,
    },
    /// One directory for all.
    V2 {
        /// The directory.
        dir: PathBuf,
    },
}

impl CgroupDirs {
    /// The directory whose existence means that the cgroup exists.
    #[must_use]
    pub fn main(&self) -> &Path {
        match self {
            Self::V1 { cpuacct, .. } => cpuacct,
            Self::V2 { dir } => dir,
        }
    }

    /// The directory with `memory.*`.
    #[must_use]
    pub fn memory(&self) -> &Path {
        match self {
            Self::V1 { memory, .. } => memory,
            Self::V2 { dir } => dir,
        }
    }

    pub(super) fn cpu(&self) -> &Path {
        match self {
            Self::V1 { cpu, .. } => cpu,
            Self::V2 { dir } => dir,
        }
    }

    pub(super) fn pids(&self) -> &Path {
        match self {
            Self::V1 { pids, .. } => pids,
            Self::V2 { dir } => dir,
        }
    }

    pub(super) fn all(&self) -> Vec<&Path> {
        match self {
            Self::V1 {
                cpu,
                cpuacct,
                memory,
                pids,
                ..
            } => vec![cpu, cpuacct, memory, pids],
            Self::V2 { dir } => vec![dir],
        }
    }
}

impl Hierarchy {
    /// Looks at `root` (usually `/sys/fs/cgroup`). `driver` is what the engine says of itself.
    ///
    /// # Errors
    /// [`DetectError`] when there is nothing usable.
    pub fn detect(root: &Path, driver: Driver) -> Result<Self, DetectError> {
        std::fs::metadata(root).map_err(|source| DetectError::Io {
            root: root.to_owned(),
            source,
        })?;
        let version = if root.join("cgroup.controllers").exists() {
            Version::V2
        } else if ["cpu", "cpuacct", "memory"]
            .iter()
            .all(|name| root.join(name).is_dir())
        {
            // Where cpu and cpuacct are one mount, both names are links to it.
            Version::V1
        } else {
            return Err(DetectError::NoHierarchy {
                root: root.to_owned(),
            });
        };
        Ok(Self {
            root: root.to_owned(),
            version,
            driver,
            systemctl: PathBuf::from("systemctl"),
        })
    }

    /// The same with another `systemctl` than the one on the path.
    #[must_use]
    pub fn with_systemctl(mut self, systemctl: PathBuf) -> Self {
        self.systemctl = systemctl;
        self
    }

    /// The generation in use.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Who makes the cgroups.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// What to send the engine as `CgroupParent`.
    #[must_use]
    pub fn cgroup_parent(&self, path: &ParentPath) -> String {
        match self.driver {
            Driver::Cgroupfs => path.plain(),
            Driver::Systemd => path.slice(),
        }
    }

    /// The directories of one of Plimsoll's cgroups.
    #[must_use]
    pub fn dirs(&self, path: &ParentPath) -> CgroupDirs {
        self.dirs_of(&self.relative(path))
    }

    /// The directories of a container's cgroup under `path`.
    #[must_use]
    pub fn container_dirs(&self, path: &ParentPath, id: &ContainerId) -> CgroupDirs {
        let parent = self.relative(path);
        self.dirs_of(&match self.driver {
            Driver::Cgroupfs => format!("{parent}/{id}"),
            Driver::Systemd => format!("{parent}/docker-{id}.scope"),
        })
    }

    /// The directories of the cgroup of container `id`, by one of its processes: for containers
    /// whose parent somebody else chose. `None` when the process is another's by now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn dirs_of_process(
        &self,
        proc_root: &Path,
        pid: u32,
        id: &ContainerId,
    ) -> io::Result<Option<CgroupDirs>> {
        let text = std::fs::read_to_string(proc_root.join(pid.to_string()).join("cgroup"))?;
        let id = id.to_string();
        let of = |controller: &str| {
            text.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let (controllers, path) = (fields.next()?, fields.next()?);
                let is_it = controllers.split(',').any(|name| name == controller);
                // What is below the container is its own affair.
                let end = path.find(&id)? + id.len();
                let rest = path[end..].split('/').next().unwrap_or_default();
                is_it.then(|| path[1..end + rest.len()].to_owned())
            })
        };
        Ok(match self.version {
            Version::V2 => of("").map(|path| CgroupDirs::V2 {
                dir: self.root.join(path),
            }),
            Version::V1 => of("cpuacct").map(|path| {
                // A controller that is off has no files anywhere.
                let under = |name: &str| {
                    let path = of(name).unwrap_or_else(|| path.clone());
                    self.root.join(name).join(path)
                };
                CgroupDirs::V1 {
                    cpu: under("cpu"),
                    cpuacct: under("cpuacct"),
                    memory: under("memory"),
                    pids: under("pids"),
                    blkio: under("blkio"),
                }
            }),
        })
    }

    /// The path below the (controller's) root, without a leading slash.
    pub(super) fn relative(&self, path: &ParentPath) -> String {
        let absolute = match self.driver {
            Driver::Cgroupfs => path.plain(),
            Driver::Systemd => path.slice_path(),
        };
        absolute.trim_start_matches('/').to_owned()
    }

    fn dirs_of(&self, relative: &str) -> CgroupDirs {
        let under = |controller: &str| self.root.join(controller).join(relative);
        match self.version {
            Version::V1 => CgroupDirs::V1 {
                cpu: under("cpu"),
                cpuacct: under("cpuacct"),
                memory: under("memory"),
                pids: under("pids"),
                blkio: under("blkio"),
            },
            Version::V2 => CgroupDirs::V2 {
                dir: self.root.join(relative),
            },
        }
    }
}
