//! What a route snapshot is made of: one read, consistent in itself.

use sqlx::{AnyPool, Row};

use super::{Store, flag, number, text};
use crate::{fault::Outcome, policy::ServingPolicy};

/// One model and, when calls go somewhere, its deployment.
#[derive(Debug)]
pub(crate) struct RouteRow {
    pub(crate) model: String,
    pub(crate) name: String,
    pub(crate) project: String,
    pub(crate) access_key_digest: String,
    pub(crate) auth_enabled: bool,
    /// '' is nowhere.
    pub(crate) deployment: String,
    pub(crate) deployment_number: i64,
    pub(crate) build: String,
    pub(crate) slots: i64,
    pub(crate) policy: ServingPolicy,
    /// The latest deployment's status, for the words of a 503.
    pub(crate) latest_status: String,
}

/// Who may call a project's models.
#[derive(Debug, Default)]
pub(crate) struct CallersRow {
    pub(crate) project: String,
    pub(crate) callers: Vec<String>,
}

impl Store {
    pub(crate) async fn administrators(&self) -> Outcome<Vec<String>> {
        let rows = sqlx::query(
            "SELECT username FROM users WHERE role = 'administrator' AND is_disabled = 0 AND deleted_us = 0 \
             ORDER BY username",
        )
        .fetch_all(&self.read)
        .await?;
        Ok(rows.iter().map(|row| row.get("username")).collect())
    }

    /// Who may come in and has any level in the project.
    pub(crate) async fn callers(&self) -> Outcome<Vec<CallersRow>> {
        let rows = sqlx::query(
            "SELECT callers.project, callers.username, callers.number FROM ( \
             SELECT id AS project, owner AS username, number FROM projects WHERE is_deleting = 0 UNION \
             SELECT c.project_id, c.username, p.number FROM collaborators c JOIN projects p ON p.id = c.project_id \
             WHERE p.is_deleting = 0 UNION \
             SELECT p.id, t.username, p.number FROM team_members t JOIN projects p ON p.owner = t.team \
             WHERE p.is_deleting = 0) callers JOIN users u ON u.username = callers.username \
             WHERE u.is_disabled = 0 AND u.deleted_us = 0 AND u.kind <> 'team' ORDER BY 3, 2",
        )
        .fetch_all(&self.read)
        .await?;
        let mut projects: Vec<CallersRow> = Vec::new();
        for row in &rows {
            let project = text(row, "project");
            if projects.last().is_none_or(|last| last.project != project) {
                projects.push(CallersRow { project, callers: Vec::new() });
            }
            projects.last_mut().expect("one was just pushed").callers.push(text(row, "username"));
        }
        Ok(projects)
    }

    pub(crate) async fn routes(&self) -> Outcome<Vec<RouteRow>> {
        read_routes(&self.read).await
    }
}

async fn read_routes(pool: &AnyPool) -> Outcome<Vec<RouteRow>> {
    let rows = sqlx::query(
        "SELECT m.id AS model, m.name, m.project_id AS project, m.access_key_digest, m.auth_enabled, \
         COALESCE(d.id, '') AS deployment, COALESCE(d.number, 0) AS deployment_number, \
         COALESCE(d.build_id, '') AS build, COALESCE(d.replicas, 0) AS slots, \
         COALESCE(d.policy, '') AS policy, \
         COALESCE((SELECT l.status FROM deployments l WHERE l.model_id = m.id ORDER BY l.sequence DESC LIMIT 1), '') \
         AS latest_status \
         FROM models m LEFT JOIN deployments d ON d.id = m.routed AND m.routed <> '' \
         WHERE m.is_deleting = 0 ORDER BY m.number",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .iter()
        .map(|row| RouteRow {
            model: text(row, "model"),
            name: text(row, "name"),
            project: text(row, "project"),
            access_key_digest: text(row, "access_key_digest"),
            auth_enabled: flag(row, "auth_enabled"),
            deployment: text(row, "deployment"),
            deployment_number: number(row, "deployment_number"),
            build: text(row, "build"),
            slots: number(row, "slots"),
            policy: ServingPolicy::parse(&text(row, "policy")),
            latest_status: text(row, "latest_status"),
        })
        .collect())
}
