//! Who has a quota: users, teams and the system, and what they are called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// 32 hex digits without hyphens, as cgroup names need them.
            #[must_use]
            pub fn hex(self) -> String {
                self.0.simple().to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

ids! {
    /// A user.
    UserId;
    /// A team.
    TeamId;
    /// A project: a label within a team or a user.
    ProjectId;
    /// A charge in the ledger.
    ReservationId;
    /// An admission, allowed or refused.
    DecisionId;
    /// An addition to a quota for a time.
    GrantId;
    /// Somebody's wish for one.
    RequestId;
    /// What was moved within a team.
    RedistributionId;
    /// An API token.
    TokenId;
    /// A client certificate; its serial number is this id's 16 bytes.
    CertId;
}

/// What kind of entity a quota belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntityKind {
    /// Everything on every host.
    System,
    /// A team.
    Team,
    /// A user.
    User,
}

impl EntityKind {
    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Team => "team",
            Self::User => "user",
        }
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The entity id of the system, which has no row of its own.
pub const SYSTEM_ID: Uuid = Uuid::nil();

/// The longest name of a user, team, project or class.
pub const NAME_LEN_MAX: usize = 63;

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long or with characters outside `[a-z0-9._-]`, or with a bad first one.
    #[error(
        "must be 1 to 63 characters of a-z, 0-9, '.', '_' and '-', starting with a letter or digit"
    )]
    Form,
    /// Could be mistaken for an id.
    #[error("must not look like a UUID")]
    LooksLikeId,
}

/// The unique name of a user, team, project or class: `[a-z0-9][a-z0-9._-]{0,62}`, never
/// UUID-shaped, so that every API can take a name or an id in one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = text.as_bytes();
        let well_formed = !bytes.is_empty()
            && bytes.len() <= NAME_LEN_MAX
            && plain(bytes[0])
            && bytes.iter().all(|c| plain(*c) || b"._-".contains(c));
        if !well_formed {
            Err(NameError::Form)
        } else if Uuid::try_parse(text).is_ok() {
            Err(NameError::LooksLikeId)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a member may do in a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Adds and removes members, moves allotments.
    Lead,
    /// Uses their allotment and the pool.
    Member,
}

impl MemberRole {
    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lead => "lead",
            Self::Member => "member",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "ada.l", "ml-team_2", longest.as_str()] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in ["", "-a", ".a", "Ada", "a b", "a/b", "ä", too_long.as_str()] {
            assert_eq!(bad.parse::<Name>(), Err(NameError::Form), "{bad}");
        }
        for id in [
            "019a0000-0000-7000-8000-000000000000",
            "019a0000000070008000000000000000",
        ] {
            assert_eq!(id.parse::<Name>(), Err(NameError::LooksLikeId), "{id}");
        }
    }
}
