//! API keys: what is kept of them. The key itself is never here.

use millgate_contract::ids::{KeyId, Username};
use sqlx::any::AnyRow;

use super::{Store, number, text};
use crate::{
    fault::{Fault, Outcome},
    moment::{now_s, now_us},
    rows::Key,
};

impl Store {
    pub(crate) async fn insert_key(&self, key: &Key) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO api_keys (key_id, username, comments, audiences, created_us, expires_s, deleted_us) \
             VALUES ($1, $2, $3, $4, $5, $6, 0)",
        )
        .bind(key.key_id.as_str())
        .bind(key.username.as_str())
        .bind(&key.comments)
        .bind(&key.audiences)
        .bind(key.created_us)
        .bind(key.expires_s)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn key(&self, key_id: &str) -> Outcome<Option<Key>> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE key_id = $1")
            .bind(key_id)
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(read))
    }

    /// A user's keys that are not deleted, oldest first.
    pub(crate) async fn keys(&self, username: &str) -> Outcome<Vec<Key>> {
        let rows = sqlx::query(
            "SELECT * FROM api_keys WHERE username = $1 AND deleted_us = 0 ORDER BY created_us, key_id",
        )
        .bind(username)
        .fetch_all(&self.read)
        .await?;
        Ok(rows.iter().map(read).collect())
    }

    /// Deletes one key of a user.
    pub(crate) async fn delete_key(&self, username: &str, key_id: &str) -> Outcome<()> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "UPDATE api_keys SET deleted_us = $1 WHERE username = $2 AND key_id = $3 AND deleted_us = 0",
        )
        .bind(now_us())
        .bind(username)
        .bind(key_id)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        if done.rows_affected() == 0 { Err(Fault::missing("key", key_id)) } else { Ok(()) }
    }

    /// Deletes all keys of a user.
    pub(crate) async fn delete_keys(&self, username: &str) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE api_keys SET deleted_us = $1 WHERE username = $2 AND deleted_us = 0")
            .bind(now_us())
            .bind(username)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Deleted keys that have not expired, which gateways must refuse.
    pub(crate) async fn revoked_keys(&self) -> Outcome<Vec<Key>> {
        let rows =
            sqlx::query("SELECT * FROM api_keys WHERE deleted_us <> 0 AND expires_s > $1 ORDER BY key_id")
                .bind(now_s())
                .fetch_all(&self.read)
                .await?;
        Ok(rows.iter().map(read).collect())
    }
}

fn read(row: &AnyRow) -> Key {
    Key {
        key_id: KeyId::new(text(row, "key_id")),
        username: Username::new(text(row, "username")),
        comments: text(row, "comments"),
        audiences: text(row, "audiences"),
        created_us: number(row, "created_us"),
        expires_s: number(row, "expires_s"),
        deleted_us: number(row, "deleted_us"),
    }
}
