//! A caller of another model, all the time: what it notices.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

use crate::{
    figures::ms,
    load::{Plan, load},
    server::Model,
};

/// How long one round of calls goes on.
const ROUND: Duration = Duration::from_millis(100);
const CALLS_PER_S: f64 = 200.0;

/// What was noticed since it was last asked.
#[derive(Default)]
pub(super) struct Noticed {
    rounds: u32,
    by_status: BTreeMap<u16, u64>,
    crossed: u64,
    slowest: Duration,
}

impl Noticed {
    /// In a few words.
    pub(super) fn text(&self) -> String {
        let good = self.by_status.get(&200).copied().unwrap_or(0);
        format!("{good} calls, slowest {}", ms(self.slowest))
    }

    /// What should not have been.
    pub(super) fn faults(&self) -> Vec<String> {
        let bad: Vec<String> =
            self.by_status.iter().filter(|(s, _)| **s != 200).map(|(s, n)| format!("{n} × {s}")).collect();
        let mut faults = Vec::new();
        if !bad.is_empty() {
            faults.push(format!("the other model: {}", bad.join(", ")));
        }
        if self.crossed > 0 {
            faults.push(format!("the other model: {} crossed", self.crossed));
        }
        faults
    }
}

/// Calls in the background until it is stopped.
pub(super) struct Bystander {
    noticed: Arc<Mutex<Noticed>>,
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    /// On a thread and a runtime of its own, so that what the scenario does never delays it.
    pub(super) fn start(model: &Model) -> Self {
        let noticed = Arc::new(Mutex::new(Noticed::default()));
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (model, to, until) = (model.clone(), Arc::clone(&noticed), Arc::clone(&is_stopped));
        let thread = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime needs a few descriptors");
            let plan = Plan::paced(1, ROUND, CALLS_PER_S);
            while !until.load(Ordering::Relaxed) {
                let outcome = runtime.block_on(load(&model, &plan));
                let slowest = outcome.slowest();
                let mut noticed = to.lock().expect("nobody panics with it");
                noticed.rounds += 1;
                for (status, count) in outcome.by_status {
                    *noticed.by_status.entry(status).or_default() += count;
                }
                noticed.crossed += outcome.crossed;
                noticed.slowest = noticed.slowest.max(slowest);
            }
        });
        Self { noticed, is_stopped, thread: Some(thread) }
    }

    /// What was noticed since the last time, and in one whole round from now on: an effect may come late.
    pub(super) async fn take(&self) -> Noticed {
        let noticed = || self.noticed.lock().expect("nobody panics with it");
        let rounds = noticed().rounds + 2;
        while noticed().rounds < rounds {
            tokio::time::sleep(ROUND / 10).await;
        }
        std::mem::take(&mut *noticed())
    }

    /// Ends it.
    pub(super) async fn stop(mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.await.expect("the caller does not panic");
        }
    }
}
