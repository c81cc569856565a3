//! Tasks that outlive the call that began them, and the one who waits for them at the end.

use std::sync::{Mutex, PoisonError};

use tokio::{runtime::Handle, task::JoinSet};

/// Their owner. Dropping it aborts them.
pub(crate) struct Tasks {
    runtime: Handle,
    running: Mutex<JoinSet<()>>,
}

impl Tasks {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, running: Mutex::new(JoinSet::new()) }
    }

    /// Begins one.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn_on(task, &self.runtime);
    }

    /// Waits until all have ended.
    pub(crate) async fn finish(&self) {
        let mut running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        while running.join_next().await.is_some() {}
    }
}
