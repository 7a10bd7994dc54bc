//! Resource numbers: from the engine's many ways of writing them to one, within bounds.
//!
//! Zero and `null` mean "not asked" in every field, as the CLI writes them. What the engine would
//! read as "unlimited" is refused: a tenant always runs under numbers.

use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::quota::ContainerDefaults;
use plimsoll_core::units::{AMOUNT_MAX, Bytes, MilliCpu};
use serde::{Deserialize, Serialize};

use super::json::Fields;
use super::refusal::{BadRequest, Refusal};

/// The kernel's own ceiling for process ids on 64-bit machines.
pub const PIDS_MAX: u64 = 4_194_304;

/// The engine's default scheduler period, in microseconds.
const CPU_PERIOD_DEFAULT_US: u64 = 100_000;

/// The numbers a container runs under: what the ledger charges and the engine is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Requested {
    /// CPU cap; at least [`ContainerDefaults::CPU_MIN`].
    pub cpu: MilliCpu,
    /// Memory cap.
    pub memory: Bytes,
    /// Memory and swap together; equal to `memory` unless swap is granted.
    pub memory_swap: Bytes,
    /// Memory the kernel reclaims towards under pressure; zero when not asked.
    pub memory_reservation: Bytes,
    /// CPU weight; zero when not asked.
    pub cpu_shares: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Writable layer, and logs above the default allowance.
    pub storage: Bytes,
    /// tmpfs and shared memory.
    pub temp_storage: Bytes,
    /// GPUs; for "all", as many as the host has.
    pub gpus: u64,
}

impl Requested {
    /// The claim for one container with these numbers.
    #[must_use]
    pub fn claim(&self) -> Amounts {
        Amounts::ZERO
            .with(Dimension::Cpu, self.cpu.0)
            .with(Dimension::Memory, self.memory.0)
            .with(Dimension::Storage, self.storage.0)
            .with(Dimension::TempStorage, self.temp_storage.0)
            .with(Dimension::Containers, 1)
            .with(Dimension::ConcurrentContainers, 1)
            .with(Dimension::Gpus, self.gpus)
            .with(Dimension::Pids, self.pids)
    }
}

/// When the engine starts a container by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartName {
    /// Never.
    #[default]
    #[serde(rename = "no")]
    No,
    /// After every exit, and at engine start.
    #[serde(rename = "always")]
    Always,
    /// As `Always`, until stopped by hand.
    #[serde(rename = "unless-stopped")]
    UnlessStopped,
    /// After a non-zero exit.
    #[serde(rename = "on-failure")]
    OnFailure,
}

/// A restart policy, as the engine writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// When to restart.
    pub name: RestartName,
    /// For `OnFailure`, how often at most; zero is no bound.
    pub maximum_retry_count: u32,
}

impl RestartPolicy {
    /// Reads `RestartPolicy`; an empty name is "not asked".
    pub(crate) fn take(fields: &mut Fields) -> Result<Option<Self>, BadRequest> {
        let Some(mut policy) = fields.object("RestartPolicy")? else {
            return Ok(None);
        };
        let name_field = policy.name("Name");
        let count_field = policy.name("MaximumRetryCount");
        let name = policy.str("Name")?.unwrap_or_default();
        let count = policy.i64("MaximumRetryCount")?.unwrap_or(0);
        policy.finish(&[], &mut Vec::new())?;
        let count = u32::try_from(count)
            .ok()
            .filter(|n| *n <= i32::MAX as u32)
            .ok_or_else(|| BadRequest::new(&count_field, "must be between 0 and 2147483647"))?;
        let name = match name.as_str() {
            "" if count == 0 => return Ok(None),
            "" | "no" => RestartName::No,
            "always" => RestartName::Always,
            "unless-stopped" => RestartName::UnlessStopped,
            "on-failure" => RestartName::OnFailure,
            _ => {
                return Err(BadRequest::new(
                    name_field,
                    "must be no, always, unless-stopped or on-failure",
                ));
            }
        };
        if count > 0 && name != RestartName::OnFailure {
            return Err(BadRequest::new(
                count_field,
                "can be set only with the on-failure policy",
            ));
        }
        Ok(Some(Self {
            name,
            maximum_retry_count: count,
        }))
    }
}

/// The resource fields that create and update share, checked one by one; absent means not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// From `NanoCpus`, or from `CpuQuota` over `CpuPeriod`.
    pub cpu: Option<MilliCpu>,
    /// From `Memory`.
    pub memory: Option<Bytes>,
    /// From `MemorySwap`.
    pub memory_swap: Option<Bytes>,
    /// From `MemoryReservation`.
    pub memory_reservation: Option<Bytes>,
    /// From `CpuShares`.
    pub cpu_shares: Option<u64>,
    /// From `PidsLimit`.
    pub pids: Option<u64>,
}

impl Asked {
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, Refusal> {
        let cpu = cpu(fields)?;
        let at_least = |fields: &mut Fields, name, least: Bytes| -> Result<_, BadRequest> {
            amount(fields, name, AMOUNT_MAX)?
                .map(|bytes| {
                    if bytes < least.0 {
                        Err(BadRequest::new(
                            fields.name(name),
                            format!("must be at least {least}"),
                        ))
                    } else {
                        Ok(Bytes(bytes))
                    }
                })
                .transpose()
        };
        let memory = at_least(fields, "Memory", ContainerDefaults::MEMORY_MIN)?;
        let memory_swap = at_least(fields, "MemorySwap", ContainerDefaults::MEMORY_MIN)?;
        let memory_reservation =
            at_least(fields, "MemoryReservation", ContainerDefaults::MEMORY_MIN)?;
        let cpu_shares = amount(fields, "CpuShares", 1024)?;
        if cpu_shares.is_some_and(|shares| shares < 2) {
            return Err(Refusal::bad(
                fields.name("CpuShares"),
                "must be between 2 and 1024",
            ));
        }
        Ok(Self {
            cpu,
            memory,
            memory_swap,
            memory_reservation,
            cpu_shares,
            pids: amount(fields, "PidsLimit", PIDS_MAX)?,
        })
    }
}

/// An integer where zero is "not asked", negative is refused and so is more than `max`.
pub(crate) fn amount(
    fields: &mut Fields,
    name: &'static str,
    max: u64,
) -> Result<Option<u64>, BadRequest> {
    match fields.i64(name)? {
        None | Some(0) => Ok(None),
        Some(n) => match u64::try_from(n) {
            Err(_) => Err(BadRequest::new(
                fields.name(name),
                "must not be negative: unlimited is not available here",
            )),
            Ok(n) if n > max => Err(BadRequest::new(
                fields.name(name),
                format!("is too large (at most {max})"),
            )),
            Ok(n) => Ok(Some(n)),
        },
    }
}

fn cpu(fields: &mut Fields) -> Result<Option<MilliCpu>, Refusal> {
    const NANO_PER_CORE: u64 = 1_000_000_000;
    let nano = amount(fields, "NanoCpus", MilliCpu::CORES_MAX * NANO_PER_CORE)?;
    let quota = amount(fields, "CpuQuota", AMOUNT_MAX)?;
    let period = amount(fields, "CpuPeriod", 1_000_000)?;
    if period.is_some_and(|us| us < 1000) {
        return Err(Refusal::bad(
            fields.name("CpuPeriod"),
            "must be between 1000 and 1000000",
        ));
    }
    if quota.is_some_and(|us| us < 1000) {
        return Err(Refusal::bad(
            fields.name("CpuQuota"),
            "must be at least 1000",
        ));
    }
    let (field, nano) = match (nano, quota) {
        (Some(_), Some(_)) => {
            return Err(Refusal::bad(
                fields.name("NanoCpus"),
                "conflicts with CpuQuota: set one of --cpus and --cpu-quota",
            ));
        }
        (Some(_), None) if period.is_some() => {
            return Err(Refusal::bad(
                fields.name("NanoCpus"),
                "conflicts with CpuPeriod: set one of --cpus and --cpu-period",
            ));
        }
        (Some(nano), None) => ("NanoCpus", nano),
        // A period without a quota caps nothing: the injected default still holds.
        (None, None) => return Ok(None),
        (None, Some(quota)) => {
            let period = period.unwrap_or(CPU_PERIOD_DEFAULT_US);
            let nano = (u128::from(quota) * u128::from(NANO_PER_CORE)).div_ceil(period.into());
            match u64::try_from(nano) {
                Ok(nano) if nano <= MilliCpu::CORES_MAX * NANO_PER_CORE => ("CpuQuota", nano),
                _ => return Err(Refusal::bad(fields.name("CpuQuota"), "is too large")),
            }
        }
    };
    if nano < ContainerDefaults::CPU_MIN.nano() {
        return Err(Refusal::bad(
            fields.name(field),
            format!("must be at least {} of a core", ContainerDefaults::CPU_MIN),
        ));
    }
    Ok(Some(MilliCpu::from_nano(nano)))
}

/// What `MemorySwap` becomes: memory and swap together, equal to `memory` unless swap is granted.
pub(crate) fn memory_swap(
    asked: Option<Bytes>,
    memory: Bytes,
    granted: bool,
    warnings: &mut Vec<String>,
) -> Result<Bytes, Refusal> {
    match asked {
        Some(swap) if swap < memory => Err(Refusal::bad(
            "MemorySwap",
            format!("must be at least the memory limit of {memory}"),
        )),
        Some(swap) if granted => Ok(swap),
        Some(swap) if swap > memory => {
            warnings.push(format!(
                "plimsoll: --memory-swap was lowered to {memory}: containers do not swap here"
            ));
            Ok(memory)
        }
        _ => Ok(memory),
    }
}
