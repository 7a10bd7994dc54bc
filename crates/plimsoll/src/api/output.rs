//! Records as the API shows them: camelCase, people's units, RFC 3339 times.

use std::sync::LazyLock;

use plimsoll_core::admit::Violation;
use plimsoll_core::dimension::{Amounts, Dimension, Limit, Limits};
use plimsoll_core::remedy::Remedy;
use plimsoll_host::load::Pressure;
use plimsoll_store::{
    Cert, Decision, Member, Project, Quota, Reservation, StepRecord, Team, Token, User,
    ViolationRecord, WouldRefuse,
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::budget::Account;
use crate::clock::rfc3339;
use crate::config::Ports;
use crate::live::{Line, Used};
use crate::meter::{ContainerUse, HostUse, Stranger, Usage};

const MS_PER_HOUR: f64 = 3.6e6;
const NS_PER_HOUR: f64 = 3.6e12;

/// Unix milliseconds as RFC 3339.
pub(super) fn time(ms: i64) -> Value {
    json!(rfc3339(ms))
}

pub(super) fn opt_time(ms: Option<i64>) -> Value {
    ms.map_or(Value::Null, time)
}

/// A number without a needless fraction.
pub(super) fn number(dimension: Dimension, amount: u64) -> Value {
    if dimension.unit().scale() == 1 {
        json!(amount)
    } else {
        json!(dimension.to_human(amount))
    }
}

fn limit(dimension: Dimension, limit: Limit) -> Value {
    limit
        .at_most()
        .map_or(Value::Null, |most| number(dimension, most))
}

/// Limits as an object of `max*` fields, written without building one.
pub(super) struct Limited<'a>(pub(super) &'a Limits);

impl Serialize for Limited<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Dimension::ALL.map(|d| (d.limit_field(), Shown(d, self.0[d]))))
    }
}

/// What is added to limits, as an object of `max*` fields.
pub(super) fn added(added: &[(Dimension, u64)]) -> Value {
    let fields = added.iter().map(|(d, amount)| {
        let name = d.limit_field().to_owned();
        (name, number(*d, *amount))
    });
    Value::Object(fields.collect())
}

/// Charged amounts as an object of fields with a prefix, written without building one.
pub(super) struct Amounted<'a>(pub(super) &'static FieldNames, pub(super) &'a Amounts);

impl Serialize for Amounted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = |d| Shown(d, Limit::AtMost(self.1.get(d)));
        let fields = Dimension::CHARGED.map(|d| (self.0[d.index()].as_str(), shown(d)));
        serializer.collect_map(fields)
    }
}

/// A number in people's units, or null.
struct Shown(Dimension, Limit);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.1 {
            Limit::Unlimited => serializer.serialize_none(),
            Limit::AtMost(amount) if self.0.unit().scale() == 1 => serializer.serialize_u64(amount),
            Limit::AtMost(amount) => serializer.serialize_f64(self.0.to_human(amount)),
        }
    }
}

/// A field's name for each charged dimension.
pub(super) type FieldNames = [String; Dimension::CHARGED_COUNT];

/// `cpuCores`, `memoryGB`, ...
pub(super) static PLAIN: LazyLock<FieldNames> =
    LazyLock::new(|| Dimension::CHARGED.map(|d| field_name("", d)));

/// `reservedCpuCores`, `reservedMemoryGB`, ...
static RESERVED: LazyLock<FieldNames> =
    LazyLock::new(|| Dimension::CHARGED.map(|d| field_name("reserved", d)));

pub(super) fn field_name(prefix: &str, dimension: Dimension) -> String {
    let mut name = format!("{prefix}{}", dimension.field());
    if prefix.is_empty() {
        name[..1].make_ascii_lowercase();
    }
    name
}

/// Limits as `max*` fields.
pub(super) fn max_fields(limits: &Limits) -> Map<String, Value> {
    Dimension::ALL
        .into_iter()
        .map(|d| (d.limit_field().to_owned(), limit(d, limits[d])))
        .collect()
}

/// Limits of the summed dimensions as `max*` fields.
pub(super) fn summed_fields(limits: &Limits) -> Value {
    let fields = Dimension::ALL.into_iter().filter(|d| d.is_summed());
    Value::Object(
        fields
            .map(|d| (d.limit_field().to_owned(), limit(d, limits[d])))
            .collect(),
    )
}

/// Charged amounts as fields with a prefix.
pub(super) fn amounts(prefix: &str, amounts: &Amounts) -> Map<String, Value> {
    Dimension::CHARGED
        .into_iter()
        .map(|d| (field_name(prefix, d), number(d, amounts.get(d))))
        .collect()
}

pub(super) fn violation(v: &Violation) -> Value {
    let d = v.dimension;
    json!({
        "level": v.level, "entity": v.name, "dimension": d,
        "requested": number(d, v.requested), "reserved": number(d, v.reserved),
        "used": null, "limit": number(d, v.limit), "shortBy": number(d, v.short_by),
        "neverFits": v.never_fits, "enforced": v.enforced, "text": v.to_string(),
    })
}

pub(super) fn remedy(r: &Remedy) -> Value {
    let frees = r.frees.as_ref().map(|f| Value::Object(amounts("", f)));
    json!({"kind": r.kind, "text": r.text, "command": r.command, "frees": frees})
}

/// A user, with the span of host ports that is theirs.
pub(super) fn user(u: &User, ports: &Ports) -> Value {
    let span = ports.of_slot(u.port_slot);
    json!({
        "id": u.id, "name": u.name, "email": u.email, "mail": u.mail, "osUid": u.os_uid, "role": u.role.name(),
        "defaultTeam": u.default_team, "suspended": u.suspended, "draining": u.draining,
        "ports": span.map(|span| format!("{}-{}", span.first, span.last)),
        "createdAt": time(u.created_ms),
    })
}

pub(super) fn team(t: &Team) -> Value {
    json!({
        "id": t.id, "name": t.name, "mode": t.mode, "suspended": t.suspended,
        "draining": t.draining, "createdAt": time(t.created_ms),
    })
}

pub(super) fn member(m: &Member) -> Value {
    json!({
        "team": m.team_name, "teamId": m.team, "user": m.user_name, "userId": m.user,
        "role": m.role, "allotment": summed_fields(&m.allotment), "granted": added(&m.granted),
        "effectiveAllotment": summed_fields(&m.effective()),
        "borrowLimit": summed_fields(&m.borrow), "reserved": amounts("", &m.reserved),
    })
}

pub(super) fn project(p: &Project, used: &Usage) -> Value {
    json!({
        "id": p.id, "name": p.name, "team": p.team, "user": p.user,
        "createdAt": time(p.created_ms), "usage": Measured::new(used),
    })
}

pub(super) fn token(t: &Token) -> Value {
    json!({
        "id": t.id, "user": t.user, "role": t.role.name(), "label": t.label,
        "createdAt": time(t.created_ms), "expiresAt": opt_time(t.expires_ms),
        "revokedAt": opt_time(t.revoked_ms),
    })
}

pub(super) fn cert(c: &Cert) -> Value {
    json!({
        "serial": c.serial, "user": c.user, "issuedAt": time(c.issued_ms),
        "expiresAt": time(c.expires_ms), "revokedAt": opt_time(c.revoked_ms),
    })
}

/// The fields every quota has, without its limits.
pub(super) fn quota_head(q: &Quota, name: &str) -> Map<String, Value> {
    let head = json!({
        "entityType": q.kind, "entityId": q.entity, "name": name, "quotaType": q.class,
        "overcommit": f64::from(q.overcommit_permille) / 1000.0, "mode": q.mode,
        "ladder": q.ladder, "timeZone": q.time_zone, "version": q.version, "createdAt": time(q.created_ms), "updatedAt": time(q.updated_ms),
    });
    match head {
        Value::Object(head) => head,
        _ => Map::new(),
    }
}

pub(super) fn would_refuse(w: &WouldRefuse) -> Value {
    json!({
        "user": w.user, "team": w.team, "level": w.level, "entity": w.name,
        "dimension": w.dimension, "times": w.times, "shortBy": number(w.dimension, w.short_by),
        "first": time(w.first_ms), "last": time(w.last_ms),
    })
}

pub(super) fn budgets(all: &[Account]) -> Value {
    let shown = all.iter().map(|a| {
        let d = a.budget.dimension;
        json!({
            "dimension": d, "limit": number(d, a.limit), "used": number(d, a.used),
            "left": number(d, a.limit.saturating_sub(a.used)), "from": time(a.budget.from_ms),
            "until": time(a.budget.until_ms), "lastsUntil": opt_time(a.lasts_until_ms),
        })
    });
    Value::Array(shown.collect())
}

pub(super) fn reservation(r: &Reservation) -> Value {
    json!({
        "id": r.id, "host": r.host, "user": r.user_name, "userId": r.user, "team": r.team_name,
        "teamId": r.team, "project": r.project, "state": r.state, "origin": r.origin.name(),
        "decision": r.decision, "containerId": r.container, "containerName": r.container_name,
        "image": r.image, "claim": amounts("", &r.claim),
        "charged": amounts("", &r.charge()), "expiresAt": opt_time(r.expires_ms),
        "createdAt": time(r.created_ms), "changedAt": time(r.changed_ms),
        "startedAt": opt_time(r.started_ms),
        "clampedFromCpuCores": r.clamp.map(|c| Dimension::Cpu.to_human(c.from.0)),
    })
}

/// A reservation, and of what kind of thing.
pub(super) fn reservation_of_kind(r: &Reservation) -> Value {
    let mut shown = reservation(r);
    shown["kind"] = json!(r.kind.name());
    shown
}

pub(super) fn container(
    r: &Reservation,
    used: Option<ContainerUse>,
    storage_bytes: Option<u64>,
) -> Value {
    let mut shown = reservation(r);
    if let Value::Object(map) = &mut shown {
        let storage = storage_bytes.map(|b| Dimension::Storage.to_human(b));
        map.insert("usedStorageGB".to_owned(), json!(storage));
        map.insert("usage".to_owned(), container_usage(used));
    }
    shown
}

fn container_usage(used: Option<ContainerUse>) -> Value {
    let Some(u) = used else { return Value::Null };
    let gb = |bytes| Dimension::Memory.to_human(bytes);
    let totals = &u.totals;
    json!({
        "cpuCores": u.cpu_milli.map(|m| Dimension::Cpu.to_human(m)),
        "memoryGB": u.memory_bytes.map(gb), "peakMemoryGB": u.memory_peak_bytes.map(gb),
        "pids": u.pids, "oomKills": u.oom_kills, "connections": u.connections,
        "cpuThrottled": u.throttled_permille.map(|share| share as f64 / 1000.0),
        "receivedBytesPerSecond": u.flows.map(|f| f.received),
        "sentBytesPerSecond": u.flows.map(|f| f.sent),
        "blockReadBytesPerSecond": u.flows.map(|f| f.block_read),
        "blockWrittenBytesPerSecond": u.flows.map(|f| f.block_written),
        "totalRuntimeHours": totals.runtime_ms as f64 / MS_PER_HOUR,
        "totalCpuCoreHours": totals.cpu_ns as f64 / NS_PER_HOUR,
        "totalMemoryGBHours": gb_hours(totals.memory_byte_ms),
        "totalReceivedGB": gb(totals.received_bytes), "totalSentGB": gb(totals.sent_bytes),
        "totalBlockReadGB": gb(totals.block_read_bytes),
        "totalBlockWrittenGB": gb(totals.block_written_bytes),
        "totalOomKills": totals.oom_kills, "updatedAt": time(u.updated_ms),
    })
}

/// What an entity or a container uses, beside what is reserved for it.
pub(super) fn line(line: &Line) -> Value {
    let (kind, id) = line.key.split_once(':').unwrap_or((&line.key, ""));
    let labels = &line.labels;
    let cores = |milli| Dimension::Cpu.to_human(milli);
    let gb = |bytes| Dimension::Memory.to_human(bytes);
    let (cpu, memory, pids, connections, flows) = match &line.used {
        Used::Entity(u) => (
            Some(u.cpu_milli),
            Some(u.memory_bytes),
            Some(u.pids),
            Some(u.connections),
            Some(u.flows),
        ),
        Used::Container(u) => (u.cpu_milli, u.memory_bytes, u.pids, u.connections, u.flows),
    };
    let mut shown = json!({
        "entityType": kind, "entityId": id, "name": labels.name,
        "cpuCores": cpu.map(cores), "memoryGB": memory.map(gb), "pids": pids,
        "connections": connections,
        "receivedBytesPerSecond": flows.map(|f| f.received),
        "sentBytesPerSecond": flows.map(|f| f.sent),
        "blockReadBytesPerSecond": flows.map(|f| f.block_read),
        "blockWrittenBytesPerSecond": flows.map(|f| f.block_written),
        "reservedCpuCores": cores(line.reserved.get(Dimension::Cpu)),
        "reservedMemoryGB": gb(line.reserved.get(Dimension::Memory)),
    });
    let more = match &line.used {
        Used::Entity(u) => json!({
            "containers": u.containers, "storageGB": u.storage_bytes.map(gb),
        }),
        Used::Container(_) => json!({
            "user": labels.user, "team": labels.team, "project": labels.project,
            "image": labels.image,
        }),
    };
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.extend(more);
    }
    shown
}

/// A running container that was made past Plimsoll.
pub(super) fn stranger(s: &Stranger, used: Option<ContainerUse>) -> Value {
    json!({
        "containerId": s.id, "containerName": s.name, "image": s.image,
        "startedAt": time(s.started_ms), "usage": container_usage(used),
    })
}

/// The whole host; null where the kernel does not say.
pub(super) fn host_use(used: Option<HostUse>) -> Value {
    let pressure = |p: Option<Pressure>| p.map(|p| p.some as f64 / 10_000.0);
    used.map_or(Value::Null, |u| {
        json!({
            "cpuCores": u.cpu_milli.map(|m| Dimension::Cpu.to_human(m)),
            "memoryGB": Dimension::Memory.to_human(u.memory_bytes),
            "load": u.load_centi as f64 / 100.0,
            "cpuPressure": pressure(u.cpu_pressure),
            "memoryPressure": pressure(u.memory_pressure),
            "blockPressure": pressure(u.block_pressure),
        })
    })
}

fn gb_hours(byte_ms: u128) -> f64 {
    byte_ms as f64 / (1u64 << 30) as f64 / MS_PER_HOUR
}

pub(super) fn decision(d: &Decision) -> Value {
    json!({
        "id": d.id, "at": time(d.at_ms), "action": d.action, "user": d.user_name, "userId": d.user,
        "team": d.team_name, "teamId": d.team, "project": d.project, "host": d.host,
        "requested": amounts("", &d.requested), "allowed": d.allowed,
        "violations": d.violations.iter().map(violation).collect::<Vec<_>>(),
        "remedies": d.remedies.iter().map(remedy).collect::<Vec<_>>(),
        "message": d.message, "reservation": d.reservation,
    })
}

pub(super) fn violation_record(v: &ViolationRecord, steps: &[StepRecord]) -> Value {
    let d = v.dimension;
    let behind = v.behind.iter().map(|b| {
        json!({
            "reservation": b.reservation, "container": b.container, "user": b.user,
            "amount": number(d, b.amount),
        })
    });
    json!({
        "id": v.id, "kind": v.kind.name(), "level": v.level, "entityId": v.entity, "entity": v.name,
        "dimension": d, "limit": number(d, v.limit), "current": number(d, v.current),
        "peak": number(d, v.peak), "cause": v.cause, "open": v.closed_ms.is_none(),
        "openedAt": time(v.opened_ms), "updatedAt": time(v.updated_ms),
        "closedAt": opt_time(v.closed_ms), "calmSince": opt_time(v.calm_ms),
        "behind": behind.collect::<Vec<_>>(),
        "steps": steps.iter().filter(|s| s.violation == v.id).map(|s| step(d, s)).collect::<Vec<_>>(),
    })
}

fn step(d: Dimension, s: &StepRecord) -> Value {
    json!({
        "id": s.id, "reservation": s.reservation, "container": s.container, "user": s.user,
        "step": s.step, "frees": number(d, s.frees),
        "toCpuCores": s.to.map(|to| Dimension::Cpu.to_human(to.0)),
        "announcedAt": time(s.announced_ms), "dueAt": time(s.due_ms),
        "doneAt": opt_time(s.done_ms), "endedAt": opt_time(s.ended_ms),
    })
}

/// Measured and charged use side by side: the original design's `ResourceUsage`, and ours.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageBody<'a> {
    #[serde(flatten)]
    reserved: Amounted<'a>,
    #[serde(flatten)]
    measured: Measured,
    #[serde(rename = "currentStorageGB")]
    current_storage_gb: f64,
    current_containers: u64,
}

impl<'a> UsageBody<'a> {
    pub(super) fn new(used: &Usage, reserved: &'a Amounts) -> Self {
        Self {
            reserved: Amounted(&RESERVED, reserved),
            measured: Measured::new(used),
            current_storage_gb: Dimension::Storage.to_human(used.storage_bytes.unwrap_or(0)),
            current_containers: reserved.get(Dimension::Containers),
        }
    }
}

/// Measured use alone, of those who are charged nothing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    current_cpu_cores: f64,
    #[serde(rename = "currentMemoryGB")]
    current_memory_gb: f64,
    current_running_containers: u64,
    current_pids: u64,
    current_connections: u64,
    current_received_bytes_per_second: u64,
    current_sent_bytes_per_second: u64,
    current_block_read_bytes_per_second: u64,
    current_block_written_bytes_per_second: u64,
    peak_cpu_cores: f64,
    #[serde(rename = "peakMemoryGB")]
    peak_memory_gb: f64,
    peak_containers: u64,
    total_runtime_hours: f64,
    total_cpu_core_hours: f64,
    #[serde(rename = "totalMemoryGBHours")]
    total_memory_gb_hours: f64,
    total_short_lived_cpu_core_hours: f64,
    #[serde(rename = "totalReceivedGB")]
    total_received_gb: f64,
    #[serde(rename = "totalSentGB")]
    total_sent_gb: f64,
    #[serde(rename = "totalBlockReadGB")]
    total_block_read_gb: f64,
    #[serde(rename = "totalBlockWrittenGB")]
    total_block_written_gb: f64,
    total_oom_kills: u64,
    last_updated: Value,
}

impl Measured {
    pub(super) fn new(used: &Usage) -> Self {
        let gb = |bytes: u64| Dimension::Memory.to_human(bytes);
        let cores = |milli: u64| Dimension::Cpu.to_human(milli);
        Self {
            current_cpu_cores: cores(used.cpu_milli),
            current_memory_gb: gb(used.memory_bytes),
            current_running_containers: used.containers,
            current_pids: used.pids,
            current_connections: used.connections,
            current_received_bytes_per_second: used.flows.received,
            current_sent_bytes_per_second: used.flows.sent,
            current_block_read_bytes_per_second: used.flows.block_read,
            current_block_written_bytes_per_second: used.flows.block_written,
            peak_cpu_cores: cores(used.peak_cpu_milli),
            peak_memory_gb: gb(used.peak_memory_bytes),
            peak_containers: used.peak_containers,
            total_runtime_hours: used.total_runtime_ms as f64 / MS_PER_HOUR,
            total_cpu_core_hours: used.total_cpu_ns as f64 / NS_PER_HOUR,
            total_memory_gb_hours: gb_hours(used.total_memory_byte_ms),
            total_short_lived_cpu_core_hours: used.total_short_lived_cpu_ns as f64 / NS_PER_HOUR,
            total_received_gb: gb(used.total_received_bytes),
            total_sent_gb: gb(used.total_sent_bytes),
            total_block_read_gb: gb(used.total_block_read_bytes),
            total_block_written_gb: gb(used.total_block_written_bytes),
            total_oom_kills: used.total_oom_kills,
            last_updated: opt_time(used.updated_ms),
        }
    }
}

/// [`UsageBody`] as a map, to add to.
pub(super) fn usage(used: &Usage, reserved: &Amounts) -> Map<String, Value> {
    match json!(UsageBody::new(used, reserved)) {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
