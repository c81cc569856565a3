//! Makes builds, one at a time, in the order they were asked for. Each step is logged to the build's own log as it
//! happens. A build that was underway when the server ended is made again from the start, so no step needs to know
//! how far the one before it came; one that was sealed is tried again. Nothing of a build is changed once it is sealed.

mod again;
mod attend;
mod blank;
mod channel;
pub(crate) mod dependencies;
mod digest;
mod environment;
pub(crate) mod include;
pub(crate) mod log;
pub(crate) mod manifest;
mod packages;
pub(crate) mod rounds;
pub(crate) mod script;
pub(crate) mod snapshot;
pub(crate) mod source;
pub(crate) mod sources;
pub(crate) mod step;
#[cfg(test)]
mod tests;
mod trial;

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf, sync::PoisonError, time::Duration};

use millgate_contract::ids::BuildId;
use tokio::sync::Notify;

use crate::{
    app::App,
    builder::{
        again::Again,
        dependencies::Dependencies,
        log::{BuildLog, Step},
    },
    fault::{Fault, Outcome},
    launch::{UnitName, spec, spec::Ingredients},
    milestone::{Milestone, reached},
    rows::{Build, BuildStatus, Model, Project},
    runtimes::{Choice, Runtime},
};

/// The longest it looks away.
const PERIOD: Duration = Duration::from_secs(2);
/// The build's log, in its folder.
pub(crate) const LOG_FILE: &str = "build.log";

/// Why a build failed; for the person who asked for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildFailure {
    /// What is wrong with what was given.
    #[error("{step}: {reason}", step = step.as_str())]
    Step {
        /// Where.
        step: Step,
        /// What, and what to do.
        reason: String,
    },
    /// The build was deleted, or our store fails: nobody is to be told by the build's status.
    #[error("given up: {0}")]
    Fault(#[from] Fault),
}

/// A failure of a step.
pub(crate) fn failed(step: Step, reason: impl Into<String>) -> BuildFailure {
    BuildFailure::Step { step, reason: reason.into() }
}

/// One build underway.
pub(crate) struct Job {
    pub(crate) app: App,
    pub(crate) build: Build,
    pub(crate) model: Model,
    pub(crate) project: Project,
    /// JSON object of the server's variables.
    pub(crate) environment: String,
    /// What it is built for.
    pub(crate) choice: Choice,
    pub(crate) dir: PathBuf,
    pub(crate) log: BuildLog,
    /// Of one that is made again.
    pub(crate) again: Option<Again>,
}

impl Job {
    pub(crate) fn root(&self) -> PathBuf {
        spec::model_root(&self.dir, &self.build)
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.choice.runtime
    }

    pub(crate) fn venv(&self) -> PathBuf {
        self.dir.join("venv")
    }

    pub(crate) fn ingredients(&self) -> Ingredients<'_> {
        Ingredients {
            config: &self.app.config,
            environment: &self.environment,
            runtime: self.runtime(),
            build_dir: &self.dir,
            project: &self.project,
            model: &self.model,
            build: &self.build,
        }
    }
}

/// Runs until dropped.
pub(crate) async fn run(app: App, wake: &Notify) {
    loop {
        let edition = app.store.edition();
        let has_looked = match next(&app).await {
            Ok(true) => continue,
            Ok(false) => true,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "builder");
                false
            }
        };
        tokio::select! {
            () = wake.notified() => {}
            () = app.store.written_since(edition, PERIOD), if has_looked => {}
            () = tokio::time::sleep(PERIOD), if !has_looked => {}
        }
    }
}

/// Makes the first build in line; false when there is none.
pub(crate) async fn next(app: &App) -> Outcome<bool> {
    let line = app.store.unfinished_builds().await?;
    for build in line.iter().filter(|b| b.status == BuildStatus::Pending) {
        app.store.move_build(&build.id, BuildStatus::Pending, BuildStatus::Queued, "").await?;
    }
    let Some(build) = line.into_iter().next() else { return Ok(false) };
    let _mark = Underway::begin(app, &build.id);
    // Deleted since the line was read, it may be freed already; not yet, and whoever frees it sees the mark.
    if app.store.build(&build.id).await?.is_none() {
        return Ok(true);
    }
    let is_begun = matches!(build.status, BuildStatus::Building | BuildStatus::Pushing);
    if !is_begun && !app.store.move_build(&build.id, BuildStatus::Queued, BuildStatus::Building, "").await? {
        return Ok(true);
    }
    reached(Milestone::Building);
    let id = build.id.clone();
    match make(app, build).await {
        Ok(log) => {
            log.line(Step::Done, "built");
            app.store.move_build(&id, BuildStatus::Pushing, BuildStatus::Built, "").await?;
        }
        Err((log, BuildFailure::Step { step, reason })) => {
            // What a supervisor says begins with the step already.
            let begins = format!("{}: ", step.as_str());
            let reason = if reason.starts_with(&begins) { reason } else { begins + &reason };
            if let Some(log) = log {
                log.line(Step::Done, &format!("build failed: {reason}"));
            }
            tracing::info!(build = %id, reason, "build failed");
            for from in [BuildStatus::Building, BuildStatus::Pushing] {
                app.store.move_build(&id, from, BuildStatus::Failed, &reason).await?;
            }
        }
        Err((_, BuildFailure::Fault(fault))) => return Err(fault),
    }
    reached(Milestone::BuildOver);
    app.changed();
    app.wake_collector.notify_one();
    Ok(true)
}

type Ended = (Option<BuildLog>, BuildFailure);

async fn make(app: &App, build: Build) -> Result<BuildLog, Ended> {
    let job = prepare(app, build).await.map_err(|failure| (None, failure))?;
    let log = job.log.clone();
    let result = steps(job).await;
    match result {
        Ok(()) => Ok(log),
        Err(failure) => Err((Some(log), failure)),
    }
}

async fn prepare(app: &App, build: Build) -> Result<Job, BuildFailure> {
    let model = app
        .store
        .model(&build.model_id)
        .await?
        .ok_or_else(|| Fault::missing("model", build.model_id.as_str()))?;
    let project = app
        .store
        .project(&model.project_id)
        .await?
        .ok_or_else(|| Fault::missing("project", model.project_id.as_str()))?;
    let dir = app.dir.build(build.id.as_str());
    // What an earlier attempt left, its trial's processes included.
    stop_trial(app, &build).await;
    let log_file = dir.join(LOG_FILE);
    let again = Again::of(app, &build).await?;
    let mut choice = app.runtimes.choose(&build.kernel, &build.runtime_identifier);
    if let Some(again) = &again {
        choice = again.choice(app, choice);
    }
    let log = if build.status == BuildStatus::Pushing {
        choice.runtime = app.runtimes.of_build(&dir)?;
        BuildLog::reopen(&log_file)
    } else {
        clear(dir.clone()).await?;
        BuildLog::create(&log_file)
    };
    let log = log.map_err(Fault::from)?;
    let environment = app.store.environment().await?;
    Ok(Job { app: app.clone(), build, model, project, environment, choice, dir, log, again })
}

/// Makes an empty folder of what may be there of an earlier attempt.
async fn clear(dir: PathBuf) -> Outcome<()> {
    blocking(move || {
        for part in ["root", "venv", "tools", "manifest.json", "times.json", ".sealed"] {
            let path = dir.join(part);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(e) = removed
                && e.kind() != io::ErrorKind::NotFound
            {
                return Err(e);
            }
        }
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
    })
    .await?
    .map_err(Fault::from)
}

async fn steps(mut job: Job) -> Result<(), BuildFailure> {
    if job.build.status == BuildStatus::Pushing {
        check_sealed(&job).await?;
    } else {
        seal(&mut job).await?;
    }
    let answer = trial::run(&job).await;
    stop_trial(&job.app, &job.build).await;
    reached(Milestone::Trial);
    if let Some(response) = answer? {
        job.app.store.set_example_response(&job.build.id, &response).await?;
    }
    Ok(())
}

/// Makes all that the build is. From here on nothing of it changes: its trial, too, is of what is sealed.
async fn seal(job: &mut Job) -> Result<(), BuildFailure> {
    check_kernel(job)?;
    job.log.line(Step::Snapshot, &words_of_choice(&job.choice, &job.build));
    if let Some(again) = &job.again {
        again.prepare(job)?;
    }
    source::bring(job).await?;
    reached(Milestone::Snapshot);
    environment::make(job).await?;
    reached(Milestone::Environment);
    job.log.line(Step::Seal, "sealing");
    let dir = job.dir.clone();
    let (version, site_packages) = (job.runtime().python.version.clone(), environment::site_packages(job));
    let (dependencies, build_hash) = blocking(move || {
        let dependencies = Dependencies::of(&version, &site_packages)?;
        dependencies.write(&dir)?;
        manifest::seal(&dir).map(|build_hash| (dependencies, build_hash))
    })
    .await?
    .map_err(|e| failed(Step::Seal, format!("the build cannot be sealed: {e}")))?;
    job.app.store.seal_build(&job.build.id, &job.build.source_hash, &build_hash).await?;
    job.log.line(Step::Seal, &format!("build hash {}", &build_hash[..10]));
    if let Some(again) = &job.again {
        again.compare(job, &dependencies).await?;
    }
    job.build.build_hash = build_hash;
    job.app.store.move_build(&job.build.id, BuildStatus::Building, BuildStatus::Pushing, "").await?;
    reached(Milestone::Sealed);
    Ok(())
}

/// Sealed before the server ended, it may lack what was not on the disk yet when the host ended with it.
async fn check_sealed(job: &Job) -> Result<(), BuildFailure> {
    let (dir, hash) = (job.dir.clone(), job.build.build_hash.clone());
    blocking(move || manifest::check(&dir, &hash)).await?.map_err(|reason| {
        failed(Step::Seal, format!("not as it was sealed before the server ended: {reason}; build it again"))
    })
}

fn check_kernel(job: &Job) -> Result<(), BuildFailure> {
    let asked = format!("{} {}", job.build.kernel, job.build.runtime_identifier).to_lowercase();
    let words: Vec<&str> =
        asked.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let is_other = words.contains(&"r")
        || words.contains(&"scala")
        || asked.contains("python 2")
        || words.contains(&"python2");
    if is_other {
        let reason = format!(
            "kernel {:?} is not served here: models are Python 3 functions; choose {:?}",
            job.build.kernel,
            job.runtime().python.kernel()
        );
        return Err(failed(Step::Snapshot, reason));
    }
    Ok(())
}

/// Which Python the build uses, and why.
fn words_of_choice(choice: &Choice, build: &Build) -> String {
    let version = &choice.runtime.python.version;
    let (kernel, runtime) = (&build.kernel, &build.runtime_identifier);
    match choice.missed {
        None if choice.is_named => format!("the build uses Python {version}, which it names"),
        None => format!("the build uses Python {version}, the default: it names no version"),
        Some(missed) => format!(
            "Python {missed} of kernel {kernel:?} and runtime {runtime:?} is not on this host; the build uses Python \
             {version}, the default (`millgate runtimes add` adds another)"
        ),
    }
}

/// The words for a file that is not there.
pub(crate) fn missing_file(path: &str) -> String {
    format!(
        "there is no file {path:?} in the model's root; check `file_path`, and that `.gitignore` does not leave it out"
    )
}

async fn stop_trial(app: &App, build: &Build) {
    let unit = UnitName::build(build.number);
    let mut changes = app.launcher.changes();
    while app.launcher.observe().contains_key(&unit) {
        app.launcher.stop(&unit, 0);
        // The period repeats the stop, which ends by force what does not end by itself.
        let _ = tokio::time::timeout(PERIOD, changes.changed()).await;
    }
    app.launcher.clear(&unit);
}

/// Runs file work away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(Fault::internal)
}

/// Marks a build's folder as being written.
struct Underway<'a> {
    app: &'a App,
    build: BuildId,
}

impl<'a> Underway<'a> {
    fn begin(app: &'a App, build: &BuildId) -> Self {
        app.building.lock().unwrap_or_else(PoisonError::into_inner).insert(build.clone());
        Self { app, build: build.clone() }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.app.building.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.build);
    }
}
