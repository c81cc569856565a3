//! Rows as gateways ship them. Known UUIDs are passed over, so a batch may come any number of times, cut in other places.

use std::collections::HashMap;

use millgate_contract::{ids::DeploymentId, tracked::TrackedPrediction};
use sqlx::{AssertSqlSafe, Row};

use super::{ROWS_PER_STATEMENT, Source, chunk::Entry, chunks, is_object, note_source, of_list};
use crate::{
    fault::Outcome,
    rows::User,
    store::{Store, Tx, text},
};

/// Rows of one insert, of those that are kept one by one. For each parameter SQLite looks through the names of all others,
/// so a long statement costs the square of its length.
const INSERTED_ROWS: usize = 40;
/// Rows that are looked at before others have their turn, in a tenth of a millisecond.
const ROWS_PER_TURN: usize = 256;

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ingested {
    /// New rows.
    pub(crate) rows: u64,
    /// Rows of deployments that are not known: their model has been deleted.
    pub(crate) strays: u64,
    /// Rows whose metrics are not a JSON object; they are kept without.
    pub(crate) unreadable: u64,
}

impl Store {
    /// Keeps what is new of a batch, all of it or nothing.
    pub(crate) async fn ingest(&self, batch: &[TrackedPrediction<'_>]) -> Outcome<Ingested> {
        let mut by_deployment: HashMap<&str, Vec<&TrackedPrediction<'_>>> = HashMap::new();
        for row in batch {
            by_deployment.entry(row.deployment).or_default().push(row);
        }
        let mut ingested = Ingested::default();
        let mut sources = Vec::with_capacity(by_deployment.len());
        for (deployment, rows) in by_deployment {
            match self.metric_source(&DeploymentId::new(deployment)).await? {
                Some(source) => sources.push((source, rows)),
                None => ingested.strays += rows.len() as u64,
            }
        }
        // Before others who write have to wait for it.
        let mut sorted = Vec::with_capacity(sources.len());
        for (_, rows) in &sources {
            sorted.push(sorted_out(rows, &mut ingested).await);
        }
        let mut tx = self.begin().await?;
        for ((source, _), (entries, others)) in sources.iter().zip(sorted) {
            note_source(&mut tx, source).await?;
            ingested.rows += chunks::keep(&mut tx, source, entries).await?;
            for rows in others.chunks(INSERTED_ROWS) {
                ingested.rows += insert(&mut tx, source, rows).await?;
            }
        }
        self.check_early(&mut tx, &sources).await?;
        tx.commit().await?;
        Ok(ingested)
    }

    /// Decides about metrics that came before their rows: shown from now on, or dropped where their author may not
    /// speak about the model.
    async fn check_early(
        &self,
        tx: &mut Tx,
        sources: &[(Source, Vec<&TrackedPrediction<'_>>)],
    ) -> Outcome<()> {
        let some = sqlx::query("SELECT 1 FROM delayed_metrics WHERE unchecked_author <> '' LIMIT 1")
            .fetch_optional(&mut **tx)
            .await?;
        if some.is_none() {
            return Ok(());
        }
        for (source, rows) in sources {
            for rows in rows.chunks(ROWS_PER_STATEMENT) {
                self.check_early_of(tx, source, rows).await?;
            }
        }
        Ok(())
    }

    async fn check_early_of(
        &self,
        tx: &mut Tx,
        source: &Source,
        rows: &[&TrackedPrediction<'_>],
    ) -> Outcome<()> {
        let uuids: Vec<String> = rows.iter().map(|row| row.uuid.to_owned()).collect();
        let early = of_list(
            "SELECT number, unchecked_author FROM delayed_metrics WHERE unchecked_author <> '' AND row_id IN",
            &uuids,
            "",
        );
        for early in early.fetch_all(&mut **tx).await? {
            let author = self.user(&text(&early, "unchecked_author")).await?;
            let may = match author {
                Some(author) => self.may_track(&author, source).await?,
                None => false,
            };
            let sql = if may {
                "UPDATE delayed_metrics SET unchecked_author = '' WHERE number = $1"
            } else {
                "DELETE FROM delayed_metrics WHERE number = $1"
            };
            sqlx::query(sql).bind(early.get::<i64, _>("number")).execute(&mut **tx).await?;
        }
        Ok(())
    }

    /// True for whoever may call the model, and so makes its rows anyway.
    pub(crate) async fn may_track(&self, user: &User, source: &Source) -> Outcome<bool> {
        let Some(model) = self.model(&source.model).await? else { return Ok(false) };
        let Some(project) = self.project(&model.project_id).await? else { return Ok(false) };
        self.may_call(user, &project).await
    }
}

/// A row that is kept by itself.
struct Single<'a> {
    row: &'a TrackedPrediction<'a>,
    metrics: &'a str,
}

/// What goes into chunks, and what does not.
async fn sorted_out<'a>(
    rows: &[&'a TrackedPrediction<'a>],
    ingested: &mut Ingested,
) -> (Vec<Entry<'a>>, Vec<Single<'a>>) {
    let (mut entries, mut others) = (Vec::with_capacity(rows.len()), Vec::new());
    for rows in rows.chunks(ROWS_PER_TURN) {
        for row in rows {
            let metrics = metrics_text(row.metrics, ingested);
            match Entry::of(row, metrics) {
                Some(entry) => entries.push(entry),
                None => others.push(Single { row, metrics }),
            }
        }
        tokio::task::yield_now().await;
    }
    (entries, others)
}

async fn insert(tx: &mut Tx, source: &Source, rows: &[Single<'_>]) -> Outcome<u64> {
    const COLUMNS: usize = 5;
    let places: Vec<String> = (0..rows.len())
        .map(|row| {
            let at = |column| 2 + row * COLUMNS + column;
            format!("(${}, 0, $1, $2, ${}, ${}, ${}, ${})", at(1), at(2), at(3), at(4), at(5))
        })
        .collect();
    let sql = format!(
        "INSERT INTO metric_rows (id, is_aggregate, model_number, deployment_number, replica, start_ms, end_ms, \
         metrics) VALUES {} ON CONFLICT (id) DO NOTHING",
        places.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(source.model_number).bind(source.deployment_number);
    for Single { row, metrics } in rows {
        query = query
            .bind(row.uuid)
            .bind(row.replica)
            .bind(i64::try_from(row.start_ms).unwrap_or(i64::MAX))
            .bind(i64::try_from(row.end_ms).unwrap_or(i64::MAX))
            .bind(*metrics);
    }
    Ok(query.execute(&mut **tx).await?.rows_affected())
}

/// The text that is kept. It comes from user code's process, so it may be anything.
fn metrics_text<'a>(metrics: &'a [u8], ingested: &mut Ingested) -> &'a str {
    if metrics.is_empty() {
        return "{}";
    }
    match std::str::from_utf8(metrics) {
        Ok(text) if is_object(text) => text,
        _ => {
            ingested.unreadable += 1;
            "{}"
        }
    }
}
