//! The labels Plimsoll puts on containers. They help to find things; ownership is read from the
//! ledger alone, since images and commits can carry any label.

use std::collections::BTreeMap;

use plimsoll_core::entity::ReservationId;
use plimsoll_host::cgroup::Instance;

/// Everything under it is Plimsoll's.
pub const PREFIX: &str = "plimsoll.";
/// The instance whose container it is.
pub const INSTANCE: &str = "plimsoll.instance";
/// The reservation it is charged by.
pub const RESERVATION: &str = "plimsoll.reservation";
/// Id of the user it belongs to.
pub const USER: &str = "plimsoll.user";
/// The team; the one a tenant may write.
pub const TEAM: &str = "plimsoll.team";
/// The project; the other one a tenant may write.
pub const PROJECT: &str = "plimsoll.project";
/// The host ports it publishes and what was asked in place of each: `20030:8080,20001:0`.
pub const PORTS: &str = "plimsoll.ports";

/// Whether labels name this instance.
#[must_use]
pub fn is_of(instance: &Instance, labels: &BTreeMap<String, String>) -> bool {
    labels
        .get(INSTANCE)
        .is_some_and(|name| name == instance.as_str())
}

/// The reservation that labels name.
#[must_use]
pub fn reservation(labels: &BTreeMap<String, String>) -> Option<ReservationId> {
    labels.get(RESERVATION)?.parse().ok()
}
