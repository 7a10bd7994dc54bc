//! `POST /containers/{id}/update`: what is accepted sets limits and nothing else, charges what it sets,
//! and is judged the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_core::dimension::Dimension;
use plimsoll_fuzz::only;
use plimsoll_host::request::update::{CurrentResources, UpdateRequest, resulting};
use serde_json::json;

const LIMITS: [&str; 7] = [
    "CpuShares",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "NanoCpus",
    "PidsLimit",
    "RestartPolicy",
];

fuzz_target!(|data: &[u8]| {
    let Ok(request) = UpdateRequest::parse(data) else {
        return;
    };
    let current = CurrentResources::from_host_config(&json!({
        "NanoCpus": 500_000_000, "Memory": 64 << 20, "MemorySwap": 64 << 20, "PidsLimit": 100,
    }));
    let Ok(updated) = resulting(&current, &request, false) else {
        return;
    };
    let body = &updated.body;
    only(body, &LIMITS);
    assert_eq!(body["Memory"], body["MemorySwap"]);
    for (dimension, name, unit) in [
        (Dimension::Cpu, "NanoCpus", 1_000_000),
        (Dimension::Memory, "Memory", 1),
        (Dimension::Pids, "PidsLimit", 1),
    ] {
        let charged = updated.after[dimension];
        assert!(charged > 0, "{dimension}");
        assert_eq!(body[name], charged * unit);
    }
    let again = UpdateRequest::parse(body.to_string().as_bytes()).expect("our own body is read");
    let again = resulting(&updated.resources, &again, false).expect("and accepted");
    assert_eq!((&again.body, &again.after), (body, &updated.after));
});
