//! Control groups: where they are, what caps they carry, and how to change those safely.
//!
//! [`Hierarchy`] says how this host lays cgroups out (v1 or v2, by cgroupfs or by systemd).
//! [`ParentPath`] names a cgroup of Plimsoll's: the instance's root, a team's, a user's.
//! [`Hierarchy::apply`] and [`Hierarchy::apply_tree`] make caps so; both read first and write only
//! what differs, so they may run as often as anybody likes.
//!
//! This module must not decide how high a cap is, and never writes to a container's own cgroup: the
//! engine keeps a container's limits and writes its stored values back, so they are changed through
//! it.
//!
//! Everything here blocks for microseconds, with the systemd driver for the run of a `systemctl`.

mod apply;
mod block;
mod files;
mod hierarchy;
mod kernel;
mod path;
mod systemd;

pub use apply::{Applied, CapError, Caps};
pub use hierarchy::{CgroupDirs, DetectError, Driver, Hierarchy, UnknownDriver, Version};
pub use path::{Instance, NotAnInstance, ParentPath};

#[cfg(test)]
mod tests;
