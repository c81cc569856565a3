//! Puts the parts together, runs them, ends them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use millgate_contract::{ids::Username, publication::PUBLICATION_SOCKET};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    app::{App, Parts},
    builder::{self, sources::Sources},
    collection,
    config::ControlConfig,
    data_dir::{DataDir, OpenError, write_private},
    database::Database,
    fault::{Fault, Outcome},
    host::Host,
    http,
    keys::{Custody, Passwords},
    launch::{Launcher, LocalLauncher},
    metrics,
    moment::now_s,
    names, operations, publish,
    publish::Publisher,
    reconcile::Reconciler,
    rows::UserRole,
    runtimes::Runtimes,
    store::Store,
};

/// The longest a change waits for its snapshot when the wake was lost: its caller has gone before it came to that.
const PUBLISH_PERIOD: Duration = Duration::from_millis(500);
/// How long the data directory may still be another's, and between two attempts.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// What supervisors get on top of the grace of their calls at the end.
const STOP_SLACK: Duration = Duration::from_secs(8);

/// What becomes of the replicas when the control API ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtShutdown {
    /// They are drained and stopped; what was active starts again with the next control API.
    StopReplicas,
    /// They go on serving.
    LeaveReplicas,
}

/// Why a control API stopped running.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The socket for gateways cannot be bound.
    #[error("cannot listen on `{path}`: {source}")]
    Socket {
        /// Which.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
}

/// The control API of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct ControlApi {
    app: App,
}

impl ControlApi {
    /// Opens the data directory, makes what is missing in it (keys, schema, first administrator) and finds the
    /// supervisors that run already.
    pub async fn open(config: ControlConfig) -> Result<Self, OpenError> {
        let dir = lock(&config.data_dir).await?;
        let launcher = LocalLauncher::new(dir.run(), config.millgate_program.clone());
        Self::assemble(config, dir, Arc::new(launcher)).await
    }

    pub(crate) async fn assemble(
        config: ControlConfig,
        dir: DataDir,
        launcher: Arc<dyn Launcher>,
    ) -> Result<Self, OpenError> {
        let custody = Custody::open(&dir.keys())?;
        let store = Store::open(&database(&config, &dir), &dir.backups()).await?;
        let runtimes = Runtimes::open(&config, dir.root(), &store).await?;
        let failed = |fault: Fault| OpenError::First(Box::new(fault));
        let workspace = store.setting_or("workspace", &names::uuid()).await.map_err(failed)?;
        launcher.adopt().await;
        let publisher = Arc::new(Publisher::new(Duration::from_millis(config.gateway_wait_ms)));
        let host = Host::measure(config.memory_mb_max);
        let folder = dir.sources();
        let sources = Sources::open(folder.clone()).map_err(|source| OpenError::Io {
            action: "create",
            path: folder,
            source,
        })?;
        let parts = Parts {
            config,
            dir,
            sources,
            store,
            custody,
            passwords: Passwords::default(),
            runtimes,
            host,
            workspace,
            launcher,
            publisher,
            wake: tokio::sync::Notify::new(),
            wake_builder: tokio::sync::Notify::new(),
            wake_sources: tokio::sync::Notify::new(),
            wake_collector: tokio::sync::Notify::new(),
            wake_publisher: tokio::sync::Notify::new(),
            news: tokio::sync::watch::Sender::new(()),
            building: std::sync::Mutex::default(),
            project_locks: std::sync::Mutex::default(),
        };
        let app = App::new(parts);
        app.store.record_cut_off().await.map_err(failed)?;
        first_administrator(&app).await.map_err(failed)?;
        Ok(Self { app })
    }

    /// What its parts share.
    #[cfg(test)]
    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// API v2. It answers as soon as it is served, whether or not [`ControlApi::run`] runs.
    pub fn router(&self) -> axum::Router {
        http::router(self.app.clone())
    }

    /// Where gateways ask for route snapshots.
    pub fn publication_socket(&self) -> PathBuf {
        self.app.dir.root().join(PUBLICATION_SOCKET)
    }

    /// Builds, launches and publishes until `shutdown` resolves, then ends as it says and gives up the data directory:
    /// from then on this value answers nothing, and another process may open the directory.
    pub async fn run(&self, shutdown: impl Future<Output = AtShutdown>) -> Result<(), RunError> {
        let path = self.publication_socket();
        let listener =
            publish::bind(&path).map_err(|source| RunError::Socket { path: path.clone(), source })?;
        let mut parts = JoinSet::new();
        let app = self.app.clone();
        parts.spawn(async move { app.publisher.serve(listener, &app).await });
        let app = self.app.clone();
        parts.spawn(async move { publish_changes(&app).await });
        let app = self.app.clone();
        parts.spawn(async move { builder::run(app.clone(), &app.wake_builder).await });
        let app = self.app.clone();
        parts.spawn(async move { Reconciler::new(app.clone()).run(&app.wake).await });
        let app = self.app.clone();
        parts.spawn(async move { collection::run(app.clone(), &app.wake_collector).await });
        let app = self.app.clone();
        parts.spawn(async move { metrics::sweep(&app).await });
        let app = self.app.clone();
        parts.spawn(async move { builder::source::tend(&app).await });
        let app = self.app.clone();
        parts.spawn(async move { builder::rounds::run(&app).await });
        let at_shutdown = tokio::select! {
            at_shutdown = shutdown => at_shutdown,
            ended = parts.join_next() => {
                // None of them returns: this is a panic, whose words are in the log already.
                tracing::error!(?ended, "a part of the control API ended");
                AtShutdown::LeaveReplicas
            }
        };
        // Dropping its parts ends the build underway with its script; it is made again at the next start.
        parts.shutdown().await;
        self.stop_builds().await;
        if at_shutdown == AtShutdown::StopReplicas {
            self.stop_all(|_| true).await;
        }
        let _ = std::fs::remove_file(&path);
        self.app.store.close().await;
        // Requests that still hold these parts must not keep a successor waiting.
        self.app.dir.release();
        Ok(())
    }

    /// Trials of builds are nobody's replicas: they never outlive the builder.
    async fn stop_builds(&self) {
        self.stop_all(|unit| unit.deployment_number().is_none()).await;
    }

    async fn stop_all(&self, which: impl Fn(&crate::launch::UnitName) -> bool) {
        let grace_ms = self.app.config.stop_grace_ms;
        let end = Instant::now() + Duration::from_millis(grace_ms) + STOP_SLACK;
        let mut changes = self.app.launcher.changes();
        loop {
            let left: Vec<_> = self.app.launcher.observe().into_keys().filter(|unit| which(unit)).collect();
            if left.is_empty() || Instant::now() >= end {
                return;
            }
            for unit in &left {
                self.app.launcher.stop(unit, grace_ms);
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), changes.changed()).await;
        }
    }
}

/// Opens the data directory; waits a moment for a server that was killed and has not quite ended.
async fn lock(path: &Path) -> Result<DataDir, OpenError> {
    let end = Instant::now() + LOCK_WAIT;
    loop {
        match DataDir::open(path) {
            Err(OpenError::Locked(_)) if Instant::now() < end => tokio::time::sleep(LOCK_PAUSE).await,
            opened => return opened,
        }
    }
}

fn database(config: &ControlConfig, dir: &DataDir) -> Database {
    config.database_url.clone().map_or_else(|| Database::Sqlite(dir.database()), Database::Postgres)
}

async fn publish_changes(app: &App) {
    loop {
        let edition = app.store.edition();
        let is_published = match app.publisher.refresh(app).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot publish a route snapshot");
                false
            }
        };
        tokio::select! {
            () = app.wake_publisher.notified() => {}
            () = app.store.written_since(edition, PUBLISH_PERIOD), if is_published => {}
            () = tokio::time::sleep(PUBLISH_PERIOD), if !is_published => {}
        }
    }
}

/// Makes the first administrator and leaves a key of theirs where the commands of this host find it.
async fn first_administrator(app: &App) -> Outcome<()> {
    let path = app.dir.credentials();
    let username = Username::new(&app.config.administrator);
    let is_new = app.store.administrators().await?.is_empty();
    if !is_new {
        return Ok(());
    }
    app.store.ensure_user(&username, UserRole::User).await?;
    let expires_s = now_s() + app.config.key_lifetime_s_max.cast_signed();
    let comments = "first administrator".to_owned();
    let (_, key) = operations::make_key(app, &username, vec!["API".to_owned()], comments, expires_s).await?;
    let text = format!("{}\n", json!({ "username": username, "api_key": key }));
    write_private(&path, text.as_bytes())?;
    // Last: whoever is killed before this begins again, with a new key.
    app.store.make_administrator(&username).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_data_directory_that_another_server_lets_go_of_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let held = DataDir::open(temp.path()).unwrap();
        let waiting = lock(temp.path());
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("it is held"),
            () = tokio::task::yield_now() => {}
        }
        drop(held);
        waiting.await.unwrap();
    }
}
