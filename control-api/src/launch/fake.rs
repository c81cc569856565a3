//! A launcher in memory, for tests: units do what they are told to, and everything asked of it is written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use millgate_contract::{
    spec::DeploymentSpec,
    supervision::{DeploymentReport, Isolation, Phase, StartMode},
};
use tokio::sync::watch;

use super::{LaunchError, Launcher, Report, UnitName, Work};

/// See the module.
pub(crate) struct FakeLauncher {
    run: PathBuf,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    units: BTreeMap<UnitName, Report>,
    specs: Vec<DeploymentSpec>,
    /// What a launched unit comes to by itself.
    outcome: Option<Phase>,
    reason: String,
    example_response: Option<String>,
    refuses: BTreeSet<UnitName>,
    stopped: Vec<UnitName>,
    restarted: Vec<UnitName>,
}

impl FakeLauncher {
    pub(crate) fn new(run: PathBuf) -> Self {
        Self { run, state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Units launched from now on come to this at once; `None` leaves them importing.
    pub(crate) fn units_become(&self, outcome: Option<Phase>, reason: &str) {
        self.with(|state| {
            state.outcome = outcome;
            reason.clone_into(&mut state.reason);
        });
    }

    /// The example call of units launched from now on answers this.
    pub(crate) fn examples_answer(&self, json: &str) {
        self.with(|state| state.example_response = Some(json.to_owned()));
    }

    /// A unit changes.
    pub(crate) fn becomes(&self, unit: &UnitName, phase: Phase, reason: &str) {
        self.with(|state| {
            let report = state.units.get_mut(unit).expect("it was launched");
            report.whole.as_mut().expect("it has one").phase = phase;
            reason.clone_into(&mut report.whole.as_mut().expect("it has one").reason);
        });
    }

    /// A unit is gone, whatever the reason.
    pub(crate) fn vanishes(&self, unit: &UnitName) {
        self.with(|state| state.units.remove(unit));
    }

    /// Launches of a unit fail.
    pub(crate) fn refuse(&self, unit: UnitName) {
        self.with(|state| state.refuses.insert(unit));
    }

    /// What was launched, in order.
    pub(crate) fn launched(&self) -> Vec<DeploymentSpec> {
        self.with(|state| state.specs.clone())
    }

    /// What was told to stop, each once.
    pub(crate) fn stopped(&self) -> Vec<UnitName> {
        self.with(|state| state.stopped.clone())
    }

    pub(crate) fn restarted(&self) -> Vec<UnitName> {
        self.with(|state| state.restarted.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let result = work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|n| *n += 1);
        result
    }
}

impl Launcher for FakeLauncher {
    fn adopt(&self) -> Work<'_, ()> {
        Box::pin(async {})
    }

    fn launch(&self, unit: UnitName, spec: DeploymentSpec) -> Work<'_, Result<(), LaunchError>> {
        Box::pin(async move {
            self.with(|state| {
                if state.refuses.contains(&unit) {
                    return Err(LaunchError("refused by the test".to_owned()));
                }
                let whole = DeploymentReport {
                    phase: state.outcome.unwrap_or(Phase::Importing),
                    reason: state.reason.clone(),
                    start_mode: StartMode::Fork,
                    start_mode_reason: String::new(),
                    example_response: state.example_response.clone(),
                };
                let report = Report {
                    deployment: spec.deployment.clone(),
                    pid: 1,
                    isolation: Isolation::default(),
                    slots: BTreeMap::new(),
                    whole: Some(whole),
                    is_stopping: false,
                    usage: Vec::new(),
                };
                state.specs.push(spec);
                state.units.entry(unit).or_insert(report);
                Ok(())
            })
        })
    }

    fn observe(&self) -> BTreeMap<UnitName, Report> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).units.clone()
    }

    fn stop(&self, unit: &UnitName, _grace_ms: u64) {
        self.with(|state| {
            if state.units.remove(unit).is_some() {
                state.stopped.push(unit.clone());
            }
        });
    }

    fn measure(&self, _unit: &UnitName) -> Work<'_, ()> {
        Box::pin(async {})
    }

    fn restart(&self, unit: &UnitName) -> bool {
        self.with(|state| {
            state.restarted.push(unit.clone());
            state.units.contains_key(unit)
        })
    }

    fn run_dir(&self, unit: &UnitName) -> PathBuf {
        self.run.join(unit.as_str())
    }

    fn clear(&self, unit: &UnitName) {
        let _ = std::fs::remove_dir_all(self.run_dir(unit));
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
