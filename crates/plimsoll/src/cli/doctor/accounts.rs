//! Who is who on a host: `/etc/passwd`, `/etc/group`, `/etc/sudoers` and its folder.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::at;

/// Users and groups of a host.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// Name, uid, primary gid.
    users: Vec<(String, u32, u32)>,
    /// Name, gid, members.
    groups: Vec<(String, u32, Vec<String>)>,
}

impl Accounts {
    pub(super) fn read(root: &Path) -> Self {
        let lines = |path: &str| {
            let text = std::fs::read(at(root, path)).unwrap_or_default();
            String::from_utf8_lossy(&text).into_owned()
        };
        let users = lines("/etc/passwd");
        let users = users.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some((name.to_owned(), uid, fields.next()?.parse().ok()?))
        });
        let groups = lines("/etc/group");
        let groups = groups.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next()?.split(',').filter(|m| !m.is_empty());
            Some((name.to_owned(), gid, members.map(str::to_owned).collect()))
        });
        Self {
            users: users.collect(),
            groups: groups.collect(),
        }
    }

    pub(super) fn gid(&self, group: &str) -> Option<u32> {
        self.groups
            .iter()
            .find(|(name, ..)| name == group)
            .map(|(_, gid, _)| *gid)
    }

    pub(super) fn group(&self, gid: u32) -> String {
        let found = self.groups.iter().find(|(_, g, _)| *g == gid);
        found.map_or_else(|| gid.to_string(), |(name, ..)| name.clone())
    }

    pub(super) fn user(&self, uid: u32) -> String {
        let found = self.users.iter().find(|(_, u, _)| *u == uid);
        found.map_or_else(|| uid.to_string(), |(name, ..)| name.clone())
    }

    /// Everybody in a group, by the group's list or as their primary group; without root.
    pub(super) fn members(&self, gid: u32) -> Vec<String> {
        let listed = self
            .groups
            .iter()
            .filter(|(_, g, _)| *g == gid)
            .flat_map(|(.., m)| m);
        let primary = self
            .users
            .iter()
            .filter(|(.., g)| *g == gid)
            .map(|(name, ..)| name);
        let all: BTreeSet<&String> = listed.chain(primary).filter(|n| *n != "root").collect();
        all.into_iter().cloned().collect()
    }

    /// Names of uid 0 beside root.
    pub(super) fn other_roots(&self) -> Vec<String> {
        let zero = self
            .users
            .iter()
            .filter(|(name, uid, _)| *uid == 0 && name != "root");
        zero.map(|(name, ..)| name.clone()).collect()
    }
}

/// A rule of sudo that makes somebody root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SudoRule {
    /// A user, or `%group`.
    pub(super) who: String,
    /// Without a password.
    pub(super) no_password: bool,
    /// Where it stands: `sudoers:12`.
    pub(super) place: String,
}

/// The rules by which others than root become root. A missing sudo has none.
///
/// # Errors
/// The file that cannot be read, and why.
pub(super) fn sudo_rules(root: &Path) -> Result<Vec<SudoRule>, (PathBuf, io::Error)> {
    let mut files = Vec::new();
    let main = at(root, "/etc/sudoers");
    if main.exists() {
        files.push(main);
    }
    let dir = at(root, "/etc/sudoers.d");
    match std::fs::read_dir(&dir) {
        Ok(entries) => {
            let mut inner: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
            // As sudo itself does: names with a dot or ending in ~ are skipped.
            inner.retain(|path| {
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or(".");
                path.is_file() && !name.contains('.') && !name.ends_with('~')
            });
            inner.sort();
            files.extend(inner);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err((dir, error)),
    }
    let mut rules = Vec::new();
    for path in files {
        let text = std::fs::read(&path).map_err(|error| (path.clone(), error))?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        rules.extend(rules_in(&String::from_utf8_lossy(&text), &name));
    }
    Ok(rules)
}

/// Programs that give their user everything.
const MIGHTY: [&str; 8] = [
    "ALL", "docker", "ctr", "nsenter", "su", "sh", "bash", "plimsoll",
];

fn rules_in(text: &str, file: &str) -> Vec<SudoRule> {
    let mut rules = Vec::new();
    let mut line = String::new();
    for (number, part) in text.lines().enumerate() {
        line.push_str(part.trim_end_matches('\\'));
        if part.ends_with('\\') {
            continue;
        }
        let whole = std::mem::take(&mut line);
        rules.extend(rule(&whole, &format!("{file}:{}", number + 1)));
    }
    rules
}

fn rule(line: &str, place: &str) -> Vec<SudoRule> {
    let line = line.trim();
    let words = [
        "Defaults",
        "User_Alias",
        "Runas_Alias",
        "Host_Alias",
        "Cmnd_Alias",
        "@include",
    ];
    let is_uid = line
        .strip_prefix('#')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if line.is_empty() || (line.starts_with('#') && !is_uid) {
        return Vec::new();
    }
    if words.iter().any(|word| line.starts_with(word)) {
        return Vec::new();
    }
    let Some((left, commands)) = line.split_once('=') else {
        return Vec::new();
    };
    // The hosts are the last word on the left; names may be separated by commas and spaces.
    let mut names: Vec<&str> = left
        .split([',', ' ', '\t'])
        .filter(|w| !w.is_empty())
        .collect();
    names.pop();
    // A rule for becoming somebody else than root is none of ours.
    let runas = commands
        .trim_start()
        .strip_prefix('(')
        .and_then(|c| c.split_once(')'));
    let as_root = runas.is_none_or(|(who, _)| {
        let who = who.split(':').next().unwrap_or_default();
        who.split(',')
            .any(|w| matches!(w.trim(), "ALL" | "root" | "#0"))
    });
    let commands = runas.map_or(commands, |(_, rest)| rest);
    let program = |command: &str| {
        let word = command
            .split([' ', '\t'])
            .find(|w| !w.is_empty() && !w.ends_with(':'));
        let word = word
            .unwrap_or_default()
            .rsplit(':')
            .next()
            .unwrap_or_default();
        word.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let mighty = commands
        .split(',')
        .any(|c| MIGHTY.contains(&program(c).as_str()));
    if !as_root || !mighty {
        return Vec::new();
    }
    let no_password = commands.contains("NOPASSWD");
    names
        .into_iter()
        .filter(|name| !matches!(*name, "root" | "%root" | "#0"))
        .map(|name| SudoRule {
            who: name.to_owned(),
            no_password,
            place: place.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_listed_or_have_it_as_their_primary_group() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let passwd = "root:x:0:0::/:/bin/sh\nada:x:1000:100::/:/bin/sh\nben:x:1001:999::/:/bin/sh\n\
                      toor:x:0:0::/:/bin/sh\nbroken line\n";
        std::fs::write(etc.join("passwd"), passwd).unwrap();
        std::fs::write(
            etc.join("group"),
            "docker:x:999:ada,root\nusers:x:100:\nbad\n",
        )
        .unwrap();
        let accounts = Accounts::read(root.path());
        assert_eq!(accounts.gid("docker"), Some(999));
        assert_eq!(accounts.members(999), ["ada", "ben"]);
        assert_eq!(accounts.group(100), "users");
        assert_eq!(accounts.group(7), "7");
        assert_eq!(accounts.other_roots(), ["toor"]);
    }

    #[test]
    fn rules_that_make_root_are_found_and_others_are_not() {
        for (line, found) in [
            ("root ALL=(ALL:ALL) ALL", &[][..]),
            ("%sudo ALL=(ALL:ALL) ALL", &[("%sudo", false)][..]),
            ("ada ALL=(ALL) NOPASSWD: ALL", &[("ada", true)]),
            ("ada ALL=(ALL) NOPASSWD:ALL", &[("ada", true)]),
            ("ada, ben ALL = ALL", &[("ada", false), ("ben", false)]),
            ("ada ALL=(root) /usr/bin/docker ps", &[("ada", false)]),
            ("ada ALL=NOPASSWD: /usr/bin/docker", &[("ada", true)]),
            ("ada ALL=(root) /usr/bin/apt update", &[]),
            ("ada ALL=(postgres) ALL", &[]),
            ("#1000 ALL=(ALL) ALL", &[("#1000", false)]),
            ("# ada ALL=(ALL) ALL", &[]),
            ("#includedir /etc/sudoers.d", &[]),
            ("Defaults env_reset=x", &[]),
            ("User_Alias X = ada", &[]),
            ("nonsense", &[]),
        ] {
            let rules = rule(line, "sudoers:1");
            let got: Vec<(&str, bool)> = rules
                .iter()
                .map(|r| (r.who.as_str(), r.no_password))
                .collect();
            assert_eq!(got, found, "{line}");
        }
        let continued = rules_in("Defaults x\nada ALL=(ALL) \\\n  NOPASSWD: ALL\n", "x");
        assert_eq!(continued.len(), 1);
        assert_eq!(continued[0].place, "x:3");
    }

    #[test]
    fn rules_come_from_the_file_and_its_folder() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(sudo_rules(root.path()).unwrap(), []);
        let dir = root.path().join("etc/sudoers.d");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(root.path().join("etc/sudoers"), "%wheel ALL=(ALL) ALL\n").unwrap();
        std::fs::write(dir.join("ada"), "ada ALL=(ALL) NOPASSWD: ALL\n").unwrap();
        std::fs::write(dir.join("old.bak"), "eve ALL=(ALL) ALL\n").unwrap();
        let who: Vec<String> = sudo_rules(root.path())
            .unwrap()
            .into_iter()
            .map(|r| r.who)
            .collect();
        assert_eq!(who, ["%wheel", "ada"]);
    }
}
