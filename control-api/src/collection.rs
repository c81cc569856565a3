//! Frees what takes space and is not needed: what was deleted (`deleted`), and old builds, by policy (`policy`, pure). A task of
//! its own, since removing files takes its time. Of an old build the row, the log, the list of files and the list of packages
//! stay, so that it can be made again from its source.
//!
//! Killed anywhere it goes on at the next pass: a build is first marked as collected, in one transaction with the proof that
//! nothing uses it, from which on no deployment of it begins; then its files go; then it is marked as freed. Never touches a
//! build that is not marked.

pub(crate) mod deleted;
mod policy;
#[cfg(test)]
mod tests;

use std::{fs, io, path::Path, time::Duration};

use tokio::sync::Notify;

use crate::{
    app::App,
    builder::{LOG_FILE, blocking, dependencies, manifest},
    fault::Outcome,
    milestone::{Milestone, reached},
    moment::now_us,
};
pub(crate) use policy::{Candidate, Policy};

/// The longest it looks away: builds grow old by themselves, and trials of deleted ones take a moment to end.
const PERIOD: Duration = Duration::from_secs(30);
/// What stays of a collected build's folder.
const KEPT: [&str; 3] = [LOG_FILE, manifest::FILE, dependencies::FILE];

/// Runs until dropped.
pub(crate) async fn run(app: App, wake: &Notify) {
    loop {
        if let Err(error) = deleted::free(&app).await {
            tracing::error!(error = &error as &dyn std::error::Error, "what is deleted cannot be freed");
        }
        if let Err(error) = pass(&app).await {
            tracing::error!(error = &error as &dyn std::error::Error, "old builds cannot be collected");
        }
        // The time is out or somebody has called: both are reasons to look.
        let _ = tokio::time::timeout(PERIOD, wake.notified()).await;
    }
}

/// Collects what the policy does not keep, and frees what was collected.
pub(crate) async fn pass(app: &App) -> Outcome<()> {
    let policy = Policy { keep_last: app.config.builds_keep_last, keep_days: app.config.builds_keep_days };
    for build in policy.collectable(&app.store.collection_candidates().await?, now_us()) {
        if app.store.collect_build(&build).await? {
            tracing::info!(%build, "collected: its files go, what it was made from stays");
            reached(Milestone::Collected);
        }
    }
    for build in app.store.builds_to_free().await? {
        let folder = app.dir.build(build.as_str());
        match blocking(move || free(&folder)).await? {
            Ok(()) => {
                reached(Milestone::FilesRemoved);
                app.store.note_freed(&build).await?;
            }
            // The others are freed all the same; this one is tried again.
            Err(error) => tracing::error!(%build, %error, "the files of a collected build cannot be removed"),
        }
    }
    Ok(())
}

fn free(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if KEPT.iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
