//! The step that gives a build its source: the project's files as they are now, or, where the build has one already (it was
//! underway when the server ended, or is an earlier one made again), the one that is kept. And the end of sources that
//! are nobody's.

use std::{fs, path::Path, time::Duration};

use serde_json::json;

use super::{
    BuildFailure, Job, blocking, failed,
    include::{Include, IncludeError},
    log::Step,
    missing_file, script,
    snapshot::Warning,
    sources::{Hold, RestoreError, Restored, Sources},
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    rows::Build,
};

/// The longest that sources of builds that are gone are left where the wake was lost.
const SWEEP_PERIOD: Duration = Duration::from_secs(3_600);

/// Fills the build's root, and records the source's hash in its row.
pub(super) async fn bring(job: &mut Job) -> Result<(), BuildFailure> {
    let hold = job.app.sources.hold().await;
    // One made again is of the source it names or not made: the project's files may be others by now.
    let is_new = job.build.rebuilt_from.is_empty() && !job.app.sources.has(&job.build.source_hash);
    if is_new {
        job.log.line(Step::Snapshot, "copying the project's files");
        keep(job, &hold).await?;
    } else {
        job.log.line(Step::Snapshot, "copying the source that is kept of this build");
    }
    let mut restored = restore(job).await?;
    if is_new && matches!(restored, Err(RestoreError::Damaged(_))) {
        // A power cut had spoilt what an earlier build kept of these files: it is gone now.
        keep(job, &hold).await?;
        restored = restore(job).await?;
    }
    let restored = restored.map_err(|e| failed(Step::Snapshot, e.to_string()))?;
    job.app.store.seal_build(&job.build.id, &job.build.source_hash, "").await?;
    drop(hold);
    let hash = &job.build.source_hash[..10];
    job.log.line(
        Step::Snapshot,
        &format!("{} files, {} bytes, source hash {hash}", restored.files, restored.bytes),
    );
    check(job)
}

/// Keeps the project's files as they are now, and says what they leave out.
async fn keep(job: &mut Job, hold: &Hold) -> Result<(), BuildFailure> {
    let include = include(&job.build).map_err(|e| failed(Step::Snapshot, e.to_string()))?;
    let lock = job.app.project_lock(&job.project.id);
    let guard = lock.read().await;
    let (app, hold, from) = (job.app.clone(), hold.clone(), job.app.dir.project(job.project.id.as_str()));
    let kept = blocking(move || app.sources.keep(&hold, &from, &include)).await?;
    drop(guard);
    let kept = kept.map_err(|e| failed(Step::Snapshot, e.to_string()))?;
    let warnings: Vec<String> = kept.warnings.iter().map(Warning::to_string).collect();
    for warning in &warnings {
        job.log.line(Step::Snapshot, &format!("warning: {warning}"));
    }
    if !warnings.is_empty() {
        job.app.store.note_build_warnings(&job.build.id, &json!(warnings).to_string()).await?;
    }
    job.build.source_hash = kept.source_hash;
    Ok(())
}

/// The build's patterns, which were read when it was asked for.
fn include(build: &Build) -> Result<Include, IncludeError> {
    let patterns: Vec<String> = serde_json::from_str(&build.include).unwrap_or_default();
    Include::parse(&patterns)
}

async fn restore(job: &Job) -> Outcome<Result<Restored, RestoreError>> {
    let (app, source_hash, to) = (job.app.clone(), job.build.source_hash.clone(), job.dir.join("root"));
    blocking(move || restore_anew(&app.sources, &source_hash, &to)).await
}

fn restore_anew(sources: &Sources, source_hash: &str, to: &Path) -> Result<Restored, RestoreError> {
    match fs::remove_dir_all(to) {
        Err(source) if to.exists() => Err(RestoreError::Io { path: String::new(), source }),
        _ => sources.restore(source_hash, to),
    }
}

/// What a build needs of its source is there.
fn check(job: &Job) -> Result<(), BuildFailure> {
    let root = job.root();
    // Through links inside the project it may be anywhere in it, and nowhere else.
    let is_inside = match (root.canonicalize(), job.dir.join("root").canonicalize()) {
        (Ok(root), Ok(whole)) => root.is_dir() && root.starts_with(whole),
        _ => false,
    };
    if !is_inside {
        let reason = format!("the project has no folder {:?} (`model_root_dir`)", job.build.model_root_dir);
        return Err(failed(Step::Snapshot, reason));
    }
    if !root.join(&job.build.file_path).is_file() && !root.join(script::name(&job.build)).is_file() {
        // A build script may make the file; without one nothing will.
        return Err(failed(Step::Snapshot, missing_file(&job.build.file_path)));
    }
    Ok(())
}

/// Clears away the sources of builds that are gone, until dropped.
pub(crate) async fn tend(app: &App) {
    loop {
        match sweep(app).await {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, "sources of builds that are gone are cleared away"),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "sources cannot be cleared away");
            }
        }
        let _ = tokio::time::timeout(SWEEP_PERIOD, app.wake_sources.notified()).await;
    }
}

/// Answers the bytes that were freed.
pub(crate) async fn sweep(app: &App) -> Outcome<u64> {
    let sweep = app.sources.close().await;
    let used = app.store.sources_used().await?;
    let sources = app.clone();
    blocking(move || sources.sources.sweep(&sweep, &used)).await?.map_err(Fault::from)
}
