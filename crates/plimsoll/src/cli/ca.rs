//! `plimsoll ca ...`: the certificate authority's files, on the server's own host.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::json;

use super::answer::Answer;
use super::args::{CaCommand, Global};
use super::error::CliError;
use crate::ca::{Authority, Said};
use crate::config::Sources;

pub(super) fn run(global: &Global, command: CaCommand, now_ms: i64) -> Result<Answer, CliError> {
    match command {
        CaCommand::Init { host, data_dir } => {
            let authority = authority(global, data_dir)?;
            authority.init(&host, now_ms)?;
            let answer = show(&authority)?;
            Ok(answer.remarking(
                "next: name an address like tcp://0.0.0.0:2376 in the key gateway, restart the \
                 server, and make certificates with plimsoll user cert NAME",
            ))
        }
        CaCommand::Show { data_dir } => show(&authority(global, data_dir)?),
    }
}

fn authority(global: &Global, data_dir: Option<PathBuf>) -> Result<Authority, CliError> {
    let data_dir = match data_dir {
        Some(dir) => dir,
        None => {
            Sources::of_process(global.config.clone())
                .load()?
                .0
                .data_dir
        }
    };
    Ok(Authority::of(&data_dir))
}

fn show(authority: &Authority) -> Result<Answer, CliError> {
    let (ca, server) = authority.show()?;
    let json = |said: &Said| json!({"fingerprint": said.fingerprint, "expiresAt": day(said), "hosts": said.hosts});
    let lines = |what: &str, said: &Said| {
        format!(
            "{what:<10} expires {}\n{:<10} SHA-256 {}\n",
            day(said),
            "",
            said.fingerprint
        )
    };
    let text = format!(
        "{}{}{:<10} for     {}\n",
        lines("authority", &ca),
        lines("server", &server),
        "",
        server.hosts.join(", ")
    );
    Ok(Answer::new(
        json!({"authority": json(&ca), "server": json(&server)}),
        text,
    ))
}

fn day(said: &Said) -> String {
    Timestamp::from_millisecond(said.expires_ms)
        .map_or_else(|_| "-".to_owned(), |at| at.to_string())
}
