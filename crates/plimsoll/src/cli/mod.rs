//! The command line: everything a person at a terminal or in a script asks of Plimsoll.
//!
//! Commands about people, quotas and use are clients of the HTTP API and decide nothing themselves.
//! `serve`, `doctor`, `install` and `caps` work on this host. Each command gives an `Answer`: JSON for
//! programs, text for people. Exit codes are in `Exit`, and in `docs/cli.md`.

mod args;

mod alerts;
mod amounts;
mod answer;
mod backup;
mod ca;
mod caps;
mod certs;
mod client;
mod compose;
mod containers;
mod decisions;
mod doctor;
mod error;
mod events;
mod export;
mod history;
mod images;
mod inbox;
mod ladder;
mod limits;
mod pages;
mod plot;
mod plugin;
mod projects;
mod quota;
mod recorded;
mod room;
mod serving;
mod setup;
mod shares;
mod table;
mod teams;
mod text;
mod tokens;
mod top;
mod usage;
mod users;
mod when;
mod who;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use answer::Answer;
use client::Client;
use error::{CliError, Exit};

use crate::clock::Clock;
use args::{CapsCommand, Cli, Command, Global};

/// Runs the command line given to this process.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let (json, outcome) = if plugin::is_meant(&args) {
        plugin::run(&args)
    } else {
        match Cli::try_parse_from(args) {
            Ok(cli) => (cli.global.json, run(cli)),
            Err(error) => {
                let _ = error.print();
                return ExitCode::from(
                    u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8),
                );
            }
        }
    };
    let exit = match outcome.and_then(|answer| answer.print(json)) {
        Ok(exit) => exit,
        Err(error) => {
            if json && let Some(problem) = error.problem() {
                let _ = text::print(&format!("{problem:#}\n"));
            }
            eprintln!("{}", error.message());
            error.exit()
        }
    };
    ExitCode::from(exit as u8)
}

/// Does what a command line says.
fn run(cli: Cli) -> Result<Answer, CliError> {
    let Cli { global, command } = cli;
    match command {
        Command::Serve(flags) => serving::run(&global, flags),
        Command::Install(flags) => setup::install(&flags),
        Command::Uninstall(flags) => setup::uninstall(&global, &flags),
        Command::Doctor(flags) => waiting(doctor::run(&global, &flags)),
        Command::Caps(CapsCommand::Restore) => waiting(caps::restore(&global)),
        Command::Folders => crate::folders::obey()
            .map(|()| Answer::silent())
            .map_err(|source| CliError::Io {
                verb: "obey",
                path: "the order on standard input".to_owned(),
                source,
            }),
        Command::Backup { dir, data_dir } => backup::make(&global, &dir, data_dir),
        Command::Restore { dir, data_dir } => {
            backup::put_back(&global, &dir, data_dir, Clock::default().now_ms())
        }
        Command::Ca(command) => ca::run(&global, command, Clock::default().now_ms()),
        Command::Completions { shell } => Ok(pages::completions(shell)),
        Command::Man { dir } => pages::man(dir.as_deref()),
        Command::Version => waiting(version(&global)),
        Command::Forecast(flags) => recorded::forecast(&flags, global.json),
        Command::Exhaustion(flags) => recorded::exhaustion(&flags, global.json),
        Command::Spikes(flags) => recorded::spikes(&flags, global.json),
        Command::Rightsize(flags) => recorded::rightsize(&flags, global.json),
        command => waiting(ask(&global, command)),
    }
}

/// The commands that ask the server.
async fn ask(global: &Global, command: Command) -> Result<Answer, CliError> {
    let client = &Client::new(global)?;
    let now_ms = Clock::default().now_ms();
    match command {
        Command::User(command) => users::run(client, command, now_ms).await,
        Command::Team(command) => teams::run(client, command, now_ms).await,
        Command::Project(command) => projects::run(client, command).await,
        Command::Image(command) => images::run(client, command).await,
        Command::Token(command) => tokens::run(client, command, now_ms).await,
        Command::Quota(command) => quota::run(client, command, now_ms).await,
        Command::Usage(who) => usage::run(client, &who, now_ms).await,
        Command::History(flags) => history::run(client, &flags, now_ms).await,
        Command::Top(flags) => top::run(client, &flags, global.json).await,
        Command::Export(flags) => export::run(client, &flags, global.json, now_ms).await,
        Command::Ps(flags) => containers::run(client, &flags).await,
        Command::Validate(flags) => decisions::validate(client, &flags).await,
        Command::Decisions(flags) => decisions::list(client, &flags, now_ms).await,
        Command::Why { user } => decisions::why(client, user.as_deref(), now_ms).await,
        Command::Explain { decision } => decisions::explain(client, &decision, now_ms).await,
        Command::Inbox(flags) => inbox::run(client, &flags, now_ms).await,
        Command::Enforce(flags) => ladder::enforce(client, flags).await,
        Command::Alert(command) => alerts::run(client, command, now_ms).await,
        Command::Notify(command) => alerts::notify(client, command, now_ms).await,
        Command::Shadow(command) => ladder::shadow(client, &command, now_ms).await,
        Command::Violations(flags) => decisions::violations(client, &flags, now_ms).await,
        Command::Serve(_)
        | Command::Install(_)
        | Command::Uninstall(_)
        | Command::Doctor(_)
        | Command::Backup { .. }
        | Command::Restore { .. }
        | Command::Ca(_)
        | Command::Caps(_)
        | Command::Folders
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Forecast(_)
        | Command::Exhaustion(_)
        | Command::Spikes(_)
        | Command::Rightsize(_)
        | Command::Version => unreachable!("done without a client"),
    }
}

async fn version(global: &Global) -> Result<Answer, CliError> {
    let own = env!("CARGO_PKG_VERSION");
    let client = Client::new(global)?;
    let server = match client.exchange(http::Method::GET, "/readyz", None).await {
        Ok((_, ready)) => ready["version"].as_str().map(str::to_owned),
        Err(_) => None,
    };
    let said = match &server {
        Some(version) => text::printable(version),
        None => format!("no answer at {}", client.address()),
    };
    Ok(Answer::new(
        json!({"client": own, "server": server}),
        format!("plimsoll  {own}\nserver    {said}\n"),
    ))
}

/// Runs a command's asynchronous part to its end.
fn waiting<T>(command: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    runtime(false)?.block_on(command)
}

fn runtime(many_threads: bool) -> Result<tokio::runtime::Runtime, CliError> {
    let mut builder = if many_threads {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build().map_err(|source| CliError::Io {
        verb: "start",
        path: "threads".to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documentation_names_every_command() {
        fn walk(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name()).trim().to_owned();
            let mut leaves = command
                .get_subcommands()
                .filter(|c| c.get_name() != "help" && !c.is_hide_set())
                .peekable();
            if leaves.peek().is_none() {
                found.push(path);
                return;
            }
            for inner in leaves {
                walk(inner, &path, found);
            }
        }
        let mut found = Vec::new();
        walk(&Cli::command(), "", &mut found);
        let text = include_str!("../../../../docs/cli.md");
        for path in found {
            assert!(
                text.contains(&format!("`{path}")),
                "docs/cli.md lacks {path}"
            );
        }
    }
}
