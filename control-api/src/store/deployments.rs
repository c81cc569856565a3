//! Deployments.

use millgate_contract::ids::{BuildId, DeploymentId, ModelId, Username};
use sqlx::any::AnyRow;

use super::{Filter, Page, Paging, Store, Tx, collection::refuse_collected, flag, next, number, text};
use crate::{
    fault::Outcome,
    moment::now_us,
    names,
    policy::ServingPolicy,
    rows::{Amounts, Build, Deployment, DeploymentStatus},
};

const COLUMNS: &[(&str, &str)] = &[
    ("id", "d.id"),
    ("deployer", "d.deployer"),
    ("deployer.username", "d.deployer"),
    ("status", "d.status"),
    ("replicas", "d.replicas"),
    ("deployment_number", "d.number"),
    ("created_at", "d.created_us"),
    ("updated_at", "d.updated_us"),
    ("stopped_at", "d.stopped_us"),
];

/// What a new deployment is made of.
#[derive(Debug, Clone)]
pub(crate) struct NewDeployment {
    pub(crate) deployer: Username,
    pub(crate) amounts: Amounts,
    /// The profile that they are of, or ''.
    pub(crate) resource_profile: String,
    pub(crate) policy: ServingPolicy,
    pub(crate) environment: String,
}

impl Store {
    pub(crate) async fn insert_deployment(&self, build: &Build, new: &NewDeployment) -> Outcome<Deployment> {
        let mut tx = self.begin().await?;
        refuse_collected(&mut tx, &build.id).await?;
        let id = insert(&mut tx, &build.model_id, &build.id, new).await?;
        tx.commit().await?;
        Ok(self.deployment(&id).await?.expect("it was just inserted"))
    }

    pub(crate) async fn deployment(&self, id: &DeploymentId) -> Outcome<Option<Deployment>> {
        let row = sqlx::query("SELECT d.* FROM deployments d WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.read)
            .await?;
        Ok(row.as_ref().map(read))
    }

    pub(crate) async fn deployments(&self, build: &BuildId, paging: &Paging) -> Outcome<Page<Deployment>> {
        let filter = Filter {
            select: "SELECT d.* FROM deployments d WHERE d.build_id = $1",
            scope: vec![build.to_string()],
            columns: COLUMNS,
            order: "d.number",
        };
        self.page(filter, paging, read).await
    }

    /// Deployments of every build of a model.
    pub(crate) async fn deployments_of_model(
        &self,
        model: &ModelId,
        paging: &Paging,
    ) -> Outcome<Page<Deployment>> {
        let filter = Filter {
            select: "SELECT d.* FROM deployments d JOIN builds b ON b.id = d.build_id \
                     WHERE b.is_deleting = 0 AND d.model_id = $1",
            scope: vec![model.to_string()],
            columns: COLUMNS,
            order: "d.number",
        };
        self.page(filter, paging, read).await
    }

    /// Deployments to which something may still happen, with their builds' status.
    pub(crate) async fn live_deployments(&self) -> Outcome<Vec<(Deployment, String)>> {
        let rows = sqlx::query(
            "SELECT d.*, b.status AS build_status FROM deployments d JOIN builds b ON b.id = d.build_id \
             WHERE d.status NOT IN ('stopped', 'failed') ORDER BY d.number",
        )
        .fetch_all(&self.read)
        .await?;
        Ok(rows.iter().map(|row| (read(row), text(row, "build_status"))).collect())
    }

    /// Deployments of a build that are not over and not on their way out, the oldest first.
    pub(crate) async fn wanted_deployments(&self, build: &BuildId) -> Outcome<Vec<Deployment>> {
        let rows = sqlx::query(
            "SELECT * FROM deployments WHERE build_id = $1 AND is_stop_requested = 0 \
             AND status IN ('pending', 'deploying') ORDER BY number",
        )
        .bind(build.as_str())
        .fetch_all(&self.read)
        .await?;
        Ok(rows.iter().map(read).collect())
    }

    /// Moves a deployment on, if it is where the caller thinks.
    pub(crate) async fn move_deployment(
        &self,
        id: &DeploymentId,
        from: DeploymentStatus,
        to: DeploymentStatus,
        reason: &str,
    ) -> Outcome<bool> {
        let stopped_us = if to.is_over() { now_us() } else { 0 };
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "UPDATE deployments SET status = $1, reason = $2, updated_us = $3, stopped_us = $4 \
             WHERE id = $5 AND status = $6",
        )
        .bind(to.as_str())
        .bind(reason)
        .bind(now_us())
        .bind(stopped_us)
        .bind(id.as_str())
        .bind(from.as_str())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 1 && (to.is_over() || to == DeploymentStatus::Deployed) {
            super::audit::deployment_moved(&mut tx, id.as_str(), to, reason).await?;
        }
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes why a deployment waits, if it still does.
    pub(crate) async fn note_waiting(&self, id: &DeploymentId, reason: &str) -> Outcome<bool> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "UPDATE deployments SET reason = $1, updated_us = $2 WHERE id = $3 AND status = 'pending'",
        )
        .bind(reason)
        .bind(now_us())
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Wishes the end of a deployment; nothing when it is over.
    pub(crate) async fn request_stop(&self, id: &DeploymentId) -> Outcome<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "UPDATE deployments SET is_stop_requested = 1, updated_us = $1 \
             WHERE id = $2 AND status NOT IN ('stopped', 'failed')",
        )
        .bind(now_us())
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Begins a deployment anew that is over; it becomes its model's latest. True when it was over.
    pub(crate) async fn revive(&self, deployment: &Deployment) -> Outcome<bool> {
        let mut tx = self.begin().await?;
        refuse_collected(&mut tx, &deployment.build_id).await?;
        let sequence = next(&mut tx, "sequence").await?;
        let done = sqlx::query(
            "UPDATE deployments SET status = 'pending', reason = '', is_stop_requested = 0, sequence = $1, \
             updated_us = $2, stopped_us = 0 WHERE id = $3 AND status IN ('stopped', 'failed')",
        )
        .bind(sequence)
        .bind(now_us())
        .bind(deployment.id.as_str())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Numbers of the deployments that ended before this time.
    pub(crate) async fn deployments_over_before(&self, before_us: i64) -> Outcome<Vec<i64>> {
        let rows = sqlx::query("SELECT number FROM deployments WHERE stopped_us > 0 AND stopped_us < $1")
            .bind(before_us)
            .fetch_all(&self.read)
            .await?;
        Ok(rows.iter().map(|row| number(row, "number")).collect())
    }

    /// Numbers of all deployments a model ever had: names of their run directories.
    pub(crate) async fn deployment_numbers(&self, model: &ModelId) -> Outcome<Vec<i64>> {
        let rows = sqlx::query("SELECT number FROM deployments WHERE model_id = $1")
            .bind(model.as_str())
            .fetch_all(&self.read)
            .await?;
        Ok(rows.iter().map(|row| number(row, "number")).collect())
    }
}

pub(super) async fn insert(
    tx: &mut Tx,
    model: &ModelId,
    build: &BuildId,
    new: &NewDeployment,
) -> Outcome<DeploymentId> {
    let id = DeploymentId::new(names::uuid());
    let number = next(tx, "deployment").await?;
    let sequence = next(tx, "sequence").await?;
    sqlx::query(
        "INSERT INTO deployments (id, number, sequence, build_id, model_id, deployer, cpu_millicores, memory_mb, \
         nvidia_gpus, replicas, environment, policy, status, reason, is_stop_requested, created_us, updated_us, stopped_us, \
         resource_profile) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'pending', '', 0, $13, $13, 0, $14)",
    )
    .bind(id.as_str())
    .bind(number)
    .bind(sequence)
    .bind(build.as_str())
    .bind(model.as_str())
    .bind(new.deployer.as_str())
    .bind(new.amounts.cpu_millicores)
    .bind(new.amounts.memory_mb)
    .bind(new.amounts.nvidia_gpus)
    .bind(new.amounts.replicas)
    .bind(&new.environment)
    .bind(new.policy.stored())
    .bind(now_us())
    .bind(&new.resource_profile)
    .execute(&mut **tx)
    .await?;
    Ok(id)
}

pub(super) fn amounts(row: &AnyRow) -> Amounts {
    Amounts {
        cpu_millicores: number(row, "cpu_millicores"),
        memory_mb: number(row, "memory_mb"),
        nvidia_gpus: number(row, "nvidia_gpus"),
        replicas: number(row, "replicas"),
    }
}

pub(super) fn read(row: &AnyRow) -> Deployment {
    Deployment {
        id: DeploymentId::new(text(row, "id")),
        number: number(row, "number"),
        sequence: number(row, "sequence"),
        build_id: BuildId::new(text(row, "build_id")),
        model_id: ModelId::new(text(row, "model_id")),
        deployer: Username::new(text(row, "deployer")),
        amounts: amounts(row),
        resource_profile: text(row, "resource_profile"),
        policy: ServingPolicy::parse(&text(row, "policy")),
        environment: text(row, "environment"),
        status: DeploymentStatus::parse(&text(row, "status")).unwrap_or(DeploymentStatus::Failed),
        reason: text(row, "reason"),
        is_stop_requested: flag(row, "is_stop_requested"),
        created_us: number(row, "created_us"),
        updated_us: number(row, "updated_us"),
        stopped_us: number(row, "stopped_us"),
    }
}
