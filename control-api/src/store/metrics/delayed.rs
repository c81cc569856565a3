//! What became known later, and aggregates: the two things that clients write.

use millgate_contract::{ids::Username, prediction_id};
use sqlx::Row;

use super::{Source, note_source};
use crate::{
    fault::{Fault, Outcome},
    moment::now_us,
    names,
    store::{Store, next},
};

/// Additions to one prediction.
const PER_ROW_MAX: i64 = 1_000;
/// Additions of one user to predictions that are not there.
const UNCHECKED_MAX: i64 = 10_000;

/// What is to be kept beside deployments.
#[derive(Debug)]
pub(crate) struct Aggregate {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// A JSON object.
    pub(crate) metrics: String,
}

impl Store {
    /// The deployment whose prediction this is.
    pub(crate) async fn source_of_prediction(&self, uuid: &str) -> Outcome<Option<Source>> {
        if let Some(start_ms) = prediction_id::start_ms(uuid)
            && let Some(deployment_number) = self.deployment_of(uuid, start_ms).await?
        {
            return self.metric_source_by_number(deployment_number).await;
        }
        let row = sqlx::query("SELECT deployment_number FROM metric_rows WHERE id = $1 AND is_aggregate = 0")
            .bind(uuid)
            .fetch_optional(&self.read)
            .await?;
        match row {
            Some(row) => self.metric_source_by_number(row.get("deployment_number")).await,
            None => Ok(None),
        }
    }

    /// Adds metrics to a prediction. With `unchecked_author` the prediction is not there yet.
    pub(crate) async fn add_delayed(
        &self,
        uuid: &str,
        unchecked_author: Option<&Username>,
        metrics: &str,
    ) -> Outcome<()> {
        let author = unchecked_author.map_or("", Username::as_str);
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM delayed_metrics WHERE row_id = $1) AS of_row, \
             (SELECT COUNT(*) FROM delayed_metrics WHERE unchecked_author <> '' AND unchecked_author = $2) AS early",
        )
        .bind(uuid)
        .bind(author)
        .fetch_one(&mut *tx)
        .await?;
        if row.get::<i64, _>("of_row") >= PER_ROW_MAX {
            return Err(Fault::Exhausted(format!(
                "prediction `{uuid}` has been added to {PER_ROW_MAX} times; send several metrics at once"
            )));
        }
        if row.get::<i64, _>("early") >= UNCHECKED_MAX {
            return Err(Fault::Exhausted(format!(
                "{UNCHECKED_MAX} delayed metrics of `{author}` are about predictions that are not there"
            )));
        }
        let number = next(&mut tx, "delayed").await?;
        sqlx::query(
            "INSERT INTO delayed_metrics (number, row_id, unchecked_author, received_us, metrics) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(number)
        .bind(uuid)
        .bind(author)
        .bind(now_us())
        .bind(metrics)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Adds a row about a span of time.
    pub(crate) async fn add_aggregate(&self, source: &Source, aggregate: &Aggregate) -> Outcome<()> {
        let mut tx = self.begin().await?;
        note_source(&mut tx, source).await?;
        sqlx::query(
            "INSERT INTO metric_rows (id, is_aggregate, model_number, deployment_number, replica, start_ms, end_ms, \
             metrics) VALUES ($1, 1, $2, $3, '', $4, $5, $6)",
        )
        .bind(names::uuid())
        .bind(source.model_number)
        .bind(source.deployment_number)
        .bind(aggregate.start_ms)
        .bind(aggregate.end_ms)
        .bind(&aggregate.metrics)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
}
