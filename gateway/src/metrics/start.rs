//! How a model's replicas are started, and why: one series for each model, with words for labels.
//!
//! The reason is text of a supervisor, cut here. It changes with a deployment, or when a fork has turned out not to be
//! safe; the series with the words of before is taken out then.

use std::sync::{Mutex, PoisonError};

use millgate_contract::supervision::{DeploymentReport, StartMode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};

/// Characters of a reason.
const REASON_CHARS_MAX: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StartLabels {
    model: String,
    name: String,
    mode: &'static str,
    reason: String,
}

pub(super) type Starts = Family<StartLabels, Gauge>;

/// How a deployment's replicas are started, by its supervisor's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    mode: &'static str,
    reason: String,
}

impl Start {
    pub(crate) fn of(report: &DeploymentReport) -> Self {
        let mode = match report.start_mode {
            StartMode::Fork => "fork",
            StartMode::Spawn => "spawn",
        };
        Self { mode, reason: report.start_mode_reason.chars().take(REASON_CHARS_MAX).collect() }
    }
}

/// The series of one model; it ends with this.
pub(super) struct StartSeries {
    family: Starts,
    shown: Mutex<Option<StartLabels>>,
    model: String,
    name: String,
}

impl StartSeries {
    pub(super) fn of(family: &Starts, model: &str, name: &str) -> Self {
        Self {
            family: family.clone(),
            shown: Mutex::new(None),
            model: model.to_owned(),
            name: name.to_owned(),
        }
    }

    /// What is true just now; nothing where no supervisor has said it yet.
    pub(super) fn show(&self, start: Option<&Start>) {
        let labels = start.map(|start| StartLabels {
            model: self.model.clone(),
            name: self.name.clone(),
            mode: start.mode,
            reason: start.reason.clone(),
        });
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = shown.take().filter(|before| Some(before) != labels.as_ref()) {
            self.family.remove(&before);
        }
        // Even where nothing has changed: a route that is gone takes out what another one shows as well.
        if let Some(labels) = &labels {
            self.family.get_or_create(labels).set(1);
        }
        *shown = labels;
    }
}

impl Drop for StartSeries {
    fn drop(&mut self) {
        self.show(None);
    }
}
