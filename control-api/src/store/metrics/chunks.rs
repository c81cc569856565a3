//! Chunks in the database: written as gateways ship, read for windows and by UUID, deleted when they are over.

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, any::AnyRow};

use super::{
    ROWS_PER_STATEMENT, Source,
    chunk::{self, Entry},
    of_list,
    window::{Cursor, MetricRow, Window},
};
use crate::{
    fault::Outcome,
    store::{Store, Tx, number, text},
};

/// Chunks that are read at one time.
const CHUNKS_PER_STATEMENT: usize = 4;

/// Keeps what is new of a deployment's predictions; how many that are.
pub(super) async fn keep(tx: &mut Tx, source: &Source, mut entries: Vec<Entry<'_>>) -> Outcome<u64> {
    chunk::sort(&mut entries);
    let mut kept = 0;
    for second in chunk::seconds(&entries) {
        let fresh = fresh(tx, source, second).await?;
        let mut rest = &fresh[..];
        while !rest.is_empty() {
            let (next, others) = rest.split_at(chunk::next_len(rest));
            insert(tx, source, next).await?;
            rest = others;
        }
        kept += fresh.len() as u64;
    }
    Ok(kept)
}

/// Those of some entries of one second that are not kept yet. Batches follow one another in time, so that few chunks
/// reach into their span; and no row that is kept by itself, unless a program of the version before has taken the batch
/// and not said so.
async fn fresh<'a>(tx: &mut Tx, source: &Source, entries: &[Entry<'a>]) -> Outcome<Vec<Entry<'a>>> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(Vec::new()) };
    let touching = sqlx::query(
        "SELECT records FROM metric_chunks WHERE deployment_number = $1 AND start_ms_min >= $2 \
         AND start_ms_min <= $3 AND start_ms_max >= $4",
    )
    .bind(source.deployment_number)
    .bind(chunk::start_ms_min(first.start_ms))
    .bind(last.start_ms)
    .bind(first.start_ms)
    .fetch_all(&mut **tx)
    .await?;
    let touching: Vec<String> = touching.iter().map(|row| text(row, "records")).collect();
    let singles = sqlx::query(
        "SELECT id FROM metric_rows WHERE deployment_number = $1 AND start_ms >= $2 AND start_ms <= $3",
    )
    .bind(source.deployment_number)
    .bind(first.start_ms)
    .bind(last.start_ms)
    .fetch_all(&mut **tx)
    .await?;
    let singles: Vec<String> = singles.iter().map(|row| text(row, "id")).collect();
    let in_chunks = touching.iter().flat_map(|records| chunk::ids(records));
    let known: HashSet<&str> = in_chunks.chain(singles.iter().map(String::as_str)).collect();
    Ok(entries.iter().filter(|entry| !known.contains(entry.id)).copied().collect())
}

async fn insert(tx: &mut Tx, source: &Source, entries: &[Entry<'_>]) -> Outcome<()> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
    let texts = chunk::write(entries);
    sqlx::query(
        "INSERT INTO metric_chunks (deployment_number, start_ms_min, first_id, start_ms_max, model_number, row_count, \
         replicas, records) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(source.deployment_number)
    .bind(first.start_ms)
    .bind(first.id)
    .bind(last.start_ms)
    .bind(source.model_number)
    .bind(i64::try_from(entries.len()).unwrap_or(i64::MAX))
    .bind(texts.replicas)
    .bind(texts.records)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Store {
    /// The number of the deployment in whose chunks this prediction is, which began then.
    pub(super) async fn deployment_of(&self, uuid: &str, start_ms: u64) -> Outcome<Option<i64>> {
        let start_ms = i64::try_from(start_ms).unwrap_or(i64::MAX);
        let rows = sqlx::query(
            "SELECT deployment_number, records FROM metric_chunks WHERE start_ms_min >= $1 AND start_ms_min <= $2 \
             AND start_ms_max >= $2",
        )
        .bind(chunk::start_ms_min(start_ms))
        .bind(start_ms)
        .fetch_all(&self.read)
        .await?;
        let holds = |row: &&AnyRow| chunk::ids(&text(row, "records")).any(|id| id == uuid);
        Ok(rows.iter().find(holds).map(|row| number(row, "deployment_number")))
    }

    /// The next rows of a window that are in chunks, at least so many unless there are no more of them; ascending.
    pub(super) async fn rows_of_chunks(
        &self,
        window: &Window,
        after: Option<&Cursor>,
        rows_min: usize,
    ) -> Outcome<Vec<MetricRow>> {
        let from_ms = after.map_or(window.start_ms, |after| after.start_ms.max(window.start_ms));
        let is_wanted = |row: &MetricRow| {
            row.start_ms >= from_ms
                && row.end_ms <= window.end_ms
                && after.is_none_or(|after| (row.start_ms, &row.id) > (after.start_ms, &after.id))
        };
        let mut rows: Vec<MetricRow> = Vec::new();
        let mut place = (chunk::start_ms_min(from_ms), String::new());
        loop {
            let chunks = self.chunks(window, from_ms, &place).await?;
            for chunk in &chunks {
                let (deployment, first_ms) =
                    (number(chunk, "deployment_number"), number(chunk, "start_ms_min"));
                rows.extend(
                    chunk::rows(deployment, first_ms, &text(chunk, "records")).filter(|row| is_wanted(row)),
                );
            }
            let Some(last) = chunks.last().filter(|_| chunks.len() == CHUNKS_PER_STATEMENT) else { break };
            place = (number(last, "start_ms_min"), text(last, "first_id"));
            // Chunks to come have no row before this moment.
            if rows.iter().filter(|row| row.start_ms < place.0).count() >= rows_min {
                rows.retain(|row| row.start_ms < place.0);
                break;
            }
        }
        rows.sort_unstable_by(|a, b| (a.start_ms, &a.id).cmp(&(b.start_ms, &b.id)));
        Ok(rows)
    }

    /// The chunks behind a place that may have rows of a window from a moment on.
    async fn chunks(&self, window: &Window, from_ms: i64, place: &(i64, String)) -> Outcome<Vec<AnyRow>> {
        let (column, value) = match window.deployment_number {
            Some(number) => ("deployment_number", number),
            None => ("model_number", window.model_number),
        };
        let of_build =
            "AND deployment_number IN (SELECT deployment_number FROM metric_sources WHERE build_id = $6)";
        let sql = format!(
            "SELECT deployment_number, start_ms_min, first_id, records FROM metric_chunks WHERE {column} = $1 \
             AND (start_ms_min, first_id) > ($2, $3) AND start_ms_min <= $4 AND start_ms_max >= $5 {} \
             ORDER BY start_ms_min, first_id LIMIT {CHUNKS_PER_STATEMENT}",
            if window.build.is_some() { of_build } else { "" }
        );
        let mut query = sqlx::query(AssertSqlSafe(sql))
            .bind(value)
            .bind(place.0)
            .bind(&place.1)
            .bind(window.end_ms)
            .bind(from_ms);
        if let Some(build) = &window.build {
            query = query.bind(build.as_str());
        }
        Ok(query.fetch_all(&self.read).await?)
    }

    /// Deletes some chunks of a model whose rows all begin before a moment, and what was added to them; says how many
    /// rows, 0 when there are no more.
    pub(super) async fn forget_chunks(&self, model_number: i64, before_ms: i64) -> Outcome<u64> {
        let mut tx = self.begin().await?;
        let sql = format!(
            "SELECT deployment_number, start_ms_min, first_id, row_count, records FROM metric_chunks \
             WHERE model_number = $1 AND start_ms_min < $2 ORDER BY start_ms_min, first_id LIMIT {CHUNKS_PER_STATEMENT}"
        );
        let chunks = sqlx::query(AssertSqlSafe(sql))
            .bind(model_number)
            .bind(chunk::start_ms_min(before_ms))
            .fetch_all(&mut *tx)
            .await?;
        let mut forgotten = 0;
        for row in &chunks {
            forget_additions(&mut tx, &text(row, "records")).await?;
            sqlx::query(
                "DELETE FROM metric_chunks WHERE deployment_number = $1 AND start_ms_min = $2 AND first_id = $3",
            )
            .bind(number(row, "deployment_number"))
            .bind(number(row, "start_ms_min"))
            .bind(text(row, "first_id"))
            .execute(&mut *tx)
            .await?;
            forgotten += number(row, "row_count").unsigned_abs();
        }
        tx.commit().await?;
        Ok(forgotten)
    }
}

async fn forget_additions(tx: &mut Tx, records: &str) -> Outcome<()> {
    let some = sqlx::query("SELECT 1 FROM delayed_metrics LIMIT 1").fetch_optional(&mut **tx).await?;
    if some.is_none() {
        return Ok(());
    }
    let ids: Vec<String> = chunk::ids(records).map(str::to_owned).collect();
    for ids in ids.chunks(ROWS_PER_STATEMENT) {
        of_list("DELETE FROM delayed_metrics WHERE row_id IN", ids, "").execute(&mut **tx).await?;
    }
    Ok(())
}

#[cfg(test)]
impl Store {
    /// Keeps predictions as programs did that knew no chunks.
    pub(crate) async fn insert_singles(&self, source: &Source, ids: &[(&str, i64)]) {
        let sql = "INSERT INTO metric_rows (id, is_aggregate, model_number, deployment_number, replica, start_ms, \
             end_ms, metrics) VALUES ($1, 0, $2, $3, 'r', $4, $5, '{\"old\":1}')";
        let mut tx = self.begin().await.unwrap();
        for (id, start_ms) in ids {
            let query = sqlx::query(sql).bind(*id).bind(source.model_number).bind(source.deployment_number);
            query.bind(start_ms).bind(start_ms + 1).execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Rows of each chunk.
    pub(crate) async fn chunk_lengths(&self) -> Vec<i64> {
        let sql = "SELECT row_count FROM metric_chunks ORDER BY start_ms_min, first_id";
        sqlx::query(sql)
            .fetch_all(&self.read)
            .await
            .unwrap()
            .iter()
            .map(|row| number(row, "row_count"))
            .collect()
    }
}
