//! Archives on their way through: read and written on a thread of its own, between two bounded channels.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use plimsoll_host::engine::{BoxError, EngineBody, EngineError, RequestBody};
use plimsoll_host::request::archive::ArchiveError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::gateway::Connection;
use crate::gateway::answer;
use crate::gateway::refused::Refused;

/// Chunks that wait in each direction.
pub(in crate::gateway) const CHUNKS: usize = 8;

/// How long a sender may be silent, and how long a receiver may take nothing.
pub(in crate::gateway) const SILENCE: Duration = Duration::from_secs(120);

/// What of a refused upload is still read, so that the client hears the reason and not a broken pipe.
const DRAIN_MAX: u64 = 1 << 30;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The body that `work` writes while it reads `source`, and what comes of the work. A body whose work
/// failed breaks off, so that its reader never takes a part for the whole.
pub(in crate::gateway) fn converted<B, T, F>(source: B, work: F) -> (RequestBody, Work<T>)
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
    T: Send + 'static,
    F: FnOnce(&mut Reader, &mut Writer) -> Result<T, ArchiveError> + Send + 'static,
{
    let (chunks, received) = mpsc::channel(CHUNKS);
    let (frames, body) = mpsc::channel::<Result<Frame<Bytes>, BoxError>>(CHUNKS);
    let sender = tokio::spawn(send(source, chunks));
    let worker = tokio::task::spawn_blocking(move || {
        let mut reader = Reader {
            chunks: received,
            now: Bytes::new(),
        };
        let mut writer = Writer { frames };
        let outcome = work(&mut reader, &mut writer);
        if outcome.is_err() {
            let _ = writer
                .frames
                .blocking_send(Err("the archive broke off".into()));
        }
        outcome
    });
    let body = stream::unfold(body, |mut body| async move {
        let frame = body.recv().await?;
        Some((frame, body))
    });
    let work = Work { sender, worker };
    (StreamBody::new(body).boxed_unsync(), work)
}

/// [`converted`], for a download: it begins when its caller has few others, and counts among them until
/// it is over.
pub(in crate::gateway) async fn converted_within<B, F>(
    connection: Arc<Connection>,
    source: B,
    work: F,
) -> Result<RequestBody, Refused>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
    F: FnOnce(&mut Reader, &mut Writer) -> Result<(), ArchiveError> + Send + 'static,
{
    let (begun, body) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let _slot = connection.place.large_body().await;
        let (body, work) = converted(source, work);
        if begun.send(body).is_ok() {
            let _ = work.worker.await;
        }
    });
    body.await.map_err(|_| Refused::EngineNonsense)
}

/// An archive that is being passed on.
#[derive(Debug)]
pub(in crate::gateway) struct Work<T> {
    sender: JoinHandle<()>,
    worker: JoinHandle<Result<T, ArchiveError>>,
}

impl<T> Work<T> {
    /// What came of it, after the upload is over. `Ok(None)` when one end went away: what the other says
    /// is then more to the point.
    async fn outcome(self, to_fit: &str) -> Result<Option<T>, Refused> {
        let outcome = self.worker.await.map_err(|_| Refused::EngineNonsense)?;
        let _ = self.sender.await;
        match outcome {
            Ok(done) => Ok(Some(done)),
            Err(ArchiveError::Io(_)) => Ok(None),
            Err(ArchiveError::Unacceptable(why)) => Err(Refused::bad("archive", why)),
            Err(ArchiveError::TooLarge { most }) => Err(Refused::denied(
                "quota_exceeded",
                format!(
                    "the upload was cut off: unpacked it is more than the {} of storage there is room for; {to_fit}",
                    plimsoll_core::Dimension::Storage.show(most)
                ),
            )),
        }
    }
}

/// How an image that is too large comes to fit.
pub(in crate::gateway) const TO_FIT: &str =
    "remove images (docker image prune -a) or ask for more (docker quota request)";

/// What the engine said to an upload, and what came of the upload. Why an upload was refused is more to
/// the point than what the engine made of the broken rest; `to_fit` is for one that is too large.
pub(in crate::gateway) async fn uploaded<T>(
    sent: Result<Response<EngineBody>, EngineError>,
    work: Work<T>,
    to_fit: &str,
) -> Result<(Response<EngineBody>, T), Refused> {
    let answered = match sent {
        Ok(response) => Ok(answer::accepted(response).await),
        Err(error) => Err(error),
    };
    let outcome = work.outcome(to_fit).await?;
    let response = answered.map_err(Refused::from)??;
    match outcome {
        Some(outcome) => Ok((response, outcome)),
        None => Err(Refused::bad("upload", "broke off".to_owned())),
    }
}

async fn send<B>(mut source: B, chunks: mpsc::Sender<io::Result<Bytes>>)
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    loop {
        let chunk = match tokio::time::timeout(SILENCE, source.frame()).await {
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            Ok(None) => return,
            Ok(Some(Err(error))) => Err(io::Error::other::<BoxError>(error.into())),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Ok(data),
                Err(_) => continue,
            },
        };
        let over = chunk.is_err();
        if chunks.send(chunk).await.is_err() {
            break;
        }
        if over {
            return;
        }
    }
    let drained = async {
        let mut left = DRAIN_MAX;
        while let Some(Ok(frame)) = source.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len) as u64;
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
}

/// Reads an upload that is refused before it was looked at.
pub(in crate::gateway) async fn drain(source: Incoming) {
    let (chunks, received) = mpsc::channel(1);
    drop(received);
    send(source, chunks).await;
}

/// What was judged of an upload, with the upload; a refusal once the upload has been read, since a client
/// that is refused in the middle of sending sees a broken pipe in place of the reason.
pub(in crate::gateway) async fn or_drained<T>(
    judged: Result<T, Refused>,
    upload: Incoming,
) -> Result<(T, Incoming), Refused> {
    match judged {
        Ok(judged) => Ok((judged, upload)),
        Err(refused) => {
            drain(upload).await;
            Err(refused)
        }
    }
}

/// The upload.
#[derive(Debug)]
pub(in crate::gateway) struct Reader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    now: Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.now = chunk?,
                None => return Ok(0),
            }
        }
        let read = self.now.len().min(buffer.len());
        buffer[..read].copy_from_slice(&self.now.split_to(read));
        Ok(read)
    }
}

/// What is passed on.
#[derive(Debug)]
pub(in crate::gateway) struct Writer {
    frames: mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let frame = Frame::data(Bytes::copy_from_slice(bytes));
        match self.frames.blocking_send(Ok(frame)) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
