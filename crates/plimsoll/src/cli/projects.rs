//! `plimsoll project ...`

use std::collections::HashMap;

use http::Method;
use serde_json::{Map, Value, json};

use super::amounts::{items, text};
use super::answer::Answer;
use super::args::ProjectCommand;
use super::client::{Client, path};
use super::error::CliError;
use super::table::{Align, Table};
use super::text::printable;
use super::users::{gone, put};

pub(super) async fn run(client: &Client, command: ProjectCommand) -> Result<Answer, CliError> {
    match command {
        ProjectCommand::Add { name, team, user } => {
            let mut body = Map::from_iter([("name".to_owned(), json!(name))]);
            put(&mut body, "team", team);
            put(&mut body, "user", user);
            let body = Value::Object(body);
            let project = client
                .send(Method::POST, &path(&["projects"]), Some(&body))
                .await?;
            let said = format!("added project {}\n", printable(&name));
            Ok(Answer::new(project, said))
        }
        ProjectCommand::List => {
            let projects = client.get(&path(&["projects"])).await?;
            let names = owner_names(client).await;
            let mut table = Table::new(&[
                ("NAME", Align::Left),
                ("OF", Align::Left),
                ("ID", Align::Left),
            ]);
            for project in items(&projects) {
                table.row([
                    text(project, "name"),
                    owner(project, &names),
                    text(project, "id"),
                ]);
            }
            Ok(Answer::new(projects, table.render()))
        }
        ProjectCommand::Delete { project } => {
            let projects = client.get(&path(&["projects"])).await?;
            let named: Vec<&Value> = items(&projects)
                .filter(|p| p["id"] == project || p["name"] == project)
                .collect();
            let id = match named.as_slice() {
                [] => project.clone(),
                [one] => text(one, "id"),
                several => {
                    let ids: Vec<String> = several.iter().map(|p| text(p, "id")).collect();
                    return Err(CliError::Usage(format!(
                        "{} projects are called {project}; name one by its id: {}",
                        several.len(),
                        ids.join(", ")
                    )));
                }
            };
            let status = client.delete(&path(&["projects", &id])).await?;
            Ok(gone("project", &project, status))
        }
    }
}

/// Names of teams and users by id, as far as the caller may see them.
pub(super) async fn owner_names(client: &Client) -> HashMap<String, String> {
    let mut names = HashMap::new();
    for kind in ["team", "user"] {
        if let Ok(list) = client.get(&path(&[&format!("{kind}s")])).await {
            let named = items(&list);
            names.extend(named.map(|e| (text(e, "id"), format!("{kind} {}", text(e, "name")))));
        }
    }
    names
}

fn owner(project: &Value, names: &HashMap<String, String>) -> String {
    for kind in ["team", "user"] {
        if let Some(id) = project[kind].as_str() {
            return names
                .get(id)
                .cloned()
                .unwrap_or_else(|| format!("{kind} {id}"));
        }
    }
    "-".to_owned()
}
