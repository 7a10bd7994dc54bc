//! `plimsoll serve`

use super::answer::Answer;
use super::args::{Global, ServeFlags};
use super::error::CliError;
use super::runtime;
use crate::config::Sources;

pub(super) fn run(global: &Global, flags: ServeFlags) -> Result<Answer, CliError> {
    let mut sources = Sources::of_process(global.config.clone());
    sources.flags = set_by(global, flags)?;
    let (config, warnings) = sources.load()?;
    log_to_stderr(&sources);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    runtime(true)?.block_on(crate::serve::serve(config))?;
    Ok(Answer::silent())
}

/// Keys set by flags: the flag, the key, the value.
fn set_by(global: &Global, flags: ServeFlags) -> Result<Vec<(String, String, String)>, CliError> {
    let socket = global
        .api_socket
        .as_ref()
        .map(|path| path.display().to_string());
    let gateway = (!flags.gateway.is_empty()).then(|| flags.gateway.join(","));
    let named = [
        ("--data-dir", "data_dir", flags.data_dir),
        ("--listen", "listen", flags.listen),
        ("--api-socket", "api_socket", socket),
        ("--gateway", "gateway", gateway),
        ("--engine", "engine", flags.engine),
        ("--instance", "instance", flags.instance),
        ("--host", "host", flags.host),
        ("--cgroup-root", "cgroup_root", flags.cgroup_root),
        ("--authz-socket", "authz.socket", flags.authz_socket),
    ];
    let mut all: Vec<_> = named
        .into_iter()
        .filter_map(|(flag, key, value)| Some((flag.to_owned(), key.to_owned(), value?)))
        .collect();
    for text in flags.set {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            CliError::Usage(format!(
                "--set {text}: must be KEY=VALUE, like metering.interval_s=1"
            ))
        })?;
        all.push((format!("--set {text}"), key.to_owned(), value.to_owned()));
    }
    Ok(all)
}

fn log_to_stderr(sources: &Sources) {
    let wanted = sources
        .environment
        .iter()
        .find(|(name, _)| name == "PLIMSOLL_LOG");
    let filter = wanted
        .and_then(|(_, value)| value.to_str())
        .and_then(|text| text.parse::<tracing_subscriber::EnvFilter>().ok())
        .unwrap_or_else(|| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
}
