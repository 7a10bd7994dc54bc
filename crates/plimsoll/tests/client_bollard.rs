//! A Rust client that nobody here wrote. It reads every answer into types made from the engine's own
//! description, so a field of the wrong shape is an error.

mod common;

use std::collections::HashMap;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, EventsOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StatsOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use common::{IMAGE, Server};
use futures_util::{Stream, StreamExt};
use serde_json::json;

/// What a stream of output says until it has said `end`.
async fn read<E: std::fmt::Debug>(
    mut output: impl Stream<Item = Result<LogOutput, E>> + Unpin,
    end: &str,
) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let part = output.next().await.expect("more output");
        text.push_str(&part.expect("output").to_string());
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_bollard() {
    let server = Server::start();
    // This process speaks to the gateway, so the tenant is whoever runs the tests.
    let uid = rustix::process::getuid().as_raw();
    let ada = server.tenant("ada", uid, json!({"maxMemoryGB": 1, "maxCpuCores": 2}));
    let docker = Docker::connect_with_unix(&ada.host, 30, API_DEFAULT_VERSION).unwrap();
    let docker = docker.negotiate_version().await.unwrap();
    assert!(docker.version().await.unwrap().api_version.is_some());
    assert_eq!(docker.info().await.unwrap().containers, Some(0));

    let mut filters = HashMap::new();
    filters.insert("event".to_owned(), vec!["start".to_owned()]);
    let since = EventsOptionsBuilder::default().since("0").filters(&filters);
    let mut events = Box::pin(docker.events(Some(since.build())));

    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["sh", "-c", "echo ready; cat"].map(str::to_owned).to_vec()),
        open_stdin: Some(true),
        host_config: Some(HostConfig {
            memory: Some(32 << 20),
            nano_cpus: Some(100_000_000),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let named = CreateContainerOptionsBuilder::default().name("web").build();
    let made = docker
        .create_container(Some(named), body.clone())
        .await
        .unwrap();
    assert!(
        made.warnings.iter().any(|w| w.contains("--pids-limit")),
        "{:?}",
        made.warnings
    );
    docker.start_container("web", None).await.unwrap();
    let started = events.next().await.unwrap().unwrap();
    let actor = started.actor.unwrap();
    assert_eq!(actor.id.as_deref(), Some(made.id.as_str()));
    assert_eq!(actor.attributes.unwrap()["name"], "web");

    let all = LogsOptionsBuilder::default().follow(true).stdout(true);
    let logs = Box::pin(docker.logs("web", Some(all.build())));
    assert_eq!(read(logs, "ready\n").await, "ready\n");

    let both = AttachContainerOptionsBuilder::default();
    let both = both.stdin(true).stdout(true).stream(true).build();
    let mut attached = docker.attach_container("web", Some(both)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut attached.input, b"there and back\n")
        .await
        .unwrap();
    assert_eq!(read(attached.output, "back\n").await, "there and back\n");

    let config = CreateExecOptions {
        cmd: Some(vec!["sh", "-c", "echo out; echo err >&2; exit 3"]),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    };
    let exec = docker.create_exec("web", config).await.unwrap();
    let begun = docker.start_exec(&exec.id, None::<StartExecOptions>).await;
    let StartExecResults::Attached { output, .. } = begun.unwrap() else {
        panic!("an exec that was not attached");
    };
    let parts: Vec<String> = output.map(|part| part.unwrap().to_string()).collect().await;
    let mut parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    parts.sort_unstable();
    assert_eq!(parts, ["err\n", "out\n"]);
    let ended = docker.inspect_exec(&exec.id).await.unwrap();
    assert_eq!(ended.exit_code, Some(3));

    let once = StatsOptionsBuilder::default().stream(false).build();
    let stats = Box::pin(docker.stats("web", Some(once)));
    let stats = stats.into_future().await.0.unwrap().unwrap();
    assert_eq!(stats.memory_stats.unwrap().limit, Some(32 << 20));

    let inspected = docker.inspect_container("web", None).await.unwrap();
    assert_eq!(inspected.name.as_deref(), Some("/web"));
    assert_eq!(inspected.host_config.unwrap().memory, Some(32 << 20));
    let listed = ListContainersOptionsBuilder::default().all(true).build();
    let listed = docker.list_containers(Some(listed)).await.unwrap();
    assert_eq!(listed[0].names, Some(vec!["/web".to_owned()]));
    assert!(
        !docker
            .list_images(None::<bollard::query_parameters::ListImagesOptions>)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        docker
            .list_networks(None::<bollard::query_parameters::ListNetworksOptions>)
            .await
            .unwrap()
            .len()
            == 1
    );
    assert_eq!(
        docker
            .list_volumes(None::<bollard::query_parameters::ListVolumesOptions>)
            .await
            .unwrap()
            .volumes,
        Some(vec![])
    );

    // A refusal is an error with the reason in it.
    let large = ContainerCreateBody {
        host_config: Some(HostConfig {
            memory: Some(2 << 30),
            ..HostConfig::default()
        }),
        ..body
    };
    let refused = docker.create_container(None, large).await.unwrap_err();
    assert!(
        matches!(
            &refused,
            bollard::errors::Error::DockerResponseServerError { status_code: 403, message }
                if message.contains("short by 1.03 GiB")
        ),
        "{refused:?}"
    );

    let now = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container("web", Some(now)).await.unwrap();
    assert_eq!(docker.info().await.unwrap().containers, Some(0));
}
