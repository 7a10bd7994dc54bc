//! Completions and manual pages, out of the command tree.

use std::path::Path;

use clap::CommandFactory as _;
use serde_json::{Value, json};

use super::answer::Answer;
use super::args::Cli;
use super::error::CliError;

pub(super) fn completions(shell: clap_complete::Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "plimsoll", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Answer::new(Value::String(script.clone()), script)
}

pub(super) fn man(dir: Option<&Path>) -> Result<Answer, CliError> {
    let Some(dir) = dir else {
        let page = render(Cli::command())?;
        return Ok(Answer::new(Value::String(page.clone()), page));
    };
    let failed = |source| CliError::Io {
        verb: "write",
        path: dir.display().to_string(),
        source,
    };
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    let entries = std::fs::read_dir(dir).map_err(failed)?;
    let names = entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned());
    let mut written: Vec<String> = names
        .filter(|name| name.starts_with("plimsoll") && name.ends_with(".1"))
        .collect();
    written.sort();
    let said = written
        .iter()
        .fold(String::new(), |page, name| page + name + "\n");
    Ok(Answer::new(json!(written), said))
}

fn render(command: clap::Command) -> Result<String, CliError> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|source| CliError::Io {
            verb: "write",
            path: "the manual page".to_owned(),
            source,
        })?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
