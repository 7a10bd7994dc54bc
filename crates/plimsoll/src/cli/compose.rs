//! A Compose file, as far as it says what its services take. What is read here is asked of the server;
//! nothing is decided.

use std::collections::BTreeSet;

use plimsoll_core::Dimension;
use serde_json::{Map, Value, json};

/// The largest file that is read.
pub(super) const FILE_MAX: u64 = 1 << 20;

/// Where the variables of a file come from.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The part of `validate`'s request that a file makes: `services` and `volumes`. `folder` is what the
/// project is called where nothing else names it.
///
/// # Errors
/// Why the file cannot be used, in words: the line for what is no YAML, the field for anything else.
pub(super) fn read(text: &str, folder: &str, env: Env<'_>) -> Result<Map<String, Value>, String> {
    let file: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let Some(services) = file["services"].as_object().filter(|s| !s.is_empty()) else {
        return Err("services: must name at least one service".to_owned());
    };
    if file.get("include").is_some() {
        return Err(resolve_first("include"));
    }
    let mut asked = Map::new();
    for (name, service) in services {
        // What belongs to a profile does not start by itself.
        if service["profiles"]
            .as_array()
            .is_some_and(|p| !p.is_empty())
        {
            continue;
        }
        let field = Field {
            path: format!("services.{name}"),
            value: service,
            env,
        };
        asked.insert(name.clone(), field.service()?);
    }
    let project = match file["name"].as_str() {
        Some(name) => filled_in(name, env)?,
        None => env("COMPOSE_PROJECT_NAME").unwrap_or_else(|| project_of(folder)),
    };
    let volumes = volumes(&file, &project, env)?;
    Ok(Map::from_iter([
        ("services".to_owned(), Value::Object(asked)),
        ("volumes".to_owned(), json!(volumes)),
    ]))
}

fn resolve_first(what: &str) -> String {
    format!("{what}: is not followed here: check the output of `docker compose config`")
}

/// A folder's name as Compose makes a project's of it.
fn project_of(folder: &str) -> String {
    let lower = folder.to_lowercase();
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name: String = lower.chars().filter(plain).collect();
    name.trim_start_matches(['_', '-']).to_owned()
}

/// The full names of the volumes that are made for the file.
fn volumes(file: &Value, project: &str, env: Env<'_>) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeSet::new();
    for (key, volume) in file["volumes"].as_object().into_iter().flatten() {
        let external = &volume["external"];
        if *external == json!(true) || external.is_object() {
            continue;
        }
        names.insert(match volume["name"].as_str() {
            Some(name) => filled_in(name, env)?,
            None => format!("{project}_{key}"),
        });
    }
    Ok(names)
}

/// A place in the file.
struct Field<'a> {
    path: String,
    value: &'a Value,
    env: Env<'a>,
}

impl<'a> Field<'a> {
    fn at(&self, name: &str) -> Self {
        Self {
            path: format!("{}.{name}", self.path),
            value: &self.value[name],
            env: self.env,
        }
    }

    fn items(&self) -> Vec<Self> {
        let items = match self.value {
            Value::Array(items) => items.as_slice(),
            Value::Null => &[],
            one => std::slice::from_ref(one),
        };
        let numbered = items.iter().enumerate();
        numbered
            .map(|(n, value)| Self {
                path: format!("{}[{n}]", self.path),
                value,
                env: self.env,
            })
            .collect()
    }

    fn bad(&self, what: &str) -> String {
        format!("{}: {what}", self.path)
    }

    /// Text or a number; `None` when it is not there, or a variable left it empty.
    fn text(&self) -> Result<Option<String>, String> {
        let text = match self.value {
            Value::Null => return Ok(None),
            Value::String(text) => filled_in(text, self.env).map_err(|why| self.bad(&why))?,
            Value::Number(number) => number.to_string(),
            _ => return Err(self.bad("must be text or a number")),
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn cores(&self) -> Result<Option<f64>, String> {
        let text = self.text()?;
        let cores = text.map(|text| {
            text.parse::<f64>()
                .ok()
                .filter(|n| n.is_finite() && *n >= 0.0)
        });
        // Zero is Compose's word for none.
        match cores {
            Some(None) => Err(self.bad("must be a number of cores, like 0.5")),
            cores => Ok(cores.flatten().filter(|n| *n > 0.0)),
        }
    }

    /// In the API's unit.
    fn size(&self, d: Dimension) -> Result<Option<f64>, String> {
        let Some(text) = self.text()? else {
            return Ok(None);
        };
        let bytes = bytes(&text).ok_or_else(|| self.bad("must be a size, like 512m"))?;
        Ok(Some(d.to_human(bytes)).filter(|n| *n > 0.0))
    }

    fn count(&self) -> Result<Option<u64>, String> {
        let text = self.text()?;
        let count = text.map(|text| text.parse::<u64>());
        count
            .transpose()
            .map_err(|_| self.bad("must be a whole number"))
    }

    fn service(&self) -> Result<Value, String> {
        if !self.value.is_object() {
            return Err(self.bad("must be a service"));
        }
        if self.value.get("extends").is_some() {
            return Err(resolve_first(&format!("{}.extends", self.path)));
        }
        let deploy = self.at("deploy");
        let limits = deploy.at("resources").at("limits");
        let replicas = match deploy.at("replicas").count()? {
            Some(n) => n,
            None => self.at("scale").count()?.unwrap_or(1),
        };
        let pids = match limits.at("pids").count()? {
            Some(n) => Some(n),
            // -1 and 0 are no limit of one's own.
            None => self.at("pids_limit").text()?.and_then(|n| n.parse().ok()),
        };
        let (tmpfs, anonymous) = self.mounts()?;
        let mut service = json!({
            "cpuCores": limits.at("cpus").cores()?.or(self.at("cpus").cores()?),
            "memoryGB": limits.at("memory").size(Dimension::Memory)?
                .or(self.at("mem_limit").size(Dimension::Memory)?),
            "shmGB": self.at("shm_size").size(Dimension::TempStorage)?,
            "pids": pids.filter(|n: &u64| *n > 0), "tmpfsGB": tmpfs, "gpus": self.gpus()?,
            "anonymousVolumes": anonymous, "replicas": replicas,
        });
        if let Value::Object(map) = &mut service {
            map.retain(|_, value| !value.is_null());
        }
        Ok(service)
    }

    /// The sizes of each tmpfs, and how many volumes have no name.
    fn mounts(&self) -> Result<(Vec<Option<f64>>, u64), String> {
        let (mut tmpfs, mut anonymous) = (Vec::new(), 0);
        for mount in self.at("tmpfs").items() {
            let text = mount.text()?.unwrap_or_default();
            let options = text.split_once(':').map_or("", |(_, options)| options);
            let size = options.split(',').find_map(|o| o.strip_prefix("size="));
            let wrong = || mount.bad("must have a size like 64m");
            let size = size.map(|size| bytes(size).ok_or_else(wrong)).transpose()?;
            tmpfs.push(size.map(|bytes| Dimension::TempStorage.to_human(bytes)));
        }
        for mount in self.at("volumes").items() {
            if mount.value.is_string() {
                let text = mount.text()?.unwrap_or_default();
                anonymous += u64::from(!text.contains(':'));
                continue;
            }
            match mount.at("type").text()?.as_deref() {
                Some("tmpfs") => {
                    let size = mount.at("tmpfs").at("size");
                    tmpfs.push(size.size(Dimension::TempStorage)?);
                }
                Some("volume") => anonymous += u64::from(mount.value["source"].is_null()),
                _ => {}
            }
        }
        Ok((tmpfs, anonymous))
    }

    fn gpus(&self) -> Result<u64, String> {
        let reserved = self.at("deploy").at("resources").at("reservations");
        let mut all = self.at("gpus").items();
        all.extend(reserved.at("devices").items().into_iter().filter(|device| {
            let capabilities = device.value["capabilities"].as_array();
            let is_gpu = |c: &Value| c == "gpu" || c == "nvidia";
            capabilities.is_some_and(|all| all.iter().any(is_gpu))
        }));
        let mut sum = 0u64;
        for device in all {
            let ids = device.value["device_ids"].as_array();
            let count = match ids {
                Some(ids) => u64::try_from(ids.len()).ok(),
                None => device.at("count").text()?.and_then(|n| n.parse().ok()),
            };
            let count = count.ok_or_else(|| device.bad("must say how many: write count: 1"))?;
            sum = sum.saturating_add(count);
        }
        Ok(sum)
    }
}

/// Bytes as Compose writes them: `512m`, `1gb`, `1024`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let scale = 1u64 << shift;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale);
    }
    let bytes = number.parse::<f64>().ok()? * scale as f64;
    (bytes < 2f64.powi(62)).then_some(bytes as u64)
}

/// `$NAME`, `${NAME}`, `${NAME:-otherwise}` and `${NAME-otherwise}` filled in; `$$` is one dollar.
fn filled_in(text: &str, env: Env<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (name, otherwise, after) = match after.strip_prefix('{') {
            Some(braced) => {
                let (inner, after) = braced
                    .split_once('}')
                    .ok_or_else(|| format!("{text:?} has a ${{ without an end"))?;
                let (name, otherwise) = parted(inner);
                (name, otherwise, after)
            }
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let (name, after) = after.split_at(end.unwrap_or(after.len()));
                (name, None, after)
            }
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("{text:?} has a variable that is not understood"));
        }
        let found = env(name);
        let found = match otherwise {
            Some((_, true)) => found.filter(|value| !value.is_empty()),
            _ => found,
        };
        match (found, otherwise) {
            (Some(value), _) => out.push_str(&value),
            (None, Some((otherwise, _))) => out.push_str(otherwise),
            (None, None) => {}
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// A variable's name, what stands in for it, and whether it does so for an empty one, too.
fn parted(inner: &str) -> (&str, Option<(&str, bool)>) {
    if let Some((name, otherwise)) = inner.split_once(":-") {
        return (name, Some((otherwise, true)));
    }
    match inner.split_once('-') {
        Some((name, otherwise)) => (name, Some((otherwise, false))),
        None => (inner, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "MEM" => Some("256m".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn of(service: &str) -> Result<Value, String> {
        let text = format!("services:\n  web:\n    image: x\n{service}");
        read(&text, "Course 1", &env).map(|asked| asked["services"]["web"].clone())
    }

    #[test]
    fn what_services_take_is_read_as_people_write_it() {
        for (lines, field, expected) in [
            ("    cpus: 0.5\n", "cpuCores", json!(0.5)),
            ("    cpus: '0.5'\n", "cpuCores", json!(0.5)),
            (
                "    deploy: {resources: {limits: {cpus: '2'}}}\n    cpus: 1\n",
                "cpuCores",
                json!(2.0),
            ),
            ("    cpus: 0\n", "cpuCores", Value::Null),
            ("    mem_limit: 512m\n", "memoryGB", json!(0.5)),
            ("    mem_limit: 1073741824\n", "memoryGB", json!(1.0)),
            ("    mem_limit: 1.5gb\n", "memoryGB", json!(1.5)),
            ("    mem_limit: $MEM\n", "memoryGB", json!(0.25)),
            ("    mem_limit: ${MEM}\n", "memoryGB", json!(0.25)),
            ("    mem_limit: ${NONE:-1g}\n", "memoryGB", json!(1.0)),
            ("    mem_limit: ${EMPTY:-1g}\n", "memoryGB", json!(1.0)),
            ("    mem_limit: ${EMPTY-1g}\n", "memoryGB", Value::Null),
            (
                "    deploy:\n      resources:\n        limits: {memory: 64M}\n",
                "memoryGB",
                json!(0.0625),
            ),
            ("    shm_size: 128mb\n", "shmGB", json!(0.125)),
            ("    tmpfs: /run\n", "tmpfsGB", json!([null])),
            (
                "    tmpfs: ['/a:size=64m,mode=1777', /b]\n",
                "tmpfsGB",
                json!([0.0625, null]),
            ),
            (
                "    volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1g}}]\n",
                "tmpfsGB",
                json!([1.0]),
            ),
            (
                "    volumes: [/a, 'b:/b', {type: volume, target: /c}]\n",
                "anonymousVolumes",
                json!(2),
            ),
            ("    scale: 3\n", "replicas", json!(3)),
            ("    deploy: {replicas: 2}\n", "replicas", json!(2)),
            ("    image: y\n", "replicas", json!(1)),
            ("    pids_limit: 100\n", "pids", json!(100)),
            ("    pids_limit: -1\n", "pids", Value::Null),
            ("    gpus: [{count: 2}]\n", "gpus", json!(2)),
            (
                "    deploy: {resources: {reservations: {devices: [{capabilities: [gpu], device_ids: ['0', '2']}]}}}\n",
                "gpus",
                json!(2),
            ),
        ] {
            let lines = if lines.contains("image: y") {
                ""
            } else {
                lines
            };
            assert_eq!(of(lines).unwrap()[field], expected, "{lines}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_where() {
        for (lines, says) in [
            (
                "    mem_limit: much\n",
                "services.web.mem_limit: must be a size",
            ),
            (
                "    cpus: [1]\n",
                "services.web.cpus: must be text or a number",
            ),
            (
                "    cpus: -1\n",
                "services.web.cpus: must be a number of cores",
            ),
            (
                "    scale: 1.5\n",
                "services.web.scale: must be a whole number",
            ),
            ("    gpus: all\n", "services.web.gpus[0]: must say how many"),
            (
                "    mem_limit: ${MEM\n",
                "services.web.mem_limit: \"${MEM\" has a ${ without an end",
            ),
            (
                "    extends: {service: x}\n",
                "services.web.extends: is not followed here",
            ),
            ("  other: 1\n", "services.other: must be a service"),
        ] {
            let error = of(lines).unwrap_err();
            assert!(error.starts_with(says), "{lines}: {error}");
        }
        for (text, says) in [
            ("services:\n  web: [\n", "line"),
            ("services:\n  web: {a: 1}\n  web: {a: 2}\n", "line 3"),
            ("a: &a [*a]\n", ""),
            ("version: '3'\n", "services: must name"),
            ("", "services: must name"),
            (
                "services: {web: {}}\ninclude: [x.yaml]\n",
                "include: is not followed",
            ),
        ] {
            let error = read(text, "x", &env).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn volumes_have_their_full_names_and_profiles_wait() {
        let text = "x-all: &all {mem_limit: 1g}\nservices:\n  web: {<<: *all, volumes: ['data:/d']}\n  \
                    debug: {profiles: [debug], mem_limit: 9g}\nvolumes:\n  data:\n  named: {name: mine}\n  \
                    there: {external: true}\n";
        let asked = read(text, "Course 1", &env).unwrap();
        assert_eq!(asked["volumes"], json!(["course1_data", "mine"]));
        assert_eq!(asked["services"]["web"]["memoryGB"], 1.0);
        assert!(asked["services"].get("debug").is_none());
    }
}
