//! The states of a keyed limiter, bounded in number. A key that comes when the store is full is counted together with
//! all others that do, in one state: stricter than it deserves, for as long as so many keys are in use; keys that have
//! a state keep it.

use std::{
    hash::Hash,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::{DashMap, Entry};
use governor::{
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};

/// A bounded store.
pub(super) struct BoundedStore<K> {
    states: DashMap<K, Nanos>,
    /// How many `states` holds; it may be passed by as many as come at one instant.
    kept: AtomicUsize,
    keys_max: usize,
    overflow: Mutex<Option<Nanos>>,
}

impl<K: Hash + Eq> BoundedStore<K> {
    pub(super) fn new(keys_max: usize) -> Self {
        Self { states: DashMap::new(), kept: AtomicUsize::new(0), keys_max, overflow: Mutex::new(None) }
    }
}

impl<K: Hash + Eq + Clone> StateStore for BoundedStore<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(mut state) = self.states.get_mut(key) {
            let (outcome, next) = measure(Some(*state))?;
            *state = next;
            return Ok(outcome);
        }
        if self.kept.load(Ordering::Relaxed) >= self.keys_max {
            let mut state = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
            let (outcome, next) = measure(*state)?;
            *state = Some(next);
            return Ok(outcome);
        }
        match self.states.entry(key.clone()) {
            Entry::Occupied(mut state) => {
                let (outcome, next) = measure(Some(*state.get()))?;
                state.insert(next);
                Ok(outcome)
            }
            Entry::Vacant(room) => {
                let (outcome, next) = measure(None)?;
                room.insert(next);
                self.kept.fetch_add(1, Ordering::Relaxed);
                Ok(outcome)
            }
        }
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for BoundedStore<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.states.retain(|_, state| {
            let is_recent = *state > drop_below;
            if !is_recent {
                self.kept.fetch_sub(1, Ordering::Relaxed);
            }
            is_recent
        });
    }

    fn shrink_to_fit(&self) {
        self.states.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
