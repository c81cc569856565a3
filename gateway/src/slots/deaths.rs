//! Who has died, by the word of the supervisor that holds the pidfd.
//!
//! A word may come before the link that it is about: the last few are kept, so that a link that is greeted late by a
//! process already dead learns it at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use millgate_contract::ids::ReplicaId;
use tokio::sync::Notify;

/// Words kept: more than the slots a deployment can have.
const KEPT_MAX: usize = 256;

/// Whether one process is dead.
#[derive(Default)]
pub(crate) struct Death {
    is_said: AtomicBool,
    word: Notify,
}

impl Death {
    /// True once the supervisor has said it.
    pub(crate) fn is_said(&self) -> bool {
        self.is_said.load(Ordering::Acquire)
    }

    /// Waits for the word. May be dropped at any time.
    pub(crate) async fn said(&self) {
        // Made before the look, so that a word between the two is not missed.
        let word = self.word.notified();
        if !self.is_said() {
            word.await;
        }
    }

    fn say(&self) {
        self.is_said.store(true, Ordering::Release);
        self.word.notify_waiters();
    }
}

/// The deaths of one deployment.
#[derive(Default)]
pub(crate) struct Deaths(Mutex<Known>);

#[derive(Default)]
struct Known {
    watched: HashMap<ReplicaId, Weak<Death>>,
    recent: VecDeque<ReplicaId>,
}

impl Deaths {
    /// The death of one process, whether it has been said or not.
    pub(crate) fn watch(&self, replica: &ReplicaId) -> Arc<Death> {
        let mut known = self.lock();
        known.watched.retain(|_, death| death.strong_count() > 0);
        if let Some(death) = known.watched.get(replica).and_then(Weak::upgrade) {
            return death;
        }
        let death = Arc::new(Death::default());
        if known.recent.contains(replica) {
            death.say();
        }
        known.watched.insert(replica.clone(), Arc::downgrade(&death));
        death
    }

    /// The supervisor's word.
    pub(crate) fn say(&self, replica: &ReplicaId) {
        let mut known = self.lock();
        if known.recent.len() == KEPT_MAX {
            known.recent.pop_front();
        }
        known.recent.push_back(replica.clone());
        let death = known.watched.remove(replica).and_then(|death| death.upgrade());
        drop(known);
        if let Some(death) = death {
            death.say();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_word_reaches_who_waits_and_who_comes_late() {
        let deaths = Arc::new(Deaths::default());
        let replica = ReplicaId::new("add-1-1-b-a");
        let death = deaths.watch(&replica);
        assert!(!death.is_said());
        let waiting = tokio::spawn({
            let death = death.clone();
            async move { death.said().await }
        });
        deaths.say(&replica);
        waiting.await.unwrap();
        assert!(deaths.watch(&replica).is_said());
        assert!(!deaths.watch(&ReplicaId::new("add-1-1-b-b")).is_said());
    }
}
