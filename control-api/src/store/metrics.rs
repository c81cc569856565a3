//! Tracked metrics: rows of predictions by UUID, aggregates beside them, and metrics that became known later.
//!
//! Invariants: a prediction is one row, however often it is shipped. What became known later is kept as it came and
//! merged when rows are read, in the order of its arrival, so that it may come before its row; until the row is there
//! nobody knows whether its author may speak about it, and it is not shown.
//!
//! Predictions are in two places: many in one row of the database where their UUIDs say when they began ([`chunk`]), and
//! one by one where they do not, which is so of what gateways of earlier versions have shipped. Aggregates are with the
//! latter.

mod chunk;
mod chunks;
mod delayed;
mod ingest;
mod retention;
mod window;

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use millgate_contract::ids::{BuildId, DeploymentId, ModelId};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use sqlx::{
    Any, AssertSqlSafe,
    any::{AnyArguments, AnyRow},
    query::Query,
};

pub(crate) use self::{
    delayed::Aggregate,
    window::{Cursor, MetricRow, Window},
};
use super::{Store, Tx, number, text};
use crate::fault::Outcome;

/// Rows of one statement.
const ROWS_PER_STATEMENT: usize = 200;

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) deployment_number: i64,
    pub(crate) deployment: DeploymentId,
    pub(crate) build: BuildId,
    pub(crate) model: ModelId,
    pub(crate) model_number: i64,
}

impl Store {
    /// A deployment as a source of rows, also when it is long gone and has left some.
    pub(crate) async fn metric_source(&self, deployment: &DeploymentId) -> Outcome<Option<Source>> {
        let row = sqlx::query(
            "SELECT d.number AS deployment_number, d.id AS deployment_id, d.build_id, d.model_id, \
             m.number AS model_number FROM deployments d JOIN models m ON m.id = d.model_id WHERE d.id = $1 \
             UNION SELECT s.deployment_number, s.deployment_id, s.build_id, s.model_id, s.model_number \
             FROM metric_sources s WHERE s.deployment_id = $1",
        )
        .bind(deployment.as_str())
        .fetch_optional(&self.read)
        .await?;
        Ok(row.as_ref().map(source))
    }

    /// The model of a build, also of one that is long gone and has left rows.
    pub(crate) async fn model_of_build(&self, build: &BuildId) -> Outcome<Option<ModelId>> {
        let row = sqlx::query(
            "SELECT model_id FROM builds WHERE id = $1 UNION SELECT model_id FROM metric_sources WHERE build_id = $1",
        )
        .bind(build.as_str())
        .fetch_optional(&self.read)
        .await?;
        Ok(row.map(|row| text(&row, "model_id")).map(ModelId::new))
    }

    /// Where the rows of a deployment's number come from.
    pub(crate) async fn metric_source_by_number(&self, deployment_number: i64) -> Outcome<Option<Source>> {
        let row = sqlx::query("SELECT s.* FROM metric_sources s WHERE deployment_number = $1")
            .bind(deployment_number)
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(source))
    }
}

/// Remembers a source before its first row.
async fn note_source(tx: &mut Tx, source: &Source) -> Outcome<()> {
    sqlx::query(
        "INSERT INTO metric_sources (deployment_number, deployment_id, build_id, model_id, model_number) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (deployment_number) DO NOTHING",
    )
    .bind(source.deployment_number)
    .bind(source.deployment.as_str())
    .bind(source.build.as_str())
    .bind(source.model.as_str())
    .bind(source.model_number)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn source(row: &AnyRow) -> Source {
    Source {
        deployment_number: number(row, "deployment_number"),
        deployment: DeploymentId::new(text(row, "deployment_id")),
        build: BuildId::new(text(row, "build_id")),
        model: ModelId::new(text(row, "model_id")),
        model_number: number(row, "model_number"),
    }
}

/// `before ($1, $2, …) after` with these texts bound.
fn of_list<'q>(before: &str, texts: &'q [String], after: &str) -> Query<'q, Any, AnyArguments> {
    let list: Vec<String> = (1..=texts.len()).map(|n| format!("${n}")).collect();
    let sql = AssertSqlSafe(format!("{before} ({}) {after}", list.join(", ")));
    texts.iter().fold(sqlx::query(sql), Query::bind)
}

/// A JSON object whose values are copied as they are: numbers keep every digit.
pub(crate) type Metrics = BTreeMap<String, Box<RawValue>>;

/// Whether [`object`] finds one, without keeping anything of it.
fn is_object(json: &str) -> bool {
    struct Pairs;
    struct Key;
    impl<'de> Visitor<'de> for Pairs {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while map.next_entry_seed(Key, PhantomData::<IgnoredAny>)?.is_some() {}
            Ok(())
        }
    }
    impl<'de> DeserializeSeed<'de> for Key {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_str(self)
        }
    }
    impl Visitor<'_> for Key {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a key")
        }

        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            Ok(())
        }
    }
    let mut text = serde_json::Deserializer::from_str(json);
    text.deserialize_map(Pairs).and_then(|()| text.end()).is_ok()
}

/// The object in some bytes, if there is one.
pub(crate) fn object(json: &[u8]) -> Option<Metrics> {
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
impl Store {
    /// Rows, and additions to them.
    pub(crate) async fn metric_counts(&self) -> (i64, i64) {
        use sqlx::Row;
        let sql = "SELECT (SELECT COUNT(*) FROM metric_rows), (SELECT COUNT(*) FROM delayed_metrics), \
             (SELECT CAST(COALESCE(SUM(row_count), 0) AS BIGINT) FROM metric_chunks)";
        let row = sqlx::query(sql).fetch_one(&self.read).await.unwrap();
        (row.get::<i64, _>(0) + row.get::<i64, _>(2), row.get(1))
    }
}
