//! `/api/openapi.json` and a page to read it by: no script, no other host.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use serde_json::Value;

use super::openapi;

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1a2733;background:#fbfcfd}h1{font-size:1.6rem}h2{margin-top:2.5rem;border-bottom:2px solid \
#0b5c8a;text-transform:capitalize}section{margin:1rem 0}code{font:14px/1.4 ui-monospace,monospace}\
.m{display:inline-block;min-width:4.5rem;font-weight:600;text-transform:uppercase;color:#0b5c8a}\
p{margin:.2rem 0 .2rem 4.5rem}@media(prefers-color-scheme:dark){body{color:#dbe4ea;\
background:#11181e}.m{color:#6fb9e3}h2{border-color:#6fb9e3}}";

static DOCUMENT: LazyLock<String> = LazyLock::new(|| openapi::document().to_string());
static PAGE: LazyLock<String> = LazyLock::new(|| render(&openapi::document()));

pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

pub(super) async fn style() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

pub(super) async fn page() -> Html<&'static str> {
    Html(PAGE.as_str())
}

/// The document as a page, one heading a tag.
fn render(document: &Value) -> String {
    let mut out = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Plimsoll API</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <link rel=\"stylesheet\" href=\"/api/docs.css\"></head><body>",
    );
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let _ = write!(
        out,
        "<h1>Plimsoll API {}</h1><p>{}</p><p>For programs: <a href=\"/api/openapi.json\">OpenAPI</a>.</p>",
        text(&document["info"]["version"]),
        text(&document["info"]["description"])
    );
    let mut tags: Vec<String> = Vec::new();
    let mut sections: Vec<String> = Vec::new();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let tag = text(&operation["tags"][0]);
            let at = tags.iter().position(|t| *t == tag).unwrap_or_else(|| {
                tags.push(tag);
                sections.push(String::new());
                tags.len() - 1
            });
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            let schema = body
                .as_str()
                .and_then(|r| r.rsplit('/').next())
                .unwrap_or_default();
            let fields = document["components"]["schemas"][schema]["properties"].as_object();
            let fields: Vec<&str> = fields
                .into_iter()
                .flatten()
                .map(|(k, _)| k.as_str())
                .collect();
            let _ = write!(
                sections[at],
                "<section><span class=\"m\">{method}</span><code>{}</code><p>{}</p>",
                escape(path),
                text(&operation["summary"])
            );
            if !fields.is_empty() {
                let _ = write!(
                    sections[at],
                    "<p>Body: <code>{}</code></p>",
                    escape(&fields.join(", "))
                );
            }
            sections[at].push_str("</section>");
        }
    }
    for (tag, section) in tags.iter().zip(&sections) {
        let _ = write!(out, "<h2>{tag}</h2>{section}");
    }
    out.push_str("</body></html>");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_path_and_runs_nothing() {
        let document = openapi::document();
        let page = render(&document);
        for path in document["paths"].as_object().unwrap().keys() {
            assert!(page.contains(&escape(path)), "{path}");
        }
        assert!(!page.contains("<script") && !page.contains("http://"));
    }
}
