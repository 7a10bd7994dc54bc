//! Whose quota or use a command is about.

use serde_json::Value;

use super::args::{Kind, Who};
use super::client::{Client, path};
use super::error::CliError;

/// An entity that the command line named or implied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entity {
    /// A user.
    User(String),
    /// A team.
    Team(String),
    /// Everything together.
    System,
}

impl Entity {
    /// From a kind and a name.
    ///
    /// # Errors
    /// [`CliError::Usage`] when one asks for the other.
    pub(super) fn named(kind: Kind, name: Option<&str>) -> Result<Self, CliError> {
        let missing = |what: &str| CliError::Usage(format!("{what} needs a name: {what} NAME"));
        match (kind, name) {
            (Kind::User, Some(name)) => Ok(Self::User(name.to_owned())),
            (Kind::User, None) => Err(missing("user")),
            (Kind::Team, Some(name)) => Ok(Self::Team(name.to_owned())),
            (Kind::Team, None) => Err(missing("team")),
            (Kind::System, None) => Ok(Self::System),
            (Kind::System, Some(_)) => Err(CliError::Usage("there is only one system".to_owned())),
        }
    }

    /// The one named, or the caller; callers who are no user, like root, see the system.
    ///
    /// # Errors
    /// [`CliError::Usage`], and what asking the server gives.
    pub(super) async fn of(client: &Client, who: &Who) -> Result<Self, CliError> {
        match who.kind {
            Some(kind) => Self::named(kind, who.name.as_deref()),
            None => Ok(me(client).await?.map_or(Self::System, Self::User)),
        }
    }

    /// Its place below `/api/usage` or `/api/quotas`.
    #[must_use]
    pub(super) fn path(&self, resource: &str) -> String {
        match self {
            Self::User(name) => path(&[resource, "user", name]),
            Self::Team(name) => path(&[resource, "team", name]),
            Self::System => path(&[resource, "system"]),
        }
    }
}

/// The caller's name, where they are a user.
///
/// # Errors
/// What asking the server gives.
pub(super) async fn me(client: &Client) -> Result<Option<String>, CliError> {
    let me: Value = client.get(&path(&["me"])).await?;
    Ok(me["user"]["name"].as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_teams_have_names_and_the_system_has_none() {
        assert_eq!(
            Entity::named(Kind::User, Some("ada"))
                .unwrap()
                .path("usage"),
            "/api/usage/user/ada"
        );
        assert_eq!(
            Entity::named(Kind::System, None).unwrap().path("quotas"),
            "/api/quotas/system"
        );
        for (kind, name) in [
            (Kind::User, None),
            (Kind::Team, None),
            (Kind::System, Some("x")),
        ] {
            assert!(Entity::named(kind, name).is_err());
        }
    }
}
