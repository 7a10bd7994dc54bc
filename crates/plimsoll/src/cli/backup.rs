//! `plimsoll backup` and `restore`: the databases, on the server's own host.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::answer::Answer;
use super::args::Global;
use super::error::CliError;
use crate::config::Sources;

/// The data directory that was named, or the configured one.
fn data_dir(global: &Global, named: Option<PathBuf>) -> Result<PathBuf, CliError> {
    match named {
        Some(dir) => Ok(dir),
        None => Ok(Sources::of_process(global.config.clone())
            .load()?
            .0
            .data_dir),
    }
}

pub(super) fn make(global: &Global, to: &Path, from: Option<PathBuf>) -> Result<Answer, CliError> {
    let copies = plimsoll_store::backup(&data_dir(global, from)?, to)?;
    let shown: Vec<_> = copies
        .iter()
        .map(|copy| copy.display().to_string())
        .collect();
    let text = format!("{}\n", shown.join("\n"));
    let answer = Answer::new(json!({"files": shown}), text);
    Ok(answer.remarking("keys and certificates (tls/) and the configuration are no part of it"))
}

pub(super) fn put_back(
    global: &Global,
    from: &Path,
    to: Option<PathBuf>,
    now_ms: i64,
) -> Result<Answer, CliError> {
    let data_dir = data_dir(global, to)?;
    let aside = plimsoll_store::restore(from, &data_dir, now_ms)?;
    let aside = aside.map(|dir| dir.display().to_string());
    let was = aside
        .as_ref()
        .map(|dir| format!("; what was there is in {dir}"));
    let text = format!(
        "restored {}{}\n",
        data_dir.display(),
        was.unwrap_or_default()
    );
    Ok(Answer::new(
        json!({"dataDir": data_dir, "before": aside}),
        text,
    ))
}
