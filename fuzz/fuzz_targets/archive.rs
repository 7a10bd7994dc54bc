//! Archives that come in: image archives, root file systems and build contexts. What is passed on is
//! accepted again, and within its bound.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_host::request::archive;
use plimsoll_host::request::dockerfile::{changes, check_triggers};

const MOST: u64 = 1 << 20;

fn load(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::new();
    let names = archive::load(input, &mut out, MOST, |n| format!("mine:{n}")).ok()?;
    Some((out, names.len()))
}

fuzz_target!(|data: &[u8]| {
    if let Some((out, images)) = load(data) {
        let (again, same) = load(&out).expect("what is passed on is accepted");
        assert_eq!((again, same), (out, images));
    }
    let mut out = Vec::new();
    if archive::layer(data, &mut out, MOST).is_ok() {
        assert!(out.len() as u64 <= MOST);
    }
    let mut out = Vec::new();
    let context = |input: &[u8], out: &mut Vec<u8>| {
        archive::context(input, out, MOST, "Dockerfile", |text| Ok(text.to_owned()))
    };
    if context(data, &mut out).is_ok() {
        context(&out, &mut Vec::new()).expect("what is passed on is accepted");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let lines = [text.to_owned()];
        let _ = (changes(&lines), check_triggers(&lines));
    }
});
