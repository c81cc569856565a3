//! Forward migrations, embedded. Each runs once, in one transaction, in order. Refuses a database of a newer program.

use std::path::Path;

use sqlx::{AnyPool, Row};

use crate::data_dir::OpenError;

/// Statements are separated by a line that holds only `--`.
const MIGRATIONS: [&str; 6] = [
    include_str!("../../migrations/0001_foundation.sql"),
    include_str!("../../migrations/0002_policies.sql"),
    include_str!("../../migrations/0003_metrics.sql"),
    include_str!("../../migrations/0004_people.sql"),
    include_str!("../../migrations/0005_audit.sql"),
    include_str!("../../migrations/0006_underway.sql"),
];

pub(super) async fn migrate(pool: &AnyPool, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Store { path: path.to_owned(), source };
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    let row = sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM schema_version")
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
    let found: i64 = row.get("version");
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(OpenError::Schema { found, known });
    }
    for (version, migration) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        for statement in migration.split("\n--\n") {
            sqlx::query(statement).execute(&mut *tx).await.map_err(failed)?;
        }
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
            .bind(version)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::MIGRATIONS;
    use crate::{data_dir::OpenError, store::Store};

    #[tokio::test]
    async fn a_database_of_a_newer_program_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s.db");
        let store = Store::open(&path).await.unwrap();
        sqlx::query("INSERT INTO schema_version (version) VALUES (99)").execute(&store.write).await.unwrap();
        store.close().await;
        let newest = i64::try_from(MIGRATIONS.len()).unwrap();
        let opened = Store::open(&path).await;
        assert!(matches!(opened, Err(OpenError::Schema { found: 99, known }) if known == newest));
    }
}
