//! What the engine would say about itself, from the tenant's point of view.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use plimsoll_core::Dimension;
use plimsoll_host::request::query::{Filters, QueryBuilder};
use plimsoll_store::TeamChoice;
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::refused::Refused;
use super::resolve;
use super::route::Call;
use super::view;
use crate::engine_facts::engine_facts;
use crate::state::App;

pub(super) async fn ping(app: &Arc<App>, method: &Method) -> Result<Response<Body>, Refused> {
    if method != Method::GET && method != Method::HEAD {
        return Err(Refused::denied(
            "route_closed",
            format!("{method} /_ping is not open here"),
        ));
    }
    // An engine that is away is away for tenants, too.
    engine_facts(app).await?;
    let mut response = Response::new(answer::whole("OK"));
    let headers = response.headers_mut();
    headers.insert(
        "content-type",
        "text/plain; charset=utf-8".parse().expect("a plain header"),
    );
    headers.insert(
        "cache-control",
        "no-cache, no-store, must-revalidate"
            .parse()
            .expect("plain"),
    );
    headers.insert("builder-version", "1".parse().expect("plain"));
    Ok(response)
}

pub(super) async fn version(call: Call) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    let facts = engine_facts(&call.app).await?;
    let info = call.app.engine.info().await?;
    let api = facts.version.api.to_string();
    let body = json!({
        "Platform": {"Name": concat!("Plimsoll ", env!("CARGO_PKG_VERSION"))},
        "Components": [{
            "Name": "Engine", "Version": facts.version.engine,
            "Details": {"ApiVersion": api, "MinAPIVersion": "1.24", "Os": "linux",
                        "Arch": std::env::consts::ARCH, "KernelVersion": info.kernel_version,
                        "Experimental": "false"},
        }],
        "Version": facts.version.engine, "ApiVersion": api, "MinAPIVersion": "1.24",
        "GitCommit": "", "GoVersion": "", "Os": "linux", "Arch": std::env::consts::ARCH,
        "KernelVersion": info.kernel_version,
    });
    Ok(answer::json(StatusCode::OK, &body))
}

pub(super) async fn info(call: Call) -> Result<Response<Body>, Refused> {
    call.query.finish()?;
    let app = &call.app;
    let info = app.engine.info().await?;
    let own = resolve::all(app, &call.user).await?;
    let query = QueryBuilder::new().bool("all", true);
    let listed = view::listed(app, &call.user, &own, query, Filters::new()).await?;
    let count = |state: &str| {
        let is_own = |c: &&Value| c["Id"].as_str().is_some_and(|id| own.contains_key(id));
        let there = listed.iter().filter(is_own);
        there.filter(|c| c["State"] == state).count()
    };
    let (running, paused) = (count("running"), count("paused"));
    let eyes = crate::images::Eyes::of(app, call.user.id)?;
    let images = app.engine.images().await?;
    let images = images
        .iter()
        .filter(|image| eyes.see(&image.repo_tags).is_visible())
        .count();
    let path = app
        .store
        .path(call.user.id, TeamChoice::Default, &app.lease.host)?;
    let limits = path.effective_limits();
    let cpus = limits[Dimension::Cpu]
        .at_most()
        .map_or(u64::from(info.ncpu), |m| m.div_ceil(1000));
    let memory = limits[Dimension::Memory]
        .at_most()
        .unwrap_or(info.mem_total);
    let mut labels = vec![format!("plimsoll.user={}", call.user.name)];
    let span = app.config.ports.of_slot(call.user.port_slot);
    labels.extend(span.map(|span| format!("plimsoll.ports={}-{}", span.first, span.last)));
    let mut body = json!({
        "ID": info.id, "Name": info.name, "ServerVersion": info.server_version,
        "Containers": own.len(), "ContainersRunning": running, "ContainersPaused": paused,
        "ContainersStopped": own.len().saturating_sub(running + paused), "Images": images,
        "Driver": info.driver, "CgroupDriver": info.cgroup_driver,
        "CgroupVersion": info.cgroup_version, "KernelVersion": info.kernel_version,
        "OperatingSystem": info.operating_system, "Architecture": std::env::consts::ARCH,
        "NCPU": cpus, "MemTotal": memory, "LiveRestoreEnabled": info.live_restore_enabled,
        "Labels": labels,
        "SecurityOptions": info.security_options,
    });
    if let (Value::Object(body), Value::Object(constant)) = (&mut body, what_never_differs()) {
        body.extend(constant);
    }
    Ok(answer::json(StatusCode::OK, &body))
}

/// What clients look for that is the same on every host.
fn what_never_differs() -> Value {
    json!({
        "DriverStatus": [], "SystemStatus": null, "OSType": "linux", "LoggingDriver": "json-file",
        "Plugins": {"Volume": [], "Network": ["bridge", "null"], "Authorization": null,
                    "Log": ["json-file", "local", "none"]},
        "MemoryLimit": true, "SwapLimit": true, "CpuCfsPeriod": true, "CpuCfsQuota": true,
        "CPUShares": true, "CPUSet": false, "PidsLimit": true, "IPv4Forwarding": true,
        "OomKillDisable": false, "Debug": false, "ExperimentalBuild": false, "Isolation": "",
        "IndexServerAddress": "", "RegistryConfig": null, "DockerRootDir": "", "InitBinary": "",
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "", "Warnings": [],
        "Runtimes": {"runc": {"path": "runc"}}, "DefaultRuntime": "runc",
        "Swarm": {"LocalNodeState": "inactive"},
    })
}
