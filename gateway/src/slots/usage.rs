//! What a deployment's replicas do with their time, slot by slot, as their supervisor tells when it is asked. By the
//! replicas' own word: figures for people, of which nothing is decided.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    supervision::ReplicaUsage,
};

/// Time by what it was spent on; see [`ReplicaUsage`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) busy: Duration,
    pub(crate) interpreter_wait: Duration,
    pub(crate) idle: Duration,
}

impl Spent {
    fn of(usage: &ReplicaUsage) -> Self {
        Self {
            busy: Duration::from_micros(usage.busy_us),
            interpreter_wait: Duration::from_micros(usage.interpreter_wait_us),
            idle: Duration::from_micros(usage.idle_us),
        }
    }

    /// Nothing for what has become less: it is a replica's word.
    fn since(self, before: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(before.busy),
            interpreter_wait: self.interpreter_wait.saturating_sub(before.interpreter_wait),
            idle: self.idle.saturating_sub(before.idle),
        }
    }

    fn add(&mut self, more: Self) {
        self.busy = self.busy.saturating_add(more.busy);
        self.interpreter_wait = self.interpreter_wait.saturating_add(more.interpreter_wait);
        self.idle = self.idle.saturating_add(more.idle);
    }
}

/// The slots of one deployment.
#[derive(Debug, Default)]
pub(crate) struct Usage(Mutex<BTreeMap<SlotIndex, Slot>>);

#[derive(Debug)]
struct Slot {
    replica: ReplicaId,
    /// What this replica had spent when it was last heard of.
    told: Spent,
    /// What was spent in the slot and has not been taken yet.
    untaken: Spent,
}

impl Usage {
    /// A replica is in a slot.
    pub(crate) fn placed(&self, slot: SlotIndex, replica: &ReplicaId) {
        let mut slots = self.lock();
        let one = slots.entry(slot).or_insert_with(|| Slot {
            replica: replica.clone(),
            told: Spent::default(),
            untaken: Spent::default(),
        });
        if one.replica != *replica {
            one.replica = replica.clone();
            one.told = Spent::default();
        }
    }

    /// The supervisor's answer. Spares are in no slot, and count from when they are.
    pub(crate) fn told(&self, replicas: &[ReplicaUsage]) {
        for slot in self.lock().values_mut() {
            let Some(usage) = replicas.iter().find(|one| one.replica == slot.replica) else { continue };
            let now = Spent::of(usage);
            slot.untaken.add(now.since(slot.told));
            slot.told = now;
        }
    }

    /// What was spent in each slot since it was last taken.
    pub(crate) fn take(&self) -> Vec<(SlotIndex, Spent)> {
        self.lock().iter_mut().map(|(slot, one)| (*slot, mem::take(&mut one.untaken))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SlotIndex, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(replica: &str, busy_us: u64, idle_us: u64) -> ReplicaUsage {
        ReplicaUsage { replica: ReplicaId::new(replica), calls: 1, busy_us, interpreter_wait_us: 0, idle_us }
    }

    fn spent(busy_us: u64, idle_us: u64) -> Spent {
        Spent::of(&usage("a", busy_us, idle_us))
    }

    #[test]
    fn what_is_told_is_taken_once_and_another_replica_begins_anew() {
        let (usage_of, slot) = (Usage::default(), SlotIndex(1));
        usage_of.placed(slot, &ReplicaId::new("a"));
        usage_of.told(&[usage("a", 5, 100), usage("spare", 9, 9)]);
        usage_of.told(&[usage("a", 7, 150)]);
        assert_eq!(usage_of.take(), [(slot, spent(7, 150))]);
        assert_eq!(usage_of.take(), [(slot, Spent::default())]);
        // Said again after a connection was lost: nothing is counted twice.
        usage_of.placed(slot, &ReplicaId::new("a"));
        usage_of.told(&[usage("a", 8, 150)]);
        usage_of.placed(slot, &ReplicaId::new("spare"));
        usage_of.told(&[usage("spare", 20, 30)]);
        assert_eq!(usage_of.take(), [(slot, spent(21, 30))]);
    }

    #[test]
    fn a_replica_that_takes_its_word_back_counts_nothing() {
        let (usage_of, slot) = (Usage::default(), SlotIndex(0));
        usage_of.placed(slot, &ReplicaId::new("a"));
        usage_of.told(&[usage("a", 50, 50)]);
        usage_of.told(&[usage("a", 10, 50)]);
        assert_eq!(usage_of.take(), [(slot, spent(50, 50))]);
    }
}
