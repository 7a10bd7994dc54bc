//! Exec create and exec start.
//!
//! An exec runs inside the container's cgroup and namespaces, so its quota is the container's. Only
//! `Privileged` would step out of it.
