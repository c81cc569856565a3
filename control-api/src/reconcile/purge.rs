//! Frees what models, builds and projects on their way out hold: processes, run directories, builds, caches, files; last
//! their rows, which is how whoever is killed in between knows what is left to do. What a builder writes to is left until it is
//! done. Sources go by themselves with the last row that names them (`builder::source`).

use std::path::PathBuf;

use millgate_contract::ids::ModelId;

use super::Reconciler;
use crate::{
    builder::blocking,
    fault::{Fault, Outcome},
    launch::UnitName,
    milestone::{Milestone, reached},
    store::BuildToPurge,
};

impl Reconciler {
    /// Frees and forgets a model that nothing runs of; false while something of it is underway.
    pub(super) async fn purge_model(&self, model: &ModelId) -> Outcome<bool> {
        let store = &self.app.store;
        for number in store.deployment_numbers(model).await? {
            self.clear(UnitName::deployment(number)).await?;
        }
        reached(Milestone::LogsRemoved);
        for build in store.builds_to_purge(Some(model)).await? {
            if !self.free_build(&build).await? {
                return Ok(false);
            }
        }
        reached(Milestone::BuildsRemoved);
        store.purge_model(model).await?;
        self.app.wake_sources.notify_one();
        reached(Milestone::Purged);
        Ok(true)
    }

    /// Frees and forgets builds and projects that were deleted by themselves.
    pub(super) async fn purge(&self) -> Outcome<()> {
        let store = &self.app.store;
        for build in store.builds_to_purge(None).await? {
            if self.free_build(&build).await? {
                store.purge_build(&build.id).await?;
                self.app.wake_sources.notify_one();
            }
        }
        for project in store.projects_to_purge().await? {
            remove_tree(self.app.dir.project(project.as_str())).await?;
            remove_tree(self.app.dir.package_cache(project.as_str())).await?;
            store.purge_project(&project).await?;
        }
        Ok(())
    }

    /// Removes the run directories, and with them the logs, of deployments that ended before this time. One that begins
    /// anew meanwhile is launched by this same task, and so after.
    pub(super) async fn sweep_logs(&self, before_us: i64) -> Outcome<()> {
        for number in self.app.store.deployments_over_before(before_us).await? {
            self.clear(UnitName::deployment(number)).await?;
        }
        Ok(())
    }

    /// False while it is being built, or processes of its trial are there: a server that was killed leaves those of a build
    /// that nobody goes on with.
    async fn free_build(&self, build: &BuildToPurge) -> Outcome<bool> {
        if self.app.is_building(&build.id) {
            return Ok(false);
        }
        let trial = UnitName::build(build.number);
        if self.app.launcher.observe().contains_key(&trial) {
            self.app.launcher.stop(&trial, 0);
            return Ok(false);
        }
        self.clear(trial).await?;
        remove_tree(self.app.dir.build(build.id.as_str())).await?;
        Ok(true)
    }

    async fn clear(&self, unit: UnitName) -> Outcome<()> {
        let launcher = self.app.launcher.clone();
        blocking(move || launcher.clear(&unit)).await
    }
}

/// Removes a folder that may not be there.
async fn remove_tree(path: PathBuf) -> Outcome<()> {
    blocking(move || match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Fault::from(e)),
        _ => Ok(()),
    })
    .await?
}
