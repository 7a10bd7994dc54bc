//! How mounts are shown: volumes under their owner's names, folders as the owner wrote them, and
//! nothing of where the engine keeps either.

use plimsoll_host::request::create::stash_index;
use plimsoll_store::Reservation;
use serde_json::{Value, json};

use super::names;

/// Rewrites `Mounts` of a list or inspect answer, and `HostConfig.Mounts` of the latter.
pub(super) fn show(seen: &mut Value, reservation: &Reservation) {
    let prefix = names::in_engine(&reservation.user_name, reservation.user, "");
    for mount in items(&mut seen["Mounts"]) {
        if mount["Type"] == "volume" {
            mount["Source"] = json!("");
            strip(&mut mount["Name"], &prefix);
        } else if mount["Type"] == "bind" {
            unstash(&mut mount["Source"], reservation);
        }
    }
    if !seen["HostConfig"]["Mounts"].is_array() {
        return;
    }
    for mount in items(&mut seen["HostConfig"]["Mounts"]) {
        if mount["Type"] == "volume" {
            strip(&mut mount["Source"], &prefix);
        } else if mount["Type"] == "bind" {
            unstash(&mut mount["Source"], reservation);
        }
    }
}

fn items(list: &mut Value) -> &mut [Value] {
    list.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}

fn strip(name: &mut Value, prefix: &str) {
    let shown = name.as_str().and_then(|name| name.strip_prefix(prefix));
    *name = json!(shown.unwrap_or_default());
}

fn unstash(source: &mut Value, reservation: &Reservation) {
    let mounted = source
        .as_str()
        .and_then(stash_index)
        .and_then(|n| reservation.host_mounts.get(n));
    *source = json!(mounted.map_or("", |mount| mount.path.as_str()));
}
