//! What a caller may see of what is measured, charged and changed, looked up once.

use std::collections::HashSet;

use plimsoll_core::entity::{TeamId, UserId};
use plimsoll_store::history::Labels;
use uuid::Uuid;

use super::auth::Caller;
use super::problem::Problem;
use crate::state::App;

/// What a caller may see of everything that was measured.
#[derive(Debug)]
pub(super) struct View {
    all: bool,
    me: Option<String>,
    teams: HashSet<String>,
    led: HashSet<String>,
    led_users: HashSet<String>,
}

impl View {
    pub(super) async fn of(app: &App, caller: &Caller) -> Result<Self, Problem> {
        let mut view = Self {
            all: caller.rights.read_all,
            me: caller.user.as_ref().map(|me| me.id.to_string()),
            teams: HashSet::new(),
            led: HashSet::new(),
            led_users: HashSet::new(),
        };
        let Some(me) = caller.user.as_ref().filter(|_| !view.all) else {
            return Ok(view);
        };
        let places = app.store.members(None, Some(me.id)).await?;
        view.teams = places.iter().map(|place| place.team.to_string()).collect();
        for team in caller.leads(app).await? {
            view.led.insert(team.to_string());
            let members = app.store.members(Some(team), None).await?;
            view.led_users
                .extend(members.iter().map(|member| member.user.to_string()));
        }
        Ok(view)
    }

    /// Everything.
    pub(super) const fn shows_all(&self) -> bool {
        self.all
    }

    /// Charges of this user in this team: their own, and those in teams they lead.
    pub(super) fn shows_charge(&self, user: UserId, team: Option<TeamId>) -> bool {
        self.all
            || self.is_me(&user.to_string())
            || team.is_some_and(|team| self.led.contains(&team.to_string()))
    }

    /// What is told of them, or of a team they are in.
    pub(super) fn shows_entity(&self, entity: Uuid) -> bool {
        let id = entity.to_string();
        self.all || self.is_me(&id) || self.teams.contains(&id)
    }

    /// What is changed about a user: theirs, and that of members of teams they lead.
    pub(super) fn shows_user(&self, user: UserId) -> bool {
        let id = user.to_string();
        self.all || self.is_me(&id) || self.led_users.contains(&id)
    }

    fn is_me(&self, user: &str) -> bool {
        self.me.as_deref() == Some(user)
    }

    /// Their own, sums of their teams, and of teams they lead everything.
    pub(super) fn shows(&self, entity: &str, labels: &Labels) -> bool {
        self.all
            || match entity.split_once(':') {
                Some(("user", id)) => self.is_me(id) || self.led_users.contains(id),
                Some(("team", id)) => self.teams.contains(id),
                Some(("container", _)) => {
                    labels.user.as_deref().is_some_and(|user| self.is_me(user))
                        || labels.team.as_ref().is_some_and(|t| self.led.contains(t))
                }
                // A project is its team's, or one user's.
                Some(("project", _)) => {
                    labels.user.as_deref().is_some_and(|user| self.is_me(user))
                        || labels.team.as_ref().is_some_and(|t| self.teams.contains(t))
                }
                _ => false,
            }
    }
}
