//! Limits and requests on the command line, written as docker writes them: `--memory 8g`,
//! `--cpus 1.5`, `unlimited`.

use clap::Args;
use plimsoll_core::dimension::Unit;
use plimsoll_core::units::Bytes;
use plimsoll_core::{Dimension, Limit};
use serde_json::{Map, Value, json};

/// The word for no limit.
const UNLIMITED: &str = "unlimited";

macro_rules! dimension_flags {
    (
        $(#[$doc:meta])* $name:ident, heading $heading:literal, parse $parse:ident,
        $($(#[$field_doc:meta])* $field:ident, $dimension:ident, $value:literal;)*
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Args)]
        #[command(next_help_heading = $heading)]
        pub(super) struct $name {
            $(
                $(#[$field_doc])*
                #[arg(
                    long, value_name = $value, allow_hyphen_values = true,
                    value_parser = |text: &str| $parse(Dimension::$dimension, text)
                )]
                pub(super) $field: Option<Limit>,
            )*
            /// Any other limit by its name, like runtime=8 (hours) or transfer_month=500g; may be
            /// given several times.
            #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = named)]
            pub(super) others: Vec<(Dimension, Limit)>,
        }

        impl $name {
            /// What was given, in the order of the flags.
            #[must_use]
            pub(super) fn given(&self) -> Vec<(Dimension, Limit)> {
                let flags = [$((Dimension::$dimension, self.$field)),*];
                let flags = flags.into_iter().filter_map(|(d, limit)| Some((d, limit?)));
                flags.chain(self.others.iter().copied()).collect()
            }
        }
    };
}

dimension_flags! {
    /// Limits of a quota.
    LimitFlags, heading "Limits (a size or number, or `unlimited`)", parse limit,
    /// CPU cores that containers may be given.
    cpus, Cpu, "CORES";
    /// Memory that containers may be given, like 8g.
    memory, Memory, "SIZE";
    /// Writable layers, volumes and logs.
    storage, Storage, "SIZE";
    /// tmpfs and shared memory.
    temp_storage, TempStorage, "SIZE";
    /// Containers that exist.
    containers, Containers, "N";
    /// Containers that run.
    concurrent, ConcurrentContainers, "N";
    /// GPU devices.
    gpus, Gpus, "N";
    /// Processes and threads.
    pids, Pids, "N";
    /// Network rate in each direction, Mbit/s.
    bandwidth, Bandwidth, "MBIT";
    /// Network connections.
    connections, Connections, "N";
}

dimension_flags! {
    /// A member's allotment: the part of the team's limit that is theirs.
    AllotmentFlags, heading "Allotment", parse bounded,
    /// CPU cores.
    cpus, Cpu, "CORES";
    /// Memory, like 8g.
    memory, Memory, "SIZE";
    /// Writable layers, volumes and logs.
    storage, Storage, "SIZE";
    /// tmpfs and shared memory.
    temp_storage, TempStorage, "SIZE";
    /// Containers that exist.
    containers, Containers, "N";
    /// Containers that run.
    concurrent, ConcurrentContainers, "N";
    /// GPU devices.
    gpus, Gpus, "N";
    /// Processes and threads.
    pids, Pids, "N";
}

/// How far a member may reach into the team's pool.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct BorrowFlags {
    /// What they may borrow from the pool, like memory=4g, cpu=0 or pids=unlimited; may be given
    /// several times.
    #[arg(long = "borrow", value_name = "NAME=VALUE", value_parser = named)]
    pub(super) borrow: Vec<(Dimension, Limit)>,
}

/// What a container would ask for.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Request")]
pub(super) struct RequestFlags {
    /// CPU cores.
    #[arg(long, value_name = "CORES", allow_hyphen_values = true,
          value_parser = |text: &str| amount(Dimension::Cpu, text))]
    pub(super) cpus: Option<u64>,
    /// Memory, like 512m.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true,
          value_parser = |text: &str| amount(Dimension::Memory, text))]
    pub(super) memory: Option<u64>,
    /// Writable layers and volumes.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true,
          value_parser = |text: &str| amount(Dimension::Storage, text))]
    pub(super) storage: Option<u64>,
    /// tmpfs and shared memory.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true,
          value_parser = |text: &str| amount(Dimension::TempStorage, text))]
    pub(super) temp_storage: Option<u64>,
    /// GPU devices.
    #[arg(long, value_name = "N", allow_hyphen_values = true,
          value_parser = |text: &str| amount(Dimension::Gpus, text))]
    pub(super) gpus: Option<u64>,
    /// Processes and threads.
    #[arg(long, value_name = "N", allow_hyphen_values = true,
          value_parser = |text: &str| amount(Dimension::Pids, text))]
    pub(super) pids: Option<u64>,
    /// How many containers.
    #[arg(long, value_name = "N", default_value = "1", allow_hyphen_values = true,
          value_parser = |text: &str| amount(Dimension::Containers, text))]
    pub(super) containers: u64,
}

impl RequestFlags {
    /// As the API's `resourceRequest`.
    #[must_use]
    pub(super) fn body(&self) -> Value {
        let mut body = Map::new();
        for (name, d, given) in [
            ("cpuCores", Dimension::Cpu, self.cpus),
            ("memoryGB", Dimension::Memory, self.memory),
            ("storageGB", Dimension::Storage, self.storage),
            ("tempStorageGB", Dimension::TempStorage, self.temp_storage),
            ("gpus", Dimension::Gpus, self.gpus),
            ("pids", Dimension::Pids, self.pids),
            ("containers", Dimension::Containers, Some(self.containers)),
        ] {
            if let Some(given) = given {
                body.insert(name.to_owned(), json!(d.to_human(given)));
            }
        }
        Value::Object(body)
    }
}

/// Limits as the API's `max*` fields.
#[must_use]
pub(super) fn max_fields(given: &[(Dimension, Limit)]) -> Map<String, Value> {
    let field = |(d, limit): &(Dimension, Limit)| {
        let value = limit
            .at_most()
            .map_or(Value::Null, |most| json!(d.to_human(most)));
        (format!("max{}", d.field()), value)
    };
    given.iter().map(field).collect()
}

/// An amount in ledger units.
fn amount(dimension: Dimension, text: &str) -> Result<u64, String> {
    if dimension.unit() == Unit::Bytes {
        return Bytes::parse(text)
            .map(|bytes| bytes.0)
            .map_err(|error| error.to_string());
    }
    let plain = match dimension.unit() {
        Unit::BasisPoints => text.trim_end_matches('%').trim_end(),
        _ => text,
    };
    let number: f64 = plain.parse().map_err(|_| "must be a number".to_owned())?;
    dimension
        .from_human(number)
        .map_err(|error| error.to_string())
}

fn limit(dimension: Dimension, text: &str) -> Result<Limit, String> {
    if text == UNLIMITED {
        Ok(Limit::Unlimited)
    } else {
        amount(dimension, text)
            .map(Limit::AtMost)
            .map_err(|why| format!("{why}, or `{UNLIMITED}`"))
    }
}

fn bounded(dimension: Dimension, text: &str) -> Result<Limit, String> {
    if text == UNLIMITED {
        Err("an allotment is always bounded: what is not allotted is in the pool".to_owned())
    } else {
        amount(dimension, text).map(Limit::AtMost)
    }
}

/// `memory=4g`, by the names the ledger and refusals use.
fn named(text: &str) -> Result<(Dimension, Limit), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| "must be NAME=VALUE, like memory=4g".to_owned())?;
    let dimension = Dimension::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = Dimension::ALL.iter().map(|d| d.name()).collect();
        let near = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(name, known), known))
            .filter(|(distance, known)| *distance <= known.len() / 3 + 1)
            .min();
        match near {
            Some((_, near)) => format!("there is no {name}, did you mean {near}?"),
            None => format!("there is no {name}; there are {}", known.join(", ")),
        }
    })?;
    limit(dimension, value).map(|limit| (dimension, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_docker_writes_them() {
        for (dimension, text, field, value) in [
            (Dimension::Cpu, "1.5", "maxCpuCores", json!(1.5)),
            (Dimension::Memory, "8g", "maxMemoryGB", json!(8.0)),
            (Dimension::Memory, "512m", "maxMemoryGB", json!(0.5)),
            (Dimension::Memory, "unlimited", "maxMemoryGB", Value::Null),
            (Dimension::Pids, "100", "maxPids", json!(100.0)),
            (Dimension::CpuPercent, "80%", "maxCpuPercent", json!(80.0)),
            (Dimension::Runtime, "8", "maxRuntimeHours", json!(8.0)),
            (
                Dimension::TransferMonth,
                "1t",
                "maxTransferGBPerMonth",
                json!(1024.0),
            ),
        ] {
            let fields = max_fields(&[(dimension, limit(dimension, text).unwrap())]);
            assert_eq!(fields.get(field), Some(&value), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_limit_is_said() {
        for (dimension, text, says) in [
            (Dimension::Memory, "lots", "is not a size"),
            (Dimension::Memory, "-1g", "must not be negative"),
            (Dimension::Cpu, "NaN", "must be a finite number"),
            (Dimension::Cpu, "two", "must be a number"),
            (Dimension::Cpu, "1e300", "is too large"),
            (Dimension::Pids, "1.5", "whole"),
            (Dimension::CpuPercent, "101", "is too large"),
        ] {
            let error = limit(dimension, text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(
            bounded(Dimension::Memory, "unlimited")
                .unwrap_err()
                .contains("pool")
        );
        assert_eq!(
            named("memory=4g"),
            Ok((Dimension::Memory, Limit::AtMost(4 << 30)))
        );
        assert_eq!(
            named("cpu=unlimited"),
            Ok((Dimension::Cpu, Limit::Unlimited))
        );
        assert!(
            named("memmory=4g")
                .unwrap_err()
                .ends_with("did you mean memory?")
        );
        assert!(named("memory").unwrap_err().contains("NAME=VALUE"));
    }

    #[test]
    fn every_exact_size_survives_the_way_through_json() {
        for bytes in [1u64, 1023, 6 << 20, (1 << 40) + 1, (1 << 53) - 1] {
            let fields = max_fields(&[(Dimension::Memory, Limit::AtMost(bytes))]);
            let text = serde_json::to_string(&fields).unwrap();
            let back: Value = serde_json::from_str(&text).unwrap();
            let gb = back["maxMemoryGB"].as_f64().unwrap();
            assert_eq!(Dimension::Memory.from_human(gb), Ok(bytes));
        }
    }
}
