//! `plimsoll export`: what was measured, as a table for other programs.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};

use serde_json::Value;

use super::answer::Answer;
use super::args::ExportFlags;
use super::client::{Client, path, query};
use super::error::CliError;
use super::history::time;

pub(super) async fn run(
    client: &Client,
    flags: &ExportFlags,
    as_json: bool,
    now_ms: i64,
) -> Result<Answer, CliError> {
    if as_json {
        return Err(CliError::Usage("export writes CSV, not JSON".to_owned()));
    }
    let at = |when: super::when::When| when.before(now_ms).map(time);
    let (from, to) = (at(flags.from), flags.to.and_then(at));
    let asked = query(&[
        ("level", Some(&flags.level)),
        ("from", from.as_deref()),
        ("to", to.as_deref()),
        ("metric", flags.metric.as_deref()),
        ("entityType", flags.of.as_deref()),
    ]);
    let table = path(&["usage", "export"]) + &asked;
    let (mut into, name): (Box<dyn Write + Send>, _) = match &flags.output {
        None => (Box::new(stdout()), "stdout".to_owned()),
        Some(file) => {
            let name = file.display().to_string();
            let made = File::create(file).map_err(|source| CliError::Io {
                verb: "write",
                path: name.clone(),
                source,
            })?;
            (Box::new(BufWriter::new(made)), name)
        }
    };
    client.write(&table, into.as_mut(), &name).await?;
    Ok(Answer::new(Value::Null, String::new()))
}
