//! Kernel caps: the second line, under admission.
//!
//! Every container runs under its tenant's cgroup, whose caps follow the limits it was admitted
//! under. They are asserted before each start, because the engine makes missing parents without any.

use plimsoll_core::admit::{Owner, Path};
use plimsoll_core::dimension::{Amounts, Dimension, Limits};
use plimsoll_core::entity::{TeamId, UserId};
use plimsoll_core::quota::Mode;
use plimsoll_core::units::{Bytes, MilliCpu};
use plimsoll_host::cgroup::{Caps, Instance, ParentPath};
use plimsoll_store::Reservation;

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
            vec![(cgroup, caps(user.mode, &user.limits, &user.reserved))]
        }
        Owner::Team(place) => {
            let team = place.team.entity.as_u128();
            let level = &place.team;
            let member = ParentPath::user(instance.clone(), Some(team), place.member.as_u128());
            vec![
                (
                    ParentPath::team(instance.clone(), team),
                    caps(level.mode, &level.limits, &level.reserved),
                ),
                (
                    member,
                    caps(level.mode, &place.reach(), &place.member_reserved),
                ),
            ]
        }
    }
}

fn caps(mode: Mode, limits: &Limits, reserved: &Amounts) -> Caps {
    if mode != Mode::Enforce {
        return Caps::default();
    }
    let at_least = |d: Dimension| limits[d].at_most().map(|most| most.max(reserved.get(d)));
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
