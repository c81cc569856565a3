//! The part of the plan about spares: replicas that are set up and warmed, and wait for a slot that loses its own. They
//! are kept while the deployment serves and forks; one of an older template is let go. While replicas that serve are to
//! be replaced there is one in any case, started afresh where the others are, so that no slot is ever without.

use millgate_contract::{
    ids::ReplicaId,
    supervision::{Phase, StartMode},
};

use super::{Action, Plan, TemplateId};
use crate::{limits, slot::pause_ms};

/// The spares of a deployment.
#[derive(Debug, Default)]
pub(super) struct Spares {
    all: Vec<Spare>,
    /// Spares in a row that did not become warm.
    failures: u32,
    /// Why the last of them did not.
    reason: String,
    /// When the next one may be forked.
    not_before_ms: u64,
}

/// A replica without a slot.
#[derive(Debug)]
struct Spare {
    replica: ReplicaId,
    template: TemplateId,
    pid: Option<u32>,
    stage: SpareStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SpareStage {
    /// The template was told to fork it.
    Forking { until_ms: u64 },
    /// Setting up.
    Starting { until_ms: u64 },
    /// Waiting for a slot.
    Warm,
    /// Not needed; killed at this time, and again after.
    Ending { kill_at_ms: u64 },
}

impl SpareStage {
    fn deadline_ms(self) -> Option<u64> {
        match self {
            Self::Forking { until_ms } | Self::Starting { until_ms } => Some(until_ms),
            Self::Ending { kill_at_ms } => Some(kill_at_ms),
            Self::Warm => None,
        }
    }
}

impl Spares {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn has(&self, replica: &ReplicaId) -> bool {
        self.all.iter().any(|spare| spare.replica == *replica)
    }

    fn find(&mut self, replica: &ReplicaId) -> Option<&mut Spare> {
        self.all.iter_mut().find(|spare| spare.replica == *replica)
    }

    fn remove(&mut self, replica: &ReplicaId) {
        self.all.retain(|spare| spare.replica != *replica);
    }

    fn fail(&mut self, now_ms: u64, reason: &str) {
        self.failures = self.failures.saturating_add(1);
        reason.clone_into(&mut self.reason);
        // Nobody waits for a spare: even the first failure is followed by a pause.
        self.not_before_ms = now_ms + pause_ms(self.failures).max(limits::PAUSE_MS_MIN);
    }

    /// Another template forks from now on: what became of the spares of the one before says nothing of its.
    pub(super) fn forgive(&mut self) {
        (self.failures, self.not_before_ms) = (0, 0);
    }

    /// One that can serve at once.
    fn warm(&self, template: TemplateId) -> Option<usize> {
        let is_fit = |spare: &Spare| spare.stage == SpareStage::Warm && spare.template == template;
        self.all.iter().position(is_fit)
    }

    /// One that can serve at once, and its pid.
    pub(super) fn take(&mut self, template: TemplateId) -> Option<(ReplicaId, Option<u32>)> {
        let spare = self.all.remove(self.warm(template)?);
        Some((spare.replica, spare.pid))
    }
}

impl Plan {
    pub(super) fn on_spare_placed(&mut self, replica: &ReplicaId, placed_pid: Option<u32>) {
        if let Some(Spare { pid, stage, .. }) = self.spares.find(replica)
            && let SpareStage::Forking { until_ms } = *stage
        {
            *pid = placed_pid;
            *stage = SpareStage::Starting { until_ms };
        }
    }

    pub(super) fn on_warm(&mut self, replica: &ReplicaId) {
        if let Some(spare) = self.spares.find(replica)
            && matches!(spare.stage, SpareStage::Starting { .. })
        {
            spare.stage = SpareStage::Warm;
            self.spares.failures = 0;
            self.note(Some(replica), "waits as a spare".to_owned());
        }
    }

    /// It could not start.
    pub(super) fn on_spare_failed(&mut self, now_ms: u64, replica: &ReplicaId, reason: &str) {
        let kill_at_ms = now_ms + self.settings.kill_grace_ms;
        let Some(spare) = self.spares.find(replica) else { return };
        match spare.stage {
            SpareStage::Starting { .. } => spare.stage = SpareStage::Ending { kill_at_ms },
            SpareStage::Forking { .. } => {
                self.spares.remove(replica);
                self.actions.push(Action::Bury(replica.clone()));
            }
            // Nothing that it says changes what it is.
            SpareStage::Warm | SpareStage::Ending { .. } => return,
        }
        self.spares.fail(now_ms, reason);
        self.note(Some(replica), format!("did not start as a spare: {reason}"));
    }

    pub(super) fn on_spare_died(&mut self, now_ms: u64, replica: &ReplicaId) {
        let Some(spare) = self.spares.find(replica) else { return };
        if !matches!(spare.stage, SpareStage::Ending { .. }) {
            self.spares.fail(now_ms, "a new replica ended before it was needed");
            self.note(Some(replica), "is dead: a spare".to_owned());
        }
        self.spares.remove(replica);
        self.actions.push(Action::Bury(replica.clone()));
    }

    /// Lets go what is not needed any more, kills what does not go or hangs.
    pub(super) fn check_spares(&mut self, now_ms: u64) {
        let current = self.templates.current().filter(|_| !self.is_stopping());
        let gone = self.kill_all_at_ms.unwrap_or(now_ms + limits::DRAIN_MS_MAX);
        let kill_at_ms = gone.min(now_ms + self.settings.kill_grace_ms);
        let mut hung = None;
        for k in (0..self.spares.all.len()).rev() {
            let spare = &mut self.spares.all[k];
            let is_due = spare.stage.deadline_ms().is_some_and(|at_ms| now_ms >= at_ms);
            let is_fit = Some(spare.template) == current;
            match spare.stage {
                SpareStage::Forking { .. } if is_due || !is_fit => {
                    if is_due && self.report.start_mode == StartMode::Fork {
                        hung = Some(spare.template);
                    }
                    let spare = self.spares.all.remove(k);
                    self.actions.push(Action::Bury(spare.replica));
                }
                SpareStage::Starting { .. } if is_due && is_fit => {
                    spare.stage = SpareStage::Ending { kill_at_ms: now_ms + limits::KILL_AGAIN_MS };
                    self.actions.push(Action::Kill(spare.replica.clone()));
                    self.spares.fail(now_ms, "a new replica was not ready in time");
                }
                SpareStage::Starting { .. } | SpareStage::Warm if !is_fit => {
                    spare.stage = SpareStage::Ending { kill_at_ms };
                    self.actions.push(Action::Terminate(spare.replica.clone()));
                }
                SpareStage::Ending { .. } if is_due => {
                    spare.stage = SpareStage::Ending { kill_at_ms: now_ms + limits::KILL_AGAIN_MS };
                    self.actions.push(Action::Kill(spare.replica.clone()));
                }
                _ => {}
            }
        }
        if let Some(template) = hung {
            self.renew_hung_template(now_ms, template, "the template did not fork in time");
        }
        if self.spares.failures >= limits::SPARE_FAILURES_MAX {
            let reason = self.spares.reason.clone();
            self.call_off(&reason);
        }
    }

    /// How many there may be now.
    fn spares_max(&self) -> usize {
        let kept = if self.is_forking() { usize::from(self.settings.spares) } else { 0 };
        kept.max(usize::from(self.wants_successor()))
    }

    fn wants_spare(&self) -> Option<TemplateId> {
        let is_time = match self.report.phase {
            Phase::Serving => true,
            // Slots come first, but one that serves already may be due.
            Phase::Filling => self.wants_successor(),
            Phase::Importing | Phase::Failed | Phase::Stopping => false,
        };
        let is_short = self.spares.all.len() < self.spares_max();
        self.templates.current().filter(|_| is_time && is_short && !self.templates.is_importing())
    }

    /// A slot that is given up now is served again at once.
    pub(super) fn has_successor(&self) -> bool {
        self.templates.current().is_some_and(|template| self.spares.warm(template).is_some())
    }

    /// Once every slot has taken what it needs: those nobody needs any more are let go, the newest first.
    fn end_excess(&mut self, now_ms: u64) {
        let kept_max = self.spares_max();
        let kill_at_ms = now_ms + self.settings.kill_grace_ms;
        let lives =
            |spare: &&mut Spare| matches!(spare.stage, SpareStage::Starting { .. } | SpareStage::Warm);
        for spare in self.spares.all.iter_mut().filter(lives).skip(kept_max) {
            spare.stage = SpareStage::Ending { kill_at_ms };
            self.actions.push(Action::Terminate(spare.replica.clone()));
        }
    }

    /// Starts what is wanted, after every slot had its turn.
    pub(super) fn fill_spares(&mut self, now_ms: u64) {
        self.end_excess(now_ms);
        while let Some(template) = self.wants_spare().filter(|_| now_ms >= self.spares.not_before_ms) {
            let replica = self.new_name();
            let stage = SpareStage::Forking { until_ms: now_ms + self.settings.start_timeout_ms };
            self.spares.all.push(Spare { replica: replica.clone(), template, pid: None, stage });
            self.actions.push(if self.is_forking() {
                Action::ForkSpare { template, replica }
            } else {
                Action::SpawnSpare { replica }
            });
        }
    }

    pub(super) fn spares_deadline_ms(&self) -> Option<u64> {
        let next = self.wants_spare().map(|_| self.spares.not_before_ms);
        self.spares.all.iter().filter_map(|spare| spare.stage.deadline_ms()).chain(next).min()
    }
}
