//! Projects: labels within a team, or of a user, that use is broken down by.

use plimsoll_core::entity::ProjectId;
use rusqlite::params;

use super::taken;
use crate::Store;
use crate::audit::{self, Change};
use crate::error::{Result, StoreError};
use crate::records::{Actor, Project};
use crate::rows;

impl Store {
    /// Adds a project to a team or to a user.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when its owner has one of that name.
    pub async fn add_project(&self, project: Project, actor: Actor) -> Result<Project> {
        self.write(move |books| {
            let owner = match (project.team, project.user) {
                (Some(team), None) => rows::team_by_id(books.connection, team)?.name,
                (None, Some(user)) => rows::user_by_id(books.connection, user)?.name,
                _ => return Err(StoreError::Invalid("a project has one owner".into())),
            };
            books
                .connection
                .execute(
                    "INSERT INTO project (id, name, team_id, user_id, created_at)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        project.id.to_string(),
                        project.name,
                        project.team.map(|t| t.to_string()),
                        project.user.map(|u| u.to_string()),
                        project.created_ms
                    ],
                )
                .map_err(|e| taken(e, &format!("the project name {}", project.name)))?;
            let name = format!("{owner}/{}", project.name);
            let change = Change {
                action: "project.add",
                kind: "project",
                entity: &name,
                before: None,
                after: None,
            };
            audit::record(books, &actor, &change)?;
            Ok(project)
        })
        .await
    }

    /// Every project, by name.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn projects(&self) -> Result<Vec<Project>> {
        self.read_list(|books| {
            let sql = format!("{} ORDER BY name, id", rows::PROJECT);
            rows::all(books.connection, &sql, [], rows::project)
        })
        .await
    }

    /// Deletes a project. What was counted under its name keeps the name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_project(&self, id: ProjectId, actor: Actor) -> Result<()> {
        self.write(move |books| {
            let sql = format!("{} WHERE id = ?1", rows::PROJECT);
            let project = rows::one(
                books.connection,
                &sql,
                [id.to_string()],
                rows::project,
                "project",
                id,
            )?;
            books
                .connection
                .execute("DELETE FROM project WHERE id = ?1", [id.to_string()])?;
            let change = Change {
                action: "project.delete",
                kind: "project",
                entity: &project.name,
                before: None,
                after: None,
            };
            audit::record(books, &actor, &change)
        })
        .await
    }
}
