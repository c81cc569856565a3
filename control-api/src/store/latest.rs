//! Objects by number; the latest build and deployment of many models, and the one that serves, in one query each.

use millgate_contract::ids::{ModelId, ProjectId};
use sqlx::{AssertSqlSafe, Row, any::AnyRow};

use super::Store;
use crate::{
    fault::Outcome,
    rows::{Build, Deployment, Model, Project},
};

/// Ids bound in one statement.
const IDS_MAX: usize = 500;

impl Store {
    pub(crate) async fn project_by_number(&self, number: i64) -> Outcome<Option<Project>> {
        let row = sqlx::query("SELECT id FROM projects WHERE number = $1 AND is_deleting = 0")
            .bind(number)
            .fetch_optional(&self.read)
            .await?;
        match row {
            Some(row) => self.project(&ProjectId::new(row.get::<String, _>("id"))).await,
            None => Ok(None),
        }
    }

    pub(crate) async fn model_by_number(&self, number: i64) -> Outcome<Option<Model>> {
        let row = sqlx::query("SELECT m.* FROM models m WHERE number = $1 AND is_deleting = 0")
            .bind(number)
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(super::models::read))
    }

    pub(crate) async fn build_by_number(&self, number: i64) -> Outcome<Option<Build>> {
        let row = sqlx::query("SELECT b.* FROM builds b WHERE number = $1 AND is_deleting = 0")
            .bind(number)
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(super::builds::read))
    }

    /// The newest build of each model that has one.
    pub(crate) async fn latest_builds(&self, models: &[ModelId]) -> Outcome<Vec<Build>> {
        const SQL: (&str, &str) = (
            "SELECT b.* FROM builds b JOIN (SELECT MAX(number) AS number FROM builds \
             WHERE is_deleting = 0 AND model_id IN (",
            ") GROUP BY model_id) latest ON latest.number = b.number",
        );
        self.of_models(SQL, models, super::builds::read).await
    }

    /// The deployment of each model that was asked for last, or begun anew last.
    pub(crate) async fn latest_deployments(&self, models: &[ModelId]) -> Outcome<Vec<Deployment>> {
        const SQL: (&str, &str) = (
            "SELECT d.* FROM deployments d JOIN (SELECT model_id, MAX(sequence) AS sequence FROM deployments \
             WHERE build_id IN (SELECT id FROM builds WHERE is_deleting = 0) AND model_id IN (",
            ") GROUP BY model_id) latest ON latest.model_id = d.model_id AND latest.sequence = d.sequence",
        );
        self.of_models(SQL, models, super::deployments::read).await
    }

    /// The deployment of each model that its calls go to.
    pub(crate) async fn routed_deployments(&self, models: &[ModelId]) -> Outcome<Vec<Deployment>> {
        const SQL: (&str, &str) =
            ("SELECT d.* FROM deployments d JOIN models m ON m.routed = d.id WHERE m.id IN (", ")");
        self.of_models(SQL, models, super::deployments::read).await
    }

    async fn of_models<T>(
        &self,
        (before, after): (&'static str, &'static str),
        models: &[ModelId],
        read: impl Fn(&AnyRow) -> T,
    ) -> Outcome<Vec<T>> {
        let mut found = Vec::new();
        for some in models.chunks(IDS_MAX) {
            let places: Vec<String> = (1..=some.len()).map(|n| format!("${n}")).collect();
            // Made of constants and place holders alone.
            let mut query = sqlx::query(AssertSqlSafe(format!("{before}{}{after}", places.join(", "))));
            for id in some {
                query = query.bind(id.as_str());
            }
            found.extend(query.fetch_all(&self.read).await?.iter().map(&read));
        }
        Ok(found)
    }
}
