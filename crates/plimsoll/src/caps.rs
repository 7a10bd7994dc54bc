//! Kernel caps: the second line, under admission.
//!
//! Every container runs under its tenant's cgroup, whose caps follow the limits it was admitted
//! under. They are asserted before each start, because the engine makes missing parents without any.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_core::admit::{Level, Owner, Path};
use plimsoll_core::dimension::{Amounts, Dimension, Limits};
use plimsoll_core::entity::{TeamId, UserId};
use plimsoll_core::quota::{Mode, OVERCOMMIT_NONE};
use plimsoll_core::units::{Bytes, MilliCpu};
use plimsoll_host::cgroup::{Applied, CapError, Caps, Instance, ParentPath};
use plimsoll_store::{Reservation, ReservationFilter, Store, StoreError};

use crate::tasks::in_full;

/// Processes the runtime may need inside a cgroup while it starts a container.
const PIDS_SPARE: u64 = 10;

/// The cgroup a user's containers run under, in a team or outside.
#[must_use]
pub fn parent(instance: &Instance, team: Option<TeamId>, user: UserId) -> ParentPath {
    ParentPath::user(
        instance.clone(),
        team.map(|t| t.0.as_u128()),
        user.0.as_u128(),
    )
}

/// The cgroup a reservation's container runs under.
#[must_use]
pub fn parent_of(instance: &Instance, reservation: &Reservation) -> ParentPath {
    parent(instance, reservation.team, reservation.user)
}

/// The caps of every level of a path below the instance's root: the limits, or what is reserved
/// where that is more (lowering a limit kills nothing), or none where the quota is not enforced.
#[must_use]
pub fn desired(instance: &Instance, path: &Path) -> Vec<(ParentPath, Caps)> {
    match &path.owner {
        Owner::User(user) => {
            let cgroup = ParentPath::user(instance.clone(), None, user.entity.as_u128());
            vec![(cgroup, caps(user, &user.limits, &user.reserved))]
        }
        Owner::Team(place) => {
            let team = place.team.entity.as_u128();
            let level = &place.team;
            let member = ParentPath::user(instance.clone(), Some(team), place.member.as_u128());
            vec![
                (
                    ParentPath::team(instance.clone(), team),
                    caps(level, &level.limits, &level.reserved),
                ),
                (member, caps(level, &place.reach(), &place.member_reserved)),
            ]
        }
    }
}

/// The most CPU one container on a path can have, whatever admission promises beyond the limits: on
/// cgroup v1 one with more than a level above it does not start.
#[must_use]
pub fn most_cpu(path: &Path, capacity: MilliCpu) -> MilliCpu {
    let owner = match &path.owner {
        Owner::User(user) => user.limits[Dimension::Cpu],
        Owner::Team(place) => place.reach()[Dimension::Cpu].min(place.team.limits[Dimension::Cpu]),
    };
    match owner
        .at_most()
        .filter(|_| path.owner.level().mode == Mode::Enforce)
    {
        Some(limit) => MilliCpu(limit).min(capacity),
        None => capacity,
    }
}

/// Whether admission could let a container through that the kernel's caps would not: only where a
/// level promises more than it has, or does not refuse at all.
#[must_use]
pub fn admission_allows_more(path: &Path) -> bool {
    let levels = [&path.host, &path.system, path.owner.level()];
    levels
        .iter()
        .any(|level| level.overcommit_permille > OVERCOMMIT_NONE || level.mode != Mode::Enforce)
}

/// The caps of everybody with a live reservation on `host`.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn of_host(
    store: &Store,
    instance: &Instance,
    host: &str,
) -> Result<Vec<(ParentPath, Caps)>, StoreError> {
    let filter = ReservationFilter {
        host: Some(host.to_owned()),
        ..Default::default()
    };
    let mut owners = BTreeSet::new();
    let mut tree = BTreeMap::new();
    for row in store.reservations(filter).await? {
        if owners.insert((row.team, row.user)) {
            tree.extend(desired(instance, &store.path_of(&row)?));
        }
    }
    Ok(tree.into_iter().collect())
}

/// What came of writing caps: how many in words, or everything that was refused.
///
/// # Errors
/// In words, when any cap was refused.
pub fn outcome(written: Vec<(ParentPath, Result<Applied, CapError>)>) -> Result<String, String> {
    let cgroups = written.len();
    let mut refused = Vec::new();
    let mut changed = 0;
    for (_, outcome) in written {
        match outcome {
            Ok(applied) => {
                changed += usize::from(applied.changed);
                refused.extend(applied.refused.iter().map(|e| in_full(e)));
            }
            Err(error) => refused.push(in_full(&error)),
        }
    }
    if refused.is_empty() {
        Ok(format!("{cgroups} cgroups, {changed} changed"))
    } else {
        Err(refused.join("; "))
    }
}

/// What is reserved counts at its share of the overcommit factor: admission may promise more than the
/// limit, real use is held at it.
fn caps(level: &Level, limits: &Limits, reserved: &Amounts) -> Caps {
    if level.mode != Mode::Enforce {
        return Caps::default();
    }
    let at_least = |d: Dimension| {
        let most = limits[d].at_most()?;
        let promised = u128::from(reserved.get(d)) * 1000;
        let held = promised.div_ceil(u128::from(level.overcommit_permille.max(1)));
        Some(most.max(u64::try_from(held).unwrap_or(u64::MAX)))
    };
    Caps {
        cpu: at_least(Dimension::Cpu)
            .filter(|cpu| *cpu > 0)
            .map(MilliCpu),
        memory: at_least(Dimension::Memory)
            .filter(|bytes| *bytes > 0)
            .map(Bytes),
        pids: at_least(Dimension::Pids).map(|pids| pids.saturating_add(PIDS_SPARE)),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::Limit;
    use uuid::Uuid;

    use super::*;

    fn level(limit: u64, reserved: u64, permille: u32) -> Level {
        let mut level = Level::open(Uuid::from_u128(7), "ada");
        level.limits = Limits::UNLIMITED
            .with(Dimension::Cpu, Limit::AtMost(limit))
            .with(Dimension::Pids, Limit::AtMost(100));
        level.reserved = Amounts::ZERO.with(Dimension::Cpu, reserved);
        level.overcommit_permille = permille;
        level
    }

    #[test]
    fn caps_are_the_limit_or_what_is_reserved_where_that_is_more() {
        for (limit, reserved, permille, cap) in [
            (2000, 500, 1000, 2000),
            (1000, 1500, 1000, 1500),
            (1000, 2000, 2000, 1000),
            (500, 2000, 2000, 1000),
        ] {
            let level = level(limit, reserved, permille);
            let got = caps(&level, &level.limits, &level.reserved);
            assert_eq!(
                got.cpu,
                Some(MilliCpu(cap)),
                "{limit} {reserved} {permille}"
            );
            assert_eq!(got.memory, None);
            assert_eq!(got.pids, Some(100 + PIDS_SPARE));
        }
    }

    #[test]
    fn a_watching_level_caps_nothing() {
        let mut level = level(1000, 0, 1000);
        level.mode = Mode::Shadow;
        assert_eq!(
            caps(&level, &level.limits, &level.reserved),
            Caps::default()
        );
    }
}
