//! What an installation put on a host, so that it can be taken away again and nothing else.
//!
//! A text file, one thing a line: `dir PATH`, `link PATH TARGET`, `file PATH SHA256`. Paths are as on
//! the running system, without the `--root` prefix.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where it is kept.
pub(super) const PATH: &str = "/etc/plimsoll/installed";

const HEAD: &str =
    "# Written by `plimsoll install`; `plimsoll uninstall` removes what is listed here.\n";

/// One thing that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Made {
    /// A folder that was not there before.
    Dir(PathBuf),
    /// A symbolic link.
    Link(PathBuf, PathBuf),
    /// A file, with the hash of what was written.
    File(PathBuf, String),
}

impl Made {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Dir(path) | Self::Link(path, _) | Self::File(path, _) => path,
        }
    }
}

/// Everything that was made, in the order of making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manifest(pub(super) Vec<Made>);

impl Manifest {
    pub(super) fn of(&self, path: &Path) -> Option<&Made> {
        self.0.iter().find(|made| made.path() == path)
    }

    /// Notes a thing, in place of what was noted for its path before.
    pub(super) fn note(&mut self, made: Made) {
        match self.0.iter_mut().find(|m| m.path() == made.path()) {
            Some(before) => *before = made,
            None => self.0.push(made),
        }
    }

    pub(super) fn render(&self) -> String {
        let mut text = HEAD.to_owned();
        for made in &self.0 {
            let _ = match made {
                Made::Dir(path) => writeln!(text, "dir {}", path.display()),
                Made::Link(path, to) => writeln!(text, "link {} {}", path.display(), to.display()),
                Made::File(path, hash) => writeln!(text, "file {} {hash}", path.display()),
            };
        }
        text
    }

    /// `None` for a text that is no manifest, with the line that is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, usize> {
        let mut all = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let made = match words.as_slice() {
                ["dir", path] => Made::Dir(path.into()),
                ["link", path, to] => Made::Link(path.into(), to.into()),
                ["file", path, hash] => Made::File(path.into(), (*hash).to_owned()),
                _ => return Err(number + 1),
            };
            // What is removed is never named relative to wherever somebody happens to be.
            let safe = made.path().is_absolute()
                && !made
                    .path()
                    .components()
                    .any(|c| c == std::path::Component::ParentDir);
            if !safe {
                return Err(number + 1);
            }
            all.push(made);
        }
        Ok(Self(all))
    }
}

/// The hash of a file's content.
pub(super) fn hash(content: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(content) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_reads_back() {
        let manifest = Manifest(vec![
            Made::Dir("/etc/plimsoll".into()),
            Made::File("/etc/plimsoll/plimsoll.toml".into(), hash(b"x")),
            Made::Link("/usr/a".into(), "/usr/b".into()),
        ]);
        assert_eq!(Manifest::parse(&manifest.render()), Ok(manifest));
        for (text, line) in [
            ("file /etc/x", 1),
            ("# c\nrm /etc/x y", 2),
            ("dir etc", 1),
            ("dir /etc/../root", 1),
        ] {
            assert_eq!(Manifest::parse(text), Err(line), "{text}");
        }
    }
}
