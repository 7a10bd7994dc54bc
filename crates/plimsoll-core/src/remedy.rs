//! What a person whose claim was refused can do about it, and the words they are told.
//!
//! A remedy is proposed only after [`admit`] was asked whether it helps: following it makes the same
//! claim fit, as long as nobody else takes the room first.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::admit::{LevelKind, Owner, Path, Verdict, Violation, admit};
use crate::dimension::{Amounts, Dimension};
use crate::quota::ContainerDefaults;
use crate::reservation::State;

/// One of the caller's own containers on the same path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The name its owner calls it by.
    pub name: String,
    /// What it claims.
    pub claim: Amounts,
    /// What it charges now.
    pub state: State,
}

/// What kind of step a remedy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemedyKind {
    /// Ask for less.
    Shrink,
    /// Stop own containers.
    Stop,
    /// Remove own containers.
    Remove,
    /// Turn to the person who can raise the limit.
    Ask,
}

/// One way to make a refused claim fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// What kind of step it is.
    pub kind: RemedyKind,
    /// The step in words.
    pub text: String,
    /// The step as a command line, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What it frees, by dimension, in ledger units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frees: Option<Amounts>,
}

/// The cheapest ways to make the claim fit: asking for less, stopping as few own containers as
/// possible, and whom to ask. `existing` is the container the claim is for, where it is there already;
/// `askable` names the people who can raise the refusing limit.
#[must_use]
pub fn remedies(
    path: &Path,
    before: &Amounts,
    after: &Amounts,
    verdict: &Verdict,
    existing: Option<&str>,
    holdings: &[Holding],
    askable: &[String],
) -> Vec<Remedy> {
    if verdict.allowed() {
        return Vec::new();
    }
    let mut found = Vec::new();
    found.extend(shrink(path, before, after, verdict, existing));
    found.extend(give_up(path, before, after, holdings));
    if let Some(worst) = verdict.violations.iter().find(|v| v.enforced) {
        let whose = match worst.level {
            LevelKind::Host | LevelKind::System => "the host's capacity".to_owned(),
            LevelKind::Team | LevelKind::Pool | LevelKind::Member => {
                format!(
                    "the limits of team {}",
                    team_name(path).unwrap_or(&worst.name)
                )
            }
            LevelKind::User => format!("the quota of {}", worst.name),
        };
        let who = if askable.is_empty() {
            "an administrator".to_owned()
        } else {
            askable.join(" or ")
        };
        found.push(Remedy {
            kind: RemedyKind::Ask,
            text: format!("ask {who}, who can change {whose}"),
            command: None,
            frees: None,
        });
    }
    found
}

/// The flag of `docker run` that sets a dimension of a claim.
fn flag(dimension: Dimension, amount: u64) -> Option<String> {
    match dimension {
        Dimension::Cpu => Some(format!("--cpus {}", crate::units::MilliCpu(amount))),
        Dimension::Memory => Some(format!("--memory {}", size_flag(amount))),
        Dimension::TempStorage => Some(format!("--shm-size {}", size_flag(amount))),
        Dimension::Gpus => Some(format!("--gpus {amount}")),
        Dimension::Pids => Some(format!("--pids-limit {amount}")),
        _ => None,
    }
}

/// Whether `docker update` has that flag, too.
const fn is_updatable(dimension: Dimension) -> bool {
    matches!(
        dimension,
        Dimension::Cpu | Dimension::Memory | Dimension::Pids
    )
}

/// A size the Docker CLI reads back as exactly this many bytes, in the largest whole unit.
fn size_flag(bytes: u64) -> String {
    for (shift, suffix) in [(30, "g"), (20, "m"), (10, "k")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    format!("{bytes}b")
}

/// The smallest amount a container can be given in a dimension that can be shrunk.
const fn smallest(dimension: Dimension) -> Option<u64> {
    match dimension {
        Dimension::Cpu => Some(ContainerDefaults::CPU_MIN.0),
        Dimension::Memory => Some(ContainerDefaults::MEMORY_MIN.0),
        Dimension::Pids => Some(1),
        Dimension::Gpus => Some(0),
        _ => None,
    }
}

fn shrink(
    path: &Path,
    before: &Amounts,
    after: &Amounts,
    verdict: &Verdict,
    existing: Option<&str>,
) -> Option<Remedy> {
    let mut smaller = *after;
    for violation in verdict.violations.iter().filter(|v| v.enforced) {
        let d = violation.dimension;
        // What does not grow is never in the way, however far over the limit it is already.
        let fits = after.get(d).saturating_sub(violation.short_by);
        smaller[d] = smaller[d].min(fits.max(before.get(d)));
    }
    let mut flags = Vec::new();
    for d in Dimension::CHARGED {
        if smaller.get(d) >= after.get(d) {
            continue;
        }
        // Whole MiB read better, and rounding down still fits.
        if d == Dimension::Memory && smaller[d] >= 1 << 20 {
            smaller[d] = smaller[d] >> 20 << 20;
        }
        if smaller[d] < smallest(d)? {
            return None;
        }
        if existing.is_some() && !is_updatable(d) {
            return None;
        }
        flags.push(flag(d, smaller[d])?);
    }
    if flags.is_empty() || !admit(path, before, &smaller).allowed() {
        return None;
    }
    let flags = flags.join(" ");
    let command = match existing {
        Some(name) => format!("docker update {flags} {name}"),
        None => flags,
    };
    Some(Remedy {
        kind: RemedyKind::Shrink,
        text: command.clone(),
        command: Some(command),
        frees: None,
    })
}

fn give_up(path: &Path, before: &Amounts, after: &Amounts, holdings: &[Holding]) -> Option<Remedy> {
    let stops = [
        (RemedyKind::Stop, State::Stopped),
        (RemedyKind::Remove, State::Released),
    ];
    for (kind, to) in stops {
        let frees = |h: &Holding| {
            let charge = h.state.charge(&h.claim);
            (charge, to.charge(&h.claim))
        };
        let mut candidates: Vec<&Holding> = holdings
            .iter()
            .filter(|h| {
                let (from, to) = frees(h);
                from.checked_sub(&to).is_some_and(|freed| !freed.is_zero())
            })
            .collect();
        // Biggest first in what the claim wants most, so that few have to go.
        let weight = |h: &&Holding| {
            let (from, to) = frees(h);
            let freed = from.checked_sub(&to).unwrap_or_default();
            Dimension::CHARGED
                .into_iter()
                .filter(|d| after.get(*d) > 0)
                .map(|d| u128::from(freed.get(d)) * 1000 / u128::from(after.get(d)))
                .sum::<u128>()
        };
        let fits = |chosen: &[&Holding]| {
            let freed = chosen.iter().fold(path.clone(), |path, h| {
                let (from, to) = frees(h);
                path.recharged(&from, &to)
            });
            admit(&freed, before, after).allowed()
        };
        candidates.sort_by_key(|h| std::cmp::Reverse(weight(h)));
        // The smallest single container that is enough, else the biggest ones together.
        let single = candidates
            .iter()
            .rev()
            .find(|h| fits(&[h]))
            .map(|h| vec![*h]);
        let several = || {
            (2..=candidates.len().min(8))
                .map(|n| candidates[..n].to_vec())
                .find(|chosen| fits(chosen))
        };
        if let Some(chosen) = single.or_else(several) {
            let names: Vec<&str> = chosen.iter().map(|h| h.name.as_str()).collect();
            let (verb, command) = match kind {
                RemedyKind::Stop => ("stop", "docker stop"),
                _ => ("remove", "docker rm -f"),
            };
            let held = chosen.iter().fold(Amounts::ZERO, |sum, h| {
                let (from, to) = frees(h);
                sum.checked_add(&from.checked_sub(&to).unwrap_or_default())
                    .unwrap_or(sum)
            });
            let quoted: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
            let what: Vec<String> = [Dimension::Memory, Dimension::Cpu]
                .into_iter()
                .filter(|d| held.get(*d) > 0)
                .map(|d| match d {
                    Dimension::Cpu => format!("{} cores", d.show(held.get(d))),
                    d => d.show(held.get(d)),
                })
                .collect();
            let holds = if what.is_empty() {
                String::new()
            } else {
                format!(" (frees {})", what.join(" and "))
            };
            return Some(Remedy {
                kind,
                text: format!("{verb} {}{holds}", quoted.join(" and ")),
                command: Some(format!("{command} {}", names.join(" "))),
                frees: Some(held),
            });
        }
    }
    None
}

fn team_name(path: &Path) -> Option<&str> {
    match &path.owner {
        Owner::Team(place) => Some(&place.team.name),
        Owner::User(_) => None,
    }
}

/// The refusal in words, one line a dimension, as the Docker CLI shows it after its own prefix.
#[must_use]
pub fn refusal(path: &Path, after: &Amounts, verdict: &Verdict, remedies: &[Remedy]) -> String {
    let (user, team) = match &path.owner {
        Owner::User(user) => (user.name.as_str(), None),
        Owner::Team(place) => (place.member_name.as_str(), Some(place.team.name.as_str())),
    };
    let mut text = format!("plimsoll: quota exceeded for {user}");
    if let Some(team) = team {
        let _ = write!(text, " in team {team}");
    }
    for d in Dimension::CHARGED.into_iter().filter(|d| after.get(*d) > 0) {
        let mut refusing = verdict
            .violations
            .iter()
            .filter(|v| v.enforced && v.dimension == d)
            .peekable();
        if refusing.peek().is_none() && matches!(d, Dimension::Cpu | Dimension::Memory) {
            let _ = write!(text, "\n  {:<12}fits", d.name());
        }
        for violation in refusing {
            let _ = write!(text, "\n  {:<12}{violation}", label(d));
        }
    }
    let steps: Vec<&str> = remedies.iter().map(|r| r.text.as_str()).collect();
    if !steps.is_empty() {
        let _ = write!(text, "\n  to fit: {}", steps.join(", or "));
    }
    text
}

/// What the caller is told of limits that only watched, one line each.
#[must_use]
pub fn watched(violations: &[Violation]) -> Vec<String> {
    let watching = violations.iter().filter(|v| !v.enforced);
    watching
        .map(|v| {
            format!(
                "plimsoll would have refused this: {} {} (shadow mode)",
                label(v.dimension),
                v.found()
            )
        })
        .collect()
}

/// The dimension's name, short enough for a column.
const fn label(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::TempStorage => "tmpfs, shm",
        Dimension::ConcurrentContainers => "running",
        other => other.name(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::admit::Level;
    use crate::dimension::{Limit, Limits};

    const GIB: u64 = 1 << 30;

    fn user_path(memory_limit: u64, reserved: u64) -> Path {
        let mut user = Level::open(Uuid::from_u128(1), "alice");
        user.limits = Limits::UNLIMITED.with(Dimension::Memory, Limit::AtMost(memory_limit));
        user.reserved = memory(reserved);
        let mut host = Level::open(Uuid::nil(), "host");
        host.reserved = memory(reserved);
        let system = host.clone();
        Path {
            host,
            system,
            owner: Owner::User(user),
        }
    }

    fn memory(bytes: u64) -> Amounts {
        Amounts::ZERO.with(Dimension::Memory, bytes)
    }

    fn holding(name: &str, bytes: u64) -> Holding {
        Holding {
            name: name.into(),
            claim: memory(bytes),
            state: State::Active,
        }
    }

    #[test]
    fn the_refusal_says_what_how_much_and_what_to_do() {
        let path = user_path(8 * GIB, 5 * GIB);
        let after = memory(6 * GIB).with(Dimension::Cpu, 1000);
        let verdict = admit(&path, &Amounts::ZERO, &after);
        let holdings = [holding("notebook-1", GIB), holding("notebook-2", 4 * GIB)];
        let steps = remedies(
            &path,
            &Amounts::ZERO,
            &after,
            &verdict,
            None,
            &holdings,
            &["root".into()],
        );
        assert_eq!(
            refusal(&path, &after, &verdict, &steps),
            "plimsoll: quota exceeded for alice\n  \
             cpu         fits\n  \
             memory      asked 6 GiB, 3 GiB of 8 GiB free for user alice (short by 3 GiB)\n  \
             to fit: --memory 3g, or stop `notebook-2` (frees 4 GiB), \
             or ask root, who can change the quota of alice"
        );
        assert_eq!(steps[1].command.as_deref(), Some("docker stop notebook-2"));
    }

    #[test]
    fn a_claim_that_never_fits_is_told_so_and_offers_only_what_helps() {
        let path = user_path(2 * GIB, 2 * GIB);
        let after = memory(3 * GIB);
        let verdict = admit(&path, &Amounts::ZERO, &after);
        assert!(verdict.violations[0].never_fits);
        let steps = remedies(
            &path,
            &Amounts::ZERO,
            &after,
            &verdict,
            None,
            &[holding("a", 2 * GIB)],
            &[],
        );
        let kinds: Vec<_> = steps.iter().map(|s| s.kind).collect();
        assert_eq!(kinds, [RemedyKind::Ask]);
    }

    #[test]
    fn a_container_that_is_there_is_made_smaller_by_an_update() {
        let path = user_path(8 * GIB, 5 * GIB);
        for (after, command) in [
            (memory(6 * GIB), Some("docker update --memory 3g web")),
            // What an update cannot change is no remedy.
            (memory(6 * GIB).with(Dimension::TempStorage, 1), None),
        ] {
            let mut path = path.clone();
            if let Owner::User(user) = &mut path.owner {
                user.limits[Dimension::TempStorage] = Limit::AtMost(0);
            }
            let verdict = admit(&path, &Amounts::ZERO, &after);
            let steps = remedies(
                &path,
                &Amounts::ZERO,
                &after,
                &verdict,
                Some("web"),
                &[],
                &[],
            );
            let shrink = steps.iter().find(|s| s.kind == RemedyKind::Shrink);
            assert_eq!(shrink.and_then(|s| s.command.as_deref()), command);
        }
    }

    #[test]
    fn sizes_are_written_so_that_docker_reads_the_same_bytes() {
        for (bytes, text) in [
            (3 * GIB, "3g"),
            (1536 << 20, "1536m"),
            (4096, "4k"),
            (1025, "1025b"),
        ] {
            assert_eq!(size_flag(bytes), text);
        }
    }
}
