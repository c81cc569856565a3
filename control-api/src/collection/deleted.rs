//! Frees what models, builds and projects on their way out hold: processes, run directories, builds, caches, files; last
//! their rows, which is how whoever is killed in between knows what is left to do. What a builder writes to is left until it is
//! done. Sources go by themselves with the last row that names them (`builder::source`).

use std::path::PathBuf;

use millgate_contract::ids::ModelId;

use crate::{
    app::App,
    builder::blocking,
    fault::{Fault, Outcome},
    launch::UnitName,
    milestone::{Milestone, reached},
    store::BuildToPurge,
};

/// Frees and forgets what is deleted and used by nothing any more; true when something went.
pub(crate) async fn free(app: &App) -> Outcome<bool> {
    let store = &app.store;
    let mut is_freed = false;
    for model in store.models_to_purge().await? {
        is_freed |= free_model(app, &model).await?;
    }
    for build in store.builds_to_purge(None).await? {
        if free_build(app, &build).await? {
            store.purge_build(&build.id).await?;
            app.wake_sources.notify_one();
            is_freed = true;
        }
    }
    for project in store.projects_to_purge().await? {
        remove_tree(app.dir.project(project.as_str())).await?;
        remove_tree(app.dir.package_cache(project.as_str())).await?;
        store.purge_project(&project).await?;
        is_freed = true;
    }
    Ok(is_freed)
}

/// False while something of it is underway.
async fn free_model(app: &App, model: &ModelId) -> Outcome<bool> {
    let store = &app.store;
    for number in store.deployment_numbers(model).await? {
        clear(app, UnitName::deployment(number)).await?;
    }
    reached(Milestone::LogsRemoved);
    for build in store.builds_to_purge(Some(model)).await? {
        if !free_build(app, &build).await? {
            return Ok(false);
        }
    }
    reached(Milestone::BuildsRemoved);
    store.purge_model(model).await?;
    app.wake_sources.notify_one();
    reached(Milestone::Purged);
    Ok(true)
}

/// False while it is being built, or processes of its trial are there: a server that was killed leaves those of a build
/// that nobody goes on with.
async fn free_build(app: &App, build: &BuildToPurge) -> Outcome<bool> {
    if app.is_building(&build.id) {
        return Ok(false);
    }
    let trial = UnitName::build(build.number);
    if app.launcher.observe().contains_key(&trial) {
        app.launcher.stop(&trial, 0);
        return Ok(false);
    }
    clear(app, trial).await?;
    remove_tree(app.dir.build(build.id.as_str())).await?;
    Ok(true)
}

async fn clear(app: &App, unit: UnitName) -> Outcome<()> {
    let launcher = app.launcher.clone();
    blocking(move || launcher.clear(&unit)).await
}

/// Removes a folder that may not be there.
async fn remove_tree(path: PathBuf) -> Outcome<()> {
    blocking(move || match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Fault::from(e)),
        _ => Ok(()),
    })
    .await?
}
