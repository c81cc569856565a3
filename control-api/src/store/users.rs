//! Users.

use millgate_contract::ids::Username;
use sqlx::any::AnyRow;

use super::{Filter, Page, Paging, Store, number, text};
use crate::{
    fault::Outcome,
    moment::now_us,
    rows::{User, UserRole},
};

const COLUMNS: &[(&str, &str)] = &[
    ("username", "u.username"),
    ("name", "u.name"),
    ("email", "u.email"),
    ("role", "u.role"),
    ("created_at", "u.created_us"),
];

impl Store {
    /// Every user.
    pub(crate) async fn users(&self, paging: &Paging) -> Outcome<Page<User>> {
        let filter = Filter {
            select: "SELECT u.* FROM users u WHERE 1 = 1",
            scope: Vec::new(),
            columns: COLUMNS,
            order: "u.created_us, u.username",
        };
        self.page(filter, paging, read).await
    }

    /// Makes a user unless there is one of that name; true when it was made.
    pub(crate) async fn ensure_user(&self, username: &Username, role: UserRole) -> Outcome<bool> {
        let mut tx = self.begin().await?;
        let made = sqlx::query(
            "INSERT INTO users (username, name, email, role, created_us) VALUES ($1, $2, '', $3, $4) \
             ON CONFLICT (username) DO NOTHING",
        )
        .bind(username.as_str())
        .bind(username.as_str())
        .bind(role.as_str())
        .bind(now_us())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(made.rows_affected() == 1)
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
        let row = sqlx::query("SELECT * FROM users WHERE username = $1")
            .bind(username)
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(read))
    }
}

pub(super) fn read(row: &AnyRow) -> User {
    User {
        username: Username::new(text(row, "username")),
        name: text(row, "name"),
        email: text(row, "email"),
        role: UserRole::parse(&text(row, "role")).unwrap_or(UserRole::User),
        created_us: number(row, "created_us"),
    }
}
