//! Paths and query strings: one reading, and what is written anew reads the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_host::request::build::BuildRequest;
use plimsoll_host::request::image_reference::Reference;
use plimsoll_host::request::path::{RequestPath, container_name, looks_like_id};
use plimsoll_host::request::query::{Query, QueryBuilder};

fn path(text: &str) {
    let Ok(path) = RequestPath::parse(text) else {
        return;
    };
    let version = path
        .version
        .map(|(major, minor)| format!("/v{major}.{minor}"));
    let again = format!(
        "{}/{}",
        version.unwrap_or_default(),
        path.segments.join("/")
    );
    assert_eq!(RequestPath::parse(&again).as_ref(), Ok(&path));
    assert!(
        path.parts()
            .iter()
            .all(|part| !matches!(*part, "" | "." | ".."))
    );
    assert!(!text.contains(['%', '\\', '?', '#', ';', ' ', '\0']));
}

fn query(text: &str) {
    let Ok(query) = Query::parse(text) else {
        return;
    };
    if let Ok(filters) = query.clone().filters(&["label", "name"]) {
        let written = QueryBuilder::new().filters(&filters).finish();
        let mut again = Query::parse(written.trim_start_matches('?')).expect("our own is read");
        assert_eq!(again.filters(&["label", "name"]), Ok(filters));
    }
    if let Ok(build) = BuildRequest::parse(query) {
        assert!(matches!(build.network, "none" | "default"));
        assert!(
            build
                .labels
                .keys()
                .all(|key| !key.to_lowercase().starts_with("plimsoll."))
        );
        assert!(!build.dockerfile.split('/').any(|part| part == ".."));
        assert!(!build.dockerfile.starts_with('/'));
    }
}

fn names(text: &str) {
    if let Ok(name) = container_name(text) {
        assert!(!looks_like_id(name) && !name.contains('/'));
    }
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(
            Reference::parse(&reference.short()).as_ref(),
            Ok(&reference)
        );
        assert!(!reference.repository().starts_with("plimsoll.invalid"));
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (target, rest) = text.split_once('?').unwrap_or((text, text));
    path(target);
    query(rest);
    names(rest);
});
