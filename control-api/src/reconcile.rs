//! Makes what is wished true. Takes no input: it looks at the store, the launcher and the gateways, decides
//! (`decide`, pure) and does. Woken by every change and by a period, so that a lost wake costs one period.
//! It may be killed between any two steps.

pub(crate) mod decide;
mod room;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use millgate_contract::{ids::DeploymentId, supervision::Phase};
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    app::App,
    builder::{blocking, rounds},
    fault::{Fault, Outcome},
    launch::{Report, UnitName, spec},
    milestone::{Milestone, reached},
    moment::now_us,
    reconcile::decide::{DeploymentView, ModelView, Step, UnitView, World, decide},
    rows::{BuildStatus, Deployment, DeploymentStatus},
};

/// The longest it looks away.
const PERIOD: Duration = Duration::from_secs(2);
/// A deployment that served and cannot be launched is tried again after this, twice that, and so on.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Between two looks for logs over the age they are kept for.
const LOG_SWEEP_PERIOD: Duration = Duration::from_secs(3_600);
const DAY_US: i64 = 86_400_000_000;

/// See the module.
pub(crate) struct Reconciler {
    app: App,
    attempts: Arc<Mutex<Attempts>>,
    launches: JoinSet<()>,
    logs_swept_at: Option<Instant>,
}

#[derive(Default)]
struct Attempts {
    underway: HashSet<DeploymentId>,
    failed: HashMap<DeploymentId, FailedLaunch>,
}

struct FailedLaunch {
    reason: String,
    times: u32,
    again_at: Instant,
}

impl Reconciler {
    pub(crate) fn new(app: App) -> Self {
        Self { app, attempts: Arc::default(), launches: JoinSet::new(), logs_swept_at: None }
    }

    /// Runs until dropped.
    pub(crate) async fn run(&mut self, wake: &Notify) {
        let mut changes = self.app.launcher.changes();
        loop {
            match self.pass().await {
                // Steps lead to steps: look again before waiting.
                Ok(steps) if steps > 0 => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the reconciler's pass failed");
                }
            }
            tokio::select! {
                () = wake.notified() => {}
                changed = changes.changed() => if changed.is_err() { return },
                Some(_) = self.launches.join_next() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Looks once and does what is to do; answers how many steps changed something.
    pub(crate) async fn pass(&mut self) -> Outcome<usize> {
        self.app.publisher.refresh(&self.app).await?;
        let (world, rows) = self.look().await?;
        let mut changed = 0;
        for step in decide(&world) {
            tracing::debug!(?step, "reconciler");
            changed += usize::from(self.take(&step, &rows).await?);
        }
        if changed > 0 {
            self.app.news.send_replace(());
        }
        if self.logs_swept_at.is_none_or(|at| at.elapsed() >= LOG_SWEEP_PERIOD) {
            self.logs_swept_at = Some(Instant::now());
            self.sweep_logs(now_us() - i64::from(self.app.config.log_retention_days) * DAY_US).await?;
        }
        Ok(changed)
    }

    async fn look(&self) -> Outcome<(World, HashMap<DeploymentId, Deployment>)> {
        let units = self.app.launcher.observe();
        let models = self.app.store.all_models().await?;
        let live = self.app.store.live_deployments().await?;
        let mut world = World {
            models: models
                .iter()
                .map(|m| ModelView { id: m.id.clone(), routed: m.routed.clone(), is_deleting: m.is_deleting })
                .collect(),
            deployments: Vec::with_capacity(live.len()),
            units: units.keys().filter_map(UnitName::deployment_number).collect(),
            memory_mb: self.app.host.memory_mb(),
        };
        let mut rows = HashMap::new();
        for (deployment, build_status) in live {
            let memory_mb = self.reserved_mb(&deployment);
            world.deployments.push(DeploymentView {
                id: deployment.id.clone(),
                number: deployment.number,
                model: deployment.model_id.clone(),
                status: deployment.status,
                is_stop_requested: deployment.is_stop_requested,
                build: BuildStatus::parse(&build_status).unwrap_or(BuildStatus::Failed),
                unit: self.view(&deployment, &units),
                reach: self.app.publisher.reach(&deployment.model_id, &deployment.id),
                memory_mb,
                lacks: self.app.host.lacks(deployment.amounts, memory_mb),
                waits: deployment.reason.clone(),
            });
            rows.insert(deployment.id.clone(), deployment);
        }
        Ok((world, rows))
    }

    /// MB that are set aside for a deployment. Forked replicas share what their template has imported, which is most of
    /// what they use: template and spares are counted where the administrator wants the worst case.
    fn reserved_mb(&self, deployment: &Deployment) -> i64 {
        let amounts = deployment.amounts;
        if self.app.config.counts_template_and_spares {
            deployment.policy.memory_total_mb(amounts)
        } else {
            amounts.memory_mb.saturating_mul(amounts.replicas)
        }
    }

    fn view(&self, deployment: &Deployment, units: &BTreeMap<UnitName, Report>) -> UnitView {
        if let Some(report) = units.get(&UnitName::deployment(deployment.number)) {
            return match report.phase() {
                Phase::Importing | Phase::Filling => UnitView::Starting,
                Phase::Serving => UnitView::Ready,
                Phase::Failed => UnitView::Failed(report.reason().to_owned()),
                Phase::Stopping => UnitView::Stopping,
            };
        }
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.underway.contains(&deployment.id) {
            return UnitView::Starting;
        }
        match attempts.failed.get(&deployment.id) {
            Some(failed) if deployment.status == DeploymentStatus::Deploying => {
                UnitView::Failed(failed.reason.clone())
            }
            Some(failed)
                if deployment.status == DeploymentStatus::Deployed && failed.again_at > Instant::now() =>
            {
                UnitView::Starting
            }
            _ => UnitView::Absent,
        }
    }

    /// Does one step; true when it changed what is decided by.
    async fn take(&mut self, step: &Step, rows: &HashMap<DeploymentId, Deployment>) -> Outcome<bool> {
        let store = &self.app.store;
        match step {
            Step::Move { deployment, from, to, reason } => {
                if to.is_over() {
                    self.attempts.lock().unwrap_or_else(PoisonError::into_inner).failed.remove(deployment);
                }
                tracing::info!(%deployment, from = from.as_str(), to = to.as_str(), reason, "deployment");
                let is_moved = store.move_deployment(deployment, *from, *to, reason).await?;
                if to.is_over() {
                    self.app.wake_collector.notify_one();
                }
                reached(match to {
                    DeploymentStatus::Pending | DeploymentStatus::Deploying => Milestone::Deploying,
                    DeploymentStatus::Deployed => Milestone::Deployed,
                    DeploymentStatus::Stopping => Milestone::Stopping,
                    DeploymentStatus::Stopped | DeploymentStatus::Failed => Milestone::Over,
                });
                Ok(is_moved)
            }
            Step::Wait { deployment, reason } => {
                tracing::info!(%deployment, reason, "deployment");
                store.note_waiting(deployment, reason).await
            }
            Step::Launch { deployment } => {
                let row = rows.get(deployment).expect("steps are about deployments that were seen");
                self.launch(row).await?;
                Ok(false)
            }
            Step::Route { model, from, to } => {
                let sequence = rows.get(to).expect("steps are about deployments that were seen").sequence;
                let is_done = store.route_model_to(model, from, to, sequence).await?;
                reached(Milestone::RoutedInStore);
                self.app.publisher.refresh(&self.app).await?;
                reached(Milestone::Routed);
                Ok(is_done)
            }
            Step::Unroute { model, from } => {
                let is_done = store.route_model(model, from.as_str(), "").await?;
                reached(Milestone::UnroutedInStore);
                self.app.publisher.refresh(&self.app).await?;
                Ok(is_done)
            }
            Step::Stop { number } => {
                self.app.launcher.stop(&UnitName::deployment(*number), self.app.config.stop_grace_ms);
                reached(Milestone::StopTold);
                Ok(false)
            }
            Step::Purge { .. } => {
                // Files take their time, which the deployments of others are not to wait for.
                self.app.wake_collector.notify_one();
                Ok(false)
            }
        }
    }

    async fn launch(&mut self, row: &Deployment) -> Outcome<()> {
        let spec = match self.spec(row).await {
            Ok(spec) => spec,
            Err(Fault::NotFound(reason)) => {
                note_failure(&self.attempts, &row.id, reason);
                self.app.wake.notify_one();
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).underway.insert(row.id.clone());
        let (launcher, attempts, id) = (self.app.launcher.clone(), self.attempts.clone(), row.id.clone());
        let unit = UnitName::deployment(row.number);
        reached(Milestone::LaunchBegun);
        self.launches.spawn(async move {
            let result = launcher.launch(unit, spec).await;
            match result {
                Ok(()) => {
                    reached(Milestone::Launched);
                    attempts.lock().unwrap_or_else(PoisonError::into_inner).failed.remove(&id);
                }
                Err(error) => {
                    tracing::error!(deployment = %id, %error, "launch");
                    note_failure(&attempts, &id, error.to_string());
                }
            }
            attempts.lock().unwrap_or_else(PoisonError::into_inner).underway.remove(&id);
        });
        Ok(())
    }

    async fn spec(&self, row: &Deployment) -> Outcome<millgate_contract::spec::DeploymentSpec> {
        let store = &self.app.store;
        let gone = || Fault::missing("build", row.build_id.as_str());
        let build = store.build(&row.build_id).await?.ok_or_else(gone)?;
        let model = store.model(&row.model_id).await?.ok_or_else(gone)?;
        let project = store.project(&model.project_id).await?.ok_or_else(gone)?;
        let build_dir = self.app.dir.build(build.id.as_str());
        rounds::check_start(&self.app, &build).await?;
        let runtime = self.app.runtimes.of_build(&build_dir)?;
        let environment = store.environment().await?;
        let from = spec::Ingredients {
            config: &self.app.config,
            environment: &environment,
            runtime: &runtime,
            build_dir: &build_dir,
            project: &project,
            model: &model,
            build: &build,
        };
        Ok(spec::deployment(&from, row))
    }

    /// Removes the run directories, and with them the logs, of deployments that ended before this time. One that begins
    /// anew meanwhile is launched by this same task, and so after.
    async fn sweep_logs(&self, before_us: i64) -> Outcome<()> {
        for number in self.app.store.deployments_over_before(before_us).await? {
            let (launcher, unit) = (self.app.launcher.clone(), UnitName::deployment(number));
            blocking(move || launcher.clear(&unit)).await?;
        }
        Ok(())
    }
}

fn note_failure(attempts: &Mutex<Attempts>, id: &DeploymentId, reason: String) {
    let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
    let times = attempts.failed.get(id).map_or(0, |f| f.times) + 1;
    let pause = RETRY_PAUSE.saturating_mul(1 << (times - 1).min(8)).min(RETRY_PAUSE_MAX);
    attempts.failed.insert(id.clone(), FailedLaunch { reason, times, again_at: Instant::now() + pause });
}
