//! Tracked metrics on their way in, and out of the way: batches of gateways into the store, and the end of old rows.

use std::time::Duration;

use bytes::Bytes;
use millgate_contract::tracked::{Records, TrackedPrediction};

use crate::{app::App, moment::now_s};

/// The pause before a batch is tried again that the store did not take.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often old rows are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(3_600);
/// Days for which aggregates can be read.
const AGGREGATE_DAYS: u32 = 730;
const DAY_MS: i64 = 86_400_000;

/// Keeps a batch, however long the store is not there: until then the gateway has it, and is not told otherwise.
pub(crate) async fn keep(app: &App, batch: Bytes) {
    let mut records = Records::of(&batch);
    let rows: Vec<TrackedPrediction<'_>> = records.by_ref().collect();
    if records.read_bytes() < batch.len() {
        // It was whole when it left: a gateway of another version, and shipping it again would change nothing.
        tracing::error!(bytes = batch.len() - records.read_bytes(), "a gateway shipped what is no record");
    }
    loop {
        match app.store.ingest(&rows).await {
            Ok(ingested) => {
                if ingested.strays + ingested.unreadable > 0 {
                    tracing::warn!(
                        strays = ingested.strays,
                        unreadable = ingested.unreadable,
                        "tracked metrics of no deployment, or not a JSON object"
                    );
                }
                return;
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "tracked metrics cannot be kept");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Deletes what is older than it may be read, for ever.
pub(crate) async fn sweep(app: &App) {
    loop {
        let now_ms = now_s() * 1_000;
        let predictions_before = now_ms - i64::from(app.config.metrics_retention_days) * DAY_MS;
        let aggregates_before = now_ms - i64::from(AGGREGATE_DAYS) * DAY_MS;
        match app.store.forget_metrics(predictions_before, aggregates_before).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "metrics over the age they are kept for are deleted"),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "old metrics cannot be deleted");
            }
        }
        tokio::time::sleep(SWEEP_PERIOD).await;
    }
}
