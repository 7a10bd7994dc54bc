//! Alerts: what is watched, when it fires, and when somebody is told.
//!
//! A [`Rule`] watches one metric. Each of its steps has a [`Phase`] for each subject (an entity in a
//! dimension): inactive, pending until it has lasted, firing until it was calm for a while. Of the steps that
//! fire the highest counts; the lower ones say nothing of their own.

use serde::{Deserialize, Serialize};

use crate::dimension::Dimension;
use crate::entity::EntityKind;
use crate::metric::Metric;

/// What a rule watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Watched {
    /// Charges and use against a limit, percent: the larger of both.
    Quota,
    /// What is borrowed against a team's pool, percent.
    Pool,
    /// What quotas promise against what the host has, percent.
    Promised,
    /// Containers that run past Plimsoll.
    Unmanaged,
    /// Tasks of Plimsoll's own that fail.
    Trouble,
    /// How full the disk with the ledger is, percent.
    Disk,
    /// Limits that are exceeded.
    Violation,
    /// What is measured, in the metric's own unit.
    Measured(Metric),
}

impl Watched {
    /// Every one that is no plain metric.
    const OWN: [(Self, &'static str); 7] = [
        (Self::Quota, "quota"),
        (Self::Pool, "pool"),
        (Self::Promised, "promised"),
        (Self::Unmanaged, "unmanaged"),
        (Self::Trouble, "trouble"),
        (Self::Disk, "disk"),
        (Self::Violation, "violation"),
    ];

    /// The name in the API and the ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured(metric) => metric.name(),
            own => Self::OWN
                .iter()
                .find(|(one, _)| *one == own)
                .map_or("", |(_, name)| name),
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let own = Self::OWN.iter().find(|(_, own)| *own == name);
        own.map(|(one, _)| *one)
            .or_else(|| Some(Self::Measured(Metric::parse(name).filter(is_watched)?)))
    }

    /// Whether its values are a share of something.
    #[must_use]
    pub const fn is_percent(self) -> bool {
        matches!(self, Self::Quota | Self::Pool | Self::Promised | Self::Disk)
    }

    /// Values in one as people write it.
    #[must_use]
    pub const fn scale(self) -> u64 {
        match self {
            Self::Quota | Self::Pool | Self::Promised | Self::Disk => 10,
            Self::Unmanaged | Self::Trouble | Self::Violation => 1,
            Self::Measured(metric) => metric.scale(),
        }
    }
}

/// What is known of every user and team.
const fn is_watched(metric: &Metric) -> bool {
    matches!(
        metric,
        Metric::Cpu
            | Metric::Memory
            | Metric::Pids
            | Metric::Containers
            | Metric::Connections
            | Metric::Storage
            | Metric::NetReceive
            | Metric::NetTransmit
            | Metric::BlockRead
            | Metric::BlockWrite
            | Metric::CpuReserved
            | Metric::MemoryReserved
    )
}

impl Serialize for Watched {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| serde::de::Error::custom("is no metric that is watched"))
    }
}

/// From where on a step fires, and below what it is calm; in the metric's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// It fires from here on.
    pub at: u64,
    /// It goes on down to here.
    pub clear: u64,
}

/// What is watched, and when it fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Unique.
    pub name: String,
    /// What.
    pub metric: Watched,
    /// Of whom; of everybody unless it says.
    pub level: Option<EntityKind>,
    /// In which dimension; in each unless it says.
    pub dimension: Option<Dimension>,
    /// Ascending; at most [`STEPS_MAX`].
    pub steps: Vec<Step>,
    /// It fires when it has lasted so long, milliseconds.
    pub for_ms: i64,
    /// It fires on for so long after it was calm, milliseconds.
    pub keep_ms: i64,
    /// It is watched.
    pub enabled: bool,
}

/// The most steps of a rule.
pub const STEPS_MAX: usize = 8;

const MINUTE_MS: i64 = 60_000;

/// The rules of a new ledger.
#[must_use]
pub fn default_rules() -> Vec<Rule> {
    use EntityKind::{System, Team, User};
    let rule = |name: &str, metric, level, steps: &[(u64, u64)], minutes: (i64, i64)| Rule {
        name: name.to_owned(),
        metric,
        level,
        dimension: None,
        steps: steps
            .iter()
            .map(|(at, clear)| Step {
                at: *at,
                clear: *clear,
            })
            .collect(),
        for_ms: minutes.0 * MINUTE_MS,
        keep_ms: minutes.1 * MINUTE_MS,
        enabled: true,
    };
    let limits = &[(800, 750), (900, 850), (1000, 950)];
    let lasting = (5, 15);
    vec![
        rule("user quota", Watched::Quota, Some(User), limits, lasting),
        rule("team quota", Watched::Quota, Some(Team), limits, lasting),
        rule("host", Watched::Quota, Some(System), limits, lasting),
        rule("pool", Watched::Pool, None, &[(1000, 950)], lasting),
        rule(
            "promised",
            Watched::Promised,
            None,
            &[(1001, 1000)],
            lasting,
        ),
        rule("unmanaged", Watched::Unmanaged, None, &[(1, 1)], lasting),
        rule("trouble", Watched::Trouble, None, &[(1, 1)], (1, 5)),
        rule(
            "disk",
            Watched::Disk,
            None,
            &[(900, 850), (950, 930)],
            (1, 5),
        ),
        rule("violation", Watched::Violation, None, &[(1, 1)], (0, 0)),
    ]
}

/// Where one step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Phase {
    /// Nothing is the matter.
    #[default]
    Inactive,
    /// It is over, and has to last.
    Pending {
        /// Unix milliseconds.
        since_ms: i64,
    },
    /// It fires.
    Firing {
        /// Since it was over, Unix milliseconds.
        since_ms: i64,
        /// Since it is calm again.
        calm_ms: Option<i64>,
    },
}

impl Phase {
    /// Where it stands with this value at this time; what is not there is calm.
    #[must_use]
    pub fn next(self, rule: &Rule, step: Step, value: Option<u64>, now_ms: i64) -> Self {
        let is_over = |bound: u64| value.is_some_and(|value| value >= bound);
        match self {
            Self::Inactive if is_over(step.at) => {
                Self::Pending { since_ms: now_ms }.ripe(rule, now_ms)
            }
            Self::Pending { .. } if is_over(step.at) => self.ripe(rule, now_ms),
            Self::Inactive | Self::Pending { .. } => Self::Inactive,
            Self::Firing { since_ms, .. } if is_over(step.clear) => Self::Firing {
                since_ms,
                calm_ms: None,
            },
            Self::Firing { since_ms, calm_ms } => {
                let calm_ms = calm_ms.unwrap_or(now_ms);
                if now_ms.saturating_sub(calm_ms) >= rule.keep_ms {
                    return Self::Inactive;
                }
                Self::Firing {
                    since_ms,
                    calm_ms: Some(calm_ms),
                }
            }
        }
    }

    /// Firing, if it has lasted.
    const fn ripe(self, rule: &Rule, now_ms: i64) -> Self {
        match self {
            Self::Pending { since_ms } if now_ms.saturating_sub(since_ms) >= rule.for_ms => {
                Self::Firing {
                    since_ms,
                    calm_ms: None,
                }
            }
            other => other,
        }
    }
}

/// Where one subject stands under one rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Of each step.
    pub phases: Vec<Phase>,
    /// The highest step that people were told of, from 1; `None` while they know of nothing.
    pub told: Option<usize>,
    /// Since when there is something they were not told, Unix milliseconds.
    pub news_ms: Option<i64>,
}

impl Standing {
    /// Takes a value in.
    #[must_use]
    pub fn next(mut self, rule: &Rule, value: Option<u64>, now_ms: i64) -> Self {
        self.phases.resize(rule.steps.len(), Phase::Inactive);
        for (phase, step) in self.phases.iter_mut().zip(&rule.steps) {
            *phase = phase.next(rule, *step, value, now_ms);
        }
        let is_news = match (self.firing(), self.told) {
            (Some(firing), told) => told.is_none_or(|told| firing > told),
            (None, told) => told.is_some(),
        };
        self.news_ms = is_news.then(|| self.news_ms.unwrap_or(now_ms));
        self
    }

    /// The highest step that fires, from 1.
    #[must_use]
    pub fn firing(&self) -> Option<usize> {
        let fires = |phase: &Phase| matches!(phase, Phase::Firing { .. });
        self.phases.iter().rposition(fires).map(|index| index + 1)
    }

    /// Since when it fires, or is over, Unix milliseconds.
    #[must_use]
    pub fn since_ms(&self) -> Option<i64> {
        let since = self.phases.iter().filter_map(|phase| match phase {
            Phase::Inactive => None,
            Phase::Pending { since_ms } | Phase::Firing { since_ms, .. } => Some(*since_ms),
        });
        since.min()
    }

    /// Nothing is the matter, and everybody knows.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.told.is_none() && self.phases.iter().all(|phase| *phase == Phase::Inactive)
    }

    /// Whoever is concerned was told.
    pub fn tell(&mut self) {
        self.told = match self.firing() {
            Some(firing) => Some(self.told.map_or(firing, |told| told.max(firing))),
            None => None,
        };
        self.news_ms = None;
    }
}

/// How often people are told, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// News of a group waits so long for more of it.
    pub wait_ms: i64,
    /// A group that was told of is told of again after so long at the earliest.
    pub interval_ms: i64,
    /// What still fires is told again.
    pub repeat_ms: i64,
}

/// Whether a group is told of now: what concerns the same people for the same reason. `told_ms` is when they
/// were told last.
#[must_use]
pub fn is_due<'a>(
    group: impl IntoIterator<Item = &'a Standing>,
    told_ms: Option<i64>,
    pace: Pace,
    now_ms: i64,
) -> bool {
    let (mut news_ms, mut fires) = (None::<i64>, false);
    for standing in group {
        fires |= standing.firing().is_some();
        if let Some(since) = standing.news_ms {
            news_ms = Some(news_ms.map_or(since, |first| first.min(since)));
        }
    }
    let lately = |ms: i64| told_ms.is_some_and(|told| now_ms.saturating_sub(told) < ms);
    match news_ms {
        Some(since) => now_ms.saturating_sub(since) >= pace.wait_ms && !lately(pace.interval_ms),
        None => fires && !lately(pace.repeat_ms),
    }
}

/// Whom nobody is told of for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Matcher {
    /// Of this rule; of any unless it says.
    pub rule: Option<String>,
    /// Of the user, team or host with this name.
    pub name: Option<String>,
    /// In this dimension, of this task.
    pub part: Option<String>,
}

impl Matcher {
    /// Whether it means this.
    #[must_use]
    pub fn means(&self, rule: &str, name: &str, part: &str) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w == is);
        fits(&self.rule, rule) && fits(&self.name, name) && fits(&self.part, part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(for_ms: i64, keep_ms: i64) -> Rule {
        Rule {
            for_ms,
            keep_ms,
            ..default_rules().remove(0)
        }
    }

    const PACE: Pace = Pace {
        wait_ms: 30,
        interval_ms: 300,
        repeat_ms: 1000,
    };

    /// Values in percent at these times; each with the step that fires then, 0 for none.
    fn follow(rule: &Rule, script: &[(i64, u64, usize)]) -> Standing {
        let mut standing = Standing::default();
        for (now_ms, percent, firing) in script {
            standing = standing.next(rule, Some(percent * 10), *now_ms);
            assert_eq!(standing.firing().unwrap_or(0), *firing, "at {now_ms}");
        }
        standing
    }

    #[test]
    fn it_fires_when_it_has_lasted_and_ends_when_it_was_calm_for_a_while() {
        let rule = rule(50, 150);
        follow(&rule, &[(0, 79, 0), (10, 80, 0), (59, 85, 0), (60, 85, 1)]);
        follow(
            &rule,
            &[
                (0, 85, 0),
                (40, 70, 0),
                (60, 85, 0),
                (100, 85, 0),
                (110, 85, 1),
            ],
        );
        // A step of its own lasts on its own.
        follow(
            &rule,
            &[
                (0, 85, 0),
                (40, 95, 0),
                (50, 95, 1),
                (90, 95, 2),
                (100, 120, 2),
                (150, 100, 3),
            ],
        );
        // Down to 75 it goes on; below it has its time, and back again it never ended.
        follow(
            &rule,
            &[
                (0, 80, 0),
                (50, 80, 1),
                (60, 75, 1),
                (70, 74, 1),
                (219, 74, 1),
                (220, 74, 0),
            ],
        );
        follow(
            &rule,
            &[
                (0, 80, 0),
                (50, 80, 1),
                (60, 74, 1),
                (200, 76, 1),
                (210, 74, 1),
                (359, 0, 1),
                (360, 0, 0),
            ],
        );
    }

    /// What people are told of a value over time.
    fn told(rule: &Rule, permille: impl Fn(i64) -> u64) -> Vec<Option<usize>> {
        let pace = Pace {
            repeat_ms: i64::MAX,
            ..PACE
        };
        let (mut standing, mut told, mut last) = (Standing::default(), Vec::new(), None);
        for now_ms in 0..2000 {
            standing = standing.next(rule, Some(permille(now_ms)), now_ms);
            if is_due([&standing], last, pace, now_ms) {
                told.push(standing.firing());
                standing.tell();
                last = Some(now_ms);
            }
        }
        told
    }

    #[test]
    fn what_wavers_fires_once_and_ends_once() {
        let rule = rule(50, 150);
        let wavering = |now_ms: i64| 780 + now_ms.unsigned_abs() % 3 * 20;
        assert_eq!(told(&rule, wavering), [], "it never lasts");
        let lasted = |now_ms| match now_ms {
            0..100 => 820,
            100..1500 => wavering(now_ms),
            _ => 500,
        };
        assert_eq!(told(&rule, lasted), [Some(1), None]);
    }

    #[test]
    fn the_highest_step_is_told_and_the_lower_ones_are_silent() {
        let rule = rule(0, 0);
        let mut standing = Standing::default().next(&rule, Some(1000), 0);
        assert!(!is_due([&standing], None, PACE, 29));
        assert!(is_due([&standing], None, PACE, 30));
        standing.tell();
        assert_eq!(standing.told, Some(3));
        let mut lower = standing.next(&rule, Some(900), 40);
        assert_eq!((lower.firing(), lower.news_ms), (Some(2), None));
        // Back at the top nobody hears it twice.
        lower = lower.next(&rule, Some(1000), 50);
        assert_eq!(lower.news_ms, None);
        let over = lower.next(&rule, None, 60);
        assert_eq!(over.news_ms, Some(60), "its end is news");
        assert!(!is_due([&over], Some(30), PACE, 329));
        assert!(is_due([&over], Some(30), PACE, 330));
    }

    #[test]
    fn what_ends_before_anybody_knew_is_forgotten() {
        let rule = rule(0, 0);
        let standing = Standing::default().next(&rule, Some(800), 0);
        let standing = standing.next(&rule, Some(10), 10);
        assert!(standing.is_over());
        assert_eq!(standing.news_ms, None);
    }

    #[test]
    fn what_fires_on_is_told_again() {
        let rule = rule(0, 0);
        let mut standing = Standing::default().next(&rule, Some(800), 0);
        standing.tell();
        assert!(!is_due([&standing], Some(0), PACE, 999));
        assert!(is_due([&standing], Some(0), PACE, 1000));
    }

    #[test]
    fn a_silence_means_what_it_says() {
        let matcher = |rule: Option<&str>, name: Option<&str>| Matcher {
            rule: rule.map(str::to_owned),
            name: name.map(str::to_owned),
            part: None,
        };
        for (matcher, means) in [
            (matcher(None, None), true),
            (matcher(Some("disk"), None), false),
            (matcher(Some("user quota"), Some("ada")), true),
            (matcher(None, Some("ben")), false),
        ] {
            assert_eq!(
                matcher.means("user quota", "ada", "cpu"),
                means,
                "{matcher:?}"
            );
        }
    }

    #[test]
    fn names_are_found() {
        for rule in default_rules() {
            assert_eq!(Watched::parse(rule.metric.name()), Some(rule.metric));
            assert!(rule.steps.is_sorted_by_key(|step| step.at));
            assert!(rule.steps.iter().all(|step| step.clear <= step.at));
        }
        assert_eq!(Watched::parse("cpu"), Some(Watched::Measured(Metric::Cpu)));
        assert_eq!(Watched::parse("cpus"), None);
        assert_eq!(Watched::parse("gpu_memory"), None);
    }
}
