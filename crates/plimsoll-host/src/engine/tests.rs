//! The client against a scripted engine: a unix socket that records requests and plays back bytes.

use std::sync::Mutex;

use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::*;

const VERSION: &str = r#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#;

/// An engine that answers each connection by the first script whose start of request line matches.
struct Scripted {
    _dir: TempDir,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Scripted {
    fn new(script: Vec<(&'static str, String)>) -> (Self, Engine) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("engine.sock")).unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = read_head(&mut stream).await;
                let answer = script.iter().find(|(start, _)| head.starts_with(start));
                let answer = answer.map_or_else(
                    || json("500 Internal Server Error", "no script"),
                    |(_, answer)| answer.clone(),
                );
                seen.lock().unwrap().push(head);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let engine = Engine::new(dir.path().join("engine.sock"));
        (
            Self {
                _dir: dir,
                heads,
                task,
            },
            engine,
        )
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn the_lowest_common_version_goes_in_front_of_every_path() {
    let (scripted, engine) = Scripted::new(vec![
        ("GET /version ", json("200 OK", VERSION)),
        (
            "GET /v1.41/info ",
            json("200 OK", r#"{"NCPU":2,"MemTotal":1024,"Warnings":null}"#),
        ),
    ]);
    assert_eq!(engine.api_version(), None);
    let info = engine.info().await.unwrap();
    assert_eq!((info.ncpu, info.mem_total), (2, 1024));
    assert_eq!(engine.api_version(), ApiVersion::parse("1.41"));
    engine.clone().info().await.unwrap();
    let heads = scripted.heads();
    assert_eq!(
        heads.len(),
        3,
        "a clone does not negotiate again: {heads:?}"
    );
    assert!(
        heads[1].to_lowercase().contains("\r\nhost: docker\r\n"),
        "{}",
        heads[1]
    );
}

#[tokio::test]
async fn negotiation_takes_what_both_speak_or_says_what_each_does() {
    for (min, max, ours) in [
        ("1.12", "1.41", Some("1.41")),
        ("1.24", "1.52", Some("1.41")),
        ("1.44", "1.60", Some("1.44")),
        ("1.51", "1.51", Some("1.51")),
        ("1.12", "1.40", None),
        ("1.52", "1.60", None),
    ] {
        let body = format!(r#"{{"Version":"x","ApiVersion":"{max}","MinAPIVersion":"{min}"}}"#);
        let (_scripted, engine) = Scripted::new(vec![("GET /version ", json("200 OK", &body))]);
        match (engine.negotiate().await, ours) {
            (Ok(version), Some(ours)) => assert_eq!(version.api.to_string(), ours),
            (Err(error @ EngineError::NoCommonVersion { .. }), None) => {
                let text = error.to_string();
                assert!(text.contains(&format!("{min} to {max}")), "{text}");
                assert!(text.contains("1.41 to 1.51"), "{text}");
            }
            (other, _) => panic!("{min} to {max}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn refusals_carry_the_engines_words_and_an_absent_container_is_none() {
    let missing = json("404 Not Found", r#"{"message":"No such container: x"}"#);
    let (_scripted, engine) = Scripted::new(vec![
        ("GET /version ", json("200 OK", VERSION)),
        ("GET /v1.41/containers/x/json ", missing.clone()),
        ("POST /v1.41/containers/x/start ", missing),
        (
            "POST /v1.41/containers/y/start ",
            "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
        ),
        (
            "POST /v1.41/containers/x/kill?signal=TERM ",
            json("409 Conflict", "plain words\n"),
        ),
        (
            "DELETE /v1.41/containers/x?force=true ",
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        ),
    ]);
    assert!(engine.inspect("x").await.unwrap().is_none());
    let error = engine.start("x").await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        "the container engine answered 404: No such container: x"
    );
    engine.start("y").await.unwrap();
    let error = engine.kill("x", "TERM").await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().ends_with("409: plain words"),
        "{error}"
    );
    engine.remove("x", true).await.unwrap();
    assert!(matches!(
        engine.inspect("a/b").await,
        Err(EngineError::InvalidName { .. })
    ));
}

#[tokio::test]
async fn lists_ask_by_label_and_updates_send_only_what_changes() {
    let id = "c".repeat(64);
    let list = format!(r#"[{{"Id":"{id}","Names":["/web"],"State":"running","Labels":null}}]"#);
    let (scripted, engine) = Scripted::new(vec![
        ("GET /version ", json("200 OK", VERSION)),
        (
            "GET /v1.41/containers/json?all=true&filters=",
            json("200 OK", &list),
        ),
        (
            "POST /v1.41/containers/",
            json("200 OK", r#"{"Warnings":["w"]}"#),
        ),
    ]);
    let containers = engine.list(true, &["plimsoll.instance=a b"]).await.unwrap();
    assert_eq!(containers[0].id.as_str(), id);
    let update = ResourceUpdate {
        pids_limit: Some(5),
        ..ResourceUpdate::default()
    };
    assert_eq!(engine.update(&id, &update).await.unwrap(), ["w"]);
    let heads = scripted.heads();
    let filter = "filters=%7B%22label%22%3A%5B%22plimsoll.instance%3Da%20b%22%5D%7D ";
    assert!(heads[1].contains(filter), "{}", heads[1]);
    assert!(
        heads[2].contains("content-type: application/json\r\n"),
        "{}",
        heads[2]
    );
    assert!(heads[2].contains("content-length: 15\r\n"), "{}", heads[2]);
}

#[tokio::test]
async fn nobody_on_the_socket_is_said_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(format!("unix://{}/none.sock", dir.path().display()));
    let error = engine.info().await.unwrap_err();
    assert!(error.is_unavailable());
    assert!(
        error
            .to_string()
            .contains(&format!("{}/none.sock:", dir.path().display())),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_a_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(dir.path().join("engine.sock")).unwrap();
    let engine = Engine::new(dir.path().join("engine.sock"));
    let error = engine.negotiate().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the container engine did not give its version within 30 s"
    );
}

/// The test's side of the one connection that follows negotiation.
async fn negotiated(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    read_head(&mut stream).await;
    stream
        .write_all(json("200 OK", VERSION).as_bytes())
        .await
        .unwrap();
    listener.accept().await.unwrap().0
}

#[tokio::test]
async fn a_dropped_response_closes_its_connection_even_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("engine.sock")).unwrap();
    let engine = Engine::new(dir.path().join("engine.sock"));
    let server = tokio::spawn(async move {
        let mut stream = negotiated(&listener).await;
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let event = "{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"x\"}}\n";
        stream
            .write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
            .await
            .unwrap();
        // Returns at the client's close.
        stream.read(&mut [0; 16]).await.unwrap()
    });
    let mut events = engine.events(Some(7), &["container"]).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(
        (event.kind.as_str(), event.verb(), event.id.as_str()),
        ("container", "start", "x")
    );
    {
        // Nothing more comes: the reader waits, and is then dropped waiting.
        let next = events.next();
        tokio::pin!(next);
        assert!(poll_once(next.as_mut()).await.is_pending());
    }
    drop(events);
    let closed = tokio::time::timeout(Duration::from_secs(5), server).await;
    assert_eq!(closed.expect("the connection is closed").unwrap(), 0);
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// A body that begins and never ends.
struct Endless(Option<Bytes>);

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.take().map_or(Poll::Pending, |bytes| {
            Poll::Ready(Some(Ok(Frame::data(bytes))))
        })
    }
}

#[tokio::test]
async fn a_dropped_response_closes_its_connection_while_the_request_is_still_sent() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("engine.sock")).unwrap();
    let engine = Engine::new(dir.path().join("engine.sock"));
    let server = tokio::spawn(async move {
        let mut stream = negotiated(&listener).await;
        read_head(&mut stream).await;
        stream
            .write_all(json("400 Bad Request", "no").as_bytes())
            .await
            .unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    });
    let body = Endless(Some(Bytes::from_static(b"part"))).boxed_unsync();
    let response = engine
        .send(Method::POST, "/build", &[], body, None)
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    drop(response);
    let closed = tokio::time::timeout(Duration::from_secs(5), server).await;
    closed.expect("the connection is closed").unwrap();
}

#[tokio::test]
async fn an_upgraded_connection_carries_raw_bytes_and_half_closes() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("engine.sock")).unwrap();
    let engine = Engine::new(dir.path().join("engine.sock"));
    let server = tokio::spawn(async move {
        let mut stream = negotiated(&listener).await;
        let head = read_head(&mut stream).await;
        let answer = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                      Connection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        stream
            .write_all(said.to_uppercase().as_bytes())
            .await
            .unwrap();
        head
    });
    let upgraded = engine
        .upgrade(
            Method::POST,
            "/containers/x/attach?stream=1",
            &[],
            empty(),
            None,
        )
        .await;
    let Ok(Upgrade::Switched { head, io }) = upgraded else {
        panic!("{upgraded:?}")
    };
    assert_eq!(
        head.headers()["content-type"],
        "application/vnd.docker.raw-stream"
    );
    let mut io = TokioIo::new(io);
    io.write_all(b"input").await.unwrap();
    io.shutdown().await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "early INPUT");
    let head = server.await.unwrap().to_lowercase();
    assert!(
        head.contains("connection: upgrade\r\n") && head.contains("upgrade: tcp\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let (_scripted, engine) = Scripted::new(vec![
        ("GET /version ", json("200 OK", VERSION)),
        (
            "POST /v1.41/exec/x/start ",
            json("409 Conflict", r#"{"message":"paused"}"#),
        ),
    ]);
    let upgrade = engine
        .upgrade(Method::POST, "/exec/x/start", &[], full("{}"), None)
        .await;
    let Ok(Upgrade::Answered(response)) = upgrade else {
        panic!("{upgrade:?}")
    };
    assert_eq!(response.status(), StatusCode::CONFLICT);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], br#"{"message":"paused"}"#);
}

#[test]
fn a_socket_is_a_path_or_a_url() {
    assert_eq!(
        Engine::new("unix:///run/x.sock").socket(),
        std::path::Path::new("/run/x.sock")
    );
    assert_eq!(
        Engine::new("/run/x.sock").socket(),
        std::path::Path::new("/run/x.sock")
    );
}

#[test]
fn versions_are_two_plain_numbers() {
    assert_eq!(
        ApiVersion::parse("1.41"),
        Some(ApiVersion {
            major: 1,
            minor: 41
        })
    );
    assert!(ApiVersion::parse("1.9") < ApiVersion::parse("1.41"));
    for wrong in [
        "", "1", "1.", ".1", "1.2.3", "+1.2", "1.-2", "v1.2", "1.70000",
    ] {
        assert_eq!(ApiVersion::parse(wrong), None, "{wrong}");
    }
}
