//! What a tenant asked the engine for: parse, judge, re-serialise.
//!
//! Every function here is pure: bytes in, a typed request or a [`Refusal`] out, and from the typed
//! request the body that goes to the engine, written by us. Nothing of a tenant's body is relayed.
//! A checker that reads one thing while the engine reads another is the bug behind CVE-2024-41110
//! and its successors, so the decoder is stricter than the engine's: see [`json`].
//!
//! This module must not know quotas (it computes what a container would be charged, not whether
//! that fits), nor names and owners (the caller resolves them and passes ids in).

pub mod archive;
pub mod build;
pub mod create;
pub mod dockerfile;
pub mod exec;
pub mod image_reference;
pub mod json;
pub mod limits;
pub mod moment;
pub mod network;
pub mod path;
pub mod query;
pub mod refusal;
pub mod registry;
mod shared;
pub mod update;

pub use create::{CreateRequest, ImageFacts, Judged, Policy, judge};
pub use limits::{Requested, RestartName, RestartPolicy};
pub use refusal::{BadRequest, PolicyRefusal, Refusal};
