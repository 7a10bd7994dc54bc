//! What people are told, over the API.

use serde_json::{Value, json};

use crate::site::Site;

const INBOX: &str = "/api/notifications";

#[tokio::test]
async fn a_request_reaches_who_answers_it_and_the_answer_who_asked() {
    let site = Site::new().await;
    let bob = site.user("bob", "member").await;
    let wish = json!({"add": {"maxMemoryGB": 2}, "reason": "a deadline"});
    let asked = site.ask_as(&bob, "POST", "/api/requests", wish).await;
    let id = asked.is(201)["id"].as_str().unwrap().to_owned();
    let inbox = site.get(INBOX).await;
    let told = &inbox["items"][0];
    assert_eq!(told["kind"], "request.asked");
    assert_eq!(told["title"], "bob asks for 2 GiB of memory");
    assert_eq!(told["by"], json!(["bob"]));
    assert_eq!(told["link"], format!("/requests/{id}"));
    assert_eq!(told["about"]["name"], "bob");

    let path = format!("/api/requests/{id}/deny");
    let no = json!({"reason": "not this month"});
    site.ask("POST", &path, no).await.is(200);
    let inbox = site.ask_as(&bob, "GET", INBOX, Value::Null).await.is(200);
    assert_eq!(inbox["unread"], 1);
    let told = &inbox["items"][0];
    assert_eq!(told["kind"], "request.answered");
    let why = json!({"name": "reason", "value": "not this month"});
    assert_eq!(told["figures"], json!([why]));

    let path = format!("{INBOX}/{}/read", told["id"].as_str().unwrap());
    let read = site.ask_as(&bob, "POST", &path, Value::Null).await.is(200);
    assert_eq!(read["unread"], 0);
    let new = format!("{INBOX}?unread=true");
    let left = site.ask_as(&bob, "GET", &new, Value::Null).await.is(200);
    assert_eq!(left["items"], json!([]));
    assert_eq!(site.get(INBOX).await["unread"], 1, "another's inbox");
}
