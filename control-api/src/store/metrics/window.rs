//! Rows of a window, some at a time. A reader names the last row it has seen, so that nothing is held between two reads
//! and rows that come meanwhile move nothing.

use std::collections::HashMap;

use millgate_contract::ids::BuildId;
use sqlx::{AssertSqlSafe, any::AnyRow};

use super::{Metrics, object, of_list};
use crate::{
    fault::Outcome,
    store::{Store, flag, number, text},
};

/// Ids bound in one statement.
const IDS_MAX: usize = 500;

/// Which rows: of one deployment, or of one model and perhaps one of its builds. Both bounds are within.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) model_number: i64,
    pub(crate) deployment_number: Option<i64>,
    pub(crate) build: Option<BuildId>,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
}

/// The row after which a reader goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) start_ms: i64,
    pub(crate) id: String,
}

/// One row, what became known later merged into it.
#[derive(Debug, Clone)]
pub(crate) struct MetricRow {
    /// The prediction's UUID; an aggregate has one that is nobody's.
    pub(crate) id: String,
    pub(crate) is_aggregate: bool,
    pub(crate) deployment_number: i64,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// A JSON object.
    pub(crate) metrics: String,
}

impl MetricRow {
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { start_ms: self.start_ms, id: self.id.clone() }
    }
}

impl Store {
    /// The next rows of a window, ascending by start.
    pub(crate) async fn metric_rows(
        &self,
        window: &Window,
        after: Option<&Cursor>,
        rows_max: usize,
    ) -> Outcome<Vec<MetricRow>> {
        let mut rows = self.rows_of_chunks(window, after, rows_max).await?;
        rows.extend(self.single_rows(window, after, rows_max).await?);
        // Both ascend already.
        rows.sort_by(|a, b| (a.start_ms, &a.id).cmp(&(b.start_ms, &b.id)));
        rows.truncate(rows_max);
        for rows in rows.chunks_mut(IDS_MAX) {
            self.merge_delayed(rows).await?;
        }
        Ok(rows)
    }

    /// Those that are kept one by one.
    async fn single_rows(
        &self,
        window: &Window,
        after: Option<&Cursor>,
        rows_max: usize,
    ) -> Outcome<Vec<MetricRow>> {
        let (column, value) = match window.deployment_number {
            Some(number) => ("deployment_number", number),
            None => ("model_number", window.model_number),
        };
        let of_build =
            "AND deployment_number IN (SELECT deployment_number FROM metric_sources WHERE build_id = $5)";
        let sql = format!(
            "SELECT id, is_aggregate, deployment_number, start_ms, end_ms, metrics FROM metric_rows \
             WHERE {column} = $1 AND start_ms >= $2 AND end_ms <= $3 AND (start_ms > $2 OR id > $4) {} \
             ORDER BY start_ms, id LIMIT {rows_max}",
            if window.build.is_some() { of_build } else { "" }
        );
        let (from_ms, from_id) = match after {
            Some(after) if after.start_ms >= window.start_ms => (after.start_ms, after.id.as_str()),
            // Every id is behind ''.
            _ => (window.start_ms, ""),
        };
        let mut query =
            sqlx::query(AssertSqlSafe(sql)).bind(value).bind(from_ms).bind(window.end_ms).bind(from_id);
        if let Some(build) = &window.build {
            query = query.bind(build.as_str());
        }
        Ok(query.fetch_all(&self.read).await?.iter().map(read).collect())
    }

    async fn merge_delayed(&self, rows: &mut [MetricRow]) -> Outcome<()> {
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let additions = of_list(
            "SELECT row_id, metrics FROM delayed_metrics WHERE unchecked_author = '' AND row_id IN",
            &ids,
            "ORDER BY number",
        );
        let mut later: HashMap<String, Vec<String>> = HashMap::new();
        for row in additions.fetch_all(&self.read).await? {
            later.entry(text(&row, "row_id")).or_default().push(text(&row, "metrics"));
        }
        for row in rows {
            let Some(additions) = later.get(&row.id) else { continue };
            let mut merged = object(row.metrics.as_bytes()).unwrap_or_default();
            for addition in additions {
                merged.extend(object(addition.as_bytes()).unwrap_or_default());
            }
            row.metrics = to_text(&merged);
        }
        Ok(())
    }
}

fn to_text(metrics: &Metrics) -> String {
    serde_json::to_string(metrics).expect("it was read from JSON")
}

fn read(row: &AnyRow) -> MetricRow {
    MetricRow {
        id: text(row, "id"),
        is_aggregate: flag(row, "is_aggregate"),
        deployment_number: number(row, "deployment_number"),
        start_ms: number(row, "start_ms"),
        end_ms: number(row, "end_ms"),
        metrics: text(row, "metrics"),
    }
}
