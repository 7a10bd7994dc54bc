//! Records as the API shows them: camelCase, people's units, RFC 3339 times.

use jiff::Timestamp;
use plimsoll_core::admit::Violation;
use plimsoll_core::dimension::{Amounts, Dimension, Limit, Limits};
use plimsoll_core::remedy::Remedy;
use plimsoll_store::{
    Decision, Member, Project, Quota, Reservation, Team, Token, User, ViolationRecord,
};
use serde_json::{Map, Value, json};

use crate::meter::{ContainerUse, Usage};

/// Unix milliseconds as RFC 3339.
pub(super) fn time(ms: i64) -> Value {
    Timestamp::from_millisecond(ms).map_or(Value::Null, |t| json!(t.to_string()))
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
        .map(|d| {
            let mut name = format!("{prefix}{}", d.field());
            if prefix.is_empty()
                && let Some(first) = name.get(..1).map(str::to_lowercase)
            {
                name.replace_range(..1, &first);
            }
            (name, number(d, amounts.get(d)))
        })
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

pub(super) fn user(u: &User) -> Value {
    json!({
        "id": u.id, "name": u.name, "email": u.email, "osUid": u.os_uid, "role": u.role.name(),
        "defaultTeam": u.default_team, "suspended": u.suspended, "draining": u.draining,
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
        "role": m.role, "allotment": summed_fields(&m.allotment),
        "borrowLimit": summed_fields(&m.borrow), "reserved": amounts("", &m.reserved),
    })
}

pub(super) fn project(p: &Project) -> Value {
    json!({"id": p.id, "name": p.name, "team": p.team, "user": p.user, "createdAt": time(p.created_ms)})
}

pub(super) fn token(t: &Token) -> Value {
    json!({
        "id": t.id, "user": t.user, "role": t.role.name(), "label": t.label,
        "createdAt": time(t.created_ms), "expiresAt": opt_time(t.expires_ms),
        "revokedAt": opt_time(t.revoked_ms),
    })
}

/// The fields every quota has, without its limits.
pub(super) fn quota_head(q: &Quota, name: &str) -> Map<String, Value> {
    let head = json!({
        "entityType": q.kind, "entityId": q.entity, "name": name, "quotaType": q.class,
        "overcommit": f64::from(q.overcommit_permille) / 1000.0, "mode": q.mode,
        "version": q.version, "createdAt": time(q.created_ms), "updatedAt": time(q.updated_ms),
    });
    match head {
        Value::Object(head) => head,
        _ => Map::new(),
    }
}

pub(super) fn reservation(r: &Reservation) -> Value {
    json!({
        "id": r.id, "host": r.host, "user": r.user_name, "userId": r.user, "team": r.team_name,
        "teamId": r.team, "project": r.project, "state": r.state, "origin": r.origin.name(),
        "decision": r.decision, "containerId": r.container, "containerName": r.container_name,
        "image": r.image, "claim": amounts("", &r.claim),
        "charged": amounts("", &r.state.charge(&r.claim)), "expiresAt": opt_time(r.expires_ms),
        "createdAt": time(r.created_ms), "changedAt": time(r.changed_ms),
        "startedAt": opt_time(r.started_ms),
    })
}

pub(super) fn container(r: &Reservation, used: Option<ContainerUse>) -> Value {
    let mut shown = reservation(r);
    if let Value::Object(map) = &mut shown {
        let usage = used.map_or(Value::Null, |u| {
            json!({
                "cpuCores": u.cpu_milli.map(|m| Dimension::Cpu.to_human(m)),
                "memoryGB": u.memory_bytes.map(|b| Dimension::Memory.to_human(b)),
                "peakMemoryGB": u.memory_peak_bytes.map(|b| Dimension::Memory.to_human(b)),
                "pids": u.pids, "oomKills": u.oom_kills, "updatedAt": time(u.updated_ms),
            })
        });
        map.insert("usage".to_owned(), usage);
    }
    shown
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

pub(super) fn violation_record(v: &ViolationRecord) -> Value {
    let d = v.dimension;
    json!({
        "id": v.id, "kind": v.kind.name(), "level": v.level, "entityId": v.entity, "entity": v.name,
        "dimension": d, "limit": number(d, v.limit), "current": number(d, v.current),
        "peak": number(d, v.peak), "cause": v.cause, "open": v.closed_ms.is_none(),
        "openedAt": time(v.opened_ms), "updatedAt": time(v.updated_ms),
        "closedAt": opt_time(v.closed_ms),
    })
}

/// Measured and charged use side by side: the original design's `ResourceUsage`, and ours.
pub(super) fn usage(used: &Usage, reserved: &Amounts) -> Map<String, Value> {
    let gb = |bytes: u64| Dimension::Memory.to_human(bytes);
    let cores = |milli: u64| Dimension::Cpu.to_human(milli);
    let hours = |ms: u64| ms as f64 / 3_600_000.0;
    let core_hours = used.total_cpu_ns as f64 / 3.6e12;
    let gib_hours = used.total_memory_byte_ms as f64 / (1u64 << 30) as f64 / 3_600_000.0;
    let mut all = amounts("reserved", reserved);
    let measured = json!({
        "currentCpuCores": cores(used.cpu_milli), "currentMemoryGB": gb(used.memory_bytes),
        "currentStorageGB": Dimension::Storage.to_human(reserved.get(Dimension::Storage)),
        "currentContainers": reserved.get(Dimension::Containers),
        "currentRunningContainers": used.containers, "currentPids": used.pids,
        "peakCpuCores": cores(used.peak_cpu_milli), "peakMemoryGB": gb(used.peak_memory_bytes),
        "peakContainers": used.peak_containers, "totalRuntimeHours": hours(used.total_runtime_ms),
        "totalCpuCoreHours": core_hours, "totalMemoryGBHours": gib_hours,
        "lastUpdated": opt_time(used.updated_ms),
    });
    if let Value::Object(measured) = measured {
        all.extend(measured);
    }
    all
}
