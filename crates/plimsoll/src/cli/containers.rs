//! `plimsoll ps`

use plimsoll_core::Dimension;

use super::amounts::{charged, items, shown, text};
use super::answer::Answer;
use super::args::PsFlags;
use super::client::{Client, path, query};
use super::error::CliError;
use super::table::{Align, Table, cut};

pub(super) async fn run(client: &Client, flags: &PsFlags) -> Result<Answer, CliError> {
    let which = query(&[
        ("user", flags.user.as_deref()),
        ("team", flags.team.as_deref()),
        ("project", flags.project.as_deref()),
        ("state", flags.state.as_deref()),
    ]);
    let containers = client.get(&(path(&["containers"]) + &which)).await?;
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("USER", Align::Left),
        ("TEAM", Align::Left),
        ("STATE", Align::Left),
        ("CPU", Align::Right),
        ("OF", Align::Right),
        ("MEMORY", Align::Right),
        ("OF", Align::Right),
    ]);
    let mut held = Vec::new();
    for container in items(&containers) {
        let name = match &container["containerName"] {
            serde_json::Value::String(name) => name.clone(),
            _ => text(container, "containerId").chars().take(12).collect(),
        };
        let mut row = vec![
            cut(&name, 24),
            cut(&text(container, "user"), 12),
            cut(&text(container, "team"), 10),
            text(container, "state"),
        ];
        for d in [Dimension::Cpu, Dimension::Memory] {
            row.push(shown(d, charged(&container["usage"], "", d)));
            row.push(shown(d, charged(&container["charged"], "", d)));
        }
        table.row(row);
        if let Some(from) = container["clampedFromCpuCores"].as_f64() {
            held.push(format!(
                "{name} is held to less than its {from} cores: a limit was lowered"
            ));
        }
    }
    let answer = Answer::new(containers, table.render());
    Ok(if held.is_empty() {
        answer
    } else {
        answer.remarking(held.join("\n"))
    })
}
