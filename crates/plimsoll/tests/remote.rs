//! The stores of a history side by side: the embedded one, Prometheus and VictoriaMetrics, each the real
//! program. What holds for one holds for all.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are outside the server: they may look at the clock"
)]

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use plimsoll::remote::{Place, Reader, RemoteError, Sender};
use plimsoll_core::metric::Metric;
use plimsoll_store::history::{Ask, Bucket, History, Labels, Point, Settings, Tick};

const SECOND: i64 = 1000;
const STEP: i64 = 60 * SECOND;
const INSTANCE: &str = "contract";

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_millis() as i64
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Program {
    Prometheus,
    VictoriaMetrics,
}

/// A store of a test's own, on a port of its own.
struct Server {
    program: Program,
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Server {
    fn start(program: Program) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(program, dir.path(), port);
        let server = Self {
            program,
            dir,
            port,
            child,
        };
        server.wait();
        server
    }

    fn wait(&self) {
        let began = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{:?}",
                self.program
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = spawn(self.program, self.dir.path(), self.port);
        self.wait();
    }

    fn place(&self, path: &str) -> Place {
        Place {
            url: format!("http://127.0.0.1:{}{path}", self.port)
                .parse()
                .unwrap(),
            token_file: None,
        }
    }

    fn sender(&self, history: &Arc<History>) -> Sender {
        let place = self.place("/api/v1/write");
        Sender::new(Arc::clone(history), place, INSTANCE.into(), 0)
    }

    fn reader(&self) -> Reader {
        Reader {
            place: self.place(""),
            instance: INSTANCE.into(),
            interval_ms: 10_000,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: Program, dir: &Path, port: u16) -> Child {
    let address = format!("127.0.0.1:{port}");
    let data = dir.join("data").display().to_string();
    let mut command = match program {
        Program::Prometheus => {
            let config = dir.join("prometheus.yml");
            std::fs::write(&config, "global: {}\n").unwrap();
            let mut command = Command::new("prometheus");
            command
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={data}"))
                .arg(format!("--web.listen-address={address}"))
                .arg("--web.enable-remote-write-receiver");
            command
        }
        Program::VictoriaMetrics => {
            let mut command = Command::new("victoria-metrics");
            command
                .arg(format!("-storageDataPath={data}"))
                .arg(format!("-httpListenAddr={address}"))
                // What was written is found at once, and as it is.
                .arg("-search.latencyOffset=0s")
                // A reading that comes twice counts once, as in Prometheus; docs/configuration.md asks for it.
                .arg("-dedup.minScrapeInterval=1ms")
                .arg("-search.disableCache");
            command
        }
    };
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("scripts/test.sh installs it")
}

/// Twenty minutes of readings with a gap of five, the last of them just now, or at the end of the hour
/// before: what is sent on is still in the log.
fn measured() -> (tempfile::TempDir, Arc<History>, i64) {
    let dir = tempfile::tempdir().unwrap();
    let now = now_ms().div_euclid(STEP) * STEP;
    let into_hour = now.rem_euclid(60 * STEP);
    let end = if into_hour < 20 * STEP {
        now - into_hour - 10 * STEP
    } else {
        now
    };
    let from_ms = end - 20 * STEP;
    let history = History::open(dir.path(), Settings::default(), from_ms).unwrap();
    let labels = Labels {
        name: Some("web \"1\"".into()),
        project: Some("shop".into()),
        ..Labels::default()
    };
    history.describe("container:c", labels);
    let minutes = (0..8).chain(13..20);
    for index in minutes.flat_map(|minute| minute * 6..(minute + 1) * 6) {
        add(&history, from_ms, index);
    }
    (dir, Arc::new(history), from_ms)
}

fn add(history: &History, from_ms: i64, index: i64) {
    let value = index.cast_unsigned();
    let point = |entity: &str, scale: u64| Point {
        entity: entity.to_owned(),
        values: vec![
            (Metric::Cpu, value * scale),
            (Metric::Memory, value << 20),
            (Metric::OomKills, value % 2),
        ],
    };
    let tick = Tick {
        at_ms: from_ms + index * 10 * SECOND,
        points: vec![point("container:c", 10), point("system", 20)],
        ..Tick::default()
    };
    history.append(&tick).unwrap();
}

fn ask(entity: &str, metric: Metric, from_ms: i64) -> Ask<'_> {
    Ask {
        entity,
        metric,
        from_ms,
        to_ms: from_ms + 20 * STEP,
        step_ms: Some(STEP),
        points_max: 1000,
        now_ms: from_ms + 20 * STEP,
    }
}

/// What every store must say of [`measured`].
fn check(what: &str, metric: Metric, scale: u64, points: &[Bucket], from_ms: i64) {
    let minutes: Vec<i64> = points.iter().map(|p| (p.at_ms - from_ms) / STEP).collect();
    let expected: Vec<i64> = (0..8).chain(13..20).collect();
    assert_eq!(minutes, expected, "{what}: a gap is a gap");
    for (point, minute) in points.iter().zip(expected) {
        let first = minute.cast_unsigned() * 6;
        let (value, max, total) = match metric {
            Metric::OomKills => (3.0, 1, 3.0),
            _ => {
                let average = (first as f64 + 2.5) * scale as f64;
                (average, (first + 5) * scale, average * 60.0)
            }
        };
        let near = |found: f64, expected: f64| (found - expected).abs() <= expected * 1e-9;
        // The embedded store knows how long the first reading of all held: no time.
        let first_minute = minute == 0 || minute == 13;
        assert!(
            first_minute || near(point.value, value),
            "{what}: {point:?}, not {value}"
        );
        assert!(
            first_minute || near(point.total, total),
            "{what}: {point:?}, not {total}"
        );
        assert_eq!((point.max, point.samples), (max, 6), "{what}");
    }
}

const ASKED: [(&str, Metric, u64); 4] = [
    ("container:c", Metric::Cpu, 10),
    ("system", Metric::Cpu, 20),
    ("container:c", Metric::Memory, 1 << 20),
    ("system", Metric::OomKills, 1),
];

#[test]
fn the_embedded_store_keeps_the_contract() {
    let (_dir, history, from_ms) = measured();
    for (entity, metric, scale) in ASKED {
        let series = history.series(&ask(entity, metric, from_ms)).unwrap();
        assert_eq!(series.step_ms, STEP);
        check("embedded", metric, scale, &series.points, from_ms);
    }
}

async fn points(server: &Server, ask: &Ask<'_>, count: usize) -> Vec<Bucket> {
    let began = Instant::now();
    loop {
        let points = server.reader().series(ask, STEP).await.unwrap();
        let samples: u32 = points.iter().map(|p| p.samples).sum();
        if samples as usize >= count || began.elapsed() > Duration::from_secs(30) {
            return points;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn contract(program: Program) {
    let (_dir, history, from_ms) = measured();
    let mut server = Server::start(program);
    let mut sender = server.sender(&history);
    let sent = loop {
        // It may listen before it is ready.
        match sender.send(now_ms()).await {
            Ok(sent) => break sent,
            Err(RemoteError::Status { status, .. }) if status >= 500 => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    };
    assert_eq!(
        (sent.readings, sent.refused, sent.dropped, sent.waiting),
        (90, 0, 0, 0)
    );
    for (entity, metric, scale) in ASKED {
        let found = points(&server, &ask(entity, metric, from_ms), 90).await;
        check(&format!("{program:?}"), metric, scale, &found, from_ms);
    }
    // A server that was restarted sends all that is in its log again.
    server.sender(&history).send(now_ms()).await.unwrap();
    let nobody = ask("user:nobody", Metric::Cpu, from_ms);
    assert_eq!(server.reader().series(&nobody, STEP).await.unwrap(), []);

    // Away, and back: what was measured meanwhile comes after.
    server.kill();
    for index in 120..132 {
        add(&history, from_ms, index);
    }
    assert!(matches!(
        sender.send(now_ms()).await,
        Err(RemoteError::Http(_))
    ));
    assert_eq!(sender.sent.waiting, 12);
    server.restart();
    let began = Instant::now();
    while sender.send(now_ms()).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sent = sender.sent;
    assert_eq!(
        (sent.readings, sent.refused, sent.dropped, sent.waiting),
        (102, 0, 0, 0)
    );
    let mut longer = ask("system", Metric::Cpu, from_ms);
    longer.to_ms += 2 * STEP;
    let found = points(&server, &longer, 102).await;
    let samples: u32 = found.iter().map(|p| p.samples).sum();
    assert_eq!(
        samples, 102,
        "none is lost and none is there twice, though a store that is killed forgets what it took"
    );
}

#[tokio::test]
async fn prometheus_keeps_the_contract() {
    contract(Program::Prometheus).await;
}

#[tokio::test]
async fn victoria_metrics_keeps_the_contract() {
    contract(Program::VictoriaMetrics).await;
}

#[tokio::test]
async fn what_leaves_the_log_unsent_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path(), Settings::default(), 0).unwrap();
    let history = Arc::new(history);
    let nowhere = Place {
        url: "http://127.0.0.1:9/api/v1/write".parse().unwrap(),
        token_file: None,
    };
    let mut sender = Sender::new(Arc::clone(&history), nowhere, INSTANCE.into(), 0);
    let from_ms = 1_700_006_400_000;
    for index in 0..1000 {
        add(&history, from_ms, index);
    }
    assert!(sender.send(now_ms()).await.is_err());
    let sent = sender.sent;
    assert_eq!(sent.dropped + sent.waiting, 1000);
    // The hours that are over, without the one that is open.
    assert_eq!((sent.dropped, sent.waiting), (720, 280));
    assert!(sender.send(now_ms()).await.is_err());
    assert_eq!(sender.sent.dropped, 720, "each is counted once");
}

/// Hours that nobody takes.
fn waiting(unsent_hours: u64) -> (tempfile::TempDir, Settings) {
    let settings = Settings {
        unsent_hours,
        ..Settings::default()
    };
    (tempfile::tempdir().unwrap(), settings)
}

#[tokio::test]
async fn hours_that_are_cut_unsent_wait_for_a_store_that_comes_back() {
    let (dir, settings) = waiting(24);
    let from_ms = now_ms() - 6 * 60 * STEP;
    let open = || Arc::new(History::open(dir.path(), settings, from_ms).unwrap());
    let history = open();
    for index in 0..1000 {
        add(&history, from_ms, index);
    }
    drop(history);
    // Over a restart, too.
    let history = open();
    for index in 1000..2000 {
        add(&history, from_ms, index);
    }
    let store = Server::start(Program::VictoriaMetrics);
    let mut sender = store.sender(&history);
    let began = Instant::now();
    while sender.send(now_ms()).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((sender.sent.readings, sender.sent.dropped), (2000, 0));
    let mut all = ask("system", Metric::Cpu, from_ms);
    all.to_ms = from_ms + 6 * 60 * STEP;
    let found = points(&store, &all, 2000).await;
    let samples: u32 = found.iter().map(|p| p.samples).sum();
    assert_eq!(samples, 2000);

    // What was taken, and is not sent again after an outage, waits no longer.
    sender.send(now_ms() + 6 * STEP).await.unwrap();
    for index in 2000..2040 {
        add(&history, from_ms, index);
    }
    let (_, left) = history.log_after(i64::MIN, 0).unwrap();
    assert!(
        left < 2 * 360,
        "the open hour, and what is not cut yet: {left}"
    );
}

#[tokio::test]
async fn what_waits_too_long_is_given_up_and_counted_also_from_before_a_restart() {
    let (dir, settings) = waiting(2);
    let open = || Arc::new(History::open(dir.path(), settings, 0).unwrap());
    let from_ms = 1_700_006_400_000;
    let history = open();
    for index in 0..1000 {
        add(&history, from_ms, index);
    }
    assert_eq!(history.log_after(i64::MIN, 0).unwrap().1, 1000);
    drop(history);
    let history = open();
    let nowhere = Place {
        url: "http://127.0.0.1:9/api/v1/write".parse().unwrap(),
        token_file: None,
    };
    let known_ms = from_ms + 999 * 10 * SECOND;
    let mut sender = Sender::new(Arc::clone(&history), nowhere, INSTANCE.into(), known_ms);
    for index in 1000..2000 {
        add(&history, from_ms, index);
    }
    assert!(sender.send(known_ms).await.is_err());
    // The sixth hour is open, two more are kept.
    assert_eq!(history.log_after(i64::MIN, 0).unwrap().1, 200 + 2 * 360);
    assert_eq!(sender.sent.dropped, 3 * 360);
    assert!(sender.send(known_ms).await.is_err());
    assert_eq!(sender.sent.dropped, 3 * 360, "each is counted once");
}
