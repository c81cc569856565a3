//! Builds.

use std::collections::HashSet;

use millgate_contract::ids::{BuildId, ModelId, Username};
use sqlx::{Row, any::AnyRow};

use super::{Filter, NewDeployment, Page, Paging, Store, Tx, flag, next, number, text};
use crate::{
    fault::{Fault, Outcome},
    moment::now_us,
    names,
    rows::{Build, BuildStatus},
};

const COLUMNS: &[(&str, &str)] = &[
    ("id", "b.id"),
    ("comment", "b.comment"),
    ("creator", "b.creator"),
    ("creator.username", "b.creator"),
    ("file_path", "b.file_path"),
    ("function_name", "b.function_name"),
    ("kernel", "b.kernel"),
    ("status", "b.status"),
    ("runtime_identifier", "b.runtime_identifier"),
    ("build_number", "b.build_number"),
    ("created_at", "b.created_us"),
    ("updated_at", "b.updated_us"),
    ("built_at", "b.built_us"),
];

/// What a new build is made of.
#[derive(Debug, Clone)]
pub(crate) struct NewBuild {
    pub(crate) creator: Username,
    pub(crate) comment: String,
    pub(crate) file_path: String,
    pub(crate) function_name: String,
    pub(crate) kernel: String,
    pub(crate) runtime_identifier: String,
    pub(crate) runtime_addon_identifiers: String,
    pub(crate) model_root_dir: String,
    pub(crate) build_script_path: String,
    pub(crate) include: String,
    pub(crate) example_request: String,
    pub(crate) example_response: String,
}

/// A build on its way out.
#[derive(Debug)]
pub(crate) struct BuildToPurge {
    pub(crate) id: BuildId,
    pub(crate) number: i64,
}

impl Store {
    /// Makes a build and, with `deployment`, one that waits for it.
    pub(crate) async fn insert_build(
        &self,
        model: &ModelId,
        new: &NewBuild,
        deployment: Option<&NewDeployment>,
        waiting_max: u32,
    ) -> Outcome<Build> {
        let mut tx = self.begin().await?;
        refuse_full_line(&mut tx, waiting_max).await?;
        let id = insert(&mut tx, model, new, deployment).await?;
        tx.commit().await?;
        Ok(self.build(&id).await?.expect("it was just inserted"))
    }

    pub(crate) async fn build(&self, id: &BuildId) -> Outcome<Option<Build>> {
        let row = sqlx::query("SELECT b.* FROM builds b WHERE id = $1 AND is_deleting = 0")
            .bind(id.as_str())
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(read))
    }

    pub(crate) async fn builds(&self, model: &ModelId, paging: &Paging) -> Outcome<Page<Build>> {
        let filter = Filter {
            select: "SELECT b.* FROM builds b WHERE b.is_deleting = 0 AND b.model_id = $1",
            scope: vec![model.to_string()],
            columns: COLUMNS,
            order: "b.number",
        };
        self.page(filter, paging, read).await
    }

    /// Builds that are not over, in their order; models on their way out left aside.
    pub(crate) async fn unfinished_builds(&self) -> Outcome<Vec<Build>> {
        let rows = sqlx::query(
            "SELECT b.* FROM builds b JOIN models m ON m.id = b.model_id WHERE m.is_deleting = 0 \
             AND b.is_deleting = 0 AND b.status IN ('pending', 'queued', 'building', 'pushing') ORDER BY b.number",
        )
        .fetch_all(&self.read)
        .await?;
        Ok(rows.iter().map(read).collect())
    }

    /// Moves a build on, if it is where the caller thinks.
    pub(crate) async fn move_build(
        &self,
        id: &BuildId,
        from: BuildStatus,
        to: BuildStatus,
        reason: &str,
    ) -> Outcome<bool> {
        let built_us = if to == BuildStatus::Built { now_us() } else { 0 };
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "UPDATE builds SET status = $1, reason = $2, updated_us = $3, built_us = $4 WHERE id = $5 AND status = $6",
        )
        .bind(to.as_str())
        .bind(reason)
        .bind(now_us())
        .bind(built_us)
        .bind(id.as_str())
        .bind(from.as_str())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 1 && to.is_over() {
            super::audit::build_ended(&mut tx, id.as_str(), to, reason).await?;
        }
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Records what a build was made of and what came out.
    pub(crate) async fn seal_build(&self, id: &BuildId, source_hash: &str, build_hash: &str) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE builds SET source_hash = $1, build_hash = $2, updated_us = $3 WHERE id = $4")
            .bind(source_hash)
            .bind(build_hash)
            .bind(now_us())
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Records what whoever asked for a build should know of it: a JSON list.
    pub(crate) async fn note_build_warnings(&self, id: &BuildId, warnings: &str) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE builds SET warnings = $1 WHERE id = $2")
            .bind(warnings)
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Records the answer of the example call where the caller gave none.
    pub(crate) async fn set_example_response(&self, id: &BuildId, response: &str) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE builds SET example_response = $1 WHERE id = $2 AND example_response = ''")
            .bind(response)
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Takes a build out of sight; refused while a deployment of it runs or waits. Deployments that are over go too.
    pub(crate) async fn begin_build_deletion(&self, id: &BuildId) -> Outcome<()> {
        let mut tx = self.begin().await?;
        let active = sqlx::query(
            "SELECT number FROM deployments WHERE build_id = $1 AND status NOT IN ('stopped', 'failed')",
        )
        .bind(id.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(row) = active {
            return Err(Fault::Precondition(format!(
                "build `{id}` is used by deployment {}; stop it first",
                row.get::<i64, _>("number")
            )));
        }
        sqlx::query("UPDATE builds SET is_deleting = 1 WHERE id = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Builds whose files are to be freed, with the model on its way out or alone.
    pub(crate) async fn builds_to_purge(&self, model: Option<&ModelId>) -> Outcome<Vec<BuildToPurge>> {
        let query = match model {
            Some(model) => {
                sqlx::query("SELECT id, number FROM builds WHERE model_id = $1").bind(model.as_str())
            }
            None => sqlx::query("SELECT id, number FROM builds WHERE is_deleting = 1"),
        };
        let rows = query.fetch_all(&self.read).await?;
        let build = |row| BuildToPurge { id: BuildId::new(text(row, "id")), number: number(row, "number") };
        Ok(rows.iter().map(build).collect())
    }

    /// Hashes of the sources that builds are made from, collected and deleted ones included as long as they have a row.
    pub(crate) async fn sources_used(&self) -> Outcome<HashSet<String>> {
        let rows = sqlx::query("SELECT DISTINCT source_hash FROM builds").fetch_all(&self.read).await?;
        Ok(rows.iter().map(|row| text(row, "source_hash")).collect())
    }

    pub(crate) async fn purge_build(&self, id: &BuildId) -> Outcome<()> {
        let mut tx = self.begin().await?;
        for sql in [
            "DELETE FROM deployments WHERE build_id IN (SELECT id FROM builds WHERE id = $1 AND is_deleting = 1)",
            "DELETE FROM builds WHERE id = $1 AND is_deleting = 1",
        ] {
            sqlx::query(sql).bind(id.as_str()).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// Refuses another build where as many wait as may.
pub(super) async fn refuse_full_line(tx: &mut Tx, waiting_max: u32) -> Outcome<()> {
    let row = sqlx::query("SELECT COUNT(*) AS waiting FROM builds WHERE status IN ('pending', 'queued')")
        .fetch_one(&mut **tx)
        .await?;
    if number(&row, "waiting") >= i64::from(waiting_max) {
        return Err(Fault::Exhausted(format!("{waiting_max} builds wait already; try again later")));
    }
    Ok(())
}

pub(super) async fn insert(
    tx: &mut Tx,
    model: &ModelId,
    new: &NewBuild,
    deployment: Option<&NewDeployment>,
) -> Outcome<BuildId> {
    let id = BuildId::new(names::uuid());
    let number = next(tx, "build").await?;
    sqlx::query(
        "INSERT INTO builds (id, number, build_number, model_id, creator, comment, file_path, function_name, kernel, \
         runtime_identifier, runtime_addon_identifiers, model_root_dir, build_script_path, include, example_request, \
         example_response, status, reason, source_hash, build_hash, is_deleting, created_us, updated_us, built_us) \
         VALUES ($1, $2, (SELECT COALESCE(MAX(build_number), 0) + 1 FROM builds WHERE model_id = $3), $3, $4, $5, $6, \
         $7, $8, $9, $10, $11, $12, $13, $14, $15, 'pending', '', '', '', 0, $16, $16, 0)",
    )
    .bind(id.as_str())
    .bind(number)
    .bind(model.as_str())
    .bind(new.creator.as_str())
    .bind(&new.comment)
    .bind(&new.file_path)
    .bind(&new.function_name)
    .bind(&new.kernel)
    .bind(&new.runtime_identifier)
    .bind(&new.runtime_addon_identifiers)
    .bind(&new.model_root_dir)
    .bind(&new.build_script_path)
    .bind(&new.include)
    .bind(&new.example_request)
    .bind(&new.example_response)
    .bind(now_us())
    .execute(&mut **tx)
    .await?;
    if let Some(deployment) = deployment {
        super::deployments::insert(tx, model, &id, deployment).await?;
    }
    Ok(id)
}

pub(super) fn read(row: &AnyRow) -> Build {
    Build {
        id: BuildId::new(text(row, "id")),
        number: number(row, "number"),
        build_number: number(row, "build_number"),
        model_id: ModelId::new(text(row, "model_id")),
        creator: Username::new(text(row, "creator")),
        comment: text(row, "comment"),
        file_path: text(row, "file_path"),
        function_name: text(row, "function_name"),
        kernel: text(row, "kernel"),
        runtime_identifier: text(row, "runtime_identifier"),
        runtime_addon_identifiers: text(row, "runtime_addon_identifiers"),
        model_root_dir: text(row, "model_root_dir"),
        build_script_path: text(row, "build_script_path"),
        include: text(row, "include"),
        example_request: text(row, "example_request"),
        example_response: text(row, "example_response"),
        warnings: text(row, "warnings"),
        status: BuildStatus::parse(&text(row, "status")).unwrap_or(BuildStatus::Failed),
        reason: text(row, "reason"),
        source_hash: text(row, "source_hash"),
        build_hash: text(row, "build_hash"),
        created_us: number(row, "created_us"),
        updated_us: number(row, "updated_us"),
        built_us: number(row, "built_us"),
        is_pinned: flag(row, "is_pinned"),
        collected_us: number(row, "collected_us"),
        rebuilt_from: text(row, "rebuilt_from"),
    }
}
