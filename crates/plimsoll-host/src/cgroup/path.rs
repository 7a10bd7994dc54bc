//! Names of Plimsoll's own cgroups.
//!
//! Entities appear by their UUID's 32 hexadecimal digits, never by name: a name may be changed, and
//! systemd nests a slice at every hyphen of its name.

use std::fmt;
use std::str::FromStr;

use crate::ids::is_lower_hex;

/// The name that scopes one Plimsoll's cgroups, so several can share a host without seeing each
/// other's: 1 to 32 of `a-z`, `0-9` and `_`, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(String);

/// The text cannot name an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name an instance: use 1 to 32 of a-z, 0-9 and _, beginning with a letter \
     (a hyphen would nest the cgroup under another one)"
)]
pub struct NotAnInstance(pub String);

impl Instance {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Instance {
    fn default() -> Self {
        Self("plimsoll".to_owned())
    }
}

impl FromStr for Instance {
    type Err = NotAnInstance;

    fn from_str(text: &str) -> Result<Self, NotAnInstance> {
        let known = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if first && text.len() <= 32 && text.bytes().all(known) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAnInstance(text.to_owned()))
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One cgroup of Plimsoll's: an instance's root, a team in it, or a user in either.
///
/// Teams and users are given as their UUID's 128 bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParentPath {
    instance: Instance,
    team: Option<u128>,
    user: Option<u128>,
}

impl ParentPath {
    /// The root of an instance: everything Plimsoll runs is below.
    #[must_use]
    pub fn root(instance: Instance) -> Self {
        Self {
            instance,
            team: None,
            user: None,
        }
    }

    /// A team's cgroup.
    #[must_use]
    pub fn team(instance: Instance, team: u128) -> Self {
        Self {
            instance,
            team: Some(team),
            user: None,
        }
    }

    /// A user's cgroup, in a team or, for `None`, of their own. Containers live here.
    #[must_use]
    pub fn user(instance: Instance, team: Option<u128>, user: u128) -> Self {
        Self {
            instance,
            team,
            user: Some(user),
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The team, as its UUID's bits.
    #[must_use]
    pub fn team_id(&self) -> Option<u128> {
        self.team
    }

    /// The user, as their UUID's bits.
    #[must_use]
    pub fn user_id(&self) -> Option<u128> {
        self.user
    }

    /// The level above; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        match (self.team, self.user) {
            (None, None) => None,
            (_, Some(_)) => Some(Self {
                user: None,
                ..self.clone()
            }),
            (Some(_), None) => Some(Self::root(self.instance.clone())),
        }
    }

    /// All levels from the root down to this one.
    #[must_use]
    pub fn levels(&self) -> Vec<Self> {
        let mut levels: Vec<_> =
            std::iter::successors(Some(self.clone()), ParentPath::parent).collect();
        levels.reverse();
        levels
    }

    /// How many levels are above: 0 for the root.
    #[must_use]
    pub fn depth(&self) -> usize {
        usize::from(self.team.is_some()) + usize::from(self.user.is_some())
    }

    /// `plimsoll`, `t<hex>`, `u<hex>`.
    fn names(&self) -> Vec<String> {
        let mut names = vec![self.instance.0.clone()];
        names.extend(self.team.map(|team| format!("t{team:032x}")));
        names.extend(self.user.map(|user| format!("u{user:032x}")));
        names
    }

    /// `/plimsoll/t<hex>/u<hex>`: absolute, because the engine takes a relative one as below its
    /// own cgroup.
    pub(super) fn plain(&self) -> String {
        self.names()
            .iter()
            .fold(String::new(), |path, name| path + "/" + name)
    }

    /// `plimsoll-t<hex>-u<hex>.slice`.
    pub(super) fn slice(&self) -> String {
        self.names().join("-") + ".slice"
    }

    /// `/plimsoll.slice/plimsoll-t<hex>.slice/plimsoll-t<hex>-u<hex>.slice`: where systemd puts it.
    pub(super) fn slice_path(&self) -> String {
        self.levels()
            .iter()
            .fold(String::new(), |path, level| path + "/" + &level.slice())
    }

    /// Reads back what the engine shows as a container's `CgroupParent`, in either driver's form;
    /// `None` for one that is not exactly a cgroup of this instance's.
    #[must_use]
    pub fn parse(cgroup_parent: &str, instance: &Instance) -> Option<Self> {
        let names: Vec<&str> = match cgroup_parent.strip_suffix(".slice") {
            Some(slice) => slice.split('-').collect(),
            None => cgroup_parent.strip_prefix('/')?.split('/').collect(),
        };
        let id = |name: &str, kind: char| {
            let hex = name
                .strip_prefix(kind)
                .filter(|hex| is_lower_hex(hex, 32))?;
            u128::from_str_radix(hex, 16).ok()
        };
        let (first, rest) = names.split_first()?;
        if *first != instance.as_str() {
            return None;
        }
        let (team, user) = match rest {
            [] => (None, None),
            [one] => match id(one, 't') {
                Some(team) => (Some(team), None),
                None => (None, Some(id(one, 'u')?)),
            },
            [team, user] => (Some(id(team, 't')?), Some(id(user, 'u')?)),
            _ => return None,
        };
        Some(Self {
            instance: instance.clone(),
            team,
            user,
        })
    }
}

impl fmt::Display for ParentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digit: char) -> String {
        digit.to_string().repeat(32)
    }

    fn paths() -> [ParentPath; 4] {
        let instance = Instance::default;
        let (a, b) = (u128::MAX / 15 * 10, u128::MAX / 15 * 11);
        [
            ParentPath::root(instance()),
            ParentPath::team(instance(), a),
            ParentPath::user(instance(), Some(a), b),
            ParentPath::user(instance(), None, b),
        ]
    }

    #[test]
    fn levels_have_the_names_both_drivers_give_them() {
        let (t, u) = (format!("t{}", hex('a')), format!("u{}", hex('b')));
        for (path, plain, slice, slice_path) in [
            (
                0,
                "/plimsoll".to_owned(),
                "plimsoll.slice".to_owned(),
                "/plimsoll.slice".to_owned(),
            ),
            (
                1,
                format!("/plimsoll/{t}"),
                format!("plimsoll-{t}.slice"),
                format!("/plimsoll.slice/plimsoll-{t}.slice"),
            ),
            (
                2,
                format!("/plimsoll/{t}/{u}"),
                format!("plimsoll-{t}-{u}.slice"),
                format!("/plimsoll.slice/plimsoll-{t}.slice/plimsoll-{t}-{u}.slice"),
            ),
            (
                3,
                format!("/plimsoll/{u}"),
                format!("plimsoll-{u}.slice"),
                format!("/plimsoll.slice/plimsoll-{u}.slice"),
            ),
        ] {
            let path = &paths()[path];
            assert_eq!(path.plain(), plain);
            assert_eq!(path.slice(), slice);
            assert_eq!(path.slice_path(), slice_path);
        }
    }

    #[test]
    fn what_the_engine_shows_reads_back() {
        for path in paths() {
            for text in [path.plain(), path.slice()] {
                assert_eq!(
                    ParentPath::parse(&text, &Instance::default()),
                    Some(path.clone()),
                    "{text}"
                );
            }
            let other = "other".parse().unwrap();
            assert_eq!(ParentPath::parse(&path.plain(), &other), None);
        }
        for wrong in [
            String::new(),
            "/".to_owned(),
            "plimsoll".to_owned(),
            "/plimsoll/".to_owned(),
            format!("/plimsoll/x{}", hex('a')),
            format!("/plimsoll/t{}", hex('A')),
            format!("/plimsoll/u{}/t{}", hex('a'), hex('b')),
            format!("/plimsoll/t{}/u{}/x", hex('a'), hex('b')),
            "system.slice".to_owned(),
        ] {
            assert_eq!(
                ParentPath::parse(&wrong, &Instance::default()),
                None,
                "{wrong}"
            );
        }
    }

    #[test]
    fn levels_go_from_the_root_down() {
        let path = &paths()[2];
        let levels = path.levels();
        assert_eq!(levels, &paths()[..3]);
        assert_eq!(
            levels.iter().map(ParentPath::depth).collect::<Vec<_>>(),
            [0, 1, 2]
        );
    }

    #[test]
    fn an_instance_has_no_hyphen_and_no_slash() {
        for good in ["plimsoll", "a", "test_7"] {
            assert_eq!(good.parse::<Instance>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a-b",
            "a/b",
            "..",
            "7a",
            "_a",
            "A",
            "é",
            &"a".repeat(33),
        ] {
            assert!(bad.parse::<Instance>().is_err(), "{bad}");
        }
    }
}
