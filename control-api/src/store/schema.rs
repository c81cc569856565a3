//! Forward migrations, embedded. Each runs once, in one transaction, in order. Refuses a database of a newer program.

use std::path::Path;

use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::{backup, connections::Connections};
use crate::{data_dir::OpenError, database::Database, moment::now_us};

/// Statements are separated by a line that holds only `--`.
const MIGRATIONS: [&str; 11] = [
    include_str!("../../migrations/0001_foundation.sql"),
    include_str!("../../migrations/0002_policies.sql"),
    include_str!("../../migrations/0003_metrics.sql"),
    include_str!("../../migrations/0004_people.sql"),
    include_str!("../../migrations/0005_audit.sql"),
    include_str!("../../migrations/0006_underway.sql"),
    include_str!("../../migrations/0007_collection.sql"),
    include_str!("../../migrations/0008_include.sql"),
    include_str!("../../migrations/0009_profiles.sql"),
    include_str!("../../migrations/0010_metric_chunks.sql"),
    include_str!("../../migrations/0011_rounds.sql"),
];

/// Brings the schema to this program's. What a database held before is written into a file beside the data first.
pub(super) async fn migrate(
    connections: &Connections,
    database: &Database,
    backups: &Path,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::Store { database: database.to_string(), source };
    let found = found(connections, database).await.map_err(failed)?;
    let known = newest();
    if found > known {
        return Err(OpenError::Schema { found, known });
    }
    if found == known {
        return Ok(());
    }
    if found > 0 {
        let path = backups.join(format!("before-schema-{known}-of-{}.jsonl", now_us()));
        std::fs::create_dir_all(backups).map_err(|source| OpenError::Io {
            action: "create",
            path: backups.to_owned(),
            source,
        })?;
        let rows = backup::write(database, None, &path).await;
        let rows = rows.map_err(|cause| OpenError::Backup(cause.to_string()))?;
        tracing::info!(path = %path.display(), rows, found, known, "backed up before the schema changes");
    }
    let mut tx = connections.write.begin_with(connections.begin).await.map_err(failed)?;
    apply(&mut tx, database, found, known).await.map_err(failed)?;
    tx.commit().await.map_err(failed)
}

/// The schema that a database has; 0 where there is nothing yet.
async fn found(connections: &Connections, database: &Database) -> sqlx::Result<i64> {
    let mut connection = connections.write.acquire().await?;
    let tables = names(&mut connection, database).await?;
    if tables.iter().any(|name| name == "schema_version") { version(&mut connection).await } else { Ok(0) }
}

/// The newest schema that this program knows.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The schema of a database that has one.
pub(super) async fn version(connection: &mut AnyConnection) -> sqlx::Result<i64> {
    let row = sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM schema_version")
        .fetch_one(connection)
        .await?;
    Ok(row.get("version"))
}

/// Applies the migrations after `from` up to `to`.
pub(super) async fn apply(
    connection: &mut AnyConnection,
    database: &Database,
    from: i64,
    to: i64,
) -> sqlx::Result<()> {
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        .execute(&mut *connection)
        .await?;
    let wanted = (1_i64..).zip(MIGRATIONS).filter(|(version, _)| (from + 1..=to).contains(version));
    for (version, migration) in wanted {
        for statement in migration.split("\n--\n") {
            let statement = AssertSqlSafe(dialect(statement, database));
            sqlx::query(statement).execute(&mut *connection).await?;
        }
        let noted = sqlx::query("INSERT INTO schema_version (version) VALUES ($1)").bind(version);
        noted.execute(&mut *connection).await?;
    }
    Ok(())
}

/// The tables that hold something, each after those it refers to; not the one of the schema's version.
pub(super) async fn tables(connection: &mut AnyConnection, database: &Database) -> sqlx::Result<Vec<String>> {
    let mut tables = names(connection, database).await?;
    tables.retain(|name| name != "schema_version");
    Ok(tables)
}

/// All tables in the order in which they were made.
async fn names(connection: &mut AnyConnection, database: &Database) -> sqlx::Result<Vec<String>> {
    let sql = match database {
        Database::Sqlite(_) => {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
        }
        Database::Postgres(_) => {
            "SELECT CAST(c.relname AS TEXT) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND c.relkind = 'r' ORDER BY c.oid"
        }
    };
    let rows = sqlx::query(sql).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| row.get("name")).collect())
}

/// A statement of a migration as the database wants it. PostgreSQL compares and sorts texts by the rules of some language
/// unless it is told to go by their bytes, as SQLite does.
fn dialect(statement: &str, database: &Database) -> String {
    match database {
        Database::Sqlite(_) => statement.to_owned(),
        Database::Postgres(_) => statement.replace(" TEXT", " TEXT COLLATE \"C\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::Store, testing};

    #[tokio::test]
    async fn a_database_of_a_newer_program_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let database = testing::database(temp.path()).await;
        let store = Store::open(&database, temp.path()).await.unwrap();
        let newer = sqlx::query("INSERT INTO schema_version (version) VALUES (99)");
        newer.execute(&store.connections.write).await.unwrap();
        store.close().await;
        let opened = Store::open(&database, temp.path()).await;
        assert!(matches!(opened, Err(OpenError::Schema { found: 99, known }) if known == newest()));
    }

    #[tokio::test]
    async fn what_was_there_is_backed_up_before_it_is_changed() {
        let temp = tempfile::tempdir().unwrap();
        let database = testing::database(temp.path()).await;
        let backups = temp.path().join("backups");
        let connections = Connections::open(&database).await.unwrap();
        let mut connection = connections.write.acquire().await.unwrap();
        apply(&mut connection, &database, 0, 1).await.unwrap();
        let old = "INSERT INTO settings (name, value) VALUES ('workspace', 'w')";
        sqlx::query(old).execute(&mut *connection).await.unwrap();
        drop(connection);
        connections.close().await;

        let store = Store::open(&database, &backups).await.unwrap();
        assert_eq!(store.setting("workspace").await.unwrap().unwrap(), "w");
        store.close().await;
        let made: Vec<_> = std::fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(made.len(), 1, "{made:?}");
        // It is the state of before, and can be had again.
        let other = tempfile::tempdir().unwrap();
        let database = testing::database(other.path()).await;
        let input = backup::Input::open(&made[0]).unwrap();
        Store::restore(&database, input).await.unwrap();
        let store = Store::open(&database, &backups).await.unwrap();
        assert_eq!(store.setting("workspace").await.unwrap().unwrap(), "w");
        assert_eq!(std::fs::read_dir(&backups).unwrap().count(), 1, "nothing changes, nothing is backed up");
    }
}
