//! What Plimsoll itself asks of the engine, one function a question.

use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    ContainerInspect, ContainerSummary, DiskUsage, Engine, EngineBody, EngineError, EngineInfo,
    EventStream, ImageInspect, ResourceUpdate, UpdateReply, VolumeList, VolumeSummary, VolumeUsage,
    empty, full,
};

/// How long the engine may take to walk its volumes.
const WALK_TIMEOUT: Duration = Duration::from_secs(600);

/// The largest answer kept in memory: a list of some ten thousand containers.
const ANSWER_MAX: usize = 64 << 20;

/// The longest message of the engine's that is passed on, in characters.
const MESSAGE_MAX: usize = 2000;

pub(super) async fn bounded<T>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or(Err(EngineError::Timeout { what, after: limit }))
}

/// Reads a whole answer; a status of 400 or above becomes [`EngineError::Api`].
pub(super) async fn read_all(
    what: &'static str,
    response: Response<EngineBody>,
) -> Result<Bytes, EngineError> {
    let (head, body) = response.into_parts();
    let collected = Limited::new(body, ANSWER_MAX).collect().await;
    let bytes = collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| match error.downcast::<EngineError>() {
            Ok(error) => *error,
            Err(other) => {
                debug_assert!(other.is::<LengthLimitError>(), "{other}");
                EngineError::TooLarge {
                    what,
                    limit: ANSWER_MAX,
                }
            }
        })?;
    if head.status.is_client_error() || head.status.is_server_error() {
        return Err(refusal(head.status, &bytes));
    }
    Ok(bytes)
}

pub(super) async fn read_json<T: DeserializeOwned>(
    what: &'static str,
    response: Response<EngineBody>,
) -> Result<T, EngineError> {
    let bytes = read_all(what, response).await?;
    serde_json::from_slice(&bytes).map_err(|source| EngineError::Malformed { what, source })
}

fn refusal(status: StatusCode, body: &[u8]) -> EngineError {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    let message = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        // Some layers in front of the engine answer in plain text.
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    EngineError::Api {
        status,
        message: message.chars().take(MESSAGE_MAX).collect(),
    }
}

/// `None` instead of the engine's 404.
pub(super) fn absent<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn container(name: &str) -> Result<&str, EngineError> {
    named("a container", name)
}

/// An id or name as one path segment. The engine's own rule for names is stricter.
pub(super) fn named<'n>(what: &'static str, name: &'n str) -> Result<&'n str, EngineError> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if name.is_empty() || !name.bytes().all(known) || matches!(name, "." | "..") {
        return Err(EngineError::InvalidName {
            what,
            name: name.to_owned(),
        });
    }
    Ok(name)
}

/// An image's reference or id as path segments.
pub(super) fn image(name: &str) -> Result<&str, EngineError> {
    let known =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b':' | b'@' | b'/');
    let segments = name
        .split('/')
        .all(|segment| !matches!(segment, "" | "." | ".."));
    if !segments || !name.bytes().all(known) {
        return Err(EngineError::InvalidName {
            what: "an image",
            name: name.to_owned(),
        });
    }
    Ok(name)
}

/// Percent-encodes a query value: everything but RFC 3986's unreserved characters.
pub(super) fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

impl Engine {
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
    ) -> Result<T, EngineError> {
        bounded(self.patience().answer, what, async {
            let response = self.send(Method::GET, path, &[], empty(), None).await?;
            read_json(what, response).await
        })
        .await
    }

    pub(super) async fn order(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
    ) -> Result<(), EngineError> {
        self.order_within(self.patience().order, what, method, path)
            .await
    }

    async fn order_within(
        &self,
        limit: Duration,
        what: &'static str,
        method: Method,
        path: &str,
    ) -> Result<(), EngineError> {
        bounded(limit, what, async {
            let response = self.send(method, path, &[], empty(), None).await?;
            read_all(what, response).await.map(drop)
        })
        .await
    }

    /// Everything about one container, by full id or name; `None` when there is none.
    ///
    /// # Errors
    /// [`EngineError`]; an absent container is not one.
    pub async fn inspect(&self, id: &str) -> Result<Option<ContainerInspect>, EngineError> {
        absent(
            self.ask(
                "a container",
                &format!("/containers/{}/json", container(id)?),
            )
            .await,
        )
    }

    /// The containers that carry every one of `labels` (`key` or `key=value`); only running ones
    /// unless `all`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn list(
        &self,
        all: bool,
        labels: &[&str],
    ) -> Result<Vec<ContainerSummary>, EngineError> {
        let mut path = format!("/containers/json?all={all}");
        if !labels.is_empty() {
            let filters = json!({ "label": labels }).to_string();
            path.push_str("&filters=");
            path.push_str(&encode(&filters));
        }
        self.ask("its containers", &path).await
    }

    /// Starts a container; one that runs already is left alone.
    ///
    /// # Errors
    /// [`EngineError`], 404 when there is no such container.
    pub async fn start(&self, id: &str) -> Result<(), EngineError> {
        let path = format!("/containers/{}/start", container(id)?);
        self.order("a started container", Method::POST, &path).await
    }

    /// Stops a container: its stop signal, then SIGKILL after `grace` (whole seconds; the
    /// container's own setting when `None`). One that is stopped already is left alone.
    ///
    /// # Errors
    /// [`EngineError`], 404 when there is no such container.
    pub async fn stop(&self, id: &str, grace: Option<Duration>) -> Result<(), EngineError> {
        let mut path = format!("/containers/{}/stop", container(id)?);
        if let Some(grace) = grace {
            let _ = write!(path, "?t={}", grace.as_secs());
        }
        let limit = self.patience().order + grace.unwrap_or_default();
        self.order_within(limit, "a stopped container", Method::POST, &path)
            .await
    }

    /// Sends a signal (`KILL`, `TERM`, ...) to a container's first process.
    ///
    /// # Errors
    /// [`EngineError`], 409 when the container does not run.
    pub async fn kill(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        let path = format!(
            "/containers/{}/kill?signal={}",
            container(id)?,
            encode(signal)
        );
        self.order("a killed container", Method::POST, &path).await
    }

    /// Freezes a container's processes.
    ///
    /// # Errors
    /// [`EngineError`], 409 when the container does not run or is paused already.
    pub async fn pause(&self, id: &str) -> Result<(), EngineError> {
        let path = format!("/containers/{}/pause", container(id)?);
        self.order("a paused container", Method::POST, &path).await
    }

    /// Thaws a container's processes.
    ///
    /// # Errors
    /// [`EngineError`], 500 (the engine's choice) when the container is not paused.
    pub async fn unpause(&self, id: &str) -> Result<(), EngineError> {
        let path = format!("/containers/{}/unpause", container(id)?);
        self.order("an unpaused container", Method::POST, &path)
            .await
    }

    /// Removes a container, killing it first when `force`. Its anonymous volumes stay.
    ///
    /// # Errors
    /// [`EngineError`], 404 when there is none, 409 when it runs and `force` is not set.
    pub async fn remove(&self, id: &str, force: bool) -> Result<(), EngineError> {
        let path = format!("/containers/{}?force={force}", container(id)?);
        self.order("a removed container", Method::DELETE, &path)
            .await
    }

    /// Changes a container's limits, running or not. The engine keeps them for the next start.
    /// Returns the engine's warnings.
    ///
    /// # Errors
    /// [`EngineError`]; the engine answers 500 when the kernel refuses, such as CPU above the
    /// parent's.
    pub async fn update(
        &self,
        id: &str,
        update: &ResourceUpdate,
    ) -> Result<Vec<String>, EngineError> {
        let what = "an updated container";
        let path = format!("/containers/{}/update", container(id)?);
        let body = serde_json::to_vec(update).expect("plain numbers and strings serialise");
        bounded(self.patience().order, what, async {
            let json = [(CONTENT_TYPE, "application/json")];
            let response = self
                .send(Method::POST, &path, &json, full(body), None)
                .await?;
            let reply: UpdateReply = read_json(what, response).await?;
            Ok(reply.warnings)
        })
        .await
    }

    /// The volumes that carry every one of `labels` (`key` or `key=value`).
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn volumes(&self, labels: &[&str]) -> Result<Vec<VolumeSummary>, EngineError> {
        let filters = json!({ "label": labels }).to_string();
        let path = format!("/volumes?filters={}", encode(&filters));
        let listed: VolumeList = self.ask("its volumes", &path).await?;
        Ok(listed.volumes.unwrap_or_default())
    }

    /// One volume, by name; `None` when there is none.
    ///
    /// # Errors
    /// [`EngineError`]; an absent volume is not one.
    pub async fn volume(&self, name: &str) -> Result<Option<VolumeSummary>, EngineError> {
        absent(
            self.ask("a volume", &format!("/volumes/{}", container(name)?))
                .await,
        )
    }

    /// What each volume takes. The engine walks them all, and more, one such walk at a time.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn volume_usage(&self) -> Result<Vec<VolumeUsage>, EngineError> {
        let used: DiskUsage = bounded(WALK_TIMEOUT, "its disk usage", async {
            let path = "/system/df";
            let response = self.send(Method::GET, path, &[], empty(), None).await?;
            read_json("its disk usage", response).await
        })
        .await?;
        Ok(used.volumes)
    }

    /// Removes a volume; one that is gone already counts as removed.
    ///
    /// # Errors
    /// [`EngineError`], 409 when a container uses it.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<(), EngineError> {
        let path = format!("/volumes/{}?force={force}", container(name)?);
        let removed = self.order("a removed volume", Method::DELETE, &path).await;
        absent(removed).map(drop)
    }

    /// Everything about one image, by reference or id; `None` when there is none.
    ///
    /// # Errors
    /// [`EngineError`]; an absent image is not one.
    pub async fn image_inspect(&self, name: &str) -> Result<Option<ImageInspect>, EngineError> {
        absent(
            self.ask("an image", &format!("/images/{}/json", image(name)?))
                .await,
        )
    }

    /// The engine about its host and itself.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.ask("its host", "/info").await
    }

    /// Events of the given kinds (`container`, `image`, `volume`, `network`, ...; all when empty),
    /// from `since` (seconds since 1970) or from now on.
    ///
    /// Events are wake-ups, not facts: the engine replays at most 256 of them and a slow reader
    /// misses some. Subscribe first, list second, and inspect what an event names.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn events(
        &self,
        since: Option<i64>,
        kinds: &[&str],
    ) -> Result<EventStream, EngineError> {
        let mut path = String::from("/events");
        let mut separator = '?';
        if let Some(since) = since {
            let _ = write!(path, "?since={since}");
            separator = '&';
        }
        if !kinds.is_empty() {
            let filters = json!({ "type": kinds }).to_string();
            let _ = write!(path, "{separator}filters={}", encode(&filters));
        }
        let response = self
            .send(
                Method::GET,
                &path,
                &[],
                empty(),
                Some(self.patience().answer),
            )
            .await?;
        if !response.status().is_success() {
            return Err(match read_all("its events", response).await {
                Err(error) => error,
                Ok(bytes) => refusal(StatusCode::BAD_GATEWAY, &bytes),
            });
        }
        Ok(EventStream::new(response.into_body()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_change_the_path_are_refused() {
        for good in ["web_1", "a.b-c", &"f".repeat(64)] {
            assert!(container(good).is_ok(), "{good}");
        }
        for bad in [
            "", ".", "..", "a/b", "a?b", "a%2Fb", "a b", "a#b", "é", "a\r\nb",
        ] {
            assert!(container(bad).is_err(), "{bad:?}");
        }
        for good in [
            "nginx",
            "nginx:1.27",
            "ghcr.io:443/a/b@sha256:00ff",
            "sha256:00ff",
        ] {
            assert!(image(good).is_ok(), "{good}");
        }
        for bad in ["", "../x", "a/../b", "a//b", "/a", "a?b", "a%b", "a b"] {
            assert!(image(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn query_values_are_encoded_to_the_last_byte() {
        assert_eq!(encode("a-b_c.d~9"), "a-b_c.d~9");
        assert_eq!(
            encode("{\"x\":[é&=+ ]}"),
            "%7B%22x%22%3A%5B%C3%A9%26%3D%2B%20%5D%7D"
        );
    }
}
