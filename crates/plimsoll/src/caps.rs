//! Kernel caps: the second line, under admission.
//!
//! Every container runs under its tenant's cgroup, whose caps follow the limits it was admitted
//! under. They are asserted before each start, because the engine makes missing parents without any.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_core::admit::{Level, LevelKind, Owner, Path};
use plimsoll_core::dimension::{Amounts, Dimension, Limits};
use plimsoll_core::entity::{TeamId, UserId};
use plimsoll_core::quota::{Mode, OVERCOMMIT_NONE};
use plimsoll_core::units::{Bytes, MilliCpu};
use plimsoll_host::cgroup::{Applied, CapError, Caps, Instance, ParentPath};
use plimsoll_store::{Reservation, ReservationFilter, Store, StoreError};
use uuid::Uuid;

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

/// A level below the instance's root, and the caps of its cgroup.
#[derive(Debug, Clone)]
pub struct Capped {
    /// The cgroup.
    pub cgroup: ParentPath,
    /// The limits, or what is reserved where that is more (lowering a limit kills nothing), or none
    /// where the quota is not enforced.
    pub caps: Caps,
    /// Which level it is.
    pub level: LevelKind,
    /// Whose: a team's or a user's.
    pub entity: Uuid,
    /// Their name; a member's with the team's.
    pub name: String,
}

/// Every level of a path below the instance's root.
#[must_use]
pub fn levels(instance: &Instance, path: &Path) -> Vec<Capped> {
    match &path.owner {
        Owner::User(user) => vec![Capped {
            cgroup: ParentPath::user(instance.clone(), None, user.entity.as_u128()),
            caps: caps(user, &user.limits, &user.reserved),
            level: LevelKind::User,
            entity: user.entity,
            name: user.name.clone(),
        }],
        Owner::Team(place) => {
            let team = &place.team;
            let id = team.entity.as_u128();
            vec![
                Capped {
                    cgroup: ParentPath::team(instance.clone(), id),
                    caps: caps(team, &team.limits, &team.reserved),
                    level: LevelKind::Team,
                    entity: team.entity,
                    name: team.name.clone(),
                },
                Capped {
                    cgroup: ParentPath::user(instance.clone(), Some(id), place.member.as_u128()),
                    caps: caps(team, &place.reach(), &place.member_reserved),
                    level: LevelKind::Member,
                    entity: place.member,
                    name: format!("{} in {}", place.member_name, team.name),
                },
            ]
        }
    }
}

/// What is written to the kernel.
#[must_use]
pub fn tree(levels: &[Capped]) -> Vec<(ParentPath, Caps)> {
    levels.iter().map(|l| (l.cgroup.clone(), l.caps)).collect()
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

/// Every live reservation on `host`, with the path it is charged at.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn charged_on(
    store: &Store,
    host: &str,
) -> Result<Vec<(Reservation, Arc<Path>)>, StoreError> {
    let filter = ReservationFilter {
        host: Some(host.to_owned()),
        ..Default::default()
    };
    let mut paths = BTreeMap::new();
    let mut charged = Vec::new();
    for row in store.reservations(filter).await? {
        let path = match paths.entry((row.team, row.user)) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => Arc::clone(new.insert(Arc::new(store.path_of(&row)?))),
        };
        charged.push((row, path));
    }
    Ok(charged)
}

/// The levels of everybody with a live reservation on `host`, each once.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn of_host(
    store: &Store,
    instance: &Instance,
    host: &str,
) -> Result<Vec<Capped>, StoreError> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (row, path) in charged_on(store, host).await? {
        if seen.insert((row.team, row.user)) {
            let of_path = levels(instance, &path).into_iter();
            found.extend(of_path.map(|level| (level.cgroup.clone(), level)));
        }
    }
    Ok(found.into_values().collect())
}

/// What came of writing caps: how many in words, or everything that was refused.
///
/// # Errors
/// In words, when any cap was refused.
pub fn outcome(written: &[(ParentPath, Result<Applied, CapError>)]) -> Result<String, String> {
    let cgroups = written.len();
    let mut refused = Vec::new();
    let mut changed = 0;
    for (_, outcome) in written {
        match outcome {
            Ok(applied) => {
                changed += usize::from(applied.changed);
                refused.extend(applied.refused.iter().map(|e| in_full(e)));
            }
            Err(error) => refused.push(in_full(error)),
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
    use plimsoll_core::admit::TeamPath;

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
    fn one_container_gets_at_most_the_lowest_limit_on_its_path() {
        let host = MilliCpu(8000);
        let open = Level::open(Uuid::nil(), "host");
        let mut path = Path {
            host: open.clone(),
            system: open,
            owner: Owner::User(level(2000, 7000, 3000)),
        };
        assert_eq!(most_cpu(&path, host), MilliCpu(2000), "whatever the factor");
        assert_eq!(most_cpu(&path, MilliCpu(1000)), MilliCpu(1000));
        let cpu = |milli| Limits::UNLIMITED.with(Dimension::Cpu, Limit::AtMost(milli));
        let mut place = TeamPath {
            team: level(5000, 0, 1000),
            pool: cpu(700),
            overflow: Amounts::ZERO,
            member: Uuid::from_u128(9),
            member_name: "ada".into(),
            allotment: cpu(1000),
            member_reserved: Amounts::ZERO,
            borrow_limit: Limits::UNLIMITED,
        };
        for (borrow, team, most) in [
            (None, 5000, 1700),
            (Some(200), 5000, 1200),
            (None, 900, 900),
        ] {
            place.borrow_limit = borrow.map_or(Limits::UNLIMITED, cpu);
            place.team.limits = cpu(team);
            path.owner = Owner::Team(Box::new(place.clone()));
            assert_eq!(most_cpu(&path, host), MilliCpu(most), "{borrow:?} {team}");
        }
        place.team.mode = Mode::Shadow;
        path.owner = Owner::Team(Box::new(place));
        assert_eq!(most_cpu(&path, host), host);
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
