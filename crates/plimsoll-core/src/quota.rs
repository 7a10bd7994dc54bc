//! Quotas, quota classes and what follows from them: effective limits, a team's limit and pool, the
//! defaults of a container that names no limits.

use serde::{Deserialize, Serialize};

use crate::dimension::{Amounts, Dimension, Limit, Limits};
use crate::ladder::Policy;
use crate::units::{BYTES_PER_GB, Bytes, MilliCpu};

/// How an entity's limits are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refuse what does not fit.
    #[default]
    Enforce,
    /// Admit it, record what would have been refused, and say so.
    Shadow,
    /// Do not look.
    Off,
}

impl Mode {
    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }

    /// The mode with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Enforce, Self::Shadow, Self::Off]
            .into_iter()
            .find(|m| m.name() == name)
    }
}

/// How a team's limit comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TeamMode {
    /// limit = sum of allotments + pool; the administrator sets the pool.
    #[default]
    Aggregate,
    /// The administrator sets the limit; pool = limit - sum of allotments, at least 0.
    Fixed,
}

impl TeamMode {
    /// The name in the API and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aggregate => "aggregate",
            Self::Fixed => "fixed",
        }
    }

    /// The mode with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Aggregate, Self::Fixed]
            .into_iter()
            .find(|m| m.name() == name)
    }
}

/// The overcommit factor that changes nothing, in thousandths.
pub const OVERCOMMIT_NONE: u32 = 1000;

/// The largest overcommit factor accepted: 100.
pub const OVERCOMMIT_MAX: u32 = 100_000;

/// What the hosts have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capacity {
    /// CPUs online.
    pub cpu: MilliCpu,
    /// Physical memory.
    pub memory: Bytes,
}

/// `limits` with the percentages of `capacity` folded into the absolute dimensions:
/// cpu = min(cores, % x capacity), likewise memory. The percentages themselves stay as they are.
#[must_use]
pub fn narrowed(limits: &Limits, capacity: Capacity) -> Limits {
    let share = |percent: Limit, whole: u64| match percent {
        Limit::Unlimited => Limit::Unlimited,
        Limit::AtMost(basis_points) => {
            let part = u128::from(whole) * u128::from(basis_points) / 10_000;
            Limit::AtMost(u64::try_from(part).unwrap_or(u64::MAX))
        }
    };
    let cpu = share(limits[Dimension::CpuPercent], capacity.cpu.0);
    let memory = share(limits[Dimension::MemoryPercent], capacity.memory.0);
    limits
        .with(Dimension::Cpu, limits[Dimension::Cpu].min(cpu))
        .with(Dimension::Memory, limits[Dimension::Memory].min(memory))
}

/// Parts of a quota, each in ledger units: what a grant adds.
pub type Additions = Vec<(Dimension, u64)>;

/// The limits with what grants add. They add only where there is a limit.
#[must_use]
pub fn with_additions(limits: &Limits, added: &[(Dimension, u64)]) -> Limits {
    added.iter().fold(*limits, |limits, (d, more)| {
        limits.with(*d, limits[*d].plus(*more))
    })
}

/// The sum of several additions, in the order of the dimensions.
#[must_use]
pub fn added_up<'a>(parts: impl IntoIterator<Item = &'a Additions>) -> Additions {
    let mut sums = [0u64; Dimension::ALL.len()];
    for (d, amount) in parts.into_iter().flatten() {
        sums[d.index()] = sums[d.index()].saturating_add(*amount);
    }
    let named = Dimension::ALL.into_iter().map(|d| (d, sums[d.index()]));
    named.filter(|(_, sum)| *sum > 0).collect()
}

/// A team's limit and pool, derived from its mode, its own row and its members' allotments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TeamShape {
    /// What the whole team may reserve.
    pub limit: Limits,
    /// What no allotment takes.
    pub pool: Limits,
}

impl TeamShape {
    /// Derives the shape. `own` is the pool in [`TeamMode::Aggregate`], the limit in
    /// [`TeamMode::Fixed`]; dimensions that are not summed are taken from `own` in both.
    #[must_use]
    pub fn derive<'a>(
        mode: TeamMode,
        own: &Limits,
        allotments: impl IntoIterator<Item = &'a Limits>,
    ) -> Self {
        let mut promised = [0u64; Dimension::ALL.len()];
        for allotment in allotments {
            for d in Dimension::ALL {
                let amount = allotment[d].at_most().unwrap_or(0);
                promised[d.index()] = promised[d.index()].saturating_add(amount);
            }
        }
        let (mut limit, mut pool) = (*own, *own);
        for d in Dimension::ALL.into_iter().filter(|d| d.is_summed()) {
            match (mode, own[d]) {
                (TeamMode::Aggregate, own) => limit[d] = own.plus(promised[d.index()]),
                (TeamMode::Fixed, Limit::Unlimited) => pool[d] = Limit::Unlimited,
                (TeamMode::Fixed, Limit::AtMost(most)) => {
                    pool[d] = Limit::AtMost(most.saturating_sub(promised[d.index()]));
                }
            }
        }
        Self { limit, pool }
    }
}

/// What a container gets when it names nothing itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerDefaults {
    /// CPU, if the share below is not smaller.
    pub cpu: MilliCpu,
    /// Memory, if the share below is not smaller.
    pub memory: Bytes,
    /// Processes and threads.
    pub pids: u64,
    /// Size of a tmpfs mounted without one.
    pub tmpfs: Bytes,
    /// Shared memory.
    pub shm: Bytes,
    /// Writable layer charged when none is requested.
    pub writable: Bytes,
    /// Largest log file.
    pub log_max: Bytes,
    /// How many log files are kept.
    pub log_files: u64,
}

impl Default for ContainerDefaults {
    fn default() -> Self {
        Self {
            cpu: MilliCpu(1000),
            memory: Bytes(BYTES_PER_GB),
            pids: 512,
            tmpfs: Bytes(64 << 20),
            shm: Bytes(64 << 20),
            writable: Bytes(BYTES_PER_GB),
            log_max: Bytes(10 << 20),
            log_files: 3,
        }
    }
}

impl ContainerDefaults {
    /// The smallest CPU a container may be given: a hundredth of a core.
    pub const CPU_MIN: MilliCpu = MilliCpu(10);
    /// The smallest memory the engine accepts.
    pub const MEMORY_MIN: Bytes = Bytes(6 << 20);

    /// CPU for a container that names none: the class's default, or an even share of the effective
    /// limit among the containers that may run at once, whichever is smaller.
    #[must_use]
    pub fn cpu_under(&self, effective: &Limits) -> MilliCpu {
        let share = even_share(effective, Dimension::Cpu);
        MilliCpu(
            share
                .map_or(self.cpu.0, |s| s.min(self.cpu.0))
                .max(Self::CPU_MIN.0),
        )
    }

    /// Memory for a container that names none, by the same rule, in whole MiB.
    #[must_use]
    pub fn memory_under(&self, effective: &Limits) -> Bytes {
        let share = even_share(effective, Dimension::Memory).map(|bytes| bytes >> 20 << 20);
        Bytes(
            share
                .map_or(self.memory.0, |s| s.min(self.memory.0))
                .max(Self::MEMORY_MIN.0),
        )
    }
}

fn even_share(effective: &Limits, dimension: Dimension) -> Option<u64> {
    let limit = effective[dimension].at_most()?;
    let among = effective[Dimension::ConcurrentContainers]
        .at_most()
        .unwrap_or(1)
        .max(1);
    Some(limit / among)
}

/// A named template for quotas: what `quota_type` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaClass {
    /// Unique name.
    pub name: String,
    /// Limits a new user of the class gets.
    pub limits: Limits,
    /// Defaults for containers that name no limits.
    pub defaults: ContainerDefaults,
    /// What is done where a limit is exceeded.
    pub ladder: Policy,
}

/// The class a new user gets when nobody names one.
pub const DEFAULT_CLASS: &str = "standard";

/// The classes a new ledger starts with. `standard` carries the default values of the original
/// design; the others differ from it only where their name says so.
#[must_use]
pub fn built_in_classes() -> Vec<QuotaClass> {
    let at = Limit::AtMost;
    let gb = |n: u64| at(n * BYTES_PER_GB);
    let standard = Limits::UNLIMITED
        .with(Dimension::Cpu, at(4000))
        .with(Dimension::CpuPercent, at(8000))
        .with(Dimension::Memory, gb(8))
        .with(Dimension::MemoryPercent, at(8000))
        .with(Dimension::Storage, gb(50))
        .with(Dimension::TempStorage, gb(10))
        .with(Dimension::Containers, at(10))
        .with(Dimension::ConcurrentContainers, at(5))
        .with(Dimension::Bandwidth, at(100))
        .with(Dimension::Connections, at(100))
        .with(Dimension::Runtime, at(24 * 3600))
        .with(Dimension::Idle, at(60 * 60))
        .with(Dimension::Gpus, at(0))
        .with(Dimension::Pids, at(4096));
    let student = standard
        .with(Dimension::Cpu, at(2000))
        .with(Dimension::Memory, gb(4))
        .with(Dimension::Storage, gb(20))
        .with(Dimension::TempStorage, gb(2))
        .with(Dimension::Pids, at(2048));
    let gpu = standard.with(Dimension::Gpus, at(1));
    [
        (DEFAULT_CLASS, standard),
        ("student", student),
        ("gpu", gpu),
    ]
    .into_iter()
    .map(|(name, limits)| QuotaClass {
        name: name.to_owned(),
        limits,
        defaults: ContainerDefaults::default(),
        ladder: Policy::default(),
    })
    .collect()
}

/// The system's quota in a new ledger: no absolute limits, all CPUs and 90 % of the memory.
#[must_use]
pub fn system_limits() -> Limits {
    Limits::UNLIMITED
        .with(Dimension::CpuPercent, Limit::AtMost(10_000))
        .with(Dimension::MemoryPercent, Limit::AtMost(9_000))
}

/// What a team's members hold together above their allotments, per dimension.
#[must_use]
pub fn overflow<'a>(members: impl IntoIterator<Item = (&'a Amounts, &'a Limits)>) -> Amounts {
    let mut total = Amounts::ZERO;
    for (reserved, allotment) in members {
        let above = reserved.above(allotment);
        for d in Dimension::CHARGED {
            total[d] = total[d].saturating_add(above[d]);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(limit: u64) -> Limits {
        Limits::nothing().with(Dimension::Cpu, Limit::AtMost(limit))
    }

    #[test]
    fn percentages_narrow_the_absolute_limit() {
        let capacity = Capacity {
            cpu: MilliCpu(2000),
            memory: Bytes(10 << 30),
        };
        let limits = built_in_classes()[0].limits;
        let effective = narrowed(&limits, capacity);
        assert_eq!(effective[Dimension::Cpu], Limit::AtMost(1600));
        assert_eq!(effective[Dimension::Memory], Limit::AtMost(8 << 30));
        let system = narrowed(&system_limits(), capacity);
        assert_eq!(system[Dimension::Cpu], Limit::AtMost(2000));
        assert_eq!(system[Dimension::Memory], Limit::AtMost(9 << 30));
    }

    #[test]
    fn a_team_is_its_allotments_and_its_pool() {
        let allotments = [cpu(1000), cpu(2000)];
        let aggregate = TeamShape::derive(TeamMode::Aggregate, &cpu(500), &allotments);
        assert_eq!(aggregate.limit[Dimension::Cpu], Limit::AtMost(3500));
        assert_eq!(aggregate.pool[Dimension::Cpu], Limit::AtMost(500));
        let fixed = TeamShape::derive(TeamMode::Fixed, &cpu(3500), &allotments);
        assert_eq!(fixed.limit[Dimension::Cpu], Limit::AtMost(3500));
        assert_eq!(fixed.pool[Dimension::Cpu], Limit::AtMost(500));
        let promised_too_much = TeamShape::derive(TeamMode::Fixed, &cpu(2500), &allotments);
        assert_eq!(promised_too_much.pool[Dimension::Cpu], Limit::AtMost(0));
    }

    #[test]
    fn defaults_share_a_small_quota_evenly() {
        let defaults = ContainerDefaults::default();
        let small = Limits::UNLIMITED
            .with(Dimension::Cpu, Limit::AtMost(2000))
            .with(Dimension::Memory, Limit::AtMost(1 << 30))
            .with(Dimension::ConcurrentContainers, Limit::AtMost(4));
        assert_eq!(defaults.cpu_under(&small), MilliCpu(500));
        assert_eq!(defaults.memory_under(&small), Bytes(256 << 20));
        assert_eq!(defaults.cpu_under(&Limits::UNLIMITED), MilliCpu(1000));
        let none = small.with(Dimension::Memory, Limit::AtMost(0));
        assert_eq!(defaults.memory_under(&none), ContainerDefaults::MEMORY_MIN);
    }
}
