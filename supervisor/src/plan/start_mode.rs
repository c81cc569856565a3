//! The part of the plan about how replicas are started: forked from a template, or each afresh. It begins with the
//! model's wish; where that is `auto`, forking goes on until a sign speaks against it, and is not tried again.
//!
//! While replicas are started afresh there is no template. The current `TemplateId` is then a number without a
//! process, which tells replicas from those of before a restart.

use millgate_contract::{
    ids::CallId,
    spec::StartPolicy,
    supervision::{Phase, StartMode},
};

use super::{Action, Plan};
use crate::{limits, slot::Stage};

/// Why replicas are started afresh because the model says so.
const WISHED: &str = "the model asks for it";

impl Plan {
    pub(super) fn is_forking(&self) -> bool {
        self.report.start_mode == StartMode::Fork
    }

    /// The first thing that is done.
    pub(super) fn begin(&mut self, now_ms: u64) {
        if self.settings.start == StartPolicy::Spawn {
            WISHED.clone_into(&mut self.report.start_mode_reason);
            self.report.start_mode = StartMode::Spawn;
            self.report.phase = Phase::Filling;
            self.templates.go_without();
            self.fill(now_ms);
        } else {
            self.start_template(now_ms);
        }
    }

    /// True when replicas are still forked only because nothing has spoken against it.
    fn may_change_its_mind(&self) -> bool {
        let may_start = !self.is_stopping() && self.report.phase != Phase::Failed;
        may_start && self.is_forking() && self.settings.start == StartPolicy::Auto
    }

    /// What was seen of a template after its import. True when replicas are forked from it all the same.
    pub(super) fn judge(&mut self, now_ms: u64, hazard: Option<String>) -> bool {
        match hazard {
            None => {
                if !std::mem::take(&mut self.report.start_mode_reason).is_empty() {
                    self.report_deployment();
                }
                true
            }
            Some(hazard) if self.may_change_its_mind() => {
                self.spawn_from_now_on(now_ms, hazard);
                false
            }
            Some(hazard) => {
                self.note(None, format!("forked as the model asks, although {hazard}"));
                self.report.start_mode_reason = format!("forked as the model asks, although {hazard}");
                self.report_deployment();
                true
            }
        }
    }

    /// How long a start may take. The first forked replicas are a probe: when they hang, there must be time left to
    /// start others afresh.
    pub(super) fn start_limit_ms(&self) -> u64 {
        let is_probe = self.may_change_its_mind() && self.ever_ready.is_empty();
        if is_probe { self.settings.start_timeout_ms / 2 } else { self.settings.start_timeout_ms }
    }

    /// A forked replica hung or died without a word before any had been ready: perhaps it would not, started afresh.
    /// False when that has been tried, or is not wished.
    pub(super) fn blame_the_fork(&mut self, now_ms: u64, reason: &str) -> bool {
        let is_blamed = self.may_change_its_mind() && self.ever_ready.is_empty();
        if is_blamed {
            self.spawn_from_now_on(now_ms, format!("no forked replica has become ready: {reason}"));
        }
        is_blamed
    }

    /// The first call of a forked replica that no example has tried ran past its deadline.
    pub(super) fn suspect_the_fork(&mut self, now_ms: u64, k: usize, call: CallId) {
        let is_first = !self.slots[k].has_answered && !self.settings.has_example;
        if is_first && self.may_change_its_mind() {
            self.spawn_from_now_on(
                now_ms,
                format!("call {call}, the first of a forked replica, ran past its deadline"),
            );
        }
    }

    /// Ends the templates and what hangs in being forked; replicas that serve are replaced one after another.
    fn spawn_from_now_on(&mut self, now_ms: u64, reason: String) {
        self.note(None, format!("replicas are started afresh from now on: {reason}"));
        for template in self.templates.end_all() {
            self.actions.push(Action::EndTemplate(template));
        }
        self.templates.go_without();
        self.spares.forgive();
        self.failures_in_row = 0;
        self.rolling.clear();
        for k in 0..self.slots.len() {
            self.slots[k].failures = 0;
            match self.slots[k].stage.clone() {
                Stage::Vacant { .. } => self.slots[k].vacate(now_ms, String::new()),
                Stage::Ending { .. } => {}
                Stage::Forking { replica, .. } => {
                    self.actions.push(Action::Bury(replica));
                    self.slots[k].vacate(now_ms, reason.clone());
                }
                Stage::Starting { replica, .. } => {
                    self.actions.push(Action::Kill(replica));
                    self.slots[k].end(now_ms, now_ms + limits::KILL_AGAIN_MS, reason.clone());
                }
                Stage::Ready { .. } => self.rolling.push_back(self.slots[k].index),
            }
        }
        self.report.start_mode = StartMode::Spawn;
        self.report.start_mode_reason = reason;
        if self.report.phase == Phase::Importing {
            self.report.phase = Phase::Filling;
        }
        self.report_deployment();
    }
}
