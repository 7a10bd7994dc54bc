//! Alerts: what there is to see is held against the rules, and whoever is concerned is told.
//!
//! [`samples`] looks, [`evaluate`] decides and looks at nothing; the task `alerts` writes what came of it.

mod events;
pub mod samples;

use std::collections::{BTreeMap, HashMap, HashSet};

use plimsoll_core::alert::{Pace, Rule, Standing, Watched, is_due};
use plimsoll_core::notice::{About, Event};
use plimsoll_store::{Alert, Seen, Silence, subject};

use crate::config::Alerts;

/// One value of one subject.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Whom it is about.
    pub about: About,
    /// A dimension, a task, a violation.
    pub part: String,
    /// In the rule's metric.
    pub value: u64,
    /// What would be the matter, as a clause.
    pub title: String,
    /// How much, in words.
    pub amount: String,
    /// Who is behind it.
    pub by: Vec<String>,
}

/// What comes of an evaluation.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Subjects that stand otherwise than before.
    pub changed: Vec<Alert>,
    /// What people are told, under keys.
    pub told: Vec<(String, Event)>,
    /// How many fire.
    pub firing: usize,
}

/// What is said of one alert that fires.
#[must_use]
pub fn event(rule: &Rule, alert: &Alert, now_ms: i64) -> Option<Event> {
    events::event(rule, &[alert], false, now_ms)
}

/// Alerts of one subject under one rule, each with what it was.
type Group = Vec<(Alert, Option<Alert>)>;

/// A subject of a rule: the rule's name, whom it is about, and what of theirs.
type Key = (String, String, String);

/// Holds samples against rules, given what was known.
#[must_use]
pub fn evaluate(
    rules: &[Rule],
    known: Vec<Alert>,
    samples: Vec<(&Rule, Sample)>,
    silences: &[Silence],
    config: &Alerts,
    now_ms: i64,
) -> Outcome {
    let key = |alert: &Alert| (alert.rule.clone(), alert.subject(), alert.part.clone());
    let mut before: HashMap<Key, Alert> = known.into_iter().map(|a| (key(&a), a)).collect();
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    let mut add = |alert: Alert, was: Option<Alert>| {
        let group = (alert.rule.clone(), alert.subject());
        groups.entry(group).or_default().push((alert, was));
    };
    for (rule, sample) in samples {
        let key = (
            rule.name.clone(),
            subject(&sample.about),
            sample.part.clone(),
        );
        let was = before.remove(&key);
        let known = was.as_ref().map(|a| a.standing.clone()).unwrap_or_default();
        let standing = known.next(rule, Some(sample.value), now_ms);
        if was.is_some() || !standing.is_over() {
            add(alert(rule, sample, standing, was.as_ref()), was);
        }
    }
    // What is not seen any more is calm; what no rule asks for any more is forgotten.
    for was in before.into_values() {
        let rule = rules.iter().find(|r| r.name == was.rule && r.enabled);
        let mut alert = was.clone();
        alert.standing = rule.map_or_else(Standing::default, |rule| {
            alert.standing.next(rule, None, now_ms)
        });
        add(alert, Some(was));
    }
    let mut outcome = Outcome::default();
    let metric = |rule: &str| rules.iter().find(|r| r.name == rule).map(|r| r.metric);
    let fires = |alert: &Alert| alert.standing.firing().is_some();
    let all = groups.values().flatten().map(|(alert, _)| alert);
    // Who is over a limit needs not be told how full it is.
    let exceeded: HashSet<(String, String)> = all
        .filter(|alert| fires(alert) && metric(&alert.rule) == Some(Watched::Violation))
        .map(|alert| (alert.subject(), alert.part.clone()))
        .collect();
    for ((rule, subject), mut group) in groups {
        let is_quota = metric(&rule) == Some(Watched::Quota);
        for (alert, _) in &mut group {
            let is_exceeded = || exceeded.contains(&(subject.clone(), alert.part.clone()));
            alert.silenced = is_silenced(silences, alert) || is_quota && is_exceeded();
            outcome.firing += usize::from(fires(alert));
        }
        if let Some(rule) = rules.iter().find(|r| r.name == rule) {
            tell(rule, &mut group, config, now_ms, &mut outcome.told);
        }
        let changed = group.into_iter();
        let changed = changed.filter(|(alert, was)| differs(alert, was.as_ref()));
        outcome.changed.extend(changed.map(|(alert, _)| alert));
    }
    outcome
}

/// Whether it has to be written. A value that only moved needs not.
fn differs(alert: &Alert, was: Option<&Alert>) -> bool {
    was.is_none_or(|was| {
        alert.standing != was.standing
            || (alert.told_ms, alert.silenced) != (was.told_ms, was.silenced)
            || alert.seen.title != was.seen.title
    })
}

fn alert(rule: &Rule, sample: Sample, standing: Standing, was: Option<&Alert>) -> Alert {
    Alert {
        rule: rule.name.clone(),
        about: sample.about,
        part: sample.part,
        standing,
        seen: Seen {
            value: Some(sample.value),
            title: sample.title,
            amount: sample.amount,
            by: sample.by,
        },
        silenced: false,
        told_ms: was.and_then(|was| was.told_ms),
    }
}

fn is_silenced(silences: &[Silence], alert: &Alert) -> bool {
    let (name, part) = (&alert.about.name, &alert.part);
    let mut all = silences.iter();
    all.any(|silence| silence.matcher.means(&alert.rule, name, part))
}

/// Tells people of a group, if its time has come.
fn tell(
    rule: &Rule,
    group: &mut Group,
    config: &Alerts,
    now_ms: i64,
    told: &mut Vec<(String, Event)>,
) {
    let mut heard: Vec<&mut Alert> = group.iter_mut().map(|(alert, _)| alert).collect();
    heard.retain(|alert| !alert.silenced);
    let told_ms = heard.iter().filter_map(|alert| alert.told_ms).max();
    let Some(first) = heard.first() else { return };
    let pace = pace(config, events::only_administrators(rule, first));
    if !is_due(heard.iter().map(|a| &a.standing), told_ms, pace, now_ms) {
        return;
    }
    let on: Vec<&Alert> = heard
        .iter()
        .filter(|alert| alert.standing.firing().is_some())
        .map(|alert| &**alert)
        .collect();
    let over: Vec<&Alert> = heard
        .iter()
        .filter(|alert| alert.standing.firing().is_none() && alert.standing.told.is_some())
        .map(|alert| &**alert)
        .collect();
    for (alerts, is_over) in [(on, false), (over, true)] {
        if let Some(event) = events::event(rule, &alerts, is_over, now_ms) {
            let (subject, over) = (alerts[0].subject(), if is_over { ":over" } else { "" });
            told.push((
                format!("alert:{}:{subject}:{now_ms}{over}", rule.name),
                event,
            ));
        }
    }
    for alert in heard {
        alert.standing.tell();
        alert.told_ms = Some(now_ms);
    }
}

fn pace(config: &Alerts, only_administrators: bool) -> Pace {
    let ms = |seconds: f64| (seconds * 1000.0) as i64;
    Pace {
        wait_ms: ms(config.group_wait_s),
        interval_ms: ms(config.group_interval_s),
        repeat_ms: ms(match only_administrators {
            true => config.repeat_admin_s,
            false => config.repeat_user_s,
        }),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::alert::{Matcher, default_rules};
    use plimsoll_core::entity::UserId;
    use plimsoll_core::notice::EventKind;
    use uuid::Uuid;

    use super::*;

    /// A rule that fires at once, its subject's alerts, and the time.
    struct Desk {
        rules: Vec<Rule>,
        known: Vec<Alert>,
        silences: Vec<Silence>,
        now_ms: i64,
    }

    impl Desk {
        fn new() -> Self {
            let mut rules = default_rules();
            rules[0].for_ms = 0;
            rules[0].keep_ms = 0;
            Self {
                rules,
                known: Vec::new(),
                silences: Vec::new(),
                now_ms: 0,
            }
        }

        /// Sees these parts at these percents a second later; returns what is told.
        fn see(&mut self, seconds: i64, parts: &[(&str, u64)]) -> Vec<Event> {
            self.now_ms += seconds * 1000;
            let sample = |(part, percent): &(&str, u64)| {
                let sample = Sample {
                    about: About::user(UserId(Uuid::max()), "ada"),
                    part: (*part).to_owned(),
                    value: percent * 10,
                    title: format!("{part} at {percent} % of the quota"),
                    amount: format!("{percent} of 100"),
                    by: vec!["web".to_owned()],
                };
                (&self.rules[0], sample)
            };
            let samples = parts.iter().map(sample).collect();
            let known = self.known.clone();
            let config = Alerts::default();
            let outcome = evaluate(
                &self.rules,
                known,
                samples,
                &self.silences,
                &config,
                self.now_ms,
            );
            for alert in outcome.changed {
                self.known.retain(|a| a.part != alert.part);
                if !alert.standing.is_over() {
                    self.known.push(alert);
                }
            }
            outcome.told.into_iter().map(|(_, event)| event).collect()
        }
    }

    #[test]
    fn a_group_is_told_together_and_its_end_too() {
        let mut desk = Desk::new();
        assert_eq!(desk.see(0, &[("cpu", 85)]), []);
        assert_eq!(desk.see(20, &[("cpu", 85), ("memory", 100)]), []);
        let told = desk.see(10, &[("cpu", 85), ("memory", 100)]);
        assert_eq!(told.len(), 1);
        let event = &told[0];
        assert_eq!(
            (event.kind, event.percent),
            (EventKind::Threshold, Some(100))
        );
        assert_eq!(
            event.title,
            "ada: cpu at 85 % of the quota, memory at 100 % of the quota"
        );
        assert_eq!(
            (event.since_ms, event.by.as_slice()),
            (0, &["web".to_owned()][..])
        );
        assert_eq!(event.figures.len(), 2);
        assert_eq!(
            desk.see(20, &[("cpu", 10), ("memory", 99)]),
            [],
            "five minutes"
        );
        let told = desk.see(300, &[("cpu", 10), ("memory", 99)]);
        let resolved: Vec<bool> = told.iter().map(|event| event.resolved).collect();
        assert_eq!(resolved, [false, true]);
        assert_eq!(told[1].percent, Some(80), "to whom its beginning was told");
        assert_eq!(desk.known.len(), 1);
        // A user who is gone is calm.
        assert_eq!(desk.see(1, &[]), []);
        assert_eq!(desk.see(300, &[]).len(), 1);
        assert_eq!(desk.known, []);
    }

    #[test]
    fn what_is_silenced_is_told_when_the_silence_ends() {
        let mut desk = Desk::new();
        desk.silences.push(Silence {
            id: Uuid::nil(),
            matcher: Matcher {
                rule: None,
                name: Some("ada".to_owned()),
                part: None,
            },
            until_ms: i64::MAX,
            by: "root".to_owned(),
            reason: None,
        });
        desk.see(0, &[("cpu", 85)]);
        assert_eq!(desk.see(60, &[("cpu", 85)]), []);
        assert!(desk.known[0].silenced);
        desk.silences.clear();
        assert_eq!(desk.see(1, &[("cpu", 85)]).len(), 1);
        assert!(!desk.known[0].silenced);
    }

    #[test]
    fn what_fires_on_is_told_again_and_a_rule_that_is_gone_is_forgotten() {
        let mut desk = Desk::new();
        desk.see(0, &[("cpu", 85)]);
        assert_eq!(desk.see(30, &[("cpu", 85)]).len(), 1);
        assert_eq!(desk.see(86_399, &[("cpu", 85)]), []);
        assert_eq!(desk.see(1, &[("cpu", 85)]).len(), 1);
        desk.rules[0].enabled = false;
        assert_eq!(desk.see(1, &[]), []);
        assert_eq!(desk.known, []);
    }
}
