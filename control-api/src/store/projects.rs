//! Projects and who may do what in them.

use millgate_contract::ids::{ProjectId, Username};
use sqlx::any::AnyRow;

use super::{Filter, Page, Paging, Store, is_taken, next, number, text};
use crate::{
    fault::{Fault, Outcome},
    moment::now_us,
    names,
    rows::{Level, Project, User, UserRole, Visibility},
};

const COLUMNS: &[(&str, &str)] = &[
    ("id", "p.id"),
    ("name", "p.name"),
    ("description", "p.description"),
    ("owner", "p.owner"),
    ("owner.username", "p.owner"),
    ("creator", "p.creator"),
    ("creator.username", "p.creator"),
    ("visibility", "p.visibility"),
    ("created_at", "p.created_us"),
    ("updated_at", "p.updated_us"),
];

/// What a new project is made of.
#[derive(Debug)]
pub(crate) struct NewProject {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) visibility: Visibility,
    pub(crate) default_engine_type: String,
    pub(crate) environment: String,
    pub(crate) shared_memory_limit: i64,
}

/// What is to change.
#[derive(Debug, Default)]
pub(crate) struct ProjectPatch {
    pub(crate) owner: Option<Username>,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) visibility: Option<Visibility>,
    pub(crate) environment: Option<String>,
    pub(crate) shared_memory_limit: Option<i64>,
}

impl Store {
    pub(crate) async fn insert_project(
        &self,
        owner: &Username,
        creator: &Username,
        new: &NewProject,
    ) -> Outcome<Project> {
        let id = names::project_id();
        let mut tx = self.begin().await?;
        let number = next(&mut tx, "project").await?;
        sqlx::query(
            "INSERT INTO projects (id, number, name, owner, creator, description, visibility, default_engine_type, \
             environment, shared_memory_limit, is_deleting, created_us, updated_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $11)",
        )
        .bind(id.as_str())
        .bind(number)
        .bind(&new.name)
        .bind(owner.as_str())
        .bind(creator.as_str())
        .bind(&new.description)
        .bind(new.visibility.as_str())
        .bind(&new.default_engine_type)
        .bind(&new.environment)
        .bind(new.shared_memory_limit)
        .bind(now_us())
        .execute(&mut *tx)
        .await
        .map_err(|e| name_taken(e, owner.as_str(), &new.name))?;
        tx.commit().await?;
        Ok(self.project(&id).await?.expect("it was just inserted"))
    }

    pub(crate) async fn project(&self, id: &ProjectId) -> Outcome<Option<Project>> {
        let row = sqlx::query("SELECT p.* FROM projects p WHERE id = $1 AND is_deleting = 0")
            .bind(id.as_str())
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(read))
    }

    /// What `user` may do in a project; `None` is not even see it.
    pub(crate) async fn level(&self, user: &User, project: &Project) -> Outcome<Option<Level>> {
        if user.role == UserRole::Administrator || user.username == project.owner {
            return Ok(Some(Level::Admin));
        }
        let rows = sqlx::query(
            "SELECT permission FROM collaborators WHERE project_id = $1 AND username = $2 UNION \
             SELECT permission FROM team_members WHERE team = $3 AND username = $2",
        )
        .bind(project.id.as_str())
        .bind(user.username.as_str())
        .bind(project.owner.as_str())
        .fetch_all(&self.read)
        .await?;
        let level = rows.iter().filter_map(|row| Level::parse(&text(row, "permission"))).max();
        Ok(level.or((project.visibility != Visibility::Private).then_some(Level::Viewer)))
    }

    /// Whether `user` may call the models of a project: public visibility alone does not suffice.
    pub(crate) async fn may_call(&self, user: &User, project: &Project) -> Outcome<bool> {
        let hidden = Project { visibility: Visibility::Private, ..project.clone() };
        Ok(self.level(user, &hidden).await?.is_some())
    }

    /// Projects `user` owns or works in; all there are, or the public ones too, when asked for.
    pub(crate) async fn projects(
        &self,
        user: &User,
        paging: &Paging,
        include_public: bool,
        include_all: bool,
    ) -> Outcome<Page<Project>> {
        let wide = if include_all && user.role == UserRole::Administrator {
            "all"
        } else if include_public {
            "public"
        } else {
            "own"
        };
        let filter = Filter {
            select: "SELECT p.* FROM projects p WHERE p.is_deleting = 0 AND ($2 = 'all' OR p.owner = $1 OR EXISTS \
                     (SELECT 1 FROM collaborators c WHERE c.project_id = p.id AND c.username = $1) OR EXISTS \
                     (SELECT 1 FROM team_members t WHERE t.team = p.owner AND t.username = $1) \
                     OR ($2 = 'public' AND p.visibility <> 'private'))",
            scope: vec![user.username.to_string(), wide.into()],
            columns: COLUMNS,
            order: "p.number",
        };
        self.page(filter, paging, read).await
    }

    pub(crate) async fn update_project(&self, project: &Project, patch: &ProjectPatch) -> Outcome<()> {
        let mut tx = self.begin().await?;
        let name = patch.name.as_ref().unwrap_or(&project.name);
        let owner = patch.owner.as_ref().unwrap_or(&project.owner);
        sqlx::query(
            "UPDATE projects SET name = $1, description = $2, visibility = $3, environment = $4, \
             shared_memory_limit = $5, updated_us = $6, owner = $7 WHERE id = $8",
        )
        .bind(name)
        .bind(patch.description.as_ref().unwrap_or(&project.description))
        .bind(patch.visibility.unwrap_or(project.visibility).as_str())
        .bind(patch.environment.as_ref().unwrap_or(&project.environment))
        .bind(patch.shared_memory_limit.unwrap_or(project.shared_memory_limit))
        .bind(now_us())
        .bind(owner.as_str())
        .bind(project.id.as_str())
        .execute(&mut *tx)
        .await
        .map_err(|e| name_taken(e, owner.as_str(), name))?;
        Ok(tx.commit().await?)
    }

    /// Takes a project and its models out of sight; the reconciler stops and frees what they hold.
    pub(crate) async fn begin_project_deletion(&self, id: &ProjectId) -> Outcome<()> {
        let mut tx = self.begin().await?;
        for sql in [
            "UPDATE projects SET is_deleting = 1 WHERE id = $1",
            "UPDATE models SET is_deleting = 1 WHERE project_id = $1",
            "UPDATE deployments SET is_stop_requested = 1 WHERE model_id IN \
             (SELECT id FROM models WHERE project_id = $1)",
        ] {
            sqlx::query(sql).bind(id.as_str()).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Projects on their way out that hold no model any more.
    pub(crate) async fn projects_to_purge(&self) -> Outcome<Vec<ProjectId>> {
        let rows = sqlx::query(
            "SELECT id FROM projects WHERE is_deleting = 1 AND NOT EXISTS \
             (SELECT 1 FROM models WHERE models.project_id = projects.id)",
        )
        .fetch_all(&self.read)
        .await?;
        Ok(rows.iter().map(|row| ProjectId::new(text(row, "id"))).collect())
    }

    pub(crate) async fn purge_project(&self, id: &ProjectId) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM projects WHERE id = $1 AND is_deleting = 1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Sets or, with `None`, removes a collaborator.
    pub(crate) async fn set_collaborator(
        &self,
        project: &ProjectId,
        username: &str,
        level: Option<Level>,
    ) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM collaborators WHERE project_id = $1 AND username = $2")
            .bind(project.as_str())
            .bind(username)
            .execute(&mut *tx)
            .await?;
        if let Some(level) = level {
            sqlx::query("INSERT INTO collaborators (project_id, username, permission) VALUES ($1, $2, $3)")
                .bind(project.as_str())
                .bind(username)
                .bind(level.as_str())
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }

    /// Collaborators of a project, the owner not among them.
    pub(crate) async fn collaborators(
        &self,
        project: &ProjectId,
        paging: &Paging,
    ) -> Outcome<Page<(User, String)>> {
        let filter = Filter {
            select: "SELECT u.*, c.permission FROM collaborators c JOIN users u ON u.username = c.username \
                     WHERE c.project_id = $1",
            scope: vec![project.to_string()],
            columns: &[("username", "u.username"), ("permission", "c.permission")],
            order: "u.username",
        };
        self.page(filter, paging, |row| (super::users::read(row), text(row, "permission"))).await
    }
}

fn name_taken(error: sqlx::Error, owner: &str, name: &str) -> Fault {
    if is_taken(&error) {
        Fault::AlreadyExists(format!("`{owner}` already has a project with that name: {name:?}"))
    } else {
        error.into()
    }
}

fn read(row: &AnyRow) -> Project {
    Project {
        id: ProjectId::new(text(row, "id")),
        number: number(row, "number"),
        name: text(row, "name"),
        owner: Username::new(text(row, "owner")),
        creator: Username::new(text(row, "creator")),
        description: text(row, "description"),
        visibility: Visibility::parse(&text(row, "visibility")).unwrap_or(Visibility::Private),
        default_engine_type: text(row, "default_engine_type"),
        environment: text(row, "environment"),
        shared_memory_limit: number(row, "shared_memory_limit"),
        created_us: number(row, "created_us"),
        updated_us: number(row, "updated_us"),
    }
}
