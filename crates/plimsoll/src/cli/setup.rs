//! `plimsoll install` and `uninstall`

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::answer::Answer;
use super::args::{Global, InstallFlags, UninstallFlags};
use super::error::CliError;
use crate::config::{Config, DEFAULT_FILE, Sources};
use crate::install::{self, Target};

pub(super) fn install(flags: &InstallFlags) -> Result<Answer, CliError> {
    let target = Target::new(&flags.root);
    let own = std::env::current_exe().map_err(|source| CliError::Io {
        verb: "find",
        path: "the running program".to_owned(),
        source,
    })?;
    let plan = install::plan(&target, &own, flags.force)?;
    if !flags.dry_run {
        plan.carry_out()?;
    }
    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    let mut page = lines(&steps);
    for skipped in &plan.skipped {
        let _ = writeln!(page, "skip   {skipped}");
    }
    if flags.dry_run {
        page.push_str("\nnothing was done\n");
    } else {
        page.push_str(&next_steps(&target));
    }
    Ok(Answer::new(
        json!({"steps": steps, "skipped": plan.skipped, "done": !flags.dry_run}),
        page,
    ))
}

fn next_steps(target: &Target) -> String {
    let start = if target.has_systemd() {
        "systemctl start plimsoll"
    } else {
        "plimsoll serve"
    };
    format!(
        "\nnext\n  \
         look at {DEFAULT_FILE}\n  \
         plimsoll doctor             what this host supports, and who walks past Plimsoll\n  \
         {start:<27} start it; from the next boot on it starts by itself\n  \
         plimsoll user add NAME --uid UID\n"
    )
}

pub(super) fn uninstall(global: &Global, flags: &UninstallFlags) -> Result<Answer, CliError> {
    let target = Target::new(&flags.root);
    // The data is where the installed configuration says, which may be below another root.
    let mut sources = Sources::of_process(global.config.clone());
    sources.default_file = target.at(DEFAULT_FILE);
    if flags.root != Path::new("/") {
        sources.environment.clear();
    }
    let config = match sources.load() {
        Ok((config, _)) => config,
        // Only a purge needs to know where the data is.
        Err(_) if !flags.purge => Config::default(),
        Err(error) => return Err(error.into()),
    };
    let removal = install::removal(&target, &config.data_dir, flags.purge)?;
    if !flags.dry_run {
        removal.carry_out()?;
    }
    let steps: Vec<String> = removal.lines().collect();
    let mut page = lines(&steps);
    page.push_str(if flags.dry_run {
        "\nnothing was done\n"
    } else {
        "\nContainers go on running, under the caps they have until the next boot.\n"
    });
    Ok(Answer::new(
        json!({"steps": steps, "done": !flags.dry_run}),
        page,
    ))
}

fn lines(steps: &[String]) -> String {
    steps
        .iter()
        .fold(String::new(), |page, step| page + step + "\n")
}
