//! What is deleted, in steps that are short, so that others write between them.

use millgate_contract::ids::ModelId;
use sqlx::Row;

use crate::{fault::Outcome, store::Store};

/// Rows of one step.
const ROWS_PER_STEP: i64 = 2_000;

/// Which rows are over.
#[derive(Debug, Clone, Copy)]
struct Over {
    model_number: i64,
    /// Predictions that begin before.
    predictions_before_ms: i64,
    /// Aggregates that begin before.
    aggregates_before_ms: i64,
}

impl Store {
    /// Deletes predictions and aggregates that begin before these moments, predictions by the second; says how many rows.
    pub(crate) async fn forget_metrics(
        &self,
        predictions_before_ms: i64,
        aggregates_before_ms: i64,
    ) -> Outcome<u64> {
        let models =
            sqlx::query("SELECT DISTINCT model_number FROM metric_sources").fetch_all(&self.read).await?;
        let mut forgotten = 0;
        for model in models {
            let model_number = model.get("model_number");
            forgotten +=
                self.forget(Over { model_number, predictions_before_ms, aggregates_before_ms }).await?;
        }
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM delayed_metrics WHERE unchecked_author <> '' AND received_us < $1")
            .bind(predictions_before_ms.saturating_mul(1_000))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(forgotten)
    }

    /// Deletes everything of a model.
    pub(crate) async fn forget_metrics_of(&self, model: &ModelId) -> Outcome<()> {
        let row = sqlx::query("SELECT model_number FROM metric_sources WHERE model_id = $1 LIMIT 1")
            .bind(model.as_str())
            .fetch_optional(&self.read)
            .await?;
        let Some(row) = row else { return Ok(()) };
        let all = i64::MAX;
        let model_number = row.get("model_number");
        self.forget(Over { model_number, predictions_before_ms: all, aggregates_before_ms: all }).await?;
        Ok(())
    }

    async fn forget(&self, over: Over) -> Outcome<u64> {
        let mut forgotten = 0;
        loop {
            match self.forget_chunks(over.model_number, over.predictions_before_ms).await? {
                0 => break,
                rows => forgotten += rows,
            }
        }
        loop {
            let step = self.forget_step(over).await?;
            forgotten += step;
            if step < ROWS_PER_STEP.unsigned_abs() {
                return Ok(forgotten);
            }
        }
    }

    async fn forget_step(&self, over: Over) -> Outcome<u64> {
        const OVER: &str = "(SELECT id FROM metric_rows WHERE model_number = $1 AND \
             ((is_aggregate = 0 AND start_ms < $2) OR (is_aggregate = 1 AND start_ms < $3)) ORDER BY start_ms, id LIMIT $4)";
        let mut tx = self.begin().await?;
        let mut deleted = 0;
        for table in ["delayed_metrics WHERE row_id", "metric_rows WHERE id"] {
            let sql = sqlx::AssertSqlSafe(format!("DELETE FROM {table} IN {OVER}"));
            let done = sqlx::query(sql)
                .bind(over.model_number)
                .bind(over.predictions_before_ms)
                .bind(over.aggregates_before_ms)
                .bind(ROWS_PER_STEP)
                .execute(&mut *tx)
                .await?;
            deleted = done.rows_affected();
        }
        tx.commit().await?;
        Ok(deleted)
    }
}
