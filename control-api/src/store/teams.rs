//! Teams: users that own projects and have members in their place. A member's level holds in each project of the team.

use sqlx::{Row, any::AnyRow};

use super::{Filter, Page, Paging, Store, text};
use crate::{
    fault::{Fault, Outcome},
    rows::{Level, User},
};

impl Store {
    /// Teams: all there are, or those that `member` is in.
    pub(crate) async fn teams(&self, member: Option<&str>, paging: &Paging) -> Outcome<Page<User>> {
        let filter = Filter {
            select: "SELECT u.* FROM users u WHERE u.kind = 'team' AND u.deleted_us = 0 AND ($1 = '' OR EXISTS \
                     (SELECT 1 FROM team_members t WHERE t.team = u.username AND t.username = $1))",
            scope: vec![member.unwrap_or_default().to_owned()],
            columns: super::users::COLUMNS,
            order: "u.created_us, u.username",
        };
        self.page(filter, paging, super::users::read).await
    }

    /// The members of a team with their levels.
    pub(crate) async fn team_members(&self, team: &str) -> Outcome<Vec<(User, String)>> {
        let rows = sqlx::query(
            "SELECT u.*, t.permission FROM team_members t JOIN users u ON u.username = t.username \
             WHERE t.team = $1 ORDER BY u.username",
        )
        .bind(team)
        .fetch_all(&self.read)
        .await?;
        let read = |row: &AnyRow| (super::users::read(row), text(row, "permission"));
        Ok(rows.iter().map(read).collect())
    }

    /// The level of a member.
    pub(crate) async fn team_level(&self, team: &str, username: &str) -> Outcome<Option<Level>> {
        let row = sqlx::query("SELECT permission FROM team_members WHERE team = $1 AND username = $2")
            .bind(team)
            .bind(username)
            .fetch_optional(&self.read)
            .await?;
        Ok(row.and_then(|row| Level::parse(&text(&row, "permission"))))
    }

    /// Sets or, with `None`, removes a member.
    pub(crate) async fn set_team_member(
        &self,
        team: &str,
        username: &str,
        level: Option<Level>,
    ) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM team_members WHERE team = $1 AND username = $2")
            .bind(team)
            .bind(username)
            .execute(&mut *tx)
            .await?;
        if let Some(level) = level {
            sqlx::query("INSERT INTO team_members (team, username, permission) VALUES ($1, $2, $3)")
                .bind(team)
                .bind(username)
                .bind(level.as_str())
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }

    /// Refuses when a name still owns projects.
    pub(crate) async fn refuse_owner(&self, username: &str) -> Outcome<()> {
        let row = sqlx::query("SELECT COUNT(*) AS owned FROM projects WHERE owner = $1 AND is_deleting = 0")
            .bind(username)
            .fetch_one(&self.read)
            .await?;
        match row.get::<i64, _>("owned") {
            0 => Ok(()),
            owned => Err(Fault::Precondition(format!(
                "`{username}` owns {owned} projects: give them another owner, or delete them, first"
            ))),
        }
    }
}
