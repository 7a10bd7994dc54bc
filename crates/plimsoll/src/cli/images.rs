//! `plimsoll image ...`

use http::Method;
use serde_json::json;

use super::amounts::{items, text};
use super::answer::Answer;
use super::args::ImageCommand;
use super::client::{Client, path};
use super::error::CliError;
use super::table::{Align, Table};
use super::text::printable;

pub(super) async fn run(client: &Client, command: ImageCommand) -> Result<Answer, CliError> {
    let (reference, private) = match command {
        ImageCommand::List => {
            let marked = client.get(&path(&["images"])).await?;
            let mut table = Table::new(&[("PRIVATE", Align::Left)]);
            for mark in items(&marked) {
                table.row([text(mark, "reference")]);
            }
            return Ok(Answer::new(marked, table.render()));
        }
        ImageCommand::Private { reference } => (reference, true),
        ImageCommand::Public { reference } => (reference, false),
    };
    let body = json!({"reference": reference, "private": private});
    let mark = client
        .send(Method::PUT, &path(&["images"]), Some(&body))
        .await?;
    let said = format!(
        "{} is {}\n",
        printable(&text(&mark, "reference")),
        if private {
            "kept from tenants"
        } else {
            "everybody's"
        }
    );
    Ok(Answer::new(mark, said))
}
