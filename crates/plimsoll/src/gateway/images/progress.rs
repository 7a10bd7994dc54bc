//! Answers that tell how it goes: JSON lines, an error among them where it fails in the end.

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use plimsoll_host::engine::{BoxError, EngineBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::gateway::answer::Body;
use crate::gateway::refused::Refused;

/// Lines that wait for a client.
const LINES: usize = 64;

/// The longest line that is looked at.
const LINE_MAX: usize = 4 << 20;

/// Where the lines go. They are lost when the client has left.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Progress {
    lines: mpsc::Sender<Value>,
    /// A client that does not keep up misses lines, in place of holding up what others wait for.
    lossy: bool,
}

impl Progress {
    /// One that nobody listens to, and that never stops its work.
    pub(in crate::gateway) fn silent() -> Self {
        let (lines, mut waiting) = mpsc::channel(LINES);
        tokio::spawn(async move { while waiting.recv().await.is_some() {} });
        Self { lines, lossy: true }
    }

    /// The same place, for work that others wait for.
    pub(in crate::gateway) fn lossy(&self) -> Self {
        Self {
            lines: self.lines.clone(),
            lossy: true,
        }
    }

    /// Tells something. False when nobody listens any more.
    pub(in crate::gateway) async fn tell(&self, line: Value) -> bool {
        if self.lossy {
            return !matches!(
                self.lines.try_send(line),
                Err(mpsc::error::TrySendError::Closed(_))
            );
        }
        self.lines.send(line).await.is_ok()
    }

    /// Passes the engine's lines on, each through `show`, until they end, `show` gives an error, or the
    /// client leaves. An error among them is a refusal, and not passed on.
    pub(in crate::gateway) async fn relay(
        &self,
        body: EngineBody,
        mut show: impl FnMut(Value) -> Result<Option<Value>, Refused>,
    ) -> Result<(), Refused> {
        let mut body = body;
        let mut pending: Vec<u8> = Vec::new();
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = self.lines.closed() => return Err(Refused::ClientGone),
            };
            match frame {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        pending.extend_from_slice(&data);
                    }
                }
                None => return Ok(()),
            }
            let mut items = serde_json::Deserializer::from_slice(&pending).into_iter::<Value>();
            let mut read = 0;
            let mut lines = Vec::new();
            while let Some(Ok(line)) = items.next() {
                read = items.byte_offset();
                lines.push(line);
            }
            pending.drain(..read);
            if pending.len() > LINE_MAX {
                return Err(Refused::EngineNonsense);
            }
            for line in lines {
                let error = line["errorDetail"]["message"]
                    .as_str()
                    .or(line["error"].as_str());
                if let Some(message) = error {
                    return Err(Refused::Engine {
                        status: http::StatusCode::INTERNAL_SERVER_ERROR,
                        message: message.to_owned(),
                    });
                }
                if let Some(shown) = show(line)?
                    && !self.tell(shown).await
                {
                    return Err(Refused::ClientGone);
                }
            }
        }
    }
}

/// An answer that begins now and ends with `work`, which goes on to its end without a client.
pub(in crate::gateway) fn progress<F, W>(work: W) -> Response<Body>
where
    W: FnOnce(Progress) -> F,
    F: Future<Output = Result<(), Refused>> + Send + 'static,
{
    let (lines, waiting) = mpsc::channel::<Value>(LINES);
    let told = Progress {
        lines,
        lossy: false,
    };
    let worked = work(told.clone());
    tokio::spawn(async move {
        if let Err(refused) = worked.await {
            let message = refused.into_message();
            let line = json!({"errorDetail": {"message": message}, "error": message});
            told.tell(line).await;
        }
    });
    let frames = stream::unfold(waiting, |mut waiting| async move {
        let line: Value = waiting.recv().await?;
        let frame = Frame::data(Bytes::from(format!("{line}\r\n")));
        Some((Ok::<_, BoxError>(frame), waiting))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
