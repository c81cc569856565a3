//! The record of who did what. Append-only: this module has an insert and reads, and no other names its table. A deed is
//! written down before it is done, elsewhere, and moves into the record when it is: so one that the end of the server
//! cut off is not missed.

use serde_json::{Value, json};
use sqlx::{Row, any::AnyRow};

use super::{Filter, Page, Paging, Store, Tx, next, number, text};
use crate::{
    fault::Outcome,
    moment::now_us,
    rows::{BuildStatus, DeploymentStatus},
};

const COLUMNS: &[(&str, &str)] = &[
    ("number", "a.number"),
    ("at", "a.at_us"),
    ("username", "a.username"),
    ("address", "a.address"),
    ("operation", "a.operation"),
    ("object", "a.object"),
    ("project_id", "a.project_id"),
    ("status", "a.status"),
    ("message", "a.message"),
];

/// Something that was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deed {
    /// '' is the server itself.
    pub(crate) username: String,
    /// '' is this host.
    pub(crate) address: String,
    /// The operation's name in the API document, or what the server calls its own doing.
    pub(crate) operation: String,
    /// The path of what it was done to, new ids included.
    pub(crate) object: String,
    pub(crate) project_id: String,
    /// HTTP status; 0 of the server's own doing.
    pub(crate) status: i64,
    /// Why it was refused, or failed.
    pub(crate) message: String,
    /// JSON: inputs and outputs.
    pub(crate) details: String,
}

/// A deed as it was recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) number: i64,
    pub(crate) at_us: i64,
    pub(crate) deed: Deed,
}

/// A deed that has begun.
#[derive(Debug)]
pub(crate) struct Underway(i64);

/// What is said of a deed whose answer nobody saw.
const CUT_OFF: &str =
    "the server ended, or the caller was gone, before it was answered: it may have been done";

impl Store {
    /// Writes down what is about to be done; answers what [`Self::record`] is to be told.
    pub(crate) async fn begin_deed(&self, deed: &Deed) -> Outcome<Underway> {
        let mut tx = self.begin().await?;
        let number = next(&mut tx, "audit_underway").await?;
        sqlx::query(
            "INSERT INTO audit_underway (number, at_us, username, address, operation, object, project_id, details) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(number)
        .bind(now_us())
        .bind(&deed.username)
        .bind(&deed.address)
        .bind(&deed.operation)
        .bind(&deed.object)
        .bind(&deed.project_id)
        .bind(&deed.details)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Underway(number))
    }

    /// Records what came of a deed, which was written down before unless it was refused.
    pub(crate) async fn record(&self, deed: &Deed, underway: Option<Underway>) -> Outcome<()> {
        let mut tx = self.begin().await?;
        if let Some(Underway(number)) = underway {
            forget(&mut tx, number).await?;
        }
        append(&mut tx, deed, now_us()).await?;
        Ok(tx.commit().await?)
    }

    /// Records the deeds that the end of a server cut off, of which nobody knows whether they were done. To be called
    /// before anything else is asked for.
    pub(crate) async fn record_cut_off(&self) -> Outcome<()> {
        let mut tx = self.begin().await?;
        let rows = sqlx::query("SELECT * FROM audit_underway ORDER BY number").fetch_all(&mut *tx).await?;
        for row in &rows {
            let deed = Deed {
                username: text(row, "username"),
                address: text(row, "address"),
                operation: text(row, "operation"),
                object: text(row, "object"),
                project_id: text(row, "project_id"),
                status: 0,
                message: CUT_OFF.to_owned(),
                details: text(row, "details"),
            };
            append(&mut tx, &deed, number(row, "at_us")).await?;
            forget(&mut tx, number(row, "number")).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Deeds from `since_us` on and before `until_us`.
    pub(crate) async fn deeds(
        &self,
        since_us: i64,
        until_us: i64,
        paging: &Paging,
    ) -> Outcome<Page<Recorded>> {
        let filter = Filter {
            select: "SELECT a.* FROM audit a WHERE a.at_us >= CAST($1 AS BIGINT) AND a.at_us < CAST($2 AS BIGINT)",
            scope: vec![since_us.to_string(), until_us.to_string()],
            columns: COLUMNS,
            order: "a.number",
        };
        self.page(filter, paging, read).await
    }

    /// At most `count` deeds after this number.
    pub(crate) async fn deeds_after(&self, after: i64, count: i64) -> Outcome<Vec<Recorded>> {
        let rows = sqlx::query("SELECT * FROM audit WHERE number > $1 ORDER BY number LIMIT $2")
            .bind(after)
            .bind(count)
            .fetch_all(&self.read)
            .await?;
        Ok(rows.iter().map(read).collect())
    }
}

/// Records the end of a build with all it was made from and what came of it.
pub(super) async fn build_ended(tx: &mut Tx, id: &str, to: BuildStatus, reason: &str) -> Outcome<()> {
    let row = sqlx::query(
        "SELECT b.*, m.project_id FROM builds b JOIN models m ON m.id = b.model_id WHERE b.id = $1",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    let column = |name: &'static str| text(&row, name);
    let details = json!({
        "status": to.as_str(),
        "creator": column("creator"),
        "file_path": column("file_path"),
        "function_name": column("function_name"),
        "runtime_identifier": column("runtime_identifier"),
        "model_root_dir": column("model_root_dir"),
        "build_script_path": column("build_script_path"),
        "include": column("include"),
        "source_hash": column("source_hash"),
        "build_hash": column("build_hash"),
    });
    let (project_id, model) = (column("project_id"), column("model_id"));
    let object = format!("projects/{project_id}/models/{model}/builds/{id}");
    append(tx, &own("BuildEnded", object, project_id, (reason, details)), now_us()).await
}

/// Records that a build's files go.
pub(super) async fn build_collected(tx: &mut Tx, id: &str) -> Outcome<()> {
    let row = sqlx::query(
        "SELECT b.model_id, b.build_hash, m.project_id FROM builds b JOIN models m ON m.id = b.model_id WHERE b.id = $1",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    let column = |name: &'static str| text(&row, name);
    let details = json!({ "build_hash": column("build_hash") });
    let (project_id, model) = (column("project_id"), column("model_id"));
    let object = format!("projects/{project_id}/models/{model}/builds/{id}");
    append(tx, &own("BuildCollected", object, project_id, ("", details)), now_us()).await
}

/// Records that a deployment serves, or does so no more, with the build it is of.
pub(super) async fn deployment_moved(
    tx: &mut Tx,
    id: &str,
    to: DeploymentStatus,
    reason: &str,
) -> Outcome<()> {
    let row = sqlx::query(
        "SELECT d.*, m.project_id, b.build_hash, b.source_hash FROM deployments d \
         JOIN models m ON m.id = d.model_id JOIN builds b ON b.id = d.build_id WHERE d.id = $1",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    let column = |name: &'static str| text(&row, name);
    let details = json!({
        "status": to.as_str(),
        "deployer": column("deployer"),
        "source_hash": column("source_hash"),
        "build_hash": column("build_hash"),
        "replicas": number(&row, "replicas"),
        "cpu_millicores": number(&row, "cpu_millicores"),
        "memory_mb": number(&row, "memory_mb"),
        "nvidia_gpus": number(&row, "nvidia_gpus"),
    });
    let (project_id, model, build) = (column("project_id"), column("model_id"), column("build_id"));
    let object = format!("projects/{project_id}/models/{model}/builds/{build}/deployments/{id}");
    append(tx, &own("DeploymentMoved", object, project_id, (reason, details)), now_us()).await
}

fn own(operation: &str, object: String, project_id: String, (message, details): (&str, Value)) -> Deed {
    Deed {
        operation: operation.to_owned(),
        object,
        project_id,
        message: message.to_owned(),
        details: details.to_string(),
        ..Deed::default()
    }
}

async fn forget(tx: &mut Tx, number: i64) -> Outcome<()> {
    sqlx::query("DELETE FROM audit_underway WHERE number = $1").bind(number).execute(&mut **tx).await?;
    Ok(())
}

async fn append(tx: &mut Tx, deed: &Deed, at_us: i64) -> Outcome<()> {
    let number = next(tx, "audit").await?;
    sqlx::query(
        "INSERT INTO audit (number, at_us, username, address, operation, object, project_id, status, message, details) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(number)
    .bind(at_us)
    .bind(&deed.username)
    .bind(&deed.address)
    .bind(&deed.operation)
    .bind(&deed.object)
    .bind(&deed.project_id)
    .bind(deed.status)
    .bind(&deed.message)
    .bind(&deed.details)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn read(row: &AnyRow) -> Recorded {
    Recorded {
        number: number(row, "number"),
        at_us: number(row, "at_us"),
        deed: Deed {
            username: text(row, "username"),
            address: text(row, "address"),
            operation: text(row, "operation"),
            object: text(row, "object"),
            project_id: text(row, "project_id"),
            status: row.get("status"),
            message: text(row, "message"),
            details: text(row, "details"),
        },
    }
}
