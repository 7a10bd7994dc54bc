//! tmpfs, shared memory, the writable layer and logs: what is stored, and what it is charged.

use std::collections::BTreeMap;

use plimsoll_core::quota::ContainerDefaults;
use plimsoll_core::units::{AMOUNT_MAX, Bytes};

use super::body::LogConfig;
use super::mounts::only_options;
use super::{CreateRequest, Policy};
use crate::request::json::{Fields, short};
use crate::request::refusal::{BadRequest, Refusal};

/// The kernel gives a tmpfs whole pages.
const PAGE: u64 = 4096;
/// Smaller log files would have the engine rotate on every line, at the host's cost.
const LOG_FILE_MIN: u64 = 10_000;
const LOG_FILES_MAX: u64 = 100;
/// The smallest writable layer worth bounding; zero would mean unbounded to the engine.
const LAYER_MIN: Bytes = Bytes(1 << 20);

/// One tmpfs, from `Tmpfs` or from `Mounts`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tmpfs {
    size: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    exec: bool,
    read_only: bool,
}

impl Tmpfs {
    pub(super) fn parse(field: &str, options: &str) -> Result<Self, Refusal> {
        let mut tmpfs = Self::default();
        let mut seen = Vec::new();
        for option in options.split(',').filter(|o| !o.is_empty()) {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (option, None),
            };
            // Options that exclude each other count as the same one.
            let slot = match key {
                "exec" | "noexec" => "exec",
                "rw" | "ro" => "rw",
                other => other,
            };
            if seen.contains(&slot) {
                return Err(Refusal::bad(
                    field,
                    format!("option {} is given twice", short(key)),
                ));
            }
            seen.push(slot);
            let number = |radix: u32, max: u32| {
                value
                    .filter(|v| v.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|v| u32::from_str_radix(v, radix).ok())
                    .filter(|n| *n <= max)
                    .ok_or_else(|| BadRequest::new(field, format!("option {key} is out of range")))
            };
            match (key, value) {
                ("exec", None) => tmpfs.exec = true,
                ("ro", None) => tmpfs.read_only = true,
                ("noexec" | "nosuid" | "nodev" | "rw", None) => {}
                ("size", Some(text)) => tmpfs.size = Some(tmpfs_size(field, text)?),
                ("mode", Some(_)) => tmpfs.mode = Some(number(8, 0o7777)?),
                ("uid", Some(_)) => tmpfs.uid = Some(number(10, i32::MAX as u32)?),
                ("gid", Some(_)) => tmpfs.gid = Some(number(10, i32::MAX as u32)?),
                _ => {
                    return Err(Refusal::policy(
                        field,
                        format!("the tmpfs option {}", short(option)),
                        "it could reach past the tmpfs's size or the container",
                        "use size, mode, uid, gid, exec, ro",
                    ));
                }
            }
        }
        Ok(tmpfs)
    }

    fn options(&self, size: Option<u64>) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "{},{},nosuid,nodev",
            if self.read_only { "ro" } else { "rw" },
            if self.exec { "exec" } else { "noexec" },
        );
        if let Some(size) = size {
            let _ = write!(text, ",size={size}");
        }
        if let Some(mode) = self.mode {
            let _ = write!(text, ",mode={mode:o}");
        }
        if let Some(uid) = self.uid {
            let _ = write!(text, ",uid={uid}");
        }
        if let Some(gid) = self.gid {
            let _ = write!(text, ",gid={gid}");
        }
        text
    }
}

/// A size as the kernel reads it: digits and one of k, m, g. Percentages would depend on the host.
fn tmpfs_size(field: &str, text: &str) -> Result<u64, BadRequest> {
    let bad = || {
        BadRequest::new(
            field,
            "option size must be a number above 0 with an optional k, m or g, like 64m",
        )
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(bad()),
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|n| *n > 0 && *n <= AMOUNT_MAX)
        .ok_or_else(bad)?;
    Ok(bytes.next_multiple_of(PAGE))
}

/// A path inside the container where something may be mounted, cleaned.
pub(super) fn mount_path(field: &str, path: &str) -> Result<String, Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::bad(field, "must be an absolute path"));
    }
    if path.len() > 4096 || path.chars().any(char::is_control) {
        return Err(Refusal::bad(field, "is not a usable path"));
    }
    let mut clean = String::new();
    for segment in path.split('/').filter(|s| !s.is_empty()) {
        if matches!(segment, "." | "..") {
            return Err(Refusal::bad(field, "must not contain . or .. segments"));
        }
        clean.push('/');
        clean.push_str(segment);
    }
    if clean.is_empty() {
        return Err(Refusal::bad(field, "must not be the root"));
    }
    let under = |top: &str| {
        clean
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if under("/proc") || under("/sys") || (under("/dev") && !under("/dev/shm")) {
        return Err(Refusal::policy(
            field,
            format!("mounting over {}", short(&clean)),
            "it would cover files that isolate the container",
            "choose a path outside /proc, /sys and /dev",
        ));
    }
    Ok(clean)
}

/// The rest of a mount of type tmpfs, its target read.
pub(super) fn tmpfs_mount(mut mount: Fields) -> Result<Tmpfs, Refusal> {
    if mount.str("Source")?.is_some_and(|s| !s.is_empty()) {
        return Err(Refusal::bad(
            mount.name("Source"),
            "must not be set for a tmpfs",
        ));
    }
    let mut tmpfs = Tmpfs {
        read_only: mount.bool("ReadOnly")?.unwrap_or(false),
        ..Tmpfs::default()
    };
    only_options(&mut mount, "TmpfsOptions", "a tmpfs")?;
    if let Some(mut options) = mount.object("TmpfsOptions")? {
        let size_field = options.name("SizeBytes");
        let mode_field = options.name("Mode");
        let size = crate::request::limits::amount(&mut options, "SizeBytes", AMOUNT_MAX)?;
        tmpfs.size = size.map(|n| n.next_multiple_of(PAGE));
        if tmpfs.size.is_some_and(|n| n > AMOUNT_MAX) {
            return Err(Refusal::bad(size_field, "is too large"));
        }
        let mode = options.i64("Mode")?.filter(|m| *m != 0);
        tmpfs.mode = mode
            .map(|m| {
                u32::try_from(m)
                    .ok()
                    .filter(|m| *m <= 0o7777)
                    .ok_or_else(|| BadRequest::new(mode_field, "must be at most 07777"))
            })
            .transpose()?;
        options.finish(&[], &mut Vec::new())?;
    }
    mount.finish(&[], &mut Vec::new())?;
    Ok(tmpfs)
}

/// What the temporary file systems of a container come to.
pub(super) struct Temp {
    pub(super) total: Bytes,
    pub(super) shm: u64,
    pub(super) tmpfs: BTreeMap<String, String>,
}

pub(super) fn temp(
    request: &CreateRequest,
    policy: &Policy,
    defaults: &ContainerDefaults,
) -> Result<Temp, Refusal> {
    // Without an IPC namespace of its own there is no /dev/shm mount to size.
    let shm = if request.host.ipc_mode == "none" {
        0
    } else {
        request.shm.unwrap_or(defaults.shm.0)
    };
    let mut sizes = vec![Bytes(shm)];
    let mut tmpfs = BTreeMap::new();
    for (path, mount) in &request.mounts.tmpfs {
        let size = mount
            .size
            .unwrap_or_else(|| defaults.tmpfs.0.next_multiple_of(PAGE));
        sizes.push(Bytes(size));
        let written = mount.size.or(policy.fill_in.then_some(size));
        tmpfs.insert(path.clone(), mount.options(written));
    }
    Ok(Temp {
        total: sum(&sizes)?,
        shm: if policy.fill_in || request.shm.is_some() {
            shm
        } else {
            0
        },
        tmpfs,
    })
}

/// A sum that stays within what the ledger holds.
pub(super) fn sum(sizes: &[Bytes]) -> Result<Bytes, Refusal> {
    sizes
        .iter()
        .try_fold(0u64, |sum, n| sum.checked_add(n.0))
        .filter(|sum| *sum <= AMOUNT_MAX)
        .map(Bytes)
        .ok_or_else(|| Refusal::bad("HostConfig", "the sizes add up to too much"))
}

/// The writable layer.
pub(super) struct Layer {
    pub(super) charged: Bytes,
    pub(super) option: BTreeMap<String, String>,
}

/// Reads `StorageOpt`, whose only key a tenant may set is `size`.
pub(super) fn take_layer(fields: &mut Fields) -> Result<Option<u64>, Refusal> {
    let name = fields.name("StorageOpt");
    let mut size = None;
    for (key, value) in fields.string_map("StorageOpt")?.unwrap_or_default() {
        if key != "size" {
            return Err(Refusal::policy(
                name,
                format!("--storage-opt {}", short(&key)),
                "only the size of the writable layer can be chosen",
                "use --storage-opt size=N",
            ));
        }
        let bytes = Bytes::parse(&value)
            .map_err(|e| BadRequest::new(format!("{name}.size"), e.to_string()))?;
        if bytes < LAYER_MIN {
            return Err(Refusal::bad(
                format!("{name}.size"),
                format!("must be at least {LAYER_MIN}"),
            ));
        }
        size = Some(bytes.0);
    }
    Ok(size)
}

pub(super) fn layer(
    asked: Option<u64>,
    policy: &Policy,
    defaults: &ContainerDefaults,
) -> Result<Layer, Refusal> {
    if asked.is_some() && !policy.storage_opt {
        return Err(Refusal::policy(
            "HostConfig.StorageOpt",
            "--storage-opt size",
            "this host's file system cannot bound a writable layer",
            format!("leave it out: {} are charged", defaults.writable),
        ));
    }
    let charged = Bytes(asked.unwrap_or(defaults.writable.0));
    let mut option = BTreeMap::new();
    if policy.storage_opt && (asked.is_some() || policy.fill_in) {
        option.insert("size".to_owned(), charged.0.to_string());
    }
    Ok(Layer { charged, option })
}

/// `LogConfig`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LogAsked {
    driver: &'static str,
    max_size: Option<u64>,
    max_file: Option<u64>,
    compress: Option<bool>,
}

/// `LogConfig` with what was absent filled in.
pub(super) struct Log {
    driver: &'static str,
    max_size: u64,
    max_file: u64,
    compress: Option<bool>,
}

impl LogAsked {
    pub(super) fn take(fields: &mut Fields) -> Result<Self, Refusal> {
        let mut asked = Self {
            driver: "json-file",
            ..Self::default()
        };
        let Some(mut log) = fields.object("LogConfig")? else {
            return Ok(asked);
        };
        let driver_field = log.name("Type");
        let config_field = log.name("Config");
        let driver = log.str("Type")?.unwrap_or_default();
        let config = log.string_map("Config")?.unwrap_or_default();
        log.finish(&[], &mut Vec::new())?;
        asked.driver = match driver.as_str() {
            "" | "json-file" => "json-file",
            "local" => "local",
            "none" => "none",
            other => {
                return Err(Refusal::policy(
                    driver_field,
                    format!("--log-driver {}", short(other)),
                    "the engine would write logs with the host's rights",
                    "use json-file, local or none",
                ));
            }
        };
        for (key, value) in config {
            let field = format!("{config_field}.{}", short(&key));
            if asked.driver == "none" {
                return Err(Refusal::bad(field, "the driver none takes no options"));
            }
            match key.as_str() {
                "max-size" => {
                    let bytes = decimal_size(&value).filter(|n| *n >= LOG_FILE_MIN);
                    asked.max_size = Some(bytes.ok_or_else(|| {
                        BadRequest::new(&field, "must be a size of at least 10k, like 10m")
                    })?);
                }
                "max-file" => {
                    let files = Some(value.as_str())
                        .filter(|v| v.bytes().all(|b| b.is_ascii_digit()))
                        .and_then(|v| v.parse().ok())
                        .filter(|n| (1..=LOG_FILES_MAX).contains(n));
                    asked.max_file = Some(files.ok_or_else(|| {
                        BadRequest::new(&field, format!("must be between 1 and {LOG_FILES_MAX}"))
                    })?);
                }
                "compress" => {
                    asked.compress = Some(match value.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => return Err(Refusal::bad(field, "must be true or false")),
                    });
                }
                _ => {
                    return Err(Refusal::policy(
                        field,
                        format!("--log-opt {}", short(&key)),
                        "the engine would spend the host's memory or reveal other tenants' names",
                        "use max-size, max-file and compress",
                    ));
                }
            }
        }
        Ok(asked)
    }

    /// As it was asked: what is absent is the engine's own.
    pub(super) fn body(&self) -> LogConfig {
        let option = |name: &str, value: Option<String>| Some((name.to_owned(), value?));
        let options = [
            option("max-size", self.max_size.map(|n| n.to_string())),
            option("max-file", self.max_file.map(|n| n.to_string())),
            option("compress", self.compress.map(|c| c.to_string())),
        ];
        LogConfig {
            driver: self.driver,
            config: options.into_iter().flatten().collect(),
        }
    }

    pub(super) fn complete(&self, defaults: &ContainerDefaults) -> Log {
        Log {
            driver: self.driver,
            max_size: self
                .max_size
                .unwrap_or_else(|| defaults.log_max.0.max(LOG_FILE_MIN)),
            max_file: self
                .max_file
                .unwrap_or_else(|| defaults.log_files.clamp(1, LOG_FILES_MAX)),
            compress: self.compress,
        }
    }
}

impl Log {
    /// Log space beyond the class's allowance, which is charged with the writable layer. Without
    /// this, asking for huge logs would be free storage.
    pub(super) fn above_default(&self, defaults: &ContainerDefaults) -> Bytes {
        if self.driver == "none" {
            return Bytes(0);
        }
        let allowance = defaults.log_max.0.saturating_mul(defaults.log_files);
        Bytes(
            self.max_size
                .saturating_mul(self.max_file)
                .saturating_sub(allowance),
        )
    }

    pub(super) fn body(&self) -> LogConfig {
        let mut config = BTreeMap::new();
        if self.driver != "none" {
            config.insert("max-size".to_owned(), self.max_size.to_string());
            config.insert("max-file".to_owned(), self.max_file.to_string());
            // The engine does not start a container that would compress and has nothing rotated to
            // compress; the local driver compresses unless told otherwise.
            let compress = match self.compress {
                _ if self.max_file == 1 => (self.driver == "local").then_some(false),
                asked => asked,
            };
            if let Some(compress) = compress {
                config.insert("compress".to_owned(), compress.to_string());
            }
        }
        LogConfig {
            driver: self.driver,
            config,
        }
    }
}

/// A log size as the engine reads it: decimal prefixes, `10m` is ten million.
fn decimal_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale: u64 = match lower[digits.len()..].trim_end_matches('b') {
        "" => 1,
        "k" => 1000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        _ => return None,
    };
    let digits = digits.trim_end();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits
        .parse::<u64>()
        .ok()?
        .checked_mul(scale)
        .filter(|n| *n <= AMOUNT_MAX)
}
