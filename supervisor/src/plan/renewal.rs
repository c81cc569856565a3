//! The part of the plan about replicas that serve and are replaced all the same: by a restart, by age, by memory. One
//! at a time, each once its successor is ready to take over (a spare, kept for that alone if need be); each finishes its
//! call first. What does not start takes nobody's place: a restart is then called off.

use millgate_contract::ids::ReplicaId;

use super::{Action, Plan};
use crate::{
    limits,
    slot::{Slot, Stage},
};

impl Plan {
    /// A restart's: one slot at a time gives up its replica of an older template.
    pub(super) fn roll(&mut self, now_ms: u64) {
        // A restart waits for its import, which makes another template the current one.
        let Some(current) = self.templates.current().filter(|_| !self.templates.is_importing()) else {
            return;
        };
        while let Some(&slot) = self.rolling.front() {
            let k = usize::from(slot.0);
            match self.slots[k].stage.clone() {
                Stage::Ready { template, .. } if template >= current => {
                    self.rolling.pop_front();
                }
                Stage::Ready { .. } => {
                    if self.has_successor() {
                        self.renew(now_ms, k, "the deployment restarts");
                    }
                    return;
                }
                Stage::Vacant { .. }
                | Stage::Forking { .. }
                | Stage::Starting { .. }
                | Stage::Ending { .. } => {
                    return;
                }
            }
        }
    }

    /// One that is due is replaced while no other is on its way. A slot that pauses between failures is waited for no
    /// longer than the pause.
    pub(super) fn recycle(&mut self, now_ms: u64) {
        if let Some(age_ms_max) = self.settings.age_ms_max {
            for slot in &mut self.slots {
                if slot.serves_until_ms(age_ms_max).is_some_and(|at_ms| now_ms >= at_ms) {
                    slot.recycle = Some(format!("it has served for {} s", age_ms_max / 1_000));
                }
            }
        }
        let may_fork = self.may_fork() && !self.templates.is_importing();
        let is_quiet = |slot: &Slot| matches!(slot.stage, Stage::Ready { .. } | Stage::Vacant { .. });
        if !may_fork || !self.has_successor() || !self.slots.iter().all(is_quiet) {
            return;
        }
        let due = self.slots.iter_mut().enumerate().find_map(|(k, slot)| Some((k, slot.recycle.take()?)));
        if let Some((k, reason)) = due {
            self.renew(now_ms, k, &reason);
        }
    }

    /// A slot waits for a successor, or for the one it has been given up for.
    pub(super) fn wants_successor(&self) -> bool {
        let current = self.templates.current();
        let is_old = |slot: &Slot| match slot.stage {
            Stage::Ready { template, .. } => Some(template) < current && self.rolling.contains(&slot.index),
            _ => false,
        };
        let is_due = |slot: &Slot| slot.recycle.is_some() && matches!(slot.stage, Stage::Ready { .. });
        self.slots.iter().any(|slot| slot.is_handed_over || is_old(slot) || is_due(slot))
    }

    /// New replicas do not start: those that serve stay.
    pub(super) fn call_off(&mut self, reason: &str) {
        if !self.rolling.is_empty() {
            self.rolling.clear();
            self.note(None, format!("the replicas that serve are not replaced: {reason}"));
            self.set_phase(self.report.phase, reason.to_owned());
        }
    }

    /// How much memory of its own a replica uses.
    pub(super) fn on_memory(&mut self, replica: &ReplicaId, bytes: u64) {
        let Some(bytes_max) = self.settings.memory_bytes_max.filter(|max| bytes > *max) else { return };
        let Some(k) = self.find(replica) else { return };
        let slot = &mut self.slots[k];
        if matches!(slot.stage, Stage::Ready { .. }) && slot.recycle.is_none() {
            slot.recycle = Some(format!("it uses {bytes} bytes of memory, over {bytes_max}"));
        }
    }

    fn renew(&mut self, now_ms: u64, k: usize, reason: &str) {
        if let Stage::Ready { replica, .. } = self.slots[k].stage.clone() {
            self.note(Some(&replica), format!("is replaced: {reason}"));
            self.actions.push(Action::Terminate(replica));
            self.slots[k].end(now_ms, now_ms + limits::DRAIN_MS_MAX, reason.to_owned());
            self.slots[k].is_handed_over = true;
        }
    }
}
