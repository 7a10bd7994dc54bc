//! `docker quota`: the same program as a plugin of the docker command line, for tenants.
//!
//! docker starts a plugin with the words of its own command line, the plugin's name among them, and
//! asks for a description with one reserved word.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Parser, Subcommand};
use serde_json::json;

use super::answer::Answer;
use super::args::{DecisionsFlags, Global, InboxFlags, PsFlags, ValidateFlags, WishCommand};
use super::client::Client;
use super::error::{CliError, Exit};
use super::{containers, decisions, inbox, shares, usage, waiting, who};
use crate::clock::Clock;

/// What the program is called in docker's folder of plugins.
const PROGRAM: &str = "docker-quota";
/// The word by which docker asks a plugin what it is.
const METADATA: &str = "docker-cli-plugin-metadata";
/// The word that makes docker start it.
const NAME: &str = "quota";

/// Your quota on this host: what you use, what is reserved, and what is left.
#[derive(Debug, Parser)]
#[command(name = "docker quota", bin_name = "docker quota", version)]
struct Plugin {
    /// Options of every command.
    #[command(flatten)]
    global: Global,
    /// What to do; shows the quota when nothing is named.
    #[command(subcommand)]
    command: Option<PluginCommand>,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Show what you use, what is reserved, and what is left.
    Show,
    /// Explain your last refusal.
    Why,
    /// List your containers with what they reserve and use.
    Ps(PsFlags),
    /// Ask whether something would fit, without starting it.
    Validate(ValidateFlags),
    /// List your admissions, newest first.
    Decisions(DecisionsFlags),
    #[command(flatten)]
    Wish(WishCommand),
    /// Show what you were told and have not read.
    Inbox(InboxFlags),
    /// Explain one decision.
    Explain {
        /// Its id, as in a refusal.
        decision: String,
    },
}

/// Whether docker started this process.
pub(super) fn is_meant(args: &[OsString]) -> bool {
    let by_name = args
        .first()
        .and_then(|arg| Path::new(arg).file_name())
        .is_some_and(|name| name == PROGRAM);
    by_name || args.get(1).is_some_and(|arg| arg == METADATA)
}

/// Does what docker passed on. The first of the pair says whether JSON was asked for.
pub(super) fn run(args: &[OsString]) -> (bool, Result<Answer, CliError>) {
    if args.get(1).is_some_and(|arg| arg == METADATA) {
        return (true, Ok(metadata()));
    }
    match Plugin::try_parse_from(own_words(args)) {
        Ok(plugin) => (plugin.global.json, waiting(ask(plugin))),
        Err(error) => {
            let _ = error.print();
            let mut said = Answer::new(json!(null), String::new());
            said.exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            (false, Ok(said))
        }
    }
}

fn metadata() -> Answer {
    let described = json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "Plimsoll",
        "Version": env!("CARGO_PKG_VERSION"),
        "ShortDescription": "Your quota on this host: used, reserved and left",
    });
    Answer::new(described, String::new())
}

/// The words behind docker's own options and the plugin's name.
fn own_words(args: &[OsString]) -> Vec<OsString> {
    let name = args.iter().skip(1).position(|arg| arg == OsStr::new(NAME));
    let start = name.map_or(1, |position| position + 2);
    let words = args.iter().skip(start).cloned();
    std::iter::once(OsString::from("docker quota"))
        .chain(words)
        .collect()
}

async fn ask(plugin: Plugin) -> Result<Answer, CliError> {
    let client = &Client::new(&plugin.global)?;
    let now_ms = Clock::default().now_ms();
    match plugin.command.unwrap_or(PluginCommand::Show) {
        PluginCommand::Show => {
            let entity = match who::me(client).await? {
                Some(name) => who::Entity::User(name),
                None => who::Entity::System,
            };
            usage::of(client, &entity, now_ms).await
        }
        PluginCommand::Inbox(flags) => inbox::run(client, &flags, now_ms).await,
        PluginCommand::Why => decisions::why(client, None, now_ms).await,
        PluginCommand::Ps(flags) => containers::run(client, &flags).await,
        PluginCommand::Validate(flags) => decisions::validate(client, &flags).await,
        PluginCommand::Decisions(flags) => decisions::list(client, &flags, now_ms).await,
        PluginCommand::Wish(command) => shares::wish(client, command, now_ms).await,
        PluginCommand::Explain { decision } => decisions::explain(client, &decision, now_ms).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn docker_is_recognised_by_the_programs_name_or_the_reserved_word() {
        Plugin::command().debug_assert();
        for (words, meant) in [
            (
                &["/usr/local/lib/docker/cli-plugins/docker-quota", "quota"][..],
                true,
            ),
            (&["docker-quota"], true),
            (&["plimsoll", METADATA], true),
            (&["plimsoll", "quota", "show"], false),
            (&["plimsoll"], false),
            (&[], false),
        ] {
            assert_eq!(is_meant(&args(words)), meant, "{words:?}");
        }
    }

    #[test]
    fn dockers_own_words_are_left_out() {
        for (words, own) in [
            (
                &["docker-quota", "quota", "why"][..],
                &["docker quota", "why"][..],
            ),
            (
                &["docker-quota", "--context", "x", "quota"],
                &["docker quota"],
            ),
            (&["docker-quota", "why"], &["docker quota", "why"]),
        ] {
            assert_eq!(own_words(&args(words)), args(own), "{words:?}");
        }
    }
}
