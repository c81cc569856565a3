//! The part of the plan about its end.

use millgate_contract::supervision::Phase;

use super::{Action, Plan};
use crate::slot::Stage;

impl Plan {
    pub(super) fn on_stop(&mut self, now_ms: u64, grace_ms: u64) {
        let at_ms = now_ms + grace_ms;
        if self.is_stopping() {
            self.kill_all_at_ms = self.kill_all_at_ms.map(|at| at.min(at_ms));
            return;
        }
        self.kill_all_at_ms = Some(at_ms);
        self.rolling.clear();
        self.set_phase(Phase::Stopping, String::new());
        for template in self.templates.end_all() {
            self.actions.push(Action::EndTemplate(template));
        }
        for k in 0..self.slots.len() {
            match self.slots[k].stage.clone() {
                Stage::Vacant { .. } | Stage::Ending { .. } => {}
                Stage::Forking { replica, .. } => {
                    self.actions.push(Action::Bury(replica));
                    self.slots[k].vacate(now_ms, "stop".to_owned());
                }
                Stage::Starting { replica, .. } | Stage::Ready { replica, .. } => {
                    self.actions.push(Action::Terminate(replica));
                    self.slots[k].end(now_ms, at_ms, "stop".to_owned());
                }
            }
        }
    }

    pub(super) fn check_end(&mut self, now_ms: u64) {
        let is_empty = self.leaving.is_empty()
            && self.spares.is_empty()
            && self.slots.iter().all(|s| matches!(s.stage, Stage::Vacant { .. }));
        if is_empty || self.kill_all_at_ms.is_some_and(|at| now_ms >= at) {
            self.is_finished = true;
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.kill_all_at_ms.is_some()
    }
}
