//! What to do when something happens to a deployment's processes. Pure: events and the time go in, actions come out,
//! in the order in which they are to be carried out.
//!
//! Invariants, each a property in the tests:
//! - at most one process at a time may hold a slot's listener open to accept;
//! - a death is reported before anything is done about it, and only when the kernel told it;
//! - a replica is forked only from a template that has imported;
//! - after a stop nothing is started, and the end comes when the last process is gone.

mod event;
mod renewal;
mod spares;
mod start_mode;
mod stop;
mod templates;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millgate_contract::{
    ids::{CallId, ReplicaId, SlotIndex},
    spec::{DeploymentSpec, StartPolicy},
    supervision::{DeploymentReport, Phase, SlotReport, StartMode},
};

pub(crate) use self::event::{Action, Event, Import};
use self::{spares::Spares, templates::Templates};
pub(crate) use crate::slot::TemplateId;
use crate::{
    limits,
    names::Names,
    slot::{Slot, Stage},
};

/// The figures a plan goes by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) slots: u16,
    pub(crate) start_timeout_ms: u64,
    pub(crate) kill_grace_ms: u64,
    pub(crate) start: StartPolicy,
    /// The function is tried before a replica is ready.
    pub(crate) has_example: bool,
    /// When a replica is replaced.
    pub(crate) age_ms_max: Option<u64>,
    pub(crate) memory_bytes_max: Option<u64>,
    /// Replicas kept ready to take over a slot, while they are forked.
    pub(crate) spares: u16,
}

impl Settings {
    pub(crate) fn of(spec: &DeploymentSpec) -> Self {
        Self {
            slots: spec.slots,
            start_timeout_ms: spec.start_timeout_ms,
            kill_grace_ms: spec.kill_grace_ms,
            start: spec.policy.start,
            has_example: spec.example_request.is_some(),
            age_ms_max: spec.policy.age_s_max.map(|age_s| age_s.saturating_mul(1_000)),
            memory_bytes_max: spec.policy.memory_bytes_max,
            spares: spec.policy.spares,
        }
    }
}

/// A start that did not come to ready.
#[derive(Debug)]
struct Failure<'a> {
    reason: &'a str,
    /// The process said nothing: it hung, or was ended from without.
    is_wordless: bool,
}

/// A process that has closed its listener, or whose slot was given up, and is not dead yet.
#[derive(Debug)]
struct Leaver {
    slot: SlotIndex,
    pid: Option<u32>,
    reason: String,
    kill_at_ms: u64,
}

/// The state of a deployment's processes.
#[derive(Debug)]
pub(crate) struct Plan {
    settings: Settings,
    names: Names,
    slots: Vec<Slot>,
    leaving: BTreeMap<ReplicaId, Leaver>,
    templates: Templates,
    spares: Spares,
    report: DeploymentReport,
    /// Starts in a row that failed, whatever the slot.
    failures_in_row: u32,
    /// Slots that have been ready at least once.
    ever_ready: BTreeSet<SlotIndex>,
    /// Slots still to be renewed by a restart.
    rolling: VecDeque<SlotIndex>,
    kill_all_at_ms: Option<u64>,
    /// When to stop if nobody claims the deployment until then.
    unclaimed_until_ms: Option<u64>,
    is_finished: bool,
    /// What peers were last told of each slot.
    told: Vec<Option<SlotReport>>,
    actions: Vec<Action>,
}

impl Plan {
    /// A deployment of which nothing is started yet, and the first thing to do.
    pub(crate) fn new(settings: Settings, names: Names, now_ms: u64) -> (Self, Vec<Action>) {
        let mut plan = Self {
            slots: (0..settings.slots).map(|k| Slot::new(SlotIndex(k))).collect(),
            told: vec![None; usize::from(settings.slots)],
            settings,
            names,
            leaving: BTreeMap::new(),
            templates: Templates::default(),
            spares: Spares::default(),
            report: DeploymentReport {
                phase: Phase::Importing,
                reason: String::new(),
                start_mode: StartMode::Fork,
                start_mode_reason: String::new(),
                example_response: None,
            },
            failures_in_row: 0,
            ever_ready: BTreeSet::new(),
            rolling: VecDeque::new(),
            kill_all_at_ms: None,
            unclaimed_until_ms: Some(now_ms + limits::UNCLAIMED_MS_MAX),
            is_finished: false,
            actions: Vec::new(),
        };
        plan.begin(now_ms);
        let actions = std::mem::take(&mut plan.actions);
        (plan, actions)
    }

    /// The state of every slot.
    pub(crate) fn slot_reports(&self) -> impl Iterator<Item = SlotReport> + '_ {
        self.slots.iter().map(Slot::report)
    }

    /// The deployment as a whole.
    pub(crate) fn deployment_report(&self) -> &DeploymentReport {
        &self.report
    }

    /// When [`Event::Due`] must be said, if nothing else is said before.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let may_fork = self.may_fork();
        let slots = self
            .slots
            .iter()
            .filter(|slot| may_fork || !matches!(slot.stage, Stage::Vacant { .. }))
            .filter_map(|slot| slot.deadline_ms(self.settings.age_ms_max));
        let leaving = self.leaving.values().map(|leaver| leaver.kill_at_ms);
        let all = slots
            .chain(leaving)
            .chain(self.templates.deadline_ms())
            .chain(self.spares_deadline_ms())
            .chain(self.kill_all_at_ms)
            .chain(self.unclaimed_until_ms);
        if self.is_finished { None } else { all.min() }
    }

    /// Takes an event; returns what is to be done, in order.
    pub(crate) fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Action> {
        if self.is_finished {
            return Vec::new();
        }
        match event {
            Event::Due => {}
            Event::Imported { template, import } => self.on_imported(now_ms, template, import),
            Event::ImportFailed { template, reason } => self.on_import_failed(now_ms, template, &reason),
            Event::TemplateDied { template } => self.on_template_died(now_ms, template),
            Event::Placed { replica, pid } => self.on_placed(&replica, pid),
            Event::Warm { replica } => self.on_warm(&replica),
            Event::Ready { replica, example_response } => self.on_ready(now_ms, &replica, example_response),
            Event::Failed { replica, reason } => self.on_failed(now_ms, &replica, &reason),
            Event::Leaving { replica, reason } => self.on_leaving(now_ms, &replica, &reason),
            Event::Died { replica } => self.on_died(now_ms, &replica),
            Event::Answered { replica } => self.on_answered(&replica),
            Event::Memory { replica, bytes } => self.on_memory(&replica, bytes),
            Event::Exited { replica, status } => self.on_exited(&replica, &status),
            Event::Expired { slot, replica, call } => self.on_expired(now_ms, slot, &replica, call),
            Event::Peers { is_any: true } => self.unclaimed_until_ms = None,
            Event::Peers { is_any: false } => {
                self.unclaimed_until_ms.get_or_insert(now_ms + limits::UNCLAIMED_MS_MAX);
            }
            Event::Restart => self.on_restart(now_ms),
            Event::Stop { grace_ms } => self.on_stop(now_ms, grace_ms),
        }
        self.on_due(now_ms);
        self.tell_slots();
        if self.is_finished {
            self.actions.push(Action::Finish);
        }
        std::mem::take(&mut self.actions)
    }

    // Replicas.

    fn on_placed(&mut self, replica: &ReplicaId, pid: Option<u32>) {
        let Some(k) = self.find(replica) else {
            self.on_spare_placed(replica, pid);
            return;
        };
        let slot = &mut self.slots[k];
        if let Stage::Forking { template, until_ms, .. } = slot.stage {
            slot.stage = Stage::Starting { template, replica: replica.clone(), pid, until_ms };
        }
    }

    fn on_answered(&mut self, replica: &ReplicaId) {
        if let Some(k) = self.find(replica) {
            self.slots[k].has_answered = true;
        }
    }

    fn on_ready(&mut self, now_ms: u64, replica: &ReplicaId, example_response: Option<String>) {
        let Some(k) = self.find(replica) else { return };
        if !matches!(self.slots[k].stage, Stage::Starting { .. }) {
            return;
        }
        self.slots[k].become_ready(now_ms);
        self.failures_in_row = 0;
        self.template_works();
        self.ever_ready.insert(self.slots[k].index);
        let after_ms = self.slots[k].report().ready_after_ms;
        self.note(Some(replica), format!("ready in slot {} after {after_ms} ms", self.slots[k].index));
        if self.report.example_response.is_none() && example_response.is_some() {
            self.report.example_response = example_response;
            self.report_deployment();
        }
        if self.report.phase == Phase::Filling && self.ever_ready.len() == self.slots.len() {
            self.set_phase(Phase::Serving, String::new());
        }
    }

    fn on_failed(&mut self, now_ms: u64, replica: &ReplicaId, reason: &str) {
        let Some(k) = self.find(replica) else {
            self.on_spare_failed(now_ms, replica, reason);
            return;
        };
        let was_placed = matches!(self.slots[k].stage, Stage::Starting { .. });
        if !was_placed && !matches!(self.slots[k].stage, Stage::Forking { .. }) {
            return;
        }
        self.note(Some(replica), format!("did not start: {reason}"));
        if was_placed {
            // It says that it ends; the slot is free when it has.
            self.slots[k].end(now_ms, now_ms + self.settings.kill_grace_ms, reason.to_owned());
        } else {
            self.actions.push(Action::Bury(replica.clone()));
            self.slots[k].vacate(now_ms, reason.to_owned());
        }
        self.count_failure(now_ms, k, &Failure { reason, is_wordless: false });
    }

    fn on_leaving(&mut self, now_ms: u64, replica: &ReplicaId, reason: &str) {
        let Some(k) = self.find(replica) else { return };
        let slot = &mut self.slots[k];
        let kill_at_ms = match slot.stage {
            Stage::Ready { .. } => now_ms + self.settings.kill_grace_ms,
            Stage::Ending { kill_at_ms, .. } => kill_at_ms.min(now_ms + self.settings.kill_grace_ms),
            Stage::Vacant { .. } | Stage::Forking { .. } | Stage::Starting { .. } => return,
        };
        let leaver =
            Leaver { slot: slot.index, pid: slot.pid(), reason: format!("left: {reason}"), kill_at_ms };
        slot.vacate(now_ms, reason.to_owned());
        self.leaving.insert(replica.clone(), leaver);
        self.note(Some(replica), format!("leaves: {reason}"));
    }

    fn on_died(&mut self, now_ms: u64, replica: &ReplicaId) {
        if let Some(leaver) = self.leaving.remove(replica) {
            let k = usize::from(leaver.slot.0);
            self.tell_death(k, replica, leaver.pid, &leaver.reason);
            self.actions.push(Action::Bury(replica.clone()));
            return;
        }
        let Some(k) = self.find(replica) else {
            self.on_spare_died(now_ms, replica);
            return;
        };
        let (is_new_failure, reason) = match &self.slots[k].stage {
            Stage::Vacant { .. } => return,
            Stage::Forking { .. } | Stage::Starting { .. } => (true, "ended before it was ready".to_owned()),
            Stage::Ready { .. } => {
                self.slots[k].count_sudden_death(now_ms);
                (false, "ended unexpectedly".to_owned())
            }
            Stage::Ending { .. } => (false, self.slots[k].reason.clone()),
        };
        self.tell_death(k, replica, self.slots[k].pid(), &reason);
        self.actions.push(Action::Bury(replica.clone()));
        self.note(Some(replica), format!("is dead: {reason}"));
        self.slots[k].vacate(now_ms, reason.clone());
        if is_new_failure {
            self.count_failure(now_ms, k, &Failure { reason: &reason, is_wordless: true });
        }
    }

    fn on_exited(&mut self, replica: &ReplicaId, status: &str) {
        self.note(Some(replica), status.to_owned());
    }

    fn on_expired(&mut self, now_ms: u64, slot: SlotIndex, replica: &ReplicaId, call: CallId) {
        let Some(k) = self.find(replica) else { return };
        if self.slots[k].index != slot {
            return;
        }
        let kill_at_ms = now_ms + self.settings.kill_grace_ms;
        let reason = format!("call {call} ran past its deadline");
        match &mut self.slots[k].stage {
            Stage::Ready { .. } => {
                self.note(Some(replica), format!("is ended: {reason}"));
                self.actions.push(Action::Terminate(replica.clone()));
                self.slots[k].end(now_ms, kill_at_ms, reason);
                self.suspect_the_fork(now_ms, k, call);
            }
            // Asked to end already, with its call as the reason to wait: there is none any more.
            Stage::Ending { kill_at_ms: at, .. } => *at = kill_at_ms.min(*at),
            Stage::Vacant { .. } | Stage::Forking { .. } | Stage::Starting { .. } => {}
        }
    }

    /// To be called when the slot's stage is what it is after the failure.
    fn count_failure(&mut self, now_ms: u64, k: usize, failure: &Failure<'_>) {
        self.slots[k].fail(now_ms);
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        if self.failures_in_row < limits::FORK_FAILURES_MAX || self.is_stopping() {
            return;
        }
        if self.ever_ready.is_empty() {
            if !(failure.is_wordless && self.blame_the_fork(now_ms, failure.reason)) {
                self.give_up(failure.reason);
            }
        } else if !self.is_forking() {
            self.failures_in_row = 0;
        } else if !self.templates.is_importing() {
            self.failures_in_row = 0;
            self.note(None, "the template is renewed: fresh forks keep failing".to_owned());
            self.start_template(now_ms);
        }
    }

    // What time brings.

    fn on_due(&mut self, now_ms: u64) {
        if self.unclaimed_until_ms.is_some_and(|at| now_ms >= at) {
            self.unclaimed_until_ms = None;
            self.note(None, "nobody claims this deployment: it ends".to_owned());
            self.on_stop(now_ms, limits::SIGNAL_GRACE_MS);
        }
        self.check_templates(now_ms);
        self.check_slots(now_ms);
        self.check_spares(now_ms);
        for (replica, leaver) in &mut self.leaving {
            if now_ms >= leaver.kill_at_ms {
                leaver.kill_at_ms = now_ms + limits::KILL_AGAIN_MS;
                self.actions.push(Action::Kill(replica.clone()));
            }
        }
        if self.is_stopping() {
            self.check_end(now_ms);
        } else {
            self.fill(now_ms);
            self.roll(now_ms);
            self.recycle(now_ms);
            self.fill_spares(now_ms);
        }
    }

    fn check_slots(&mut self, now_ms: u64) {
        for k in 0..self.slots.len() {
            if self.slots[k].stage.deadline_ms().is_none_or(|at| now_ms < at) {
                continue;
            }
            match self.slots[k].stage.clone() {
                Stage::Vacant { .. } | Stage::Ready { .. } => {}
                Stage::Forking { template, replica, .. } => {
                    let reason = "the template did not fork in time".to_owned();
                    self.actions.push(Action::Bury(replica));
                    self.slots[k].vacate(now_ms, reason.clone());
                    self.count_failure(now_ms, k, &Failure { reason: &reason, is_wordless: true });
                    self.renew_hung_template(now_ms, template, &reason);
                }
                Stage::Starting { replica, .. } => self.end_hung_start(now_ms, k, replica),
                Stage::Ending { replica, pid, .. } => {
                    self.slots[k].stage = Stage::Ending {
                        replica: replica.clone(),
                        pid,
                        kill_at_ms: now_ms + limits::KILL_AGAIN_MS,
                    };
                    self.actions.push(Action::Kill(replica));
                }
            }
        }
    }

    fn end_hung_start(&mut self, now_ms: u64, k: usize, replica: ReplicaId) {
        let reason = format!("not ready within {} ms", self.start_limit_ms());
        self.note(Some(&replica), format!("is killed: {reason}"));
        self.slots[k].end(now_ms, now_ms + limits::KILL_AGAIN_MS, reason.clone());
        self.actions.push(Action::Kill(replica));
        if self.blame_the_fork(now_ms, &reason) {
            return;
        }
        self.count_failure(now_ms, k, &Failure { reason: &reason, is_wordless: true });
        if self.ever_ready.is_empty() {
            self.give_up(&reason);
        }
    }

    fn may_fork(&self) -> bool {
        self.templates.current().is_some() && !self.is_stopping() && self.report.phase != Phase::Failed
    }

    fn fill(&mut self, now_ms: u64) {
        let Some(template) = self.templates.current().filter(|_| self.may_fork()) else { return };
        for k in 0..self.slots.len() {
            let Stage::Vacant { not_before_ms } = self.slots[k].stage else { continue };
            if now_ms < not_before_ms {
                continue;
            }
            let until_ms = now_ms + self.start_limit_ms();
            let slot = self.slots[k].index;
            if let Some((replica, pid)) = self.spares.take(template) {
                self.slots[k].take_over(template, replica.clone(), pid, until_ms);
                self.actions.push(Action::Serve { slot, replica });
                continue;
            }
            let replica = self.new_name();
            self.slots[k].fork(template, replica.clone(), until_ms);
            self.actions.push(if self.is_forking() {
                Action::Fork { template, slot, replica }
            } else {
                Action::Spawn { slot, replica }
            });
        }
    }

    fn new_name(&mut self) -> ReplicaId {
        let (slots, leaving, spares) = (&self.slots, &self.leaving, &self.spares);
        self.names.next(|name| {
            let is_in_slot = slots.iter().any(|slot| slot.stage.replica() == Some(name));
            is_in_slot || leaving.contains_key(name) || spares.has(name)
        })
    }

    // Telling.

    fn find(&self, replica: &ReplicaId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.stage.replica() == Some(replica))
    }

    /// A death is told before anything is done about it; what a slot is after that, at the end of each step. The
    /// death may be another's than of the process in the slot: then this says again what the slot is.
    fn tell_death(&mut self, k: usize, replica: &ReplicaId, pid: Option<u32>, reason: &str) {
        let report = self.slots[k].report_of_death(replica, pid, reason);
        self.told[k] = Some(report.clone());
        self.actions.push(Action::ReportSlot(report));
    }

    fn tell_slots(&mut self) {
        for (slot, told) in self.slots.iter().zip(&mut self.told) {
            let report = slot.report();
            if told.as_ref() != Some(&report) {
                self.actions.push(Action::ReportSlot(report.clone()));
                *told = Some(report);
            }
        }
    }

    fn report_deployment(&mut self) {
        self.actions.push(Action::ReportDeployment(self.report.clone()));
    }

    fn set_phase(&mut self, phase: Phase, reason: String) {
        if self.report.phase != phase || self.report.reason != reason {
            self.report.phase = phase;
            self.report.reason = reason;
            self.report_deployment();
        }
    }

    fn note(&mut self, replica: Option<&ReplicaId>, text: String) {
        self.actions.push(Action::Note { replica: replica.cloned(), text });
    }
}
