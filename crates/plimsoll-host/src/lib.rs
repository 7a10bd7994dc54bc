//! What a Linux host and its container engine say, and the few things Plimsoll asks of them.
//!
//! [`engine`] speaks to the container engine, [`cgroup`] reads and writes kernel caps,
//! [`collector`] reads counters, [`network`] those of links, [`capacity`] says how much there is, [`load`] how much of the host is in use, [`peer`] says which container
//! a process is in, [`request`] judges what a tenant asks the engine for.
//!
//! This crate does not know quotas, SQL or the HTTP API that Plimsoll serves. It reads no clock and
//! no environment: the time, the cgroup root, the proc root and the engine's socket are parameters.

#![forbid(unsafe_code)]

pub mod capacity;
pub mod cgroup;
pub mod collector;
pub mod engine;
pub mod folders;
pub mod ids;
pub mod listening;
pub mod load;
pub mod network;
pub mod os_user;
pub mod peer;
pub mod request;
pub mod storage;
pub mod subnet;
