//! Resource profiles.

use sqlx::any::AnyRow;

use super::{Filter, Page, Paging, Store, is_taken, number, text};
use crate::{
    fault::{Fault, Outcome},
    moment::now_us,
    rows::ResourceProfile,
};

const COLUMNS: &[(&str, &str)] = &[
    ("name", "p.name"),
    ("description", "p.description"),
    ("created_at", "p.created_us"),
    ("updated_at", "p.updated_us"),
];

impl Store {
    pub(crate) async fn profiles(&self, paging: &Paging) -> Outcome<Page<ResourceProfile>> {
        let filter = Filter {
            select: "SELECT p.* FROM resource_profiles p WHERE 1 = 1",
            scope: Vec::new(),
            columns: COLUMNS,
            order: "p.created_us, p.name",
        };
        self.page(filter, paging, read).await
    }

    pub(crate) async fn profile(&self, name: &str) -> Outcome<Option<ResourceProfile>> {
        let row = sqlx::query("SELECT p.* FROM resource_profiles p WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(read))
    }

    /// Adds one; its times are those of now.
    pub(crate) async fn insert_profile(&self, new: &ResourceProfile) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO resource_profiles (name, description, cpu_millicores, memory_mb, nvidia_gpus, created_us, \
             updated_us) VALUES ($1, $2, $3, $4, $5, $6, $6)",
        )
        .bind(&new.name)
        .bind(&new.description)
        .bind(new.cpu_millicores)
        .bind(new.memory_mb)
        .bind(new.nvidia_gpus)
        .bind(now_us())
        .execute(&mut *tx)
        .await
        .map_err(|e| {
            if is_taken(&e) {
                return Fault::AlreadyExists(format!("there is a resource profile `{}` already", new.name));
            }
            e.into()
        })?;
        Ok(tx.commit().await?)
    }

    /// Changes all but its name; false when there is none.
    pub(crate) async fn update_profile(&self, changed: &ResourceProfile) -> Outcome<bool> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "UPDATE resource_profiles SET description = $1, cpu_millicores = $2, memory_mb = $3, nvidia_gpus = $4, \
             updated_us = $5 WHERE name = $6",
        )
        .bind(&changed.description)
        .bind(changed.cpu_millicores)
        .bind(changed.memory_mb)
        .bind(changed.nvidia_gpus)
        .bind(now_us())
        .bind(&changed.name)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// False when there is none.
    pub(crate) async fn delete_profile(&self, name: &str) -> Outcome<bool> {
        let mut tx = self.begin().await?;
        let done =
            sqlx::query("DELETE FROM resource_profiles WHERE name = $1").bind(name).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

fn read(row: &AnyRow) -> ResourceProfile {
    ResourceProfile {
        name: text(row, "name"),
        description: text(row, "description"),
        cpu_millicores: number(row, "cpu_millicores"),
        memory_mb: number(row, "memory_mb"),
        nvidia_gpus: number(row, "nvidia_gpus"),
        created_us: number(row, "created_us"),
        updated_us: number(row, "updated_us"),
    }
}
