//! Putting Plimsoll on a host, and taking it off again.
//!
//! Everything is planned first and then done, so that `--dry-run` says exactly what would happen and
//! a plan that cannot be carried out changes nothing. A manifest remembers what was made; uninstall
//! removes that and nothing else, and keeps what somebody changed since.
//!
//! There is no group for the sockets: everybody may connect, and the server knows callers by uid.

mod manifest;
mod plan;
mod remove;

use std::io;
use std::path::{Path, PathBuf};

pub use plan::{Plan, Step, plan};
pub use remove::{Removal, removal};

/// The program's place.
pub const BINARY: &str = "/usr/local/bin/plimsoll";
/// The units, in the order they are enabled.
pub const UNITS: [&str; 2] = ["plimsoll-caps.service", "plimsoll.service"];

/// A host that is not changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Something that Plimsoll did not put there is in the way.
    #[error(
        "{} was not put there by plimsoll install, and nothing was changed: move it away, or \
         replace it with --force",
        path.display()
    )]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// Nothing was installed here.
    #[error("nothing is installed below {}: there is no {}", root.display(), manifest::PATH)]
    NotInstalled {
        /// The root.
        root: PathBuf,
    },
    /// The list of what was installed cannot be understood.
    #[error("{}:{line} is not what plimsoll install writes: mend it, or remove the files by hand", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// A server is running on the data that should go.
    #[error("a server is using {}: stop it first", data_dir.display())]
    Served {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// A file or folder cannot be read, written or removed.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// `read`, `write`, `remove`.
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// systemd did not do what it was asked.
    #[error("{command} failed: {said}")]
    Command {
        /// The command line.
        command: String,
        /// Its own words.
        said: String,
    },
}

/// The folder an installation goes below, and what is running there.
#[derive(Debug, Clone)]
pub struct Target {
    root: PathBuf,
}

impl Target {
    /// `/` is the running system.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where a path of the installed system is from here.
    #[must_use]
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether the installed system starts its services with systemd.
    #[must_use]
    pub fn has_systemd(&self) -> bool {
        [
            "/run/systemd/system",
            "/usr/lib/systemd/systemd",
            "/lib/systemd/systemd",
        ]
        .iter()
        .any(|path| self.at(path).exists())
    }

    /// Whether systemd runs here and now, and can be told to read its units again.
    #[must_use]
    pub fn runs_systemd(&self) -> bool {
        self.root == Path::new("/") && self.at("/run/systemd/system").is_dir()
    }

    fn manifest(&self) -> Result<Option<manifest::Manifest>, InstallError> {
        let path = self.at(manifest::PATH);
        match std::fs::read_to_string(&path) {
            Ok(text) => manifest::Manifest::parse(&text)
                .map(Some)
                .map_err(|line| InstallError::Manifest { path, line }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(InstallError::Io {
                verb: "read",
                path,
                source,
            }),
        }
    }
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Io { verb, path, source }
}

/// Runs `systemctl`.
fn systemctl(args: &[&str]) -> Result<(), InstallError> {
    let command = || format!("systemctl {}", args.join(" "));
    let output = std::process::Command::new("systemctl").args(args).output();
    let output = output.map_err(|error| InstallError::Command {
        command: command(),
        said: error.to_string(),
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(InstallError::Command {
        command: command(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
