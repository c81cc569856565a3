//! Which builds are kept, and which are gone but for what they were made from.

use millgate_contract::ids::{BuildId, ModelId, Username};

use super::{NewBuild, Store, Tx, builds::refuse_full_line, flag, number, text};
use crate::{
    collection::Candidate,
    fault::{Fault, Outcome},
    moment::now_us,
    rows::{Build, BuildStatus},
};

/// True of builds that a deployment runs of, or waits for.
const IS_USED: &str = "EXISTS (SELECT 1 FROM deployments d WHERE d.build_id = b.id \
                       AND d.status NOT IN ('stopped', 'failed'))";

impl Store {
    /// Builds that are over and whose files are there, those of models on their way out left aside.
    pub(crate) async fn collection_candidates(&self) -> Outcome<Vec<Candidate>> {
        let rows = sqlx::query(
            "SELECT b.id, b.model_id, b.number, b.status, b.is_pinned, b.updated_us, COALESCE(d.active, 0) AS active, \
             COALESCE(d.sequence, 0) AS sequence, COALESCE(d.stopped_us, 0) AS stopped_us FROM builds b \
             JOIN models m ON m.id = b.model_id LEFT JOIN (SELECT build_id, \
             MAX(CASE WHEN status IN ('stopped', 'failed') THEN CAST(0 AS BIGINT) ELSE 1 END) AS active, \
             MAX(CASE WHEN status IN ('deployed', 'stopping', 'stopped') THEN sequence ELSE 0 END) AS sequence, \
             MAX(stopped_us) AS stopped_us FROM deployments GROUP BY build_id) d ON d.build_id = b.id \
             WHERE b.collected_us = 0 AND b.is_deleting = 0 AND m.is_deleting = 0 \
             AND b.status IN ('built', 'build failed')",
        )
        .fetch_all(&self.read)
        .await?;
        let candidate = |row| Candidate {
            id: BuildId::new(text(row, "id")),
            model: ModelId::new(text(row, "model_id")),
            number: number(row, "number"),
            is_built: text(row, "status") == BuildStatus::Built.as_str(),
            is_pinned: flag(row, "is_pinned"),
            is_used: flag(row, "active"),
            sequence: number(row, "sequence"),
            used_us: number(row, "updated_us").max(number(row, "stopped_us")),
        };
        Ok(rows.iter().map(candidate).collect())
    }

    /// Marks a build as collected, unless it is pinned or used by now: from then on no deployment of it begins.
    pub(crate) async fn collect_build(&self, id: &BuildId) -> Outcome<bool> {
        let mut tx = self.begin().await?;
        let sql = sqlx::AssertSqlSafe(format!(
            "UPDATE builds AS b SET collected_us = $1 WHERE b.id = $2 AND b.collected_us = 0 AND b.is_pinned = 0 \
             AND b.status IN ('built', 'build failed') AND NOT {IS_USED}"
        ));
        let done = sqlx::query(sql).bind(now_us()).bind(id.as_str()).execute(&mut *tx).await?;
        if done.rows_affected() == 1 {
            super::audit::build_collected(&mut tx, id.as_str()).await?;
        }
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Builds that are collected and whose files may still be there.
    pub(crate) async fn builds_to_free(&self) -> Outcome<Vec<BuildId>> {
        let rows = sqlx::query(
            "SELECT id FROM builds WHERE collected_us > 0 AND is_freed = 0 AND is_deleting = 0 ORDER BY number",
        )
        .fetch_all(&self.read)
        .await?;
        Ok(rows.iter().map(|row| BuildId::new(text(row, "id"))).collect())
    }

    /// The files of a collected build are gone.
    pub(crate) async fn note_freed(&self, id: &BuildId) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE builds SET is_freed = 1 WHERE id = $1 AND collected_us > 0")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Asks for a build that is made again from what another was made from: its source has a row that names it from now on.
    pub(crate) async fn insert_rebuild(
        &self,
        from: &Build,
        (creator, comment): (&Username, String),
        waiting_max: u32,
    ) -> Outcome<Build> {
        let new = NewBuild {
            creator: creator.clone(),
            comment,
            file_path: from.file_path.clone(),
            function_name: from.function_name.clone(),
            kernel: from.kernel.clone(),
            runtime_identifier: from.runtime_identifier.clone(),
            runtime_addon_identifiers: from.runtime_addon_identifiers.clone(),
            model_root_dir: from.model_root_dir.clone(),
            build_script_path: from.build_script_path.clone(),
            include: from.include.clone(),
            example_request: from.example_request.clone(),
            example_response: from.example_response.clone(),
        };
        let mut tx = self.begin().await?;
        refuse_full_line(&mut tx, waiting_max).await?;
        let id = super::builds::insert(&mut tx, &from.model_id, &new, None).await?;
        sqlx::query("UPDATE builds SET rebuilt_from = $1, source_hash = $2 WHERE id = $3")
            .bind(from.id.as_str())
            .bind(&from.source_hash)
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(self.build(&id).await?.expect("it was just inserted"))
    }

    /// Keeps a build whatever its age, or no more. What is gone cannot be kept.
    pub(crate) async fn pin_build(&self, build: &Build, is_pinned: bool) -> Outcome<()> {
        let mut tx = self.begin().await?;
        if is_pinned {
            refuse_collected(&mut tx, &build.id).await?;
        }
        sqlx::query("UPDATE builds SET is_pinned = $1 WHERE id = $2")
            .bind(i64::from(is_pinned))
            .bind(build.id.as_str())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }
}

/// Refuses what needs the files of a build that was collected.
pub(super) async fn refuse_collected(tx: &mut Tx, id: &BuildId) -> Outcome<()> {
    let row = sqlx::query("SELECT build_number, collected_us FROM builds WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row.filter(|row| flag(row, "collected_us")) else { return Ok(()) };
    let number = number(&row, "build_number");
    Err(Fault::Precondition(format!(
        "build {number} was collected: its files are gone, its source and the list of its packages are kept; make it \
         again with `millgate builds MODEL --rebuild {number}` (RebuildModelBuild) and deploy what comes of it"
    )))
}
