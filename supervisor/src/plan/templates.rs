//! The part of the plan about templates: which one forks, which one imports, and when to try again.

use millgate_contract::supervision::Phase;

use super::{Action, Import, Plan, TemplateId};
use crate::slot::{Stage, pause_ms};

/// The templates of a deployment: at most one that forks, and at most one that imports.
#[derive(Debug, Default)]
pub(super) struct Templates {
    next: u32,
    current: Option<TemplateId>,
    importing: Option<(TemplateId, u64)>,
    /// When to start the next one, after the last one failed.
    retry_at_ms: Option<u64>,
    failures: u32,
    /// One has imported at least once: this build can start.
    has_imported: bool,
}

impl Templates {
    /// The one that forks.
    pub(super) fn current(&self) -> Option<TemplateId> {
        self.current
    }

    pub(super) fn is_importing(&self) -> bool {
        self.importing.is_some() || self.retry_at_ms.is_some()
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.importing.map(|(_, until_ms)| until_ms).into_iter().chain(self.retry_at_ms).min()
    }

    /// The next number, without a process: replicas of before are told from those that come.
    pub(super) fn go_without(&mut self) {
        self.current = Some(TemplateId(self.next));
        self.next += 1;
        self.retry_at_ms = None;
        self.has_imported = true;
    }

    pub(super) fn end_all(&mut self) -> Vec<TemplateId> {
        self.retry_at_ms = None;
        let importing = self.importing.take().map(|(template, _)| template);
        self.current.take().into_iter().chain(importing).collect()
    }
}

impl Plan {
    pub(super) fn start_template(&mut self, now_ms: u64) {
        let template = TemplateId(self.templates.next);
        self.templates.next += 1;
        self.templates.retry_at_ms = None;
        self.templates.importing = Some((template, now_ms + self.settings.start_timeout_ms));
        self.actions.push(Action::StartTemplate(template));
    }

    pub(super) fn on_imported(&mut self, now_ms: u64, template: TemplateId, import: Import) {
        if self.templates.importing.map(|(id, _)| id) != Some(template) {
            return;
        }
        self.note(None, format!("imported in {} ms by Python {}", import.took_ms, import.python));
        if !self.judge(now_ms, import.hazard) {
            return;
        }
        self.templates.importing = None;
        self.templates.has_imported = true;
        self.spares.forgive();
        // The replicas of the old one stay: they become children of the supervisor.
        if let Some(old) = self.templates.current.replace(template) {
            self.actions.push(Action::EndTemplate(old));
        }
        match self.report.phase {
            Phase::Importing | Phase::Failed => self.set_phase(Phase::Filling, String::new()),
            Phase::Filling | Phase::Serving => self.set_phase(self.report.phase, String::new()),
            Phase::Stopping => {}
        }
    }

    pub(super) fn on_import_failed(&mut self, now_ms: u64, template: TemplateId, reason: &str) {
        if self.templates.importing.map(|(id, _)| id) != Some(template) {
            return;
        }
        self.note(None, format!("import failed: {reason}"));
        self.templates.importing = None;
        self.actions.push(Action::EndTemplate(template));
        if !self.templates.has_imported {
            self.give_up(reason);
            return;
        }
        // It imported before, so it may again. Until then what serves goes on serving; a restart is called off.
        self.rolling.clear();
        self.set_phase(self.report.phase, reason.to_owned());
        if self.templates.current.is_none() {
            self.retry_template(now_ms);
        }
    }

    pub(super) fn on_template_died(&mut self, now_ms: u64, template: TemplateId) {
        if self.templates.importing.map(|(id, _)| id) == Some(template) {
            self.on_import_failed(now_ms, template, "the process ended during import");
            return;
        }
        if self.templates.current == Some(template) {
            self.note(None, "the template is dead; a new one is started".to_owned());
            self.lose_current(now_ms);
        }
    }

    /// A template that answers no more is killed, and another takes its place.
    pub(super) fn renew_hung_template(&mut self, now_ms: u64, template: TemplateId, reason: &str) {
        if self.templates.current != Some(template) {
            return;
        }
        self.note(None, format!("the template is killed: {reason}"));
        self.actions.push(Action::EndTemplate(template));
        if self.report.phase == Phase::Failed {
            self.templates.current = None;
        } else {
            self.lose_current(now_ms);
        }
    }

    /// Children it was told to fork and nobody has seen are not counted against their slots.
    fn lose_current(&mut self, now_ms: u64) {
        self.templates.current = None;
        for k in 0..self.slots.len() {
            if let Stage::Forking { replica, .. } = self.slots[k].stage.clone() {
                self.actions.push(Action::Bury(replica));
                self.slots[k].vacate(now_ms, "the template is renewed".to_owned());
            }
        }
        if self.ever_ready.is_empty() && self.templates.failures >= crate::limits::FORK_FAILURES_MAX {
            self.give_up("the template ends again and again before a replica is ready");
        } else if !self.templates.is_importing() {
            self.retry_template(now_ms);
        }
    }

    /// A replica of the current one serves: what came before is forgiven.
    pub(super) fn template_works(&mut self) {
        self.templates.failures = 0;
    }

    fn retry_template(&mut self, now_ms: u64) {
        self.templates.failures = self.templates.failures.saturating_add(1);
        match pause_ms(self.templates.failures) {
            0 => self.start_template(now_ms),
            pause_ms => self.templates.retry_at_ms = Some(now_ms + pause_ms),
        }
    }

    /// This build cannot start, and trying again would change nothing: say so and wait for a stop or a restart.
    pub(super) fn give_up(&mut self, reason: &str) {
        for k in 0..self.slots.len() {
            self.slots[k].failures = self.slots[k].failures.max(crate::limits::SLOT_FAILURES_MAX);
            reason.clone_into(&mut self.slots[k].reason);
        }
        self.set_phase(Phase::Failed, reason.to_owned());
    }

    pub(super) fn on_restart(&mut self, now_ms: u64) {
        if self.is_stopping() || self.templates.importing.is_some() {
            return;
        }
        self.note(None, "restart: the file is imported anew".to_owned());
        self.spares.forgive();
        self.rolling = self.slots.iter().map(|slot| slot.index).collect();
        if self.report.phase == Phase::Failed {
            self.failures_in_row = 0;
            for slot in &mut self.slots {
                slot.failures = 0;
                slot.reason.clear();
            }
            let phase = if self.is_forking() { Phase::Importing } else { Phase::Filling };
            self.set_phase(phase, String::new());
        }
        self.set_phase(self.report.phase, String::new());
        if self.is_forking() {
            self.start_template(now_ms);
        } else {
            self.templates.go_without();
        }
    }

    pub(super) fn check_templates(&mut self, now_ms: u64) {
        if let Some((template, until_ms)) = self.templates.importing
            && now_ms >= until_ms
        {
            let reason = format!("import: not done within {} ms", self.settings.start_timeout_ms);
            self.on_import_failed(now_ms, template, &reason);
        }
        if self.templates.retry_at_ms.is_some_and(|at| now_ms >= at) && !self.is_stopping() {
            self.start_template(now_ms);
        }
    }
}
