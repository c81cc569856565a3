//! The store: one schema and one set of statements for SQLite (bundled) and PostgreSQL, reached through sqlx's `Any`
//! driver. Statements keep to what both understand alike: TEXT and BIGINT, no NULL, texts compared byte by byte.
//!
//! Invariants: write transactions come one after another (one connection that writes, in this process and, by its lock,
//! in all of them), readers never wait for them; what was committed survives a power cut (`synchronous=FULL`; PostgreSQL
//! as it is set up). State moves by compare-and-set on a status, so that whoever repeats a step after a crash changes
//! nothing. Decides nothing itself.

mod audit;
pub(crate) mod backup;
mod builds;
mod collection;
mod connections;
mod damage;
mod deployments;
mod keys;
mod latest;
mod list;
pub(crate) mod metrics;
mod models;
mod profiles;
mod projects;
mod routes;
mod schema;
mod teams;
mod users;

use std::{path::Path, time::Duration};

use sqlx::{Any, AnyPool, Row, Transaction, any::AnyRow};

pub(crate) use audit::{Deed, Recorded, Underway};
pub use backup::BackupError;
pub(crate) use builds::{BuildToPurge, NewBuild};
pub(crate) use deployments::NewDeployment;
pub(crate) use list::{Filter, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Page, Paging, decode_token, encode_token};
pub(crate) use models::{ModelPatch, NewModel};
pub(crate) use projects::{NewProject, ProjectPatch};
pub(crate) use routes::RouteRow;
pub(crate) use users::{NewUser, UserPatch};

use crate::{data_dir::OpenError, database::Database, fault::Outcome};
use connections::Connections;

/// The setting that holds the variables of all models.
const ENVIRONMENT: &str = "environment";

/// A write transaction.
pub(crate) type Tx = Transaction<'static, Any>;

/// The store.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    read: AnyPool,
    connections: Connections,
}

impl Store {
    /// Opens the database, makes or migrates its schema; what it held before that goes into the folder `backups`.
    pub(crate) async fn open(database: &Database, backups: &Path) -> Result<Self, OpenError> {
        let connections = Connections::open(database).await?;
        schema::migrate(&connections, database, backups).await?;
        Ok(Self { read: connections.read.clone(), connections })
    }

    /// Fills an empty database from a backup; how many rows.
    pub(crate) async fn restore(database: &Database, input: backup::Input) -> Result<u64, BackupError> {
        let connections = Connections::open(database).await?;
        let restored = backup::read(&connections, database, input).await;
        connections.close().await;
        restored
    }

    /// Begins to write; waits for whoever does so now. Rolled back unless committed.
    /// Changes with all that is written, and may change without.
    pub(crate) fn edition(&self) -> u64 {
        self.connections.writes.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Returns once something may have been written since an edition. Looks after each period, without the database: whoever
    /// waits here does so for ever, and an idle server would spend most of its time on reading what has not changed.
    pub(crate) async fn written_since(&self, edition: u64, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            if self.edition() != edition {
                return;
            }
        }
    }

    async fn begin(&self) -> Outcome<Tx> {
        let Connections { write, begin, .. } = &self.connections;
        match write.begin_with(*begin).await {
            // SQLite ends a transaction by itself when the disk is full, and sqlx, which believes it underway, begins no
            // other one on that connection: it is the only one that writes, so it has to go.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                let _ = write.acquire().await?.close().await;
                Ok(write.begin_with(*begin).await?)
            }
            begun => Ok(begun?),
        }
    }

    /// Lets go of the database.
    pub(crate) async fn close(&self) {
        self.connections.close().await;
    }

    /// Reads a setting.
    pub(crate) async fn setting(&self, name: &str) -> Outcome<Option<String>> {
        let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.read)
            .await?;
        Ok(row.map(|row| row.get("value")))
    }

    /// Sets a setting unless it is set; answers its value.
    pub(crate) async fn setting_or(&self, name: &str, value: &str) -> Outcome<String> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(value)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(self.setting(name).await?.expect("it was just set"))
    }

    /// Sets a setting, whatever it was.
    pub(crate) async fn set_setting(&self, name: &str, value: &str) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO settings (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// The variables of all models, a JSON object.
    pub(crate) async fn environment(&self) -> Outcome<String> {
        Ok(self.setting(ENVIRONMENT).await?.unwrap_or_else(|| "{}".to_owned()))
    }

    /// Changes the variables of all models: what is built or launched from now on gets them.
    pub(crate) async fn set_environment(&self, environment: &str) -> Outcome<()> {
        self.set_setting(ENVIRONMENT, environment).await
    }

    /// Forgets a setting.
    pub(crate) async fn remove_setting(&self, name: &str) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM settings WHERE name = $1").bind(name).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    /// The settings whose names begin so, by name.
    pub(crate) async fn settings(&self, prefix: &str) -> Outcome<Vec<(String, String)>> {
        let rows =
            sqlx::query("SELECT name, value FROM settings ORDER BY name").fetch_all(&self.read).await?;
        let all = rows.iter().map(|row| (row.get::<String, _>("name"), row.get("value")));
        Ok(all.filter(|(name, _)| name.starts_with(prefix)).collect())
    }

    /// The next number of a counter.
    pub(crate) async fn next_generation(&self) -> Outcome<u64> {
        let mut tx = self.begin().await?;
        let generation = next(&mut tx, "generation").await?;
        tx.commit().await?;
        Ok(u64::try_from(generation).expect("counters grow from 0"))
    }
}

/// The next number of a counter, within a transaction.
async fn next(tx: &mut Tx, counter: &'static str) -> Outcome<i64> {
    let row = sqlx::query("UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value")
        .bind(counter)
        .fetch_one(&mut **tx)
        .await?;
    Ok(row.get("value"))
}

fn text(row: &AnyRow, column: &'static str) -> String {
    row.get(column)
}

fn number(row: &AnyRow, column: &'static str) -> i64 {
    row.get(column)
}

fn flag(row: &AnyRow, column: &'static str) -> bool {
    row.get::<i64, _>(column) != 0
}

/// True when an insert failed because a unique value is taken.
fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    use crate::testing;

    pub(crate) async fn store() -> (tempfile::TempDir, Store) {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&testing::database(temp.path()).await, temp.path()).await.unwrap();
        (temp, store)
    }

    #[tokio::test]
    async fn a_file_is_safe_against_power_cuts_and_keeps_its_references() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&Database::Sqlite(temp.path().join("s.db")), temp.path()).await.unwrap();
        for (pragma, value) in [("PRAGMA synchronous", 2_i64), ("PRAGMA foreign_keys", 1)] {
            let row = sqlx::query(pragma).fetch_one(&store.connections.write).await.unwrap();
            assert_eq!(row.get::<i64, _>(0), value, "{pragma}");
        }
        let row = sqlx::query("PRAGMA journal_mode").fetch_one(&store.read).await.unwrap();
        assert_eq!(row.get::<String, _>(0), "wal");
    }

    #[tokio::test]
    async fn opening_again_keeps_what_was_written() {
        let temp = tempfile::tempdir().unwrap();
        let database = testing::database(temp.path()).await;
        let store = Store::open(&database, temp.path()).await.unwrap();
        assert_eq!(store.setting_or("workspace", "w").await.unwrap(), "w");
        assert_eq!(store.next_generation().await.unwrap(), 1);
        store.close().await;
        let store = Store::open(&database, temp.path()).await.unwrap();
        assert_eq!(store.setting_or("workspace", "x").await.unwrap(), "w");
        assert_eq!(store.next_generation().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn whoever_waits_for_what_is_written_is_told_of_each_write_and_of_no_read() {
        let (_temp, store) = store().await;
        // There is one, so what opening has written is counted by now.
        let writing = store.connections.write.acquire().await.unwrap();
        let edition = store.edition();
        for _ in 0..20 {
            store.environment().await.unwrap();
        }
        assert_eq!(store.edition(), edition);
        drop(writing);
        store.written_since(edition, Duration::from_millis(1)).await;
        let edition = store.edition();
        store.next_generation().await.unwrap();
        store.written_since(edition, Duration::from_millis(1)).await;
    }

    #[tokio::test]
    async fn writers_wait_for_each_other_and_no_number_is_given_twice() {
        let (_temp, store) = store().await;
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.next_generation().await.unwrap() })
            })
            .collect();
        let mut numbers = Vec::new();
        for task in tasks {
            numbers.push(task.await.unwrap());
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    }
}
