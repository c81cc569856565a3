//! Which builds are to be read again, and which were found to be damaged.

use millgate_contract::ids::BuildId;
use sqlx::Row;

use super::{Store, builds};
use crate::{fault::Outcome, moment::now_us, rows::Build};

/// Builds that are built and have files, by their rows: whoever takes files away writes that first.
const WITH_FILES: &str = "SELECT b.* FROM builds b JOIN models m ON m.id = b.model_id WHERE b.status = 'built' \
                          AND b.collected_us = 0 AND b.is_deleting = 0 AND m.is_deleting = 0";

impl Store {
    /// The build whose content was last read, or sealed, before the one time, or which is damaged and was before the other:
    /// one that serves before any other.
    pub(crate) async fn build_to_read(
        &self,
        before_us: i64,
        damaged_before_us: i64,
    ) -> Outcome<Option<Build>> {
        let sql = sqlx::AssertSqlSafe(format!(
            "{WITH_FILES} AND ((b.read_us < $1 AND b.built_us < $1) OR (b.reason <> '' AND b.read_us < $2)) \
             ORDER BY CASE WHEN EXISTS (SELECT 1 FROM deployments d WHERE d.build_id = b.id \
             AND d.status NOT IN ('stopped', 'failed')) THEN 0 ELSE 1 END, b.read_us, b.number LIMIT 1"
        ));
        let row = sqlx::query(sql).bind(before_us).bind(damaged_before_us).fetch_optional(&self.read).await?;
        Ok(row.as_ref().map(builds::read))
    }

    /// The build, if it is built and nobody may be taking its files away.
    pub(crate) async fn build_with_files(&self, id: &BuildId) -> Outcome<Option<Build>> {
        let sql = sqlx::AssertSqlSafe(format!("{WITH_FILES} AND b.id = $1"));
        let row = sqlx::query(sql).bind(id.as_str()).fetch_optional(&self.read).await?;
        Ok(row.as_ref().map(builds::read))
    }

    /// Its content was read now.
    pub(crate) async fn note_build_read(&self, id: &BuildId) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE builds SET read_us = $1 WHERE id = $2")
            .bind(now_us())
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// What is wrong with a build, or '', becomes its reason and that of what serves of it.
    pub(crate) async fn note_build_damage(&self, build: &Build, damage: &str) -> Outcome<()> {
        let mut tx = self.begin().await?;
        for sql in [
            "UPDATE builds SET reason = $1 WHERE id = $2 AND reason = $3 AND status = 'built'",
            "UPDATE deployments SET reason = $1 WHERE build_id = $2 AND reason = $3 AND status = 'deployed'",
        ] {
            sqlx::query(sql)
                .bind(damage)
                .bind(build.id.as_str())
                .bind(&build.reason)
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }

    /// How many builds are damaged.
    pub(crate) async fn damaged_builds(&self) -> Outcome<u64> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS damaged FROM builds WHERE status = 'built' AND reason <> '' AND collected_us = 0 \
             AND is_deleting = 0",
        )
        .fetch_one(&self.read)
        .await?;
        Ok(row.get::<i64, _>("damaged").unsigned_abs())
    }

    /// Makes a build one whose turn it is to be read.
    #[cfg(test)]
    pub(crate) async fn pretend_sealed_long_ago(&self, id: &BuildId) {
        let mut tx = self.begin().await.unwrap();
        let sql = "UPDATE builds SET read_us = 0, built_us = 1 WHERE id = $1";
        sqlx::query(sql).bind(id.as_str()).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }
}
