//! Models.

use millgate_contract::ids::{DeploymentId, ModelId, ProjectId, Username};
use sqlx::any::AnyRow;

use super::{Filter, Page, Paging, Store, Tx, flag, is_taken, next, number, text};
use crate::{
    fault::{Fault, Outcome},
    moment::now_us,
    names,
    policy::ServingPolicy,
    rows::{Amounts, Model, User, UserRole, Visibility},
};

const COLUMNS: &[(&str, &str)] = &[
    ("id", "m.id"),
    ("name", "m.name"),
    ("description", "m.description"),
    ("creator", "m.creator"),
    ("creator.username", "m.creator"),
    ("visibility", "m.visibility"),
    ("created_at", "m.created_us"),
    ("updated_at", "m.updated_us"),
    ("project_id", "m.project_id"),
    ("auth_enabled", "m.auth_enabled"),
];

/// What a new model is made of.
#[derive(Debug, Clone)]
pub(crate) struct NewModel {
    pub(crate) project_id: ProjectId,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) creator: Username,
    pub(crate) visibility: Visibility,
    pub(crate) auth_enabled: bool,
    pub(crate) run_as: String,
    pub(crate) accelerator_label_id: i64,
    pub(crate) access_key_digest: String,
    pub(crate) access_key_sealed: String,
    pub(crate) resources: Amounts,
    pub(crate) policy: ServingPolicy,
}

/// What is to change.
#[derive(Debug, Default)]
pub(crate) struct ModelPatch {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) visibility: Option<Visibility>,
    pub(crate) auth_enabled: Option<bool>,
    pub(crate) policy: Option<ServingPolicy>,
}

impl Store {
    /// Makes a model; with `build` a build of it, and with that's deployment a deployment, all or none.
    pub(crate) async fn insert_model(
        &self,
        new: &NewModel,
        build: Option<(super::NewBuild, Option<super::NewDeployment>)>,
    ) -> Outcome<Model> {
        let id = ModelId::new(names::uuid());
        let mut tx = self.begin().await?;
        insert(&mut tx, &id, new).await?;
        if let Some((build, deployment)) = build {
            super::builds::insert(&mut tx, &id, &build, deployment.as_ref()).await?;
        }
        tx.commit().await?;
        Ok(self.model(&id).await?.expect("it was just inserted"))
    }

    pub(crate) async fn model(&self, id: &ModelId) -> Outcome<Option<Model>> {
        let row = sqlx::query("SELECT m.* FROM models m WHERE id = $1 AND is_deleting = 0")
            .bind(id.as_str())
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(read))
    }

    /// Models of a project, or with `None` of every project `user` works in.
    pub(crate) async fn models(
        &self,
        user: &User,
        project: Option<&ProjectId>,
        paging: &Paging,
    ) -> Outcome<Page<Model>> {
        let filter = match project {
            Some(project) => Filter {
                select: "SELECT m.* FROM models m WHERE m.is_deleting = 0 AND m.project_id = $1",
                scope: vec![project.to_string()],
                columns: COLUMNS,
                order: "m.number",
            },
            None => Filter {
                select: "SELECT m.* FROM models m JOIN projects p ON p.id = m.project_id WHERE m.is_deleting = 0 \
                         AND ($2 = 'all' OR p.owner = $1 OR EXISTS (SELECT 1 FROM collaborators c \
                         WHERE c.project_id = p.id AND c.username = $1) OR EXISTS (SELECT 1 FROM team_members t \
                         WHERE t.team = p.owner AND t.username = $1))",
                scope: vec![
                    user.username.to_string(),
                    if user.role == UserRole::Administrator { "all" } else { "own" }.into(),
                ],
                columns: COLUMNS,
                order: "m.number",
            },
        };
        self.page(filter, paging, read).await
    }

    /// Every model there is, those on their way out too: the reconciler's view.
    pub(crate) async fn all_models(&self) -> Outcome<Vec<Model>> {
        let rows = sqlx::query("SELECT * FROM models ORDER BY number").fetch_all(&self.read).await?;
        Ok(rows.iter().map(read).collect())
    }

    pub(crate) async fn update_model(&self, model: &Model, patch: &ModelPatch) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "UPDATE models SET name = $1, description = $2, visibility = $3, auth_enabled = $4, updated_us = $5, \
             policy = $6 WHERE id = $7",
        )
        .bind(patch.name.as_ref().unwrap_or(&model.name))
        .bind(patch.description.as_ref().unwrap_or(&model.description))
        .bind(patch.visibility.unwrap_or(model.visibility).as_str())
        .bind(i64::from(patch.auth_enabled.unwrap_or(model.auth_enabled)))
        .bind(now_us())
        .bind(patch.policy.as_ref().unwrap_or(&model.policy).stored())
        .bind(model.id.as_str())
        .execute(&mut *tx)
        .await
        .map_err(|e| name_taken(e, patch.name.as_ref().unwrap_or(&model.name)))?;
        Ok(tx.commit().await?)
    }

    /// Gives a model another access key.
    pub(crate) async fn set_access_key(&self, id: &ModelId, digest: &str, sealed: &str) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "UPDATE models SET access_key_digest = $1, access_key_sealed = $2, updated_us = $3 WHERE id = $4",
        )
        .bind(digest)
        .bind(sealed)
        .bind(now_us())
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Takes a model out of sight and its name back; the reconciler stops and frees what it holds.
    pub(crate) async fn begin_model_deletion(&self, id: &ModelId) -> Outcome<()> {
        let mut tx = self.begin().await?;
        for sql in [
            "UPDATE models SET is_deleting = 1 WHERE id = $1",
            "UPDATE deployments SET is_stop_requested = 1 WHERE model_id = $1",
        ] {
            sqlx::query(sql).bind(id.as_str()).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Sends the calls of a model to another deployment ('' is none), if they go where the caller thinks.
    pub(crate) async fn route_model(&self, id: &ModelId, from: &str, to: &str) -> Outcome<bool> {
        let mut tx = self.begin().await?;
        let done = sqlx::query("UPDATE models SET routed = $1 WHERE id = $2 AND routed = $3")
            .bind(to)
            .bind(id.as_str())
            .bind(from)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Sends the calls of a model to a deployment that is ready, and wishes the end of every older one.
    pub(crate) async fn route_model_to(
        &self,
        id: &ModelId,
        from: &str,
        to: &DeploymentId,
        sequence: i64,
    ) -> Outcome<bool> {
        let mut tx = self.begin().await?;
        let done = sqlx::query("UPDATE models SET routed = $1 WHERE id = $2 AND routed = $3")
            .bind(to.as_str())
            .bind(id.as_str())
            .bind(from)
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 1 {
            sqlx::query(
                "UPDATE deployments SET is_stop_requested = 1 WHERE model_id = $1 AND sequence < $2 \
                 AND status NOT IN ('stopped', 'failed')",
            )
            .bind(id.as_str())
            .bind(sequence)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Models on their way out of which no deployment is left.
    pub(crate) async fn models_to_purge(&self) -> Outcome<Vec<ModelId>> {
        let rows = sqlx::query(
            "SELECT id FROM models WHERE is_deleting = 1 AND NOT EXISTS (SELECT 1 FROM deployments d \
             WHERE d.model_id = models.id AND d.status NOT IN ('stopped', 'failed')) ORDER BY number",
        )
        .fetch_all(&self.read)
        .await?;
        Ok(rows.iter().map(|row| ModelId::new(text(row, "id"))).collect())
    }

    /// Forgets a model, its builds and deployments; only one on its way out.
    pub(crate) async fn purge_model(&self, id: &ModelId) -> Outcome<()> {
        // What may be many rows goes first, in steps; what gateways ship meanwhile goes with the rest.
        self.forget_metrics_of(id).await?;
        let mut tx = self.begin().await?;
        for sql in [
            "DELETE FROM metric_chunks WHERE deployment_number IN (SELECT s.deployment_number FROM metric_sources s \
             JOIN models m ON m.id = s.model_id WHERE s.model_id = $1 AND m.is_deleting = 1)",
            "DELETE FROM metric_rows WHERE deployment_number IN (SELECT s.deployment_number FROM metric_sources s \
             JOIN models m ON m.id = s.model_id WHERE s.model_id = $1 AND m.is_deleting = 1)",
            "DELETE FROM metric_sources WHERE model_id IN (SELECT id FROM models WHERE id = $1 AND is_deleting = 1)",
            "DELETE FROM deployments WHERE model_id IN (SELECT id FROM models WHERE id = $1 AND is_deleting = 1)",
            "DELETE FROM builds WHERE model_id IN (SELECT id FROM models WHERE id = $1 AND is_deleting = 1)",
            "DELETE FROM models WHERE id = $1 AND is_deleting = 1",
        ] {
            sqlx::query(sql).bind(id.as_str()).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }
}

async fn insert(tx: &mut Tx, id: &ModelId, new: &NewModel) -> Outcome<()> {
    let number = next(tx, "model").await?;
    sqlx::query(
        "INSERT INTO models (id, number, project_id, name, description, creator, visibility, auth_enabled, run_as, \
         registered_model_id, accelerator_label_id, access_key_digest, access_key_sealed, cpu_millicores, memory_mb, \
         nvidia_gpus, replicas, policy, routed, is_deleting, created_us, updated_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '', $10, $11, $12, $13, $14, $15, $16, $17, '', 0, $18, $18)",
    )
    .bind(id.as_str())
    .bind(number)
    .bind(new.project_id.as_str())
    .bind(&new.name)
    .bind(&new.description)
    .bind(new.creator.as_str())
    .bind(new.visibility.as_str())
    .bind(i64::from(new.auth_enabled))
    .bind(&new.run_as)
    .bind(new.accelerator_label_id)
    .bind(&new.access_key_digest)
    .bind(&new.access_key_sealed)
    .bind(new.resources.cpu_millicores)
    .bind(new.resources.memory_mb)
    .bind(new.resources.nvidia_gpus)
    .bind(new.resources.replicas)
    .bind(new.policy.stored())
    .bind(now_us())
    .execute(&mut **tx)
    .await
    .map_err(|e| name_taken(e, &new.name))?;
    Ok(())
}

/// Clients look for these words.
fn name_taken(error: sqlx::Error, name: &str) -> Fault {
    if is_taken(&error) {
        Fault::AlreadyExists(format!("the project already has a model with that name: {name:?}"))
    } else {
        error.into()
    }
}

pub(super) fn read(row: &AnyRow) -> Model {
    Model {
        id: ModelId::new(text(row, "id")),
        number: number(row, "number"),
        project_id: ProjectId::new(text(row, "project_id")),
        name: text(row, "name"),
        description: text(row, "description"),
        creator: Username::new(text(row, "creator")),
        visibility: Visibility::parse(&text(row, "visibility")).unwrap_or(Visibility::Private),
        auth_enabled: flag(row, "auth_enabled"),
        run_as: text(row, "run_as"),
        registered_model_id: text(row, "registered_model_id"),
        accelerator_label_id: number(row, "accelerator_label_id"),
        access_key_sealed: text(row, "access_key_sealed"),
        resources: super::deployments::amounts(row),
        policy: ServingPolicy::parse(&text(row, "policy")),
        routed: text(row, "routed"),
        is_deleting: flag(row, "is_deleting"),
        created_us: number(row, "created_us"),
        updated_us: number(row, "updated_us"),
    }
}
