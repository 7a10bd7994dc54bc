//! The dimensions a quota has, and vectors over them.
//!
//! The order of [`Dimension`] is stored in every ledger: it is append-only.

use std::fmt;
use std::ops::{Index, IndexMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::{BYTES_PER_GB, Bytes, MilliCpu, UnitError, check, trim};

/// What one ledger unit of a dimension is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Thousandths of a core; people write cores.
    MilliCpu,
    /// Bytes; people write GB of 1024³ bytes.
    Bytes,
    /// Whole things.
    Count,
    /// Mbit/s.
    Mbps,
    /// Hundredths of a percent; people write percent.
    BasisPoints,
    /// Seconds; people write hours.
    SecondsAsHours,
    /// Seconds; people write minutes.
    SecondsAsMinutes,
    /// Thousandths of a core-hour or GiB-hour; people write whole hours.
    MilliHours,
}

impl Unit {
    /// Ledger units in one unit as people write it.
    #[must_use]
    pub const fn scale(self) -> u64 {
        match self {
            Self::MilliCpu | Self::MilliHours => 1000,
            Self::Bytes => BYTES_PER_GB,
            Self::Count | Self::Mbps => 1,
            Self::BasisPoints => 100,
            Self::SecondsAsHours => 3600,
            Self::SecondsAsMinutes => 60,
        }
    }

    /// Whether people may write a fraction.
    #[must_use]
    pub const fn fractional(self) -> bool {
        self.scale() > 1
    }
}

macro_rules! dimensions {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $field:literal, $unit:ident;)*) => {
        /// One thing a quota limits. The discriminant is the index in every stored array.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum Dimension { $($(#[$doc])* $variant),* }

        impl Dimension {
            /// Every dimension, in stored order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name in the ledger, in violations and in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The quota field of the API, without its `max` prefix.
            #[must_use]
            pub const fn field(self) -> &'static str {
                match self { $(Self::$variant => $field),* }
            }

            /// The quota field of the API: `maxCpuCores`.
            #[must_use]
            pub const fn limit_field(self) -> &'static str {
                match self { $(Self::$variant => concat!("max", $field)),* }
            }

            /// The unit of one ledger count.
            #[must_use]
            pub const fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit),* }
            }
        }
    };
}

dimensions! {
    /// CPU a container may use at most, while it may run.
    Cpu, "cpu", "CpuCores", MilliCpu;
    /// Memory a container may use at most, while it may run.
    Memory, "memory", "MemoryGB", Bytes;
    /// Writable layers, volumes and logs, until removed.
    Storage, "storage", "StorageGB", Bytes;
    /// tmpfs and shared memory, while it may run.
    TempStorage, "temp_storage", "TempStorageGB", Bytes;
    /// Containers that exist.
    Containers, "containers", "Containers", Count;
    /// Containers that may run.
    ConcurrentContainers, "concurrent_containers", "ConcurrentContainers", Count;
    /// GPU devices pinned to containers that may run.
    Gpus, "gpus", "Gpus", Count;
    /// Processes and threads, while it may run.
    Pids, "pids", "Pids", Count;
    /// Network rate in each direction.
    Bandwidth, "bandwidth", "BandwidthMbps", Mbps;
    /// Established and opening flows.
    Connections, "connections", "Connections", Count;
    /// Narrows `cpu` to a share of the host.
    CpuPercent, "cpu_percent", "CpuPercent", BasisPoints;
    /// Narrows `memory` to a share of the host.
    MemoryPercent, "memory_percent", "MemoryPercent", BasisPoints;
    /// Hours of a day in which at least one container runs; 24 h is no limit.
    Runtime, "runtime", "RuntimeHours", SecondsAsHours;
    /// How long a container may idle.
    Idle, "idle", "IdleTimeMinutes", SecondsAsMinutes;
    /// Core-hours in a day.
    CoreHoursDay, "core_hours_day", "CoreHoursPerDay", MilliHours;
    /// Core-hours in a week.
    CoreHoursWeek, "core_hours_week", "CoreHoursPerWeek", MilliHours;
    /// Core-hours in a month.
    CoreHoursMonth, "core_hours_month", "CoreHoursPerMonth", MilliHours;
    /// GiB-hours of memory in a day.
    GibHoursDay, "gib_hours_day", "GiBHoursPerDay", MilliHours;
    /// GiB-hours of memory in a week.
    GibHoursWeek, "gib_hours_week", "GiBHoursPerWeek", MilliHours;
    /// GiB-hours of memory in a month.
    GibHoursMonth, "gib_hours_month", "GiBHoursPerMonth", MilliHours;
    /// Bytes sent and received in a month.
    TransferMonth, "transfer_month", "TransferGBPerMonth", Bytes;
}

impl Dimension {
    /// How many of the first dimensions are charged by reservations.
    pub const CHARGED_COUNT: usize = 8;

    /// The dimensions that reservations charge, in stored order.
    pub const CHARGED: [Self; Self::CHARGED_COUNT] = [
        Self::Cpu,
        Self::Memory,
        Self::Storage,
        Self::TempStorage,
        Self::Containers,
        Self::ConcurrentContainers,
        Self::Gpus,
        Self::Pids,
    ];

    /// Position in stored arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Freed when a container stops, not when it is removed.
    #[must_use]
    pub const fn is_runtime(self) -> bool {
        matches!(
            self,
            Self::Cpu
                | Self::Memory
                | Self::TempStorage
                | Self::ConcurrentContainers
                | Self::Gpus
                | Self::Pids
        )
    }

    /// A team's limit in it is the sum of allotments and pool; the others come from its class.
    #[must_use]
    pub const fn is_summed(self) -> bool {
        !matches!(
            self,
            Self::CpuPercent | Self::MemoryPercent | Self::Runtime | Self::Idle
        )
    }

    /// The dimension with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// A ledger amount as people write it: cores, GB, hours.
    #[must_use]
    pub fn to_human(self, amount: u64) -> f64 {
        amount as f64 / self.unit().scale() as f64
    }

    /// The ledger amount for a number as people write it, rounded up to a whole ledger unit.
    ///
    /// # Errors
    /// [`UnitError`] for NaN, infinities, negative numbers, fractions of whole things, percentages
    /// over 100, days over 24 hours and amounts beyond what the ledger holds.
    pub fn from_human(self, number: f64) -> Result<u64, UnitError> {
        let (most, unit) = match self.unit() {
            Unit::MilliCpu => return MilliCpu::from_cores(number).map(|cpu| cpu.0),
            Unit::Bytes => return Bytes::from_gb(number).map(|bytes| bytes.0),
            Unit::Count => (1 << 32, "in number"),
            Unit::Mbps => (10_000_000, "Mbit/s"),
            Unit::BasisPoints => (100, "%"),
            Unit::SecondsAsHours => (24, "hours a day"),
            Unit::SecondsAsMinutes => (60 * 24 * 366, "minutes"),
            Unit::MilliHours => (1 << 40, "hours"),
        };
        check(number, most, unit)?;
        if !self.unit().fractional() && number.fract() != 0.0 {
            return Err(UnitError::NotWhole);
        }
        Ok((number * self.unit().scale() as f64 - 1e-6).ceil().max(0.0) as u64)
    }

    /// An amount with its unit, as in refusals and tables.
    #[must_use]
    pub fn show(self, amount: u64) -> String {
        match self.unit() {
            Unit::MilliCpu => MilliCpu(amount).to_string(),
            Unit::Bytes => Bytes(amount).to_string(),
            Unit::Count => amount.to_string(),
            Unit::Mbps => format!("{amount} Mbit/s"),
            Unit::BasisPoints => format!("{} %", trim(self.to_human(amount), 2)),
            Unit::SecondsAsHours | Unit::MilliHours => {
                format!("{} h", trim(self.to_human(amount), 2))
            }
            Unit::SecondsAsMinutes => format!("{} min", trim(self.to_human(amount), 1)),
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An upper bound on one dimension. Written as a number or `null`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Limit {
    /// No bound.
    #[default]
    Unlimited,
    /// At most this many ledger units.
    AtMost(u64),
}

impl Limit {
    /// Whether `total` is within the limit. The one predicate for a limit, everywhere.
    #[must_use]
    pub const fn allows(self, total: u64) -> bool {
        match self {
            Self::Unlimited => true,
            Self::AtMost(most) => total <= most,
        }
    }

    /// The bound, if there is one.
    #[must_use]
    pub const fn at_most(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::AtMost(most) => Some(most),
        }
    }

    /// The tighter of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unlimited, limit) | (limit, Self::Unlimited) => limit,
            (Self::AtMost(a), Self::AtMost(b)) => Self::AtMost(a.min(b)),
        }
    }

    /// The limit with `amount` more room.
    #[must_use]
    pub const fn plus(self, amount: u64) -> Self {
        match self {
            Self::Unlimited => Self::Unlimited,
            Self::AtMost(most) => Self::AtMost(most.saturating_add(amount)),
        }
    }

    /// The limit times a factor in thousandths, rounded down.
    #[must_use]
    pub fn times_permille(self, permille: u32) -> Self {
        match self {
            Self::AtMost(most) if permille != 1000 => {
                let product = u128::from(most) * u128::from(permille) / 1000;
                Self::AtMost(u64::try_from(product).unwrap_or(u64::MAX))
            }
            limit => limit,
        }
    }
}

impl From<Option<u64>> for Limit {
    fn from(limit: Option<u64>) -> Self {
        limit.map_or(Self::Unlimited, Self::AtMost)
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.at_most().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<u64>::deserialize(deserializer).map(Self::from)
    }
}

/// One limit for every dimension. Stored as an array in the order of [`Dimension::ALL`]; an array
/// written before a dimension was added reads as unlimited there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits([Limit; Dimension::ALL.len()]);

impl Limits {
    /// No limit anywhere.
    pub const UNLIMITED: Self = Self([Limit::Unlimited; Dimension::ALL.len()]);

    /// Zero in every summed dimension, unlimited elsewhere: an empty pool, an empty allotment.
    #[must_use]
    pub fn nothing() -> Self {
        Self(Dimension::ALL.map(|d| {
            if d.is_summed() {
                Limit::AtMost(0)
            } else {
                Limit::Unlimited
            }
        }))
    }

    /// The same limits with one changed.
    #[must_use]
    pub fn with(mut self, dimension: Dimension, limit: Limit) -> Self {
        self[dimension] = limit;
        self
    }

    /// Each limit passed through `f`.
    #[must_use]
    pub fn map(mut self, mut f: impl FnMut(Dimension, Limit) -> Limit) -> Self {
        for d in Dimension::ALL {
            self[d] = f(d, self[d]);
        }
        self
    }
}

impl Index<Dimension> for Limits {
    type Output = Limit;
    fn index(&self, dimension: Dimension) -> &Limit {
        &self.0[dimension.index()]
    }
}

impl IndexMut<Dimension> for Limits {
    fn index_mut(&mut self, dimension: Dimension) -> &mut Limit {
        &mut self.0[dimension.index()]
    }
}

impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Vec::<Limit>::deserialize(deserializer)?;
        let mut limits = Self::UNLIMITED;
        if stored.len() > limits.0.len() {
            return Err(serde::de::Error::custom(
                "more dimensions than this version knows",
            ));
        }
        limits.0[..stored.len()].copy_from_slice(&stored);
        Ok(limits)
    }
}

/// An amount in every charged dimension: a claim, a charge, a balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Amounts([u64; Dimension::CHARGED_COUNT]);

impl Amounts {
    /// Nothing.
    pub const ZERO: Self = Self([0; Dimension::CHARGED_COUNT]);

    /// The same amounts with one changed.
    ///
    /// # Panics
    /// When `dimension` is not a charged one.
    #[must_use]
    pub fn with(mut self, dimension: Dimension, amount: u64) -> Self {
        self[dimension] = amount;
        self
    }

    /// The amount in `dimension`; zero in dimensions that are never charged.
    #[must_use]
    pub fn get(&self, dimension: Dimension) -> u64 {
        self.0.get(dimension.index()).copied().unwrap_or(0)
    }

    /// Sum, or `None` on overflow.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let mut sum = *self;
        for (a, b) in sum.0.iter_mut().zip(other.0) {
            *a = a.checked_add(b)?;
        }
        Some(sum)
    }

    /// Difference, or `None` when it would be negative anywhere.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        let mut difference = *self;
        for (a, b) in difference.0.iter_mut().zip(other.0) {
            *a = a.checked_sub(b)?;
        }
        Some(difference)
    }

    /// What exceeds `other`, per dimension.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        let mut excess = *self;
        for (a, b) in excess.0.iter_mut().zip(other.0) {
            *a = a.saturating_sub(b);
        }
        excess
    }

    /// The smaller of both, per dimension.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        let mut least = *self;
        for (a, b) in least.0.iter_mut().zip(other.0) {
            *a = (*a).min(b);
        }
        least
    }

    /// What exceeds `limits`, per dimension.
    #[must_use]
    pub fn above(&self, limits: &Limits) -> Self {
        let mut excess = Self::ZERO;
        for d in Dimension::CHARGED {
            if let Limit::AtMost(most) = limits[d] {
                excess[d] = self.get(d).saturating_sub(most);
            }
        }
        excess
    }

    /// The part that stays charged after a stop.
    #[must_use]
    pub fn without_runtime(mut self) -> Self {
        for d in Dimension::CHARGED {
            if d.is_runtime() {
                self[d] = 0;
            }
        }
        self
    }

    /// Whether every amount is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl Index<Dimension> for Amounts {
    type Output = u64;
    fn index(&self, dimension: Dimension) -> &u64 {
        &self.0[dimension.index()]
    }
}

impl IndexMut<Dimension> for Amounts {
    fn index_mut(&mut self, dimension: Dimension) -> &mut u64 {
        &mut self.0[dimension.index()]
    }
}

impl Serialize for Amounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Vec::<u64>::deserialize(deserializer)?;
        let mut amounts = Self::ZERO;
        if stored.len() > amounts.0.len() {
            return Err(serde::de::Error::custom(
                "more dimensions than this version knows",
            ));
        }
        amounts.0[..stored.len()].copy_from_slice(&stored);
        Ok(amounts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_order_is_the_enum_order() {
        for (i, d) in Dimension::ALL.into_iter().enumerate() {
            assert_eq!(d.index(), i);
            assert_eq!(Dimension::from_name(d.name()), Some(d));
        }
        assert_eq!(
            Dimension::CHARGED.as_slice(),
            &Dimension::ALL[..Dimension::CHARGED_COUNT]
        );
    }

    #[test]
    fn arrays_of_an_older_version_read_and_those_of_a_newer_do_not() {
        let old: Limits = serde_json::from_str("[1000,null]").unwrap();
        assert_eq!(old[Dimension::Cpu], Limit::AtMost(1000));
        assert_eq!(old[Dimension::Storage], Limit::Unlimited);
        assert!(serde_json::from_str::<Amounts>("[1,2,3,4,5,6,7,8,9]").is_err());
    }

    #[test]
    fn arithmetic_is_checked() {
        let most = Amounts::ZERO.with(Dimension::Memory, u64::MAX);
        let one = Amounts::ZERO.with(Dimension::Memory, 1);
        assert_eq!(most.checked_add(&one), None);
        assert_eq!(Amounts::ZERO.checked_sub(&one), None);
        assert_eq!(
            most.checked_sub(&one).unwrap().get(Dimension::Memory),
            u64::MAX - 1
        );
    }

    #[test]
    fn a_stop_frees_what_runs_and_keeps_what_exists() {
        let mut claim = Amounts::ZERO;
        for d in Dimension::CHARGED {
            claim[d] = 7;
        }
        let kept = claim.without_runtime();
        let kept: Vec<_> = Dimension::CHARGED
            .into_iter()
            .filter(|d| kept.get(*d) > 0)
            .collect();
        assert_eq!(kept, [Dimension::Storage, Dimension::Containers]);
    }

    #[test]
    fn what_people_write_becomes_whole_ledger_units() {
        for (d, number, amount) in [
            (Dimension::Cpu, 1.5, Ok(1500)),
            (Dimension::Memory, 0.5, Ok(512 << 20)),
            (Dimension::Containers, 3.0, Ok(3)),
            (Dimension::Containers, 3.5, Err(UnitError::NotWhole)),
            (Dimension::CpuPercent, 80.0, Ok(8000)),
            (
                Dimension::CpuPercent,
                101.0,
                Err(UnitError::TooLarge {
                    max: 100,
                    unit: "%",
                }),
            ),
            (Dimension::Runtime, 1.5, Ok(5400)),
            (Dimension::Idle, -1.0, Err(UnitError::Negative)),
            (Dimension::Pids, f64::NAN, Err(UnitError::NotFinite)),
        ] {
            assert_eq!(d.from_human(number), amount, "{d} {number}");
        }
    }

    #[test]
    fn amounts_show_their_unit() {
        assert_eq!(Dimension::Memory.show(3 << 29), "1.5 GiB");
        assert_eq!(Dimension::Cpu.show(1500), "1.5");
        assert_eq!(Dimension::Runtime.show(5400), "1.5 h");
        assert_eq!(Dimension::CpuPercent.show(8000), "80 %");
    }
}
