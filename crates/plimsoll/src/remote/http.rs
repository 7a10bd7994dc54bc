//! Questions to the other store, and what its refusals look like.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::RemoteError;
use crate::http_client::{ANSWER_MAX, Client, Url};

/// The system's authorities count. An exchange takes this long at most.
static CLIENT: Client = Client::new(Duration::from_secs(30), None, ANSWER_MAX);

pub(super) async fn get(url: &Url, token_file: Option<&Path>) -> Result<Bytes, RemoteError> {
    exchange(Method::GET, url, token_file, &[], Vec::new()).await
}

pub(super) async fn post(
    url: &Url,
    token_file: Option<&Path>,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Bytes, RemoteError> {
    exchange(Method::POST, url, token_file, headers, body).await
}

async fn exchange(
    method: Method,
    url: &Url,
    token_file: Option<&Path>,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Bytes, RemoteError> {
    let answer = CLIENT.ask(method, url, token_file, headers, body).await?;
    if answer.status.is_success() {
        return Ok(answer.body);
    }
    Err(RemoteError::Status {
        status: answer.status.as_u16(),
        said: answer.said(),
    })
}
