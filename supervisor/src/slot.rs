//! One slot: a numbered place for one replica. Pure.
//!
//! Invariant: at most one process at a time is *in* a slot, that is, may hold its listener open to accept. A process
//! that said it has closed its listener is not in it any more; the plan keeps it among those leaving.

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    supervision::{SlotReport, SlotState},
};

use crate::limits;

/// Which template, in the order in which they were started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TemplateId(pub(crate) u32);

/// The process in a slot, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody; somebody will be, not before this time.
    Vacant { not_before_ms: u64 },
    /// Asked for: the template was told to fork and nobody has answered for the child yet, or it is being started afresh.
    Forking { template: TemplateId, replica: ReplicaId, until_ms: u64 },
    /// In its cgroup, setting up.
    Starting { template: TemplateId, replica: ReplicaId, pid: Option<u32>, until_ms: u64 },
    /// Serving.
    Ready { template: TemplateId, replica: ReplicaId, pid: Option<u32> },
    /// Told to end; killed at this time, and again after.
    Ending { replica: ReplicaId, pid: Option<u32>, kill_at_ms: u64 },
}

impl Stage {
    /// Whose it is.
    pub(crate) fn replica(&self) -> Option<&ReplicaId> {
        match self {
            Self::Vacant { .. } => None,
            Self::Forking { replica, .. }
            | Self::Starting { replica, .. }
            | Self::Ready { replica, .. }
            | Self::Ending { replica, .. } => Some(replica),
        }
    }

    fn pid(&self) -> Option<u32> {
        match self {
            Self::Vacant { .. } | Self::Forking { .. } => None,
            Self::Starting { pid, .. } | Self::Ready { pid, .. } | Self::Ending { pid, .. } => *pid,
        }
    }

    /// When something must happen although nobody says anything.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        match self {
            Self::Vacant { not_before_ms } => Some(*not_before_ms),
            Self::Forking { until_ms, .. } | Self::Starting { until_ms, .. } => Some(*until_ms),
            Self::Ending { kill_at_ms, .. } => Some(*kill_at_ms),
            Self::Ready { .. } => None,
        }
    }
}

/// One slot and its history.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) index: SlotIndex,
    pub(crate) stage: Stage,
    /// Why the stage is what it is, for people.
    pub(crate) reason: String,
    /// Starts in a row that did not come to ready.
    pub(crate) failures: u32,
    /// Replicas in a row that were ready and died soon after, by themselves.
    sudden_deaths: u32,
    /// Since when the replica in it has been ready.
    ready_at_ms: u64,
    /// The replica in it has answered a call.
    pub(crate) has_answered: bool,
    /// Why the replica in it is to be replaced when its turn has come.
    pub(crate) recycle: Option<String>,
    /// The replica in it was asked to make room for one that is ready already.
    pub(crate) is_handed_over: bool,
    /// Since when the slot has wanted a ready replica.
    pub(crate) wanting_since_ms: u64,
    starts: u64,
    ready_after_ms: u64,
}

impl Slot {
    pub(crate) fn new(index: SlotIndex) -> Self {
        Self {
            index,
            stage: Stage::Vacant { not_before_ms: 0 },
            reason: String::new(),
            failures: 0,
            sudden_deaths: 0,
            ready_at_ms: 0,
            has_answered: false,
            recycle: None,
            is_handed_over: false,
            wanting_since_ms: 0,
            starts: 0,
            ready_after_ms: 0,
        }
    }

    /// What peers are told.
    pub(crate) fn report(&self) -> SlotReport {
        let state = match self.stage {
            Stage::Ready { .. } => SlotState::Ready,
            _ if self.failures >= limits::SLOT_FAILURES_MAX => SlotState::Failing,
            _ => SlotState::Starting,
        };
        self.report_as(state, self.stage.replica().cloned(), self.stage.pid())
    }

    /// The report of a death in this slot, of the process in it or of one that was leaving it.
    pub(crate) fn report_of_death(&self, replica: &ReplicaId, pid: Option<u32>, reason: &str) -> SlotReport {
        let report = self.report_as(SlotState::Dead, Some(replica.clone()), pid);
        SlotReport { reason: reason.to_owned(), ..report }
    }

    fn report_as(&self, state: SlotState, replica: Option<ReplicaId>, pid: Option<u32>) -> SlotReport {
        SlotReport {
            slot: self.index,
            state,
            replica,
            pid,
            reason: self.reason.clone(),
            starts: self.starts,
            ready_after_ms: self.ready_after_ms,
        }
    }

    /// A fork is asked for.
    pub(crate) fn fork(&mut self, template: TemplateId, replica: ReplicaId, until_ms: u64) {
        self.starts += 1;
        self.stage = Stage::Forking { template, replica, until_ms };
    }

    /// A spare is told to serve here.
    pub(crate) fn take_over(
        &mut self,
        template: TemplateId,
        replica: ReplicaId,
        pid: Option<u32>,
        until_ms: u64,
    ) {
        self.starts += 1;
        self.stage = Stage::Starting { template, replica, pid, until_ms };
    }

    /// The process in it serves.
    pub(crate) fn become_ready(&mut self, now_ms: u64) {
        if let Stage::Starting { template, replica, pid, .. } = &self.stage {
            self.stage = Stage::Ready { template: *template, replica: replica.clone(), pid: *pid };
            self.failures = 0;
            self.ready_at_ms = now_ms;
            self.has_answered = false;
            self.recycle = None;
            self.reason.clear();
            self.ready_after_ms = now_ms.saturating_sub(self.wanting_since_ms);
        }
    }

    /// The process in it will end, by itself or by KILL at `kill_at_ms`.
    pub(crate) fn end(&mut self, now_ms: u64, kill_at_ms: u64, reason: String) {
        if let Some(replica) = self.stage.replica().cloned() {
            if matches!(self.stage, Stage::Ready { .. }) {
                self.wanting_since_ms = now_ms;
            }
            self.stage = Stage::Ending { replica, pid: self.stage.pid(), kill_at_ms };
            self.reason = reason;
        }
    }

    /// Nobody is in it any more. One that was ready is followed at once, unless many died so in a row; one that never
    /// came so far after a pause that doubles with each failure in a row but the first.
    pub(crate) fn vacate(&mut self, now_ms: u64, reason: String) {
        self.is_handed_over = false;
        if matches!(self.stage, Stage::Ready { .. }) {
            self.wanting_since_ms = now_ms;
        }
        self.reason = reason;
        self.stage = Stage::Vacant { not_before_ms: now_ms + self.pause_ms() };
    }

    /// A start has failed. The pause that follows is one more failure's.
    pub(crate) fn fail(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        if let Stage::Vacant { not_before_ms } = &mut self.stage {
            *not_before_ms = now_ms + pause_ms(self.failures);
        }
    }

    /// The ready replica in it has died by itself. An exception or a recycling does not count.
    pub(crate) fn count_sudden_death(&mut self, now_ms: u64) {
        let is_soon = now_ms.saturating_sub(self.ready_at_ms) < limits::STEADY_MS_MIN;
        self.sudden_deaths = if is_soon { self.sudden_deaths.saturating_add(1) } else { 0 };
    }

    /// When the replica in it is due to be replaced for its age, if it is not on the list already.
    pub(crate) fn serves_until_ms(&self, age_ms_max: u64) -> Option<u64> {
        let counts = matches!(self.stage, Stage::Ready { .. }) && self.recycle.is_none();
        counts.then(|| self.ready_at_ms.saturating_add(age_ms_max))
    }

    /// When something must happen although nobody says anything.
    pub(crate) fn deadline_ms(&self, age_ms_max: Option<u64>) -> Option<u64> {
        let age = age_ms_max.and_then(|age_ms_max| self.serves_until_ms(age_ms_max));
        self.stage.deadline_ms().into_iter().chain(age).min()
    }

    /// Callers may crash a replica now and then; one that does nothing else is not refilled as fast as it dies.
    fn pause_ms(&self) -> u64 {
        let sudden = pause_ms(self.sudden_deaths.saturating_sub(limits::SUDDEN_DEATHS_FREE));
        pause_ms(self.failures).max(sudden.min(limits::SUDDEN_PAUSE_MS_MAX))
    }

    /// The pid of the process in it, in the starter's namespace.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.stage.pid()
    }
}

/// How long to wait before the next try after so many failures in a row.
pub(crate) fn pause_ms(failures: u32) -> u64 {
    match failures {
        0 | 1 => 0,
        n => (limits::PAUSE_MS_MIN << (n - 2).min(16)).min(limits::PAUSE_MS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_tried_again_at_once_and_later_ones_after_doubling_pauses() {
        let pauses: Vec<u64> = (0..12).map(pause_ms).collect();
        assert_eq!(
            pauses,
            [0, 0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, limits::PAUSE_MS_MAX]
        );
        assert_eq!(pause_ms(u32::MAX), limits::PAUSE_MS_MAX);
    }
}
