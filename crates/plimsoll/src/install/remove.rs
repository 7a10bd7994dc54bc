//! What uninstall does, decided before it is done.

use std::fmt;
use std::path::{Path, PathBuf};

use plimsoll_store::LEDGER_FILE;
use rustix::fs::{FlockOperation, flock};

use super::manifest::{self, Made, hash};
use super::{InstallError, Target, UNITS, io_error, systemctl};
use crate::config::DEFAULT_FILE;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Remove(PathBuf),
    /// A folder goes only where it is empty by then.
    RemoveDir(PathBuf),
    RemoveTree(PathBuf),
    Keep(PathBuf, &'static str),
    Systemctl(Vec<&'static str>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(path) => write!(f, "remove {}", path.display()),
            Self::RemoveDir(path) => write!(f, "remove {}/ if it is empty", path.display()),
            Self::RemoveTree(path) => write!(f, "remove {}/ and all in it", path.display()),
            Self::Keep(path, why) => write!(f, "keep   {} ({why})", path.display()),
            Self::Systemctl(args) => write!(f, "run    systemctl {}", args.join(" ")),
        }
    }
}

/// All of it.
#[derive(Debug)]
pub struct Removal {
    target: Target,
    steps: Vec<Step>,
}

impl Removal {
    /// Each step in words.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.steps.iter().map(ToString::to_string)
    }
}

/// Plans the removal of what is installed. With `purge`, also of `data_dir` and of files that were
/// changed since.
///
/// # Errors
/// [`InstallError::NotInstalled`], [`InstallError::Manifest`].
pub fn removal(target: &Target, data_dir: &Path, purge: bool) -> Result<Removal, InstallError> {
    let list = target
        .manifest()?
        .ok_or_else(|| InstallError::NotInstalled {
            root: target.root.clone(),
        })?;
    let mut steps = Vec::new();
    let has_unit = |made: &Made| made.path().ends_with(UNITS[1]) && target.at(made.path()).exists();
    let tell_systemd = target.runs_systemd() && list.0.iter().any(has_unit);
    if tell_systemd {
        steps.push(Step::Systemctl(vec!["stop", UNITS[1]]));
    }
    if target.at(data_dir).exists() {
        steps.push(match purge {
            false => Step::Keep(data_dir.to_owned(), "the data; --purge removes it"),
            // A configuration that names some other folder must not cost that folder.
            true if !target.at(data_dir).join(LEDGER_FILE).exists() => {
                Step::Keep(data_dir.to_owned(), "there is no ledger in it")
            }
            true => Step::RemoveTree(data_dir.to_owned()),
        });
    }
    for made in list.0.iter().rev() {
        let path = made.path().to_owned();
        let here = target.at(&path);
        match made {
            Made::Dir(_) => {}
            _ if here.symlink_metadata().is_err() => {}
            Made::Link(_, to) => {
                let unchanged = std::fs::read_link(&here).is_ok_and(|now| now == *to);
                steps.push(if unchanged {
                    Step::Remove(path)
                } else {
                    Step::Keep(path, "it points elsewhere now")
                });
            }
            Made::File(_, written) => {
                let unchanged = std::fs::read(&here).is_ok_and(|now| hash(&now) == *written);
                steps.push(if unchanged || purge {
                    Step::Remove(path)
                } else {
                    Step::Keep(path, "it was changed since; --purge removes it")
                });
            }
        }
    }
    // A configuration that an earlier uninstall kept is in no list any more.
    let config = Path::new(DEFAULT_FILE);
    if purge && list.of(config).is_none() && target.at(config).exists() {
        steps.push(Step::Remove(config.to_owned()));
    }
    steps.push(Step::Remove(manifest::PATH.into()));
    let dirs = list
        .0
        .iter()
        .rev()
        .filter(|made| matches!(made, Made::Dir(_)));
    steps.extend(dirs.map(|made| Step::RemoveDir(made.path().to_owned())));
    if let Some(dir) = config.parent().filter(|_| purge) {
        steps.push(Step::RemoveDir(dir.to_owned()));
    }
    if tell_systemd {
        steps.push(Step::Systemctl(vec!["daemon-reload"]));
    }
    Ok(Removal {
        target: target.clone(),
        steps,
    })
}

impl Removal {
    /// Does it.
    ///
    /// # Errors
    /// [`InstallError`]; what is left is still in the manifest, which goes last but for folders.
    pub fn carry_out(&self) -> Result<(), InstallError> {
        for step in &self.steps {
            match step {
                Step::Keep(..) => {}
                Step::Remove(path) => {
                    let here = self.target.at(path);
                    std::fs::remove_file(&here).map_err(io_error("remove", &here))?;
                }
                Step::RemoveTree(path) => {
                    let here = self.target.at(path);
                    not_served(&here)?;
                    std::fs::remove_dir_all(&here).map_err(io_error("remove", &here))?;
                }
                Step::RemoveDir(path) => {
                    let here = self.target.at(path);
                    match std::fs::remove_dir(&here) {
                        Ok(()) => {}
                        Err(error)
                            if matches!(
                                error.kind(),
                                std::io::ErrorKind::NotFound
                                    | std::io::ErrorKind::DirectoryNotEmpty
                            ) => {}
                        Err(source) => return Err(io_error("remove", &here)(source)),
                    }
                }
                Step::Systemctl(args) => systemctl(args)?,
            }
        }
        Ok(())
    }
}

/// Whether no server holds the data directory, as a server holds it.
fn not_served(data_dir: &Path) -> Result<(), InstallError> {
    let path = data_dir.join("lock");
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("read", &path)(source)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(_) => Err(InstallError::Served {
            data_dir: data_dir.to_owned(),
        }),
    }
}
