//! Container update: the whole resulting resource set, from what the container has and what is
//! asked.
//!
//! The engine merges an update field by field, takes zero for "unchanged" and `-1` for "unlimited".
//! Here the result is computed first, charged as a whole, and sent with every number explicit, so
//! what the ledger holds is what the engine was told.

use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::units::{Bytes, MilliCpu};
use serde_json::{Map, Value, json};

use super::json::decode_object;
use super::limits::{Asked, RestartName, RestartPolicy, memory_swap};
use super::refusal::Refusal;

/// Resource fields the CLI sends along as zero; anything else in them is refused.
const DENIED: [(&str, &str); 21] = [
    ("BlkioWeight", "--blkio-weight"),
    ("BlkioWeightDevice", "--blkio-weight-device"),
    ("BlkioDeviceReadBps", "--device-read-bps"),
    ("BlkioDeviceWriteBps", "--device-write-bps"),
    ("BlkioDeviceReadIOps", "--device-read-iops"),
    ("BlkioDeviceWriteIOps", "--device-write-iops"),
    ("CgroupParent", "--cgroup-parent"),
    ("CpuCount", "--cpu-count"),
    ("CpuPercent", "--cpu-percent"),
    ("CpuRealtimePeriod", "--cpu-rt-period"),
    ("CpuRealtimeRuntime", "--cpu-rt-runtime"),
    ("CpusetCpus", "--cpuset-cpus"),
    ("CpusetMems", "--cpuset-mems"),
    ("DeviceCgroupRules", "--device-cgroup-rule"),
    ("DeviceRequests", "--gpus"),
    ("Devices", "--device"),
    ("IOMaximumBandwidth", "--io-maxbandwidth"),
    ("IOMaximumIOps", "--io-maxiops"),
    ("KernelMemory", "--kernel-memory"),
    ("KernelMemoryTCP", "KernelMemoryTCP"),
    ("Ulimits", "--ulimit"),
];

/// `POST /containers/{id}/update`, decoded; absent fields stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UpdateRequest {
    /// The resource fields.
    pub asked: Asked,
    /// When the engine starts it by itself.
    pub restart: Option<RestartPolicy>,
}

/// What a container runs under now, from inspect. `None` is unlimited, as only containers that
/// came past Plimsoll are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CurrentResources {
    /// CPU cap.
    pub cpu: Option<MilliCpu>,
    /// Whether the cap was set by `CpuQuota`: the engine refuses `NanoCpus` on such a container.
    pub cpu_by_quota: bool,
    /// Memory cap.
    pub memory: Option<Bytes>,
    /// Memory and swap together.
    pub memory_swap: Option<Bytes>,
    /// Reclaim target.
    pub memory_reservation: Option<Bytes>,
    /// CPU weight.
    pub cpu_shares: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// When the engine starts it by itself.
    pub restart: RestartPolicy,
    /// The engine removes it when it exits.
    pub auto_remove: bool,
}

/// An update that may go to the engine once the difference is admitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Updated {
    /// What cpu, memory and pids are charged now; zero where unlimited.
    pub before: Amounts,
    /// What they are charged afterwards.
    pub after: Amounts,
    /// What the container runs under afterwards.
    pub resources: CurrentResources,
    /// The body for the engine.
    pub body: Value,
    /// For the `Warnings` of the answer.
    pub warnings: Vec<String>,
}

impl UpdateRequest {
    /// Decodes a body.
    ///
    /// # Errors
    /// [`Refusal`] for what is malformed, unknown, out of range or not open to a tenant.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = decode_object(body)?;
        for (name, option) in DENIED {
            if fields.take(name).is_some_and(|json| !json.is_zero()) {
                return Err(Refusal::policy(
                    name,
                    option,
                    "it cannot be changed on a container",
                    "update memory, CPU, --pids-limit and --restart, or create a new container",
                ));
            }
        }
        if fields.bool("OomKillDisable")?.unwrap_or(false) {
            return Err(Refusal::policy(
                "OomKillDisable",
                "--oom-kill-disable",
                "a container at its memory limit would hang instead of end",
                "raise --memory",
            ));
        }
        if fields
            .i64("MemorySwappiness")?
            .is_some_and(|n| !matches!(n, -1 | 0))
        {
            return Err(Refusal::policy(
                "MemorySwappiness",
                "--memory-swappiness",
                "it cannot be changed on a container",
                "leave the option out",
            ));
        }
        let request = Self {
            asked: Asked::take(&mut fields)?,
            restart: RestartPolicy::take(&mut fields)?,
        };
        fields.finish(&[], &mut Vec::new())?;
        Ok(request)
    }
}

impl CurrentResources {
    /// Reads the `HostConfig` of an inspect answer. What the engine writes for "unlimited" (zero,
    /// `null`, `-1`) is `None`.
    #[must_use]
    pub fn from_host_config(host: &Value) -> Self {
        let positive = |name: &str| host[name].as_u64().filter(|n| *n > 0);
        let quota = positive("CpuQuota");
        let cpu = positive("NanoCpus").map(MilliCpu::from_nano).or_else(|| {
            let period = positive("CpuPeriod").unwrap_or(100_000);
            let milli = (u128::from(quota?) * 1000).div_ceil(period.into());
            Some(MilliCpu(u64::try_from(milli).unwrap_or(u64::MAX)))
        });
        Self {
            cpu,
            cpu_by_quota: quota.is_some() || positive("CpuPeriod").is_some(),
            memory: positive("Memory").map(Bytes),
            memory_swap: positive("MemorySwap").map(Bytes),
            memory_reservation: positive("MemoryReservation").map(Bytes),
            cpu_shares: positive("CpuShares"),
            pids: positive("PidsLimit"),
            restart: serde_json::from_value(host["RestartPolicy"].clone()).unwrap_or_default(),
            auto_remove: host["AutoRemove"].as_bool().unwrap_or(false),
        }
    }

    /// What these charge in cpu, memory and pids; zero where unlimited.
    #[must_use]
    pub fn amounts(&self) -> Amounts {
        Amounts::ZERO
            .with(Dimension::Cpu, self.cpu.unwrap_or_default().0)
            .with(Dimension::Memory, self.memory.unwrap_or_default().0)
            .with(Dimension::Pids, self.pids.unwrap_or(0))
    }

    /// The body that sets exactly these.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = Map::new();
        let mut set = |name: &str, value: Option<u64>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), json!(value));
            }
        };
        if self.cpu_by_quota {
            // In the period the engine would have chosen; a millicore is 100 µs of it.
            set("CpuPeriod", self.cpu.map(|_| 100_000));
            set("CpuQuota", self.cpu.map(|cpu| cpu.0.saturating_mul(100)));
        } else {
            set("NanoCpus", self.cpu.map(MilliCpu::nano));
        }
        set("Memory", self.memory.map(|b| b.0));
        set("MemorySwap", self.memory_swap.map(|b| b.0));
        set("MemoryReservation", self.memory_reservation.map(|b| b.0));
        set("CpuShares", self.cpu_shares);
        set("PidsLimit", self.pids);
        body.insert("RestartPolicy".to_owned(), json!(self.restart));
        Value::Object(body)
    }
}

/// The resources after an update, what they charge, and the body that sets them. `swap` is whether
/// the container may swap.
///
/// # Errors
/// [`Refusal`] when the result contradicts itself: a reservation above the memory limit, swap below
/// it, a restart policy on a container that removes itself.
pub fn resulting(
    current: &CurrentResources,
    request: &UpdateRequest,
    swap: bool,
) -> Result<Updated, Refusal> {
    let asked = request.asked;
    let mut warnings = Vec::new();
    let memory = asked.memory.or(current.memory);
    let memory_swap = match memory {
        None if asked.memory_swap.is_some() => {
            return Err(Refusal::bad(
                "MemorySwap",
                "needs a memory limit: set --memory too",
            ));
        }
        None => None,
        Some(memory) => {
            // Swap that was granted at create stays, but never falls below a raised limit.
            let kept = current.memory_swap.filter(|s| swap && *s >= memory);
            let wanted = asked.memory_swap.or(kept);
            Some(memory_swap(wanted, memory, swap, &mut warnings)?)
        }
    };
    let memory_reservation = asked.memory_reservation.or(current.memory_reservation);
    if let (Some(reservation), Some(memory)) = (memory_reservation, memory)
        && reservation > memory
    {
        return Err(Refusal::bad(
            "MemoryReservation",
            format!("{reservation} is above the memory limit of {memory}"),
        ));
    }
    let restart = request.restart.unwrap_or(current.restart);
    if current.auto_remove && restart.name != RestartName::No {
        return Err(Refusal::bad(
            "RestartPolicy",
            "the container was created with --rm",
        ));
    }
    let resources = CurrentResources {
        cpu: asked.cpu.or(current.cpu),
        memory,
        memory_swap,
        memory_reservation,
        cpu_shares: asked.cpu_shares.or(current.cpu_shares),
        pids: asked.pids.or(current.pids),
        restart,
        ..*current
    };
    Ok(Updated {
        before: current.amounts(),
        after: resources.amounts(),
        body: resources.body(),
        resources,
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn current() -> CurrentResources {
        CurrentResources::from_host_config(&json!({
            "NanoCpus": 500_000_000, "Memory": 64 * MIB, "MemorySwap": 64 * MIB, "PidsLimit": 10,
            "CpuPeriod": 0, "CpuQuota": 0, "CpuShares": 0, "MemoryReservation": 0,
            "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}, "AutoRemove": false
        }))
    }

    fn update(current: &CurrentResources, body: &str) -> Result<Updated, Refusal> {
        resulting(current, &UpdateRequest::parse(body.as_bytes())?, false)
    }

    #[test]
    fn what_clients_send_is_accepted() {
        for (body, memory, cpu, pids) in [
            (
                include_str!("fixtures/cli-update-memory-cpu.json"),
                600 * MIB,
                1000,
                10,
            ),
            (
                include_str!("fixtures/cli-update-pids.json"),
                64 * MIB,
                500,
                50,
            ),
            (include_str!("fixtures/py-update.json"), 70 * MIB, 500, 10),
        ] {
            let updated = update(&current(), body).unwrap();
            assert_eq!(updated.before[Dimension::Memory], 64 * MIB);
            assert_eq!(updated.after[Dimension::Memory], memory);
            assert_eq!(updated.after[Dimension::Cpu], cpu);
            assert_eq!(updated.after[Dimension::Pids], pids);
            assert_eq!(updated.body["Memory"], memory);
            assert_eq!(updated.body["MemorySwap"], memory);
            assert_eq!(updated.body["NanoCpus"], cpu * 1_000_000);
            assert_eq!(updated.body["PidsLimit"], pids);
            // Our own body changes nothing more.
            let again = update(&updated.resources, &updated.body.to_string()).unwrap();
            assert_eq!(again.resources, updated.resources);
            assert_eq!(again.body, updated.body);
        }
    }

    #[test]
    fn the_result_is_whole() {
        let updated = update(&current(), "{}").unwrap();
        assert_eq!(
            updated.body,
            json!({
                "NanoCpus": 500_000_000, "Memory": 64 * MIB, "MemorySwap": 64 * MIB,
                "PidsLimit": 10, "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}
            })
        );
        assert_eq!(updated.before, updated.after);
    }

    #[test]
    fn what_a_tenant_may_not_change_is_refused() {
        for (body, status) in [
            (r#"{"CgroupParent":"/"}"#, 403),
            (r#"{"CpusetCpus":"0"}"#, 403),
            (r#"{"Devices":[{}]}"#, 403),
            (r#"{"BlkioWeight":10}"#, 403),
            (r#"{"CpuRealtimeRuntime":1}"#, 403),
            (r#"{"OomKillDisable":true}"#, 403),
            (r#"{"Ulimits":[{"Name":"nofile"}]}"#, 403),
            (r#"{"Memory":-1}"#, 400),
            (r#"{"Memory":1}"#, 400),
            (r#"{"memory":67108864}"#, 400),
            (r#"{"Memory":67108864,"Memory":0}"#, 400),
            (r#"{"MemorySwap":-1}"#, 400),
            (r#"{"MemorySwap":33554432}"#, 400),
            (r#"{"MemoryReservation":134217728}"#, 400),
            (r#"{"PidsLimit":-1}"#, 400),
            (r#"{"NanoCpus":9999}"#, 400),
            (r#"{"NanoCpus":1000000000,"CpuQuota":1000}"#, 400),
            (r#"{"CpuQuota":-1}"#, 400),
            (r#"{"RestartPolicy":{"Name":"sometimes"}}"#, 400),
            (r#"{"HostConfig":{"Memory":1}}"#, 400),
            (r#"{"Privileged":true}"#, 400),
        ] {
            let refusal = update(&current(), body).unwrap_err();
            assert_eq!(refusal.status(), status, "{body}: {refusal}");
        }
        let removing = CurrentResources {
            auto_remove: true,
            restart: RestartPolicy::default(),
            ..current()
        };
        assert!(update(&removing, r#"{"RestartPolicy":{"Name":"always"}}"#).is_err());
        assert!(update(&removing, r#"{"PidsLimit":5}"#).is_ok());
    }

    #[test]
    fn containers_that_came_past_plimsoll_keep_their_form() {
        let adopted = CurrentResources::from_host_config(&json!({
            "CpuQuota": 150_000, "CpuPeriod": 100_000, "Memory": 0, "PidsLimit": null,
            "MemorySwap": -1, "RestartPolicy": {"Name": "", "MaximumRetryCount": 0}
        }));
        assert_eq!(adopted.amounts(), Amounts::ZERO.with(Dimension::Cpu, 1500));
        let updated = update(&adopted, r#"{"NanoCpus":2000000000}"#).unwrap();
        assert_eq!(updated.body["CpuQuota"], 200_000);
        assert_eq!(updated.body["CpuPeriod"], 100_000);
        assert_eq!(updated.body["NanoCpus"], Value::Null);
        assert_eq!(updated.body["Memory"], Value::Null);
        assert!(update(&adopted, r#"{"MemorySwap":67108864}"#).is_err());
    }
}
