//! Rows as gateways ship them. Known UUIDs are passed over, so a batch may come any number of times.

use std::collections::{BTreeMap, HashMap};

use millgate_contract::{ids::DeploymentId, tracked::TrackedPrediction};
use sqlx::{AssertSqlSafe, Row};

use super::{Metrics, ROWS_PER_STATEMENT, Source, note_source, of_list};
use crate::{
    fault::Outcome,
    rows::User,
    store::{Store, Tx, text},
};

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
    pub(crate) async fn ingest(&self, batch: &[TrackedPrediction]) -> Outcome<Ingested> {
        let mut sources: HashMap<&DeploymentId, Option<Source>> = HashMap::new();
        for row in batch {
            if !sources.contains_key(&row.deployment) {
                sources.insert(&row.deployment, self.metric_source(&row.deployment).await?);
            }
        }
        let mut ingested = Ingested::default();
        let mut rows = Vec::with_capacity(batch.len());
        for row in batch {
            match &sources[&row.deployment] {
                Some(source) => rows.push((row, source)),
                None => ingested.strays += 1,
            }
        }
        let mut tx = self.begin().await?;
        for source in sources.values().flatten() {
            note_source(&mut tx, source).await?;
        }
        for rows in rows.chunks(ROWS_PER_STATEMENT) {
            insert(&mut tx, rows, &mut ingested).await?;
        }
        self.check_early(&mut tx, &rows).await?;
        tx.commit().await?;
        Ok(ingested)
    }

    /// Decides about metrics that came before their rows: shown from now on, or dropped where their author may not
    /// speak about the model.
    async fn check_early(&self, tx: &mut Tx, rows: &[(&TrackedPrediction, &Source)]) -> Outcome<()> {
        let some = sqlx::query("SELECT 1 FROM delayed_metrics WHERE unchecked_author <> '' LIMIT 1")
            .fetch_optional(&mut **tx)
            .await?;
        if some.is_none() {
            return Ok(());
        }
        let by_uuid: BTreeMap<&str, &Source> =
            rows.iter().map(|(row, source)| (row.uuid.as_str(), *source)).collect();
        for rows in rows.chunks(ROWS_PER_STATEMENT) {
            let uuids: Vec<String> = rows.iter().map(|(row, _)| row.uuid.clone()).collect();
            let early = of_list(
                "SELECT number, row_id, unchecked_author FROM delayed_metrics WHERE unchecked_author <> '' AND row_id IN",
                &uuids,
                "",
            );
            for early in early.fetch_all(&mut **tx).await? {
                let source = by_uuid[text(&early, "row_id").as_str()];
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

async fn insert(tx: &mut Tx, rows: &[(&TrackedPrediction, &Source)], ingested: &mut Ingested) -> Outcome<()> {
    const COLUMNS: usize = 7;
    let places: Vec<String> = (0..rows.len())
        .map(|row| {
            let at = |column| row * COLUMNS + column;
            format!("(${}, 0, ${}, ${}, ${}, ${}, ${}, ${})", at(1), at(2), at(3), at(4), at(5), at(6), at(7))
        })
        .collect();
    let sql = format!(
        "INSERT INTO metric_rows (id, is_aggregate, model_number, deployment_number, replica, start_ms, end_ms, \
         metrics) VALUES {} ON CONFLICT (id) DO NOTHING",
        places.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (row, source) in rows {
        query = query
            .bind(&row.uuid)
            .bind(source.model_number)
            .bind(source.deployment_number)
            .bind(row.replica.as_str())
            .bind(i64::try_from(row.start_ms).unwrap_or(i64::MAX))
            .bind(i64::try_from(row.end_ms).unwrap_or(i64::MAX))
            .bind(metrics_text(&row.metrics, ingested));
    }
    ingested.rows += query.execute(&mut **tx).await?.rows_affected();
    Ok(())
}

/// The text that is kept. It comes from user code's process, so it may be anything.
fn metrics_text(metrics: &[u8], ingested: &mut Ingested) -> String {
    if metrics.is_empty() {
        return "{}".to_owned();
    }
    let is_object = serde_json::from_slice::<Metrics>(metrics).is_ok();
    match std::str::from_utf8(metrics) {
        Ok(text) if is_object => text.to_owned(),
        _ => {
            ingested.unreadable += 1;
            "{}".to_owned()
        }
    }
}
