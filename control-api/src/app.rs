//! What all parts share: store, keys, directory, launcher, publisher. Cheap to clone.

use std::{
    collections::{HashMap, HashSet},
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use millgate_contract::ids::{BuildId, ProjectId};
use tokio::sync::{Notify, RwLock, watch};

use crate::{
    builder::sources::Sources,
    config::ControlConfig,
    data_dir::DataDir,
    host::Host,
    keys::{Custody, Passwords},
    launch::Launcher,
    publish::Publisher,
    runtimes::Runtimes,
    store::Store,
};

/// See the module.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

/// What an [`App`] holds.
pub(crate) struct Parts {
    pub(crate) config: ControlConfig,
    pub(crate) dir: DataDir,
    /// What builds were made from.
    pub(crate) sources: Sources,
    pub(crate) store: Store,
    pub(crate) custody: Custody,
    pub(crate) passwords: Passwords,
    /// The Pythons that models can be built for.
    pub(crate) runtimes: Runtimes,
    pub(crate) host: Host,
    /// This server's own id, in every CRN.
    pub(crate) workspace: String,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) publisher: Arc<Publisher>,
    /// Wakes the reconciler.
    pub(crate) wake: Notify,
    /// Wakes whoever frees old builds and what is deleted.
    pub(crate) wake_collector: Notify,
    /// Wakes the builder.
    pub(crate) wake_builder: Notify,
    /// Wakes whoever clears sources away.
    pub(crate) wake_sources: Notify,
    /// Wakes whoever publishes.
    pub(crate) wake_publisher: Notify,
    /// Tells whoever follows something that anything was written.
    pub(crate) news: watch::Sender<()>,
    /// Builds whose folder is being written.
    pub(crate) building: Mutex<HashSet<BuildId>>,
    /// Who changes a project's files holds its lock; who reads several shares it.
    pub(crate) project_locks: Mutex<HashMap<ProjectId, Arc<RwLock<()>>>>,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Something was written that others act on.
    pub(crate) fn changed(&self) {
        self.wake_publisher.notify_one();
        self.wake.notify_one();
        self.wake_builder.notify_one();
        self.news.send_replace(());
    }

    /// The lock of a project's files.
    pub(crate) fn project_lock(&self, project: &ProjectId) -> Arc<RwLock<()>> {
        let mut locks = self.project_locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(project.clone()).or_default().clone()
    }

    pub(crate) fn is_building(&self, build: &BuildId) -> bool {
        self.building.lock().unwrap_or_else(PoisonError::into_inner).contains(build)
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
