//! What install does, decided before it is done.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::manifest::{self, Made, Manifest, hash};
use super::{BINARY, InstallError, Target, UNITS, io_error, systemctl};

const CONFIG: &str = "/etc/plimsoll/plimsoll.toml";
const UNIT_DIR: &str = "/etc/systemd/system";
const PROFILE: &str = "/etc/profile.d/plimsoll.sh";
const PLUGIN: &str = "/usr/local/lib/docker/cli-plugins/docker-quota";

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a folder.
    Dir {
        /// On the installed system.
        path: PathBuf,
    },
    /// Write a file.
    Write {
        /// On the installed system.
        path: PathBuf,
        /// What it will hold.
        content: Vec<u8>,
        /// Its permissions.
        mode: u32,
    },
    /// Make a symbolic link.
    Link {
        /// On the installed system.
        path: PathBuf,
        /// Where it points.
        to: PathBuf,
    },
    /// Leave something as it is.
    Keep {
        /// On the installed system.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// Tell the running systemd.
    Systemctl {
        /// Its arguments.
        args: Vec<&'static str>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir { path } => write!(f, "make   {}/", path.display()),
            Self::Write { path, content, .. } => {
                write!(f, "write  {} ({} bytes)", path.display(), content.len())
            }
            Self::Link { path, to } => write!(f, "link   {} -> {}", path.display(), to.display()),
            Self::Keep { path, why } => write!(f, "keep   {} ({why})", path.display()),
            Self::Systemctl { args } => write!(f, "run    systemctl {}", args.join(" ")),
        }
    }
}

/// All of it.
#[derive(Debug)]
pub struct Plan {
    target: Target,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// What is not done, and what that means.
    pub skipped: Vec<String>,
    manifest: Manifest,
}

/// What a file is for, which decides what happens to one that is there already.
#[derive(PartialEq, Eq)]
enum Care {
    /// Ours: written anew by each installation.
    Ours,
    /// The administrator's as soon as it exists.
    Theirs,
}

/// Plans an installation of the program `binary`.
///
/// # Errors
/// [`InstallError`] when a file that is not Plimsoll's is in the way.
pub fn plan(target: &Target, binary: &Path, force: bool) -> Result<Plan, InstallError> {
    let mut plan = Plan {
        target: target.clone(),
        steps: Vec::new(),
        skipped: Vec::new(),
        manifest: target.manifest()?.unwrap_or_default(),
    };
    let same_file = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    if same_file(binary, &target.at(BINARY)) {
        plan.steps.push(Step::Keep {
            path: BINARY.into(),
            why: "it is the program that runs this",
        });
    } else {
        let content = std::fs::read(binary).map_err(io_error("read", binary))?;
        plan.file(BINARY, content, 0o755, &Care::Ours, force)?;
    }
    let text = |text: &str| text.as_bytes().to_vec();
    let config = text(include_str!("../../../../deploy/plimsoll.toml"));
    plan.file(CONFIG, config, 0o644, &Care::Theirs, force)?;
    if target.has_systemd() {
        let units = [
            (
                UNITS[0],
                include_str!("../../../../deploy/plimsoll-caps.service"),
                "docker.service.wants",
            ),
            (
                UNITS[1],
                include_str!("../../../../deploy/plimsoll.service"),
                "multi-user.target.wants",
            ),
        ];
        for (name, content, wants) in units {
            let unit = format!("{UNIT_DIR}/{name}");
            plan.file(&unit, text(content), 0o644, &Care::Ours, force)?;
            // What `systemctl enable` would make, also where no systemd runs yet.
            plan.link(&format!("{UNIT_DIR}/{wants}/{name}"), &unit, force)?;
        }
    } else {
        plan.skipped.push(
            "there is no systemd here, so no units were installed: let your init system run \
             `plimsoll caps restore` before the engine starts and `plimsoll serve` after it, as root"
                .to_owned(),
        );
    }
    let profile = text(include_str!("../../../../deploy/profile.sh"));
    plan.file(PROFILE, profile, 0o644, &Care::Ours, force)?;
    plan.link(PLUGIN, BINARY, force)?;
    if target.runs_systemd() {
        plan.steps.push(Step::Systemctl {
            args: vec!["daemon-reload"],
        });
    }
    Ok(plan)
}

impl Plan {
    fn file(
        &mut self,
        path: &str,
        content: Vec<u8>,
        mode: u32,
        care: &Care,
        force: bool,
    ) -> Result<(), InstallError> {
        let here = self.target.at(path);
        let path = PathBuf::from(path);
        let ours = matches!(self.manifest.of(&path), Some(Made::File(..)));
        match std::fs::symlink_metadata(&here) {
            Err(_) => {}
            Ok(_) if *care == Care::Theirs => {
                self.steps.push(Step::Keep {
                    path,
                    why: "it is the administrator's",
                });
                return Ok(());
            }
            Ok(there) if !there.is_file() && !force => {
                return Err(InstallError::InTheWay { path: here });
            }
            Ok(_) => {
                let same = std::fs::read(&here).is_ok_and(|now| now == content);
                if !same && !ours && !force {
                    return Err(InstallError::InTheWay { path: here });
                }
                if same && ours {
                    self.steps.push(Step::Keep {
                        path,
                        why: "it is up to date",
                    });
                    return Ok(());
                }
            }
        }
        self.parents(&path);
        self.manifest.note(Made::File(path.clone(), hash(&content)));
        self.steps.push(Step::Write {
            path,
            content,
            mode,
        });
        Ok(())
    }

    fn link(&mut self, path: &str, to: &str, force: bool) -> Result<(), InstallError> {
        let here = self.target.at(path);
        let (path, to) = (PathBuf::from(path), PathBuf::from(to));
        if here.symlink_metadata().is_ok() {
            if std::fs::read_link(&here).is_ok_and(|now| now == to) {
                self.steps.push(Step::Keep {
                    path,
                    why: "it is up to date",
                });
                return Ok(());
            }
            if self.manifest.of(&path).is_none() && !force {
                return Err(InstallError::InTheWay { path: here });
            }
        }
        self.parents(&path);
        self.manifest.note(Made::Link(path.clone(), to.clone()));
        self.steps.push(Step::Link { path, to });
        Ok(())
    }

    /// The folders above `path` that are not there yet.
    fn parents(&mut self, path: &Path) {
        let mut missing: Vec<PathBuf> = path
            .ancestors()
            .skip(1)
            .take_while(|dir| !self.target.at(dir).exists())
            .map(Path::to_owned)
            .collect();
        missing.reverse();
        for path in missing {
            let step = Step::Dir { path: path.clone() };
            if !self.steps.contains(&step) {
                self.manifest.note(Made::Dir(path));
                self.steps.push(step);
            }
        }
    }

    /// Does it. The manifest is written first, so that an installation cut short can be undone.
    ///
    /// # Errors
    /// [`InstallError`]; what was done until then is in the manifest.
    pub fn carry_out(&self) -> Result<(), InstallError> {
        let list = self.target.at(manifest::PATH);
        if let Some(dir) = list.parent() {
            std::fs::create_dir_all(dir).map_err(io_error("write", dir))?;
        }
        write_whole(&list, self.manifest.render().as_bytes(), 0o644)?;
        for step in &self.steps {
            match step {
                Step::Keep { .. } => {}
                Step::Dir { path } => {
                    let here = self.target.at(path);
                    std::fs::create_dir_all(&here).map_err(io_error("write", &here))?;
                    let mode = std::fs::Permissions::from_mode(0o755);
                    std::fs::set_permissions(&here, mode).map_err(io_error("write", &here))?;
                }
                Step::Write {
                    path,
                    content,
                    mode,
                } => {
                    write_whole(&self.target.at(path), content, *mode)?;
                }
                Step::Link { path, to } => {
                    let here = self.target.at(path);
                    if here.symlink_metadata().is_ok() {
                        std::fs::remove_file(&here).map_err(io_error("write", &here))?;
                    }
                    std::os::unix::fs::symlink(to, &here).map_err(io_error("write", &here))?;
                }
                Step::Systemctl { args } => systemctl(args)?,
            }
        }
        Ok(())
    }
}

/// Writes a file so that it is either the old one or the new one, even while the old one runs.
fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), InstallError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".new");
    let partial = PathBuf::from(partial);
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&partial)?;
        file.write_all(content)?;
        // The mode given at opening is cut by the umask.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    })();
    written.map_err(|source| {
        let _ = std::fs::remove_file(&partial);
        io_error("write", path)(source)
    })
}
