//! The services of a Compose file: what each would be charged, judged like a create of the gateway's.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_core::dimension::{Amounts, Dimension};
use plimsoll_core::quota::ContainerDefaults;
use plimsoll_core::units::MilliCpu;
use plimsoll_host::request::create::{CreateRequest, ImageFacts, Policy, judge};
use plimsoll_store::ObjectKind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::output;
use super::problem::Problem;
use super::validate::Asker;
use crate::caps;

/// The most services of one file, and replicas of one service.
const SERVICES_MAX: usize = 500;
const REPLICAS_MAX: u64 = 1000;

/// A service. What it does not name is filled in as for a container that names none.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Service {
    cpu_cores: Option<f64>,
    #[serde(rename = "memoryGB")]
    memory_gb: Option<f64>,
    #[serde(rename = "shmGB")]
    shm_gb: Option<f64>,
    #[serde(default, rename = "tmpfsGB")]
    tmpfs_gb: Vec<Option<f64>>,
    #[serde(default)]
    gpus: u64,
    pids: Option<u64>,
    #[serde(default)]
    anonymous_volumes: u64,
    #[serde(default = "one")]
    replicas: u64,
}

fn one() -> u64 {
    1
}

/// What all of it would be charged, and a verdict on each service by itself.
pub(super) fn judged(
    asker: &Asker<'_>,
    services: &BTreeMap<String, Service>,
    volumes: &BTreeSet<String>,
) -> Result<(Amounts, Vec<Value>), Problem> {
    if services.is_empty() || services.len() > SERVICES_MAX {
        let why = format!("must hold 1 to {SERVICES_MAX} services");
        return Err(Problem::field("services", why));
    }
    let app = asker.app;
    let (user, path) = asker.user()?;
    let effective = path.effective_limits();
    let mut defaults = app.store.container_defaults(user)?;
    defaults.cpu = defaults.cpu_under(&effective);
    defaults.memory = defaults.memory_under(&effective);
    let most = caps::admission_allows_more(&path).then(|| caps::most_cpu(&path, app.capacity.cpu));
    let mut sum = Amounts::ZERO;
    let mut verdicts = Vec::new();
    for (name, service) in services {
        let field = format!("services.{name}");
        let (amounts, cpu) = claim(service, &defaults, &field)?;
        sum = plus(&sum, &amounts, &field)?;
        let evaluation = asker.evaluate(amounts)?;
        let verdict = &evaluation.verdict;
        let mut shown = json!({
            "name": name, "replicas": service.replicas, "allowed": verdict.allowed(),
            "request": output::amounts("", &amounts),
            "violations": verdict.violations.iter().map(output::violation).collect::<Vec<_>>(),
            "remedies": evaluation.remedies.iter().map(output::remedy).collect::<Vec<_>>(),
            "message": evaluation.message,
        });
        if let Some(most) = most.filter(|most| cpu > *most) {
            shown["allowed"] = json!(false);
            shown["message"] = json!(format!(
                "{cpu} CPU is more than one container can get here: at most {most}"
            ));
        }
        verdicts.push(shown);
    }
    for name in volumes {
        if app.store.by_name(user, ObjectKind::Volume, name)?.is_none() {
            let volume = Amounts::ZERO.with(Dimension::Storage, defaults.writable.0);
            sum = plus(&sum, &volume, "volumes")?;
        }
    }
    Ok((sum, verdicts))
}

fn plus(sum: &Amounts, more: &Amounts, field: &str) -> Result<Amounts, Problem> {
    let total = sum.checked_add(more);
    total.ok_or_else(|| Problem::field(field, "asks for more than can be counted"))
}

/// What a service is charged, all its replicas together, and the CPU of one.
fn claim(
    service: &Service,
    defaults: &ContainerDefaults,
    field: &str,
) -> Result<(Amounts, MilliCpu), Problem> {
    if service.replicas > REPLICAS_MAX {
        let why = format!("must be at most {REPLICAS_MAX}");
        return Err(Problem::field(format!("{field}.replicas"), why));
    }
    let read = |name: &str, d: Dimension, number: f64| {
        let amount = d.from_human(number);
        amount.map_err(|error| Problem::field(format!("{field}.{name}"), error.to_string()))
    };
    let mut host = json!({});
    if let Some(cores) = service.cpu_cores {
        let milli = read("cpuCores", Dimension::Cpu, cores)?;
        host["NanoCpus"] = json!(MilliCpu(milli).nano());
    }
    if let Some(memory) = service.memory_gb {
        host["Memory"] = json!(read("memoryGB", Dimension::Memory, memory)?);
    }
    if let Some(shm) = service.shm_gb {
        host["ShmSize"] = json!(read("shmGB", Dimension::TempStorage, shm)?);
    }
    if let Some(pids) = service.pids {
        host["PidsLimit"] = json!(pids);
    }
    for (n, size) in service.tmpfs_gb.iter().enumerate() {
        let options = match size {
            Some(size) => format!("size={}", read("tmpfsGB", Dimension::TempStorage, *size)?),
            None => String::new(),
        };
        host["Tmpfs"][format!("/tmpfs{n}")] = json!(options);
    }
    let body = json!({"Image": "service", "HostConfig": host}).to_string();
    let refused = |error: plimsoll_host::request::refusal::Refusal| {
        Problem::field(field, format!("cannot be made: {}", error.message()))
    };
    let request = CreateRequest::parse(body.as_bytes()).map_err(refused)?;
    let judged = judge(
        &request,
        &Policy::new("/"),
        &ImageFacts::default(),
        defaults,
    );
    let judged = judged.map_err(refused)?;
    let mut each = judged.claim.with(Dimension::Gpus, service.gpus);
    let layers = service.anonymous_volumes.checked_mul(defaults.writable.0);
    let too_much = || Problem::field(field, "asks for more than can be counted");
    let layers = layers.ok_or_else(too_much)?;
    each = plus(
        &each,
        &Amounts::ZERO.with(Dimension::Storage, layers),
        field,
    )?;
    let mut all = Amounts::ZERO;
    for _ in 0..service.replicas {
        all = plus(&all, &each, field)?;
    }
    Ok((all, judged.requested.cpu))
}
