//! GPUs: what `--gpus` asks, and the doors beside it.
//!
//! The NVIDIA runtime also grants devices by environment: `NVIDIA_VISIBLE_DEVICES` from the request
//! or the image, and everything to an image that sets `CUDA_VERSION` alone. Where no GPU is
//! granted, the variables are overridden with `void`.

use serde_json::{Value, json};

use super::Policy;
use crate::request::json::Fields;
use crate::request::refusal::Refusal;

/// How GPUs are named in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuAsk {
    /// This many, any of them; at least one.
    Count(u64),
    /// Every one on the host.
    All,
    /// These, by index or `GPU-`/`MIG-` UUID.
    Ids(Vec<String>),
}

/// One request for GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuRequest {
    /// Which.
    pub ask: GpuAsk,
    /// Driver capabilities, `gpu` among them.
    pub capabilities: Vec<String>,
}

const CAPABILITIES: [&str; 9] = [
    "gpu", "nvidia", "compute", "utility", "graphics", "video", "display", "compat32", "ngx",
];

/// Variables by which a container runtime hands out devices.
const DEVICE_VARIABLES: [&str; 3] = [
    "NVIDIA_VISIBLE_DEVICES",
    "AMD_VISIBLE_DEVICES",
    "HABANA_VISIBLE_DEVICES",
];
/// The runtime may be configured to read devices from variables that start so.
const SWARM_RESOURCE: &str = "DOCKER_RESOURCE_";

impl GpuRequest {
    pub(super) fn take(fields: &mut Fields) -> Result<Option<Self>, Refusal> {
        let name = fields.name("DeviceRequests");
        let mut requests = fields.objects("DeviceRequests")?;
        let Some(mut request) = requests.pop() else {
            return Ok(None);
        };
        if !requests.is_empty() {
            return Err(Refusal::bad(name, "must hold at most one request"));
        }
        let driver = request.str("Driver")?.unwrap_or_default();
        let count = request.i64("Count")?.unwrap_or(0);
        let ids = request.strings("DeviceIDs")?.unwrap_or_default();
        let options = request.string_map("Options")?.unwrap_or_default();
        let sets = request.array("Capabilities")?.unwrap_or_default();
        request.finish(&[], &mut Vec::new())?;

        let refuse = |what: &str| {
            Refusal::policy(
                name.clone(),
                what,
                "tenants may ask for GPUs only",
                "use --gpus N",
            )
        };
        if !matches!(driver.as_str(), "" | "nvidia") {
            return Err(refuse("this device driver"));
        }
        if !options.is_empty() {
            return Err(refuse("device driver options"));
        }
        let [crate::request::json::Json::Array(set)] = sets.as_slice() else {
            return Err(Refusal::bad(
                format!("{name}[0].Capabilities"),
                "must be one list of capabilities, like [[\"gpu\"]]",
            ));
        };
        let mut capabilities = Vec::new();
        for capability in set {
            match capability {
                crate::request::json::Json::Str(text) if CAPABILITIES.contains(&text.as_str()) => {
                    capabilities.push(text.clone());
                }
                _ => return Err(refuse("this device capability")),
            }
        }
        if !capabilities.iter().any(|c| c == "gpu" || c == "nvidia") {
            return Err(refuse("a device request without the capability gpu"));
        }
        capabilities.sort();
        capabilities.dedup();

        let ask = match (count, ids.is_empty()) {
            (_, false) if count != 0 => {
                return Err(Refusal::bad(name, "must not set both Count and DeviceIDs"));
            }
            (_, false) if ids.iter().any(|id| id == "all") => {
                if ids.len() > 1 {
                    return Err(Refusal::bad(name, "must not mix all with other ids"));
                }
                GpuAsk::All
            }
            (_, false) => {
                for (i, id) in ids.iter().enumerate() {
                    let index = id.len() <= 3 && id.bytes().all(|b| b.is_ascii_digit());
                    let uuid = (id.starts_with("GPU-") || id.starts_with("MIG-"))
                        && id.len() <= 64
                        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                    if id.is_empty() || !(index || uuid) {
                        return Err(Refusal::bad(
                            format!("{name}[0].DeviceIDs[{i}]"),
                            "must be a GPU's index or UUID",
                        ));
                    }
                    if ids[..i].contains(id) {
                        return Err(Refusal::bad(
                            format!("{name}[0].DeviceIDs[{i}]"),
                            "is given twice",
                        ));
                    }
                }
                GpuAsk::Ids(ids)
            }
            (-1, true) => GpuAsk::All,
            (n, true) => match u64::try_from(n) {
                Ok(n @ 1..=1024) => GpuAsk::Count(n),
                _ => {
                    return Err(Refusal::bad(
                        format!("{name}[0].Count"),
                        "must be between 1 and 1024, or -1 for all",
                    ));
                }
            },
        };
        Ok(Some(Self { ask, capabilities }))
    }

    /// The request for the engine, with "all" as the number charged for it.
    pub(super) fn body(&self, charged: u64) -> Value {
        match &self.ask {
            GpuAsk::Ids(ids) => self.pinned(ids),
            GpuAsk::Count(_) | GpuAsk::All => {
                json!({ "Driver": "", "Count": charged, "Capabilities": [self.capabilities] })
            }
        }
    }

    /// The request for the engine with explicit devices.
    #[must_use]
    pub fn pinned(&self, ids: &[String]) -> Value {
        json!({ "Driver": "", "DeviceIDs": ids, "Capabilities": [self.capabilities] })
    }
}

pub(super) fn count(gpus: Option<&GpuRequest>, policy: &Policy) -> Result<u64, Refusal> {
    let Some(request) = gpus else {
        return Ok(0);
    };
    let asked = match &request.ask {
        GpuAsk::Count(n) => *n,
        GpuAsk::All => policy.gpus_available,
        GpuAsk::Ids(ids) => ids.len() as u64,
    };
    if policy.gpus_available == 0 {
        return Err(Refusal::policy(
            "HostConfig.DeviceRequests",
            "--gpus",
            "this host has no GPUs to give",
            "leave the option out",
        ));
    }
    if asked > policy.gpus_available {
        return Err(Refusal::policy(
            "HostConfig.DeviceRequests",
            format!("--gpus {asked}"),
            format!("this host has {}", policy.gpus_available),
            "ask for fewer",
        ));
    }
    Ok(asked)
}

/// The environment without the variables that hand out devices, or with them set to nothing where
/// the image would bring them.
pub(super) fn env(
    env: Option<Vec<String>>,
    image: &[String],
    granted: bool,
) -> (Option<Vec<String>>, Option<String>) {
    fn key(entry: &str) -> &str {
        entry.split('=').next().unwrap_or_default()
    }
    let has = |name: &str, entries: &[String]| entries.iter().any(|e| key(e) == name);
    let asked = env.as_deref().unwrap_or_default();
    // What the runtime takes for "an old CUDA image, give it everything".
    let legacy = ["CUDA_VERSION", "NVIDIA_REQUIRE_CUDA"]
        .iter()
        .any(|name| has(name, asked) || has(name, image));
    let mut voided = Vec::new();
    if !granted {
        for name in DEVICE_VARIABLES {
            let by_default = legacy && name == DEVICE_VARIABLES[0];
            if by_default || has(name, asked) || has(name, image) {
                voided.push(format!("{name}=void"));
            }
        }
    }
    for entry in image {
        let name = key(entry);
        if name.starts_with(SWARM_RESOURCE) {
            voided.push(format!("{name}=void"));
        }
    }
    voided.sort();
    voided.dedup();
    let dropped = |entry: &str| {
        DEVICE_VARIABLES.contains(&key(entry)) || key(entry).starts_with(SWARM_RESOURCE)
    };
    let told = asked
        .iter()
        .find(|e| dropped(e) && !matches!(e.split_once('='), Some((_, "void" | "none" | ""))))
        .map(|e| {
            format!(
                "plimsoll: {} was left out of the environment: ask for GPUs with --gpus",
                crate::request::json::short(key(e))
            )
        });
    if env.is_none() && voided.is_empty() {
        return (None, None);
    }
    let mut kept: Vec<String> = env.unwrap_or_default();
    kept.retain(|e| !dropped(e));
    kept.extend(voided);
    (Some(kept), told)
}
