//! Words for one gateway that others than its own connection have: that it is to ship now what is on its spool.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use millgate_contract::publication::ToGateway;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::Publisher;

/// How long a reader waits for gateways.
const FLUSH_WAIT: Duration = Duration::from_secs(1);
/// Words that wait for one gateway's connection.
pub(super) const WORDS_MAX: usize = 64;

static FLUSHES: AtomicU64 = AtomicU64::new(1);

/// What is asked of one gateway, and who waits for it.
#[derive(Default)]
pub(super) struct Outbox {
    /// None while it is not known to ship metrics.
    words: Option<mpsc::Sender<ToGateway>>,
    waiting: HashMap<u64, oneshot::Sender<()>>,
}

impl Outbox {
    pub(super) fn open(words: Option<mpsc::Sender<ToGateway>>) -> Self {
        Self { words, waiting: HashMap::new() }
    }

    /// Asks for a flush; nothing is asked of a gateway that ships no metrics.
    fn flush(&mut self) -> Option<oneshot::Receiver<()>> {
        let words = self.words.as_ref()?;
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        let flush = FLUSHES.fetch_add(1, Ordering::Relaxed);
        let (done, is_done) = oneshot::channel();
        // One that takes no words does not answer either: `done` is dropped, and its name is told.
        if words.try_send(ToGateway::Flush { flush }).is_ok() {
            self.waiting.insert(flush, done);
        }
        Some(is_done)
    }

    pub(super) fn flushed(&mut self, flush: u64) {
        if let Some(waiting) = self.waiting.remove(&flush) {
            let _ = waiting.send(());
        }
    }
}

impl Publisher {
    /// Has every connected gateway ship what is on its spool; says of which nothing was heard within a second.
    pub(crate) async fn flush(&self) -> Vec<String> {
        let until = Instant::now() + FLUSH_WAIT;
        if timeout_at(until, self.met_one()).await.is_err() {
            return vec!["none is connected".to_owned()];
        }
        let asked: Vec<(String, oneshot::Receiver<()>)> = {
            let mut known = self.known();
            let gateways = known.gateways.values_mut();
            gateways.filter_map(|g| Some((g.name.clone(), g.outbox.flush()?))).collect()
        };
        let mut silent = Vec::new();
        for (name, flushed) in asked {
            if !matches!(timeout_at(until, flushed).await, Ok(Ok(()))) {
                silent.push(name);
            }
        }
        silent
    }

    /// After a start gateways need a moment to come back.
    async fn met_one(&self) {
        let mut changed = self.gateways_changed.subscribe();
        while self.known().gateways.is_empty() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}
