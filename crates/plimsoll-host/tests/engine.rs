//! The client, the cgroups and the collector against a real Docker Engine of the test's own.
//!
//! Needs root, `dockerd`, and a static busybox; without them it says so and passes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use plimsoll_core::units::{Bytes, MilliCpu};
use plimsoll_host::cgroup::{CapError, Caps, Driver, Hierarchy, Instance, ParentPath};
use plimsoll_host::collector::{Collector, Settings};
use plimsoll_host::engine::{
    Engine, EngineError, Event, EventStream, ResourceUpdate, Upgrade, empty, full,
};
use plimsoll_host::ids::ContainerId;
use plimsoll_host::peer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BUSYBOX: &str = "/bin/busybox";
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine with its own directories and socket, and without networks.
struct Dockerd {
    dir: TempDir,
    process: Child,
}

impl Dockerd {
    fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
            eprintln!("skipped: needs root and {BUSYBOX}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        // In a network namespace of its own: `--bridge=none` removes the host's default bridge.
        let process = Command::new("unshare")
            .args(["--net", "dockerd"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args([
                "--host",
                &format!("unix://{}", at("docker.sock")),
                "--pidfile",
                &at("pid"),
            ])
            .args(["--bridge=none", "--iptables=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        match process {
            Ok(process) => Some(Self { dir, process }),
            Err(error) => {
                eprintln!("skipped: cannot start dockerd: {error}");
                None
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The client, once the engine answers.
    async fn engine(&mut self) -> Engine {
        let engine = Engine::new(self.dir.path().join("docker.sock"));
        let mut tries = tokio::time::interval(Duration::from_millis(50));
        loop {
            tries.tick().await;
            match engine.negotiate().await {
                Ok(version) => {
                    assert!(version.api >= version.api_min && version.api <= version.api_max);
                    return engine;
                }
                Err(EngineError::Unreachable { .. }) => {
                    let ended = self.process.try_wait().unwrap();
                    assert!(ended.is_none(), "dockerd ended: {}", self.log());
                }
                Err(error) => panic!("{error:?}: {}", self.log()),
            }
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // It stops its containers and its containerd before it ends.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

/// A tar with busybox in it.
fn image_tar(dir: &Path) -> Vec<u8> {
    let bin = dir.join("image/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
    for applet in ["sh", "cat", "true", "sleep"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    let tar = Command::new("tar")
        .arg("-C")
        .arg(dir.join("image"))
        .args(["-c", "."])
        .output();
    tar.unwrap().stdout
}

async fn create(engine: &Engine, body: serde_json::Value) -> ContainerId {
    let json = [(CONTENT_TYPE, "application/json")];
    let response = engine
        .send(
            Method::POST,
            "/containers/create",
            &json,
            full(body.to_string()),
            Some(PATIENCE),
        )
        .await
        .unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(status, StatusCode::CREATED, "{body:?}");
    let reply: serde_json::Value = serde_json::from_slice(&body).unwrap();
    reply["Id"].as_str().unwrap().parse().unwrap()
}

/// Reads events until `verb` happens to `id`.
async fn wait_for(events: &mut EventStream, id: &ContainerId, verb: &str) -> Event {
    tokio::time::timeout(PATIENCE, async {
        loop {
            let event = events.next().await.unwrap().expect("the engine goes on");
            if event.id == id.as_str() && event.verb() == verb {
                return event;
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no {verb} of {id}"))
}

struct Cgroups {
    hierarchy: Hierarchy,
    path: ParentPath,
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let mut levels = self.path.levels();
        while let Some(level) = levels.pop() {
            let _ = self.hierarchy.remove_if_empty(&level);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_engine_and_the_kernel_agree_with_what_this_crate_says() {
    let Some(mut dockerd) = Dockerd::start() else {
        return;
    };
    let engine = dockerd.engine().await;

    let info = engine.info().await.unwrap();
    assert!(info.ncpu > 0 && info.mem_total > 0);
    assert_eq!(
        PathBuf::from(&info.docker_root_dir),
        dockerd.dir.path().join("data")
    );
    let driver: Driver = info.cgroup_driver.parse().unwrap();

    // An image, by a streamed body.
    assert!(engine.image_inspect("bb:1").await.unwrap().is_none());
    let tar = image_tar(dockerd.dir.path());
    let tar_type = [(CONTENT_TYPE, "application/x-tar")];
    let import = "/images/create?fromSrc=-&repo=bb&tag=1";
    let response = engine
        .send(Method::POST, import, &tar_type, full(tar), Some(PATIENCE))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.unwrap();
    let image = engine.image_inspect("bb:1").await.unwrap().unwrap();
    assert_eq!(image.repo_tags, ["bb:1"]);
    assert!(image.size > 0 && image.root_fs.layers.len() == 1);

    // A parent cgroup, capped before anything runs in it.
    let hierarchy = Hierarchy::detect(Path::new("/sys/fs/cgroup"), driver).unwrap();
    let instance: Instance = format!("engine_{}", std::process::id()).parse().unwrap();
    let path = ParentPath::user(instance, Some(1), 2);
    let cgroups = Cgroups {
        hierarchy: hierarchy.clone(),
        path: path.clone(),
    };
    let caps = |milli| Caps {
        cpu: Some(MilliCpu(milli)),
        memory: Some(Bytes(256 << 20)),
        pids: Some(100),
    };
    for (level, outcome) in hierarchy.apply_tree(&[(path.clone(), caps(1_000))]) {
        assert!(outcome.unwrap().refused.is_empty(), "{level}");
    }

    let mut events = engine.events(None, &["container"]).await.unwrap();
    let id = create(
        &engine,
        serde_json::json!({
            "Image": image.id, "Cmd": ["/bin/cat"], "OpenStdin": true, "StdinOnce": true,
            "Labels": { "plimsoll.test": "a b" },
            "HostConfig": {
                "NanoCpus": 500_000_000, "Memory": 64 << 20, "MemorySwap": 64 << 20,
                "NetworkMode": "none", "CgroupParent": hierarchy.cgroup_parent(&path),
                "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 2 },
                "Tmpfs": { "/scratch": "size=1m" },
            },
        }),
    )
    .await;
    let created = engine.inspect(id.as_str()).await.unwrap().unwrap();
    assert!(created.state.started_at.is_none() && !created.holds_runtime());

    // Attach before start, as the CLI does, so that nothing is missed.
    let attach = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1");
    let attached = engine
        .upgrade(Method::POST, &attach, &[], empty(), Some(PATIENCE))
        .await;
    let Ok(Upgrade::Switched { io, .. }) = attached else {
        panic!("{attached:?}")
    };
    engine.start(id.as_str()).await.unwrap();
    engine
        .start(id.as_str())
        .await
        .expect("starting what runs is no error");
    let started = wait_for(&mut events, &id, "start").await;
    assert_eq!(started.attributes["plimsoll.test"], "a b");

    let running = engine.inspect(id.as_str()).await.unwrap().unwrap();
    assert!(running.state.running && running.holds_runtime());
    assert_eq!(running.host_config.nano_cpus, 500_000_000);
    assert_eq!(running.host_config.restart_policy.maximum_retry_count, 2);
    assert_eq!(running.host_config.tmpfs["/scratch"], "size=1m");
    assert_eq!(
        ParentPath::parse(&running.host_config.cgroup_parent, path.instance()),
        Some(path.clone())
    );
    let listed = engine.list(false, &["plimsoll.test=a b"]).await.unwrap();
    assert_eq!(
        listed
            .iter()
            .map(|container| container.id)
            .collect::<Vec<_>>(),
        [id]
    );
    assert!(
        engine
            .list(true, &["plimsoll.test=other"])
            .await
            .unwrap()
            .is_empty()
    );

    // Its process says which container it is in, and its cgroup is where we said.
    let proc_root = Path::new("/proc");
    assert_eq!(
        peer::container_of(proc_root, running.state.pid).unwrap(),
        Some(id)
    );
    let dirs = hierarchy.container_dirs(&path, &id);
    let processes = std::fs::read_to_string(dirs.memory().join("cgroup.procs")).unwrap();
    assert!(
        processes
            .lines()
            .any(|pid| pid == running.state.pid.to_string()),
        "{processes}"
    );

    let mut collector = Collector::new(Settings::default());
    collector.watch("container", dirs);
    collector.watch("user", hierarchy.dirs(&path));
    let mut samples = Vec::new();
    collector.cycle(Duration::ZERO, |key, sample| samples.push((*key, *sample)));
    let [("container", container), ("user", user)] = samples[..] else {
        panic!("{samples:?}")
    };
    assert_eq!((container.pids, user.pids), (Some(1), Some(1)));
    assert!(container.cpu_ns.unwrap() > 0 && user.cpu_ns >= container.cpu_ns);
    assert!(container.working_set_bytes().is_some() && container.throttling.is_some());

    // Lowering the parent's CPU: first the child, through the engine.
    if hierarchy.version() == plimsoll_host::cgroup::Version::V1 {
        let refused = hierarchy.apply(&path, caps(250)).unwrap().refused;
        assert!(
            matches!(
                refused[..],
                [CapError::CpuBelowChild {
                    child: MilliCpu(500),
                    ..
                }]
            ),
            "{refused:?}"
        );
    }
    let update = ResourceUpdate {
        nano_cpus: Some(200_000_000),
        ..ResourceUpdate::default()
    };
    engine.update(id.as_str(), &update).await.unwrap();
    let applied = hierarchy.apply(&path, caps(250)).unwrap();
    assert!(applied.refused.is_empty(), "{:?}", applied.refused);

    engine.pause(id.as_str()).await.unwrap();
    let paused = engine.inspect(id.as_str()).await.unwrap().unwrap();
    assert!(paused.state.paused && paused.holds_runtime());
    engine.unpause(id.as_str()).await.unwrap();

    // What goes in comes out, and the end of the input ends it.
    let mut io = TokioIo::new(io);
    io.write_all(b"hello\n").await.unwrap();
    io.shutdown().await.unwrap();
    let mut output = Vec::new();
    tokio::time::timeout(PATIENCE, io.read_to_end(&mut output))
        .await
        .unwrap()
        .unwrap();
    // Eight bytes of frame header stand before what the container wrote.
    assert_eq!(&output[8..], b"hello\n");
    let died = wait_for(&mut events, &id, "die").await;
    assert_eq!(died.attributes["exitCode"], "0");
    let exited = engine.inspect(id.as_str()).await.unwrap().unwrap();
    assert!(
        !exited.holds_runtime(),
        "a success is not retried: {:?}",
        exited.state
    );
    assert!(exited.state.finished_at >= exited.state.started_at);

    let report = collector.cycle(Duration::from_secs(1), |_, _| {});
    assert_eq!(
        report.gone.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        ["container"]
    );
    assert!(
        report.gone[0].1.cpu_ns.unwrap() > 0,
        "the last known figures are handed back"
    );

    engine
        .stop(id.as_str(), Some(Duration::ZERO))
        .await
        .expect("stopping what stands is no error");
    engine.remove(id.as_str(), true).await.unwrap();
    wait_for(&mut events, &id, "destroy").await;
    assert!(engine.inspect(id.as_str()).await.unwrap().is_none());
    assert!(
        engine
            .remove(id.as_str(), true)
            .await
            .unwrap_err()
            .is_not_found()
    );
    for level in path.levels().into_iter().rev() {
        assert!(hierarchy.remove_if_empty(&level).unwrap(), "{level}");
    }
    drop(cgroups);
}
