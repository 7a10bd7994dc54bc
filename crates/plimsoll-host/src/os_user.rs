//! People of the host, as its name service knows them: files, LDAP or whatever else it asks.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// An account of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OsUser {
    /// Login name.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Every group it is in, the primary one included.
    pub groups: Vec<u32>,
    /// Its home folder.
    pub home: PathBuf,
}

impl OsUser {
    /// The account with this uid; `None` when the host has none.
    ///
    /// Asks `getent` and `id`, because only they know every source that the host's administrator
    /// configured. Takes milliseconds, or as long as that source takes.
    ///
    /// # Errors
    /// When one of the two cannot be run.
    pub fn by_uid(uid: u32) -> io::Result<Option<Self>> {
        let Some(line) = output("getent", &["passwd", &uid.to_string()])? else {
            return Ok(None);
        };
        let Some(mut user) = Self::from_passwd(line.trim_end()).filter(|user| user.uid == uid)
        else {
            return Ok(None);
        };
        let groups = output("id", &["-G", "--", &user.name])?.unwrap_or_default();
        user.groups.extend(
            groups
                .split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
        user.groups.sort_unstable();
        user.groups.dedup();
        Ok(Some(user))
    }

    /// Whether the account is in one of these groups, by name; one that the host does not know has
    /// nobody in it.
    ///
    /// # Errors
    /// When `getent` cannot be run.
    pub fn is_in(&self, groups: &[String]) -> io::Result<bool> {
        for name in groups {
            let line = output("getent", &["group", "--", name])?.unwrap_or_default();
            let gid = line.split(':').nth(2).and_then(|gid| gid.parse().ok());
            if gid.is_some_and(|gid| self.groups.contains(&gid)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A line of `passwd(5)`.
    fn from_passwd(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, _] = fields[..] else {
            return None;
        };
        let gid = gid.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid,
            groups: vec![gid],
            home: PathBuf::from(home),
        })
    }
}

/// What a program prints; `None` when it fails, which here means that there is no such account.
fn output(program: &str, arguments: &[&str]) -> io::Result<Option<String>> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nobody_has_the_last_uid() {
        let root = OsUser::by_uid(0).unwrap().unwrap();
        assert_eq!((root.name.as_str(), root.gid), ("root", 0));
        assert!(root.groups.contains(&0));
        assert_eq!(OsUser::by_uid(4_294_967_290).unwrap(), None);
        let is_in = |groups: &[&str]| {
            let groups: Vec<_> = groups.iter().map(|&name| name.to_owned()).collect();
            root.is_in(&groups).unwrap()
        };
        assert!(is_in(&["no-such-group", "root"]));
        assert!(!is_in(&["no-such-group", "--help"]) && !is_in(&[]));
    }

    #[test]
    fn lines_that_are_no_accounts_are_none() {
        for line in ["", "a:b", "a:x:one:1::/:", "a:x:1:1:/home/a:/bin/sh"] {
            assert_eq!(OsUser::from_passwd(line), None, "{line}");
        }
    }
}
