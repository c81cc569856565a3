//! Users: people, service accounts and teams. One that was deleted is not found any more, and its name stays taken.

use millgate_contract::ids::Username;
use sqlx::{Row, any::AnyRow};

use super::{Filter, Page, Paging, Store, Tx, flag, is_taken, number, text};
use crate::{
    fault::{Fault, Outcome},
    moment::now_us,
    rows::{User, UserKind, UserRole},
};

pub(super) const COLUMNS: &[(&str, &str)] = &[
    ("username", "u.username"),
    ("name", "u.name"),
    ("email", "u.email"),
    ("role", "u.role"),
    ("kind", "u.kind"),
    ("created_at", "u.created_us"),
];

/// What a new user is made of.
#[derive(Debug)]
pub(crate) struct NewUser {
    pub(crate) username: Username,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) role: UserRole,
    pub(crate) kind: UserKind,
    /// '' is none: no password opens it.
    pub(crate) password_hash: String,
}

/// What is to change.
#[derive(Debug, Default)]
pub(crate) struct UserPatch {
    pub(crate) name: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) role: Option<UserRole>,
    pub(crate) is_disabled: Option<bool>,
    pub(crate) password_hash: Option<String>,
}

impl Store {
    /// People and service accounts.
    pub(crate) async fn users(&self, paging: &Paging) -> Outcome<Page<User>> {
        let filter = Filter {
            select: "SELECT u.* FROM users u WHERE u.deleted_us = 0 AND u.kind <> 'team'",
            scope: Vec::new(),
            columns: COLUMNS,
            order: "u.created_us, u.username",
        };
        self.page(filter, paging, read).await
    }

    pub(crate) async fn insert_user(&self, new: &NewUser) -> Outcome<User> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO users (username, name, email, role, created_us, kind, password_hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(new.username.as_str())
        .bind(&new.name)
        .bind(&new.email)
        .bind(new.role.as_str())
        .bind(now_us())
        .bind(new.kind.as_str())
        .bind(&new.password_hash)
        .execute(&mut *tx)
        .await
        .map_err(|e| name_taken(e, &new.username))?;
        tx.commit().await?;
        Ok(self.user(new.username.as_str()).await?.expect("it was just inserted"))
    }

    /// Makes a user unless there is one of that name.
    pub(crate) async fn ensure_user(&self, username: &Username, role: UserRole) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO users (username, name, email, role, created_us) VALUES ($1, $2, '', $3, $4) \
             ON CONFLICT (username) DO NOTHING",
        )
        .bind(username.as_str())
        .bind(username.as_str())
        .bind(role.as_str())
        .bind(now_us())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn make_administrator(&self, username: &Username) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE users SET role = 'administrator' WHERE username = $1")
            .bind(username.as_str())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn user(&self, username: &str) -> Outcome<Option<User>> {
        let row = sqlx::query("SELECT * FROM users WHERE username = $1 AND deleted_us = 0")
            .bind(username)
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(read))
    }

    /// Changes a user. Refuses to leave the server without an administrator.
    pub(crate) async fn update_user(&self, user: &User, patch: &UserPatch) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "UPDATE users SET name = $1, email = $2, role = $3, is_disabled = $4, password_hash = $5 \
             WHERE username = $6 AND deleted_us = 0",
        )
        .bind(patch.name.as_ref().unwrap_or(&user.name))
        .bind(patch.email.as_ref().unwrap_or(&user.email))
        .bind(patch.role.unwrap_or(user.role).as_str())
        .bind(i64::from(patch.is_disabled.unwrap_or(user.is_disabled)))
        .bind(patch.password_hash.as_ref().unwrap_or(&user.password_hash))
        .bind(user.username.as_str())
        .execute(&mut *tx)
        .await?;
        refuse_without_administrator(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Takes a user away with their keys and levels. What they made stays, and goes on.
    pub(crate) async fn delete_user(&self, username: &Username) -> Outcome<()> {
        let mut tx = self.begin().await?;
        for sql in [
            "UPDATE users SET deleted_us = $2, password_hash = '' WHERE username = $1",
            "UPDATE api_keys SET deleted_us = $2 WHERE username = $1 AND deleted_us = 0",
        ] {
            sqlx::query(sql).bind(username.as_str()).bind(now_us()).execute(&mut *tx).await?;
        }
        for sql in [
            "DELETE FROM collaborators WHERE username = $1",
            "DELETE FROM team_members WHERE username = $1 OR team = $1",
        ] {
            sqlx::query(sql).bind(username.as_str()).execute(&mut *tx).await?;
        }
        refuse_without_administrator(&mut tx).await?;
        Ok(tx.commit().await?)
    }
}

async fn refuse_without_administrator(tx: &mut Tx) -> Outcome<()> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS administrators FROM users \
         WHERE role = 'administrator' AND is_disabled = 0 AND deleted_us = 0",
    )
    .fetch_one(&mut **tx)
    .await?;
    if row.get::<i64, _>("administrators") == 0 {
        return Err(Fault::Precondition(
            "this server would be without an administrator: make another one first".to_owned(),
        ));
    }
    Ok(())
}

fn name_taken(error: sqlx::Error, name: &Username) -> Fault {
    if is_taken(&error) {
        Fault::AlreadyExists(format!("the name `{name}` is taken, or was: names are not given twice"))
    } else {
        error.into()
    }
}

pub(super) fn read(row: &AnyRow) -> User {
    User {
        username: Username::new(text(row, "username")),
        name: text(row, "name"),
        email: text(row, "email"),
        role: UserRole::parse(&text(row, "role")).unwrap_or(UserRole::User),
        kind: UserKind::parse(&text(row, "kind")).unwrap_or(UserKind::Person),
        is_disabled: flag(row, "is_disabled"),
        password_hash: text(row, "password_hash"),
        created_us: number(row, "created_us"),
    }
}
