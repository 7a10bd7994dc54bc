//! What people are told, and who is told it.
//!
//! An [`Event`] is one thing that happened, for every channel the same. [`Event::audience`] is the table
//! of who is told what; names and addresses are found by who keeps them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dimension::Dimension;
use crate::entity::{EntityKind, SYSTEM_ID, TeamId, UserId};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident, $name:literal;)*) => {
        /// What kind of thing happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum EventKind { $($(#[$doc])* #[serde(rename = $name)] $variant),* }

        impl EventKind {
            /// Every kind.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name in the API, in templates and in the ledger.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

kinds! {
    /// A quota has another limit.
    QuotaChanged, "quota.changed";
    /// An allotment, or a team's pool, is another one.
    AllotmentChanged, "allotment.changed";
    /// A grant was given, taken back, or began or ended.
    GrantChanged, "grant.changed";
    /// Somebody asks for more.
    RequestAsked, "request.asked";
    /// A request was approved, denied, or nobody answered it in time.
    RequestAnswered, "request.answered";
    /// Who asked took it back.
    RequestWithdrawn, "request.withdrawn";
    /// So many percent of a limit.
    Threshold, "threshold";
    /// A team's shared pool has nothing left.
    PoolExhausted, "pool.exhausted";
    /// More is promised than there is.
    Overpromised, "overpromised";
    /// Something runs past Plimsoll.
    Unmanaged, "unmanaged";
    /// Use that is out of the ordinary.
    Spike, "spike";
    /// A limit will be reached.
    RunsOut, "runs.out";
    /// A budget is used up too fast.
    BudgetBurn, "budget.burn";
    /// A limit is exceeded.
    Violation, "violation";
    /// What will be done about an exceeded limit.
    StepAnnounced, "step.announced";
    /// What was done about it.
    StepDone, "step.done";
    /// Plimsoll itself needs help.
    Trouble, "trouble";
    /// Creates that were refused in a team.
    DigestOfTeam, "digest.team";
    /// Creates that were refused on the host.
    DigestOfHost, "digest.host";
    /// Somebody tries out whether they can be reached.
    Test, "test";
}

/// Whom or what an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// What it is; the system stands for a host, too.
    pub kind: EntityKind,
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Of a user: their place in this team, else what is theirs outside teams.
    pub team: Option<TeamId>,
}

impl About {
    /// A user's own quota.
    #[must_use]
    pub fn user(id: UserId, name: impl Into<String>) -> Self {
        Self {
            kind: EntityKind::User,
            id: id.0,
            name: name.into(),
            team: None,
        }
    }

    /// A user's place in a team.
    #[must_use]
    pub fn member(team: TeamId, id: UserId, name: impl Into<String>) -> Self {
        Self {
            team: Some(team),
            ..Self::user(id, name)
        }
    }

    /// A team.
    #[must_use]
    pub fn team(id: TeamId, name: impl Into<String>) -> Self {
        Self {
            kind: EntityKind::Team,
            id: id.0,
            name: name.into(),
            team: None,
        }
    }

    /// The host, or all of them.
    #[must_use]
    pub fn system(name: impl Into<String>) -> Self {
        Self {
            kind: EntityKind::System,
            id: SYSTEM_ID,
            name: name.into(),
            team: None,
        }
    }

    /// The page of the dashboard where to look.
    #[must_use]
    pub fn link(&self) -> String {
        match self.kind {
            EntityKind::User => "/mine".to_owned(),
            EntityKind::Team => format!("/team/{}", self.name),
            EntityKind::System => "/host".to_owned(),
        }
    }

    /// The team whose leads it concerns.
    #[must_use]
    pub const fn led_by(&self) -> Option<TeamId> {
        match self.kind {
            EntityKind::Team => Some(TeamId(self.id)),
            EntityKind::User => self.team,
            EntityKind::System => None,
        }
    }
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Something does not work, or soon will not.
    Critical,
}

impl Severity {
    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A number with its name, both for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much, with its unit.
    pub value: String,
}

impl Figure {
    /// A figure.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}

/// Something that people are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// What kind of thing.
    pub kind: EventKind,
    /// Whom it is about.
    pub about: About,
    /// In which dimension, where it is one.
    pub dimension: Option<Dimension>,
    /// How full, where that is the point.
    pub percent: Option<u32>,
    /// How much it matters.
    pub severity: Severity,
    /// It is over.
    pub resolved: bool,
    /// What happened, in one sentence.
    pub title: String,
    /// How much.
    pub figures: Vec<Figure>,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
    /// Who is behind it.
    pub by: Vec<String>,
    /// What to do.
    pub advice: Option<String>,
    /// Where to look, below the server's address.
    pub link: String,
    /// Whose own it is, beside whom it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<UserId>,
    /// Containers are stopped, or will be.
    #[serde(default)]
    pub stops: bool,
}

impl Event {
    /// An event without figures, of something that is good to know.
    #[must_use]
    pub fn new(
        kind: EventKind,
        about: About,
        title: impl Into<String>,
        link: impl Into<String>,
        since_ms: i64,
    ) -> Self {
        Self {
            kind,
            about,
            dimension: None,
            percent: None,
            severity: Severity::Info,
            resolved: false,
            title: title.into(),
            figures: Vec::new(),
            since_ms,
            by: Vec::new(),
            advice: None,
            link: link.into(),
            own: Vec::new(),
            stops: false,
        }
    }

    /// With a figure more.
    #[must_use]
    pub fn figure(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.figures.push(Figure::new(name, value));
        self
    }

    /// With who is behind it.
    #[must_use]
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by.push(who.into());
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn advice(mut self, text: impl Into<String>) -> Self {
        self.advice = Some(text.into());
        self
    }

    /// Who is told.
    #[must_use]
    pub fn audience(&self) -> Audience {
        use EntityKind as Of;
        use EventKind as K;
        let full = self.percent >= Some(100);
        let own = Audience::OWN;
        let leads = Audience::LEADS;
        let admins = Audience::ADMINS;
        match (self.kind, self.about.kind) {
            (K::Overpromised | K::Unmanaged | K::Trouble | K::DigestOfHost, _) => admins,
            (K::DigestOfTeam, _) => leads,
            (K::Test, Of::System) => admins,
            (K::Test, _) => own,
            (K::Threshold | K::Violation, Of::User) => own.and(leads.only_if(full)),
            (K::Threshold | K::Violation | K::PoolExhausted, Of::Team) => {
                Audience::BORROWERS.and(leads).and(admins.only_if(full))
            }
            (K::Threshold | K::Violation | K::PoolExhausted, _) => admins,
            (K::Spike | K::RunsOut | K::BudgetBurn, Of::User) => own,
            (K::Spike | K::RunsOut | K::BudgetBurn, Of::Team) => leads,
            (K::Spike | K::RunsOut | K::BudgetBurn, Of::System) => admins,
            (K::StepAnnounced | K::StepDone, _) => own.and(leads).and(admins.only_if(self.stops)),
            // Within a team its leads are asked, else the administrators.
            (K::RequestAsked | K::RequestWithdrawn, _) => {
                let asked = if self.about.led_by().is_some() {
                    leads
                } else {
                    admins
                };
                own.and(asked)
            }
            (K::QuotaChanged | K::AllotmentChanged | K::GrantChanged | K::RequestAnswered, _) => {
                own.and(leads)
            }
        }
    }
}

/// Who is told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audience {
    /// Whose own it is.
    pub own: bool,
    /// Members of the team who hold more than their allotment.
    pub borrowers: bool,
    /// The leads of the team.
    pub leads: bool,
    /// Administrators.
    pub admins: bool,
}

impl Audience {
    const NOBODY: Self = Self {
        own: false,
        borrowers: false,
        leads: false,
        admins: false,
    };
    const OWN: Self = Self {
        own: true,
        ..Self::NOBODY
    };
    const BORROWERS: Self = Self {
        borrowers: true,
        ..Self::NOBODY
    };
    const LEADS: Self = Self {
        leads: true,
        ..Self::NOBODY
    };
    const ADMINS: Self = Self {
        admins: true,
        ..Self::NOBODY
    };

    const fn and(self, other: Self) -> Self {
        Self {
            own: self.own || other.own,
            borrowers: self.borrowers || other.borrowers,
            leads: self.leads || other.leads,
            admins: self.admins || other.admins,
        }
    }

    const fn only_if(self, yes: bool) -> Self {
        if yes { self } else { Self::NOBODY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters: `o`wn, `b`orrowers, `l`eads, `a`dministrators.
    fn told(event: &Event) -> String {
        let who = event.audience();
        [
            (who.own, 'o'),
            (who.borrowers, 'b'),
            (who.leads, 'l'),
            (who.admins, 'a'),
        ]
        .into_iter()
        .filter_map(|(yes, letter)| yes.then_some(letter))
        .collect()
    }

    #[test]
    fn each_is_told_what_concerns_them() {
        use EventKind as K;
        let (user, team) = (UserId(Uuid::max()), TeamId(Uuid::max()));
        let own = About::user(user, "ada");
        let place = About::member(team, user, "ada");
        let whole = About::team(team, "ml");
        let host = About::system("local");
        for (kind, about, percent, stops, who) in [
            (K::Threshold, &own, 90, false, "o"),
            (K::Threshold, &place, 90, false, "o"),
            (K::Threshold, &place, 100, false, "ol"),
            (K::Threshold, &whole, 90, false, "bl"),
            (K::Threshold, &whole, 100, false, "bla"),
            (K::PoolExhausted, &whole, 100, false, "bla"),
            (K::Threshold, &host, 80, false, "a"),
            (K::Overpromised, &whole, 0, false, "a"),
            (K::Unmanaged, &host, 0, false, "a"),
            (K::Trouble, &host, 0, false, "a"),
            (K::DigestOfTeam, &whole, 0, false, "l"),
            (K::DigestOfHost, &host, 0, false, "a"),
            (K::Spike, &own, 0, false, "o"),
            (K::RunsOut, &whole, 0, false, "l"),
            (K::BudgetBurn, &host, 0, false, "a"),
            (K::StepAnnounced, &place, 0, false, "ol"),
            (K::StepDone, &place, 0, true, "ola"),
            (K::QuotaChanged, &own, 0, false, "ol"),
            (K::AllotmentChanged, &place, 0, false, "ol"),
            (K::GrantChanged, &whole, 0, false, "ol"),
            (K::RequestAsked, &place, 0, false, "ol"),
            (K::RequestAsked, &own, 0, false, "oa"),
            (K::RequestAnswered, &own, 0, false, "ol"),
            (K::Test, &own, 0, false, "o"),
            (K::Test, &host, 0, false, "a"),
        ] {
            let mut event = Event::new(kind, about.clone(), "", "", 0);
            event.percent = Some(percent);
            event.stops = stops;
            assert_eq!(told(&event), who, "{} of {:?}", kind.name(), about.kind);
        }
    }

    #[test]
    fn names_are_unique() {
        for kind in EventKind::ALL {
            let same = EventKind::ALL.iter().filter(|k| k.name() == kind.name());
            assert_eq!(same.count(), 1, "{}", kind.name());
        }
    }
}
