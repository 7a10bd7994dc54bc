//! Whether a body says already, word for word, what Plimsoll would have written: the question where it
//! cannot be rewritten.

use serde_json::Value;

use super::CreateRequest;

/// Where `body`, which was read as `request`, says something else than `written`; `None` when the engine
/// would read both the same.
///
/// What `written` names must be there as it is: the engine's own default for a field that is missing
/// may be another. What else is there must mean nothing, which is to say that the strict decoder reads
/// the same request from both.
#[must_use]
pub fn difference(body: &[u8], request: &CreateRequest, written: &Value) -> Option<String> {
    let Ok(given) = serde_json::from_slice::<Value>(body) else {
        return Some("the body is not JSON".to_owned());
    };
    missing("", &given, written).or_else(|| {
        let again = CreateRequest::parse(written.to_string().as_bytes());
        (again.as_ref() != Ok(request))
            .then(|| "the body holds something that Plimsoll would have left out".to_owned())
    })
}

/// The first thing in `written` that `given` lacks or has otherwise.
fn missing(at: &str, given: &Value, written: &Value) -> Option<String> {
    match (given, written) {
        (Value::Object(given), Value::Object(written)) => {
            written.iter().find_map(|(key, value)| {
                let at = match at {
                    "" => key.clone(),
                    at => format!("{at}.{key}"),
                };
                missing(&at, given.get(key).unwrap_or(&Value::Null), value)
            })
        }
        (given, written) if given == written => None,
        (given, written) => Some(format!("{at} must be {written}, not {given}")),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::quota::built_in_classes;
    use serde_json::json;

    use super::*;
    use crate::request::create::{ImageFacts, Policy, judge};

    fn written() -> Value {
        let body = include_bytes!("../fixtures/cli-create-many-flags.json");
        let request = CreateRequest::parse(body).unwrap();
        let mut policy = Policy::new("/plimsoll/u1");
        policy.labels = [("plimsoll.user".to_owned(), "u1".to_owned())].into();
        let image = ImageFacts {
            id: "sha256:1".to_owned(),
            ..ImageFacts::default()
        };
        let defaults = &built_in_classes()[0].defaults;
        judge(&request, &policy, &image, defaults).unwrap().body
    }

    fn differs(given: &Value, written: &Value) -> Option<String> {
        let body = given.to_string();
        let request = CreateRequest::parse(body.as_bytes()).unwrap();
        difference(body.as_bytes(), &request, written)
    }

    #[test]
    fn what_plimsoll_wrote_is_exact_and_nothing_less_is() {
        let written = written();
        assert_eq!(differs(&written, &written), None);
        // What clients add without meaning anything.
        let mut wordy = written.clone();
        wordy["Domainname"] = json!("");
        wordy["HostConfig"]["Binds"] = Value::Null;
        wordy["HostConfig"]["OomKillDisable"] = json!(false);
        wordy["NetworkingConfig"] = json!({"EndpointsConfig": {}});
        assert_eq!(differs(&wordy, &written), None);

        for (pointer, value) in [
            ("/HostConfig/CgroupParent", json!("")),
            ("/HostConfig/CgroupnsMode", json!("")),
            ("/HostConfig/IpcMode", Value::Null),
            ("/HostConfig/NanoCpus", json!(0)),
            ("/HostConfig/PidsLimit", json!(0)),
            ("/HostConfig/MemorySwap", json!(0)),
            ("/Labels/plimsoll.user", json!("u2")),
            ("/Image", json!("plimsoll/example")),
        ] {
            let mut other = written.clone();
            *other.pointer_mut(pointer).expect(pointer) = value;
            let said = differs(&other, &written);
            let field = pointer[1..].replace('/', ".");
            assert!(
                said.as_ref().is_some_and(|said| said.starts_with(&field)),
                "{said:?}"
            );
        }
        let mut more = written.clone();
        more["Labels"]["x.y"] = json!("z");
        assert!(differs(&more, &written).unwrap().contains("left out"));
        let mut more = written.clone();
        more["HostConfig"]["CapAdd"] = json!(["CAP_CHOWN"]);
        assert!(differs(&more, &written).is_some());
    }
}
