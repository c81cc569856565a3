//! What the reconciler and the builder ask of whoever runs supervisors. The unit is a supervisor with its slots; the
//! local implementation starts a process, another may start a pod. A launcher decides nothing: it does and observes.

#[cfg(test)]
pub(crate) mod fake;
mod local;
pub(crate) mod spec;

use std::{collections::BTreeMap, path::PathBuf, pin::Pin};

use millgate_contract::{
    ids::DeploymentId,
    spec::DeploymentSpec,
    supervision::{DeploymentReport, Isolation, Phase, ReplicaUsage, SlotReport},
};
use tokio::sync::watch;

pub(crate) use local::LocalLauncher;

/// A future that a trait object can return.
pub(crate) type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The name of a unit: a deployment's number, or `b` and a build's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UnitName(String);

impl UnitName {
    pub(crate) fn deployment(number: i64) -> Self {
        Self(number.to_string())
    }

    pub(crate) fn build(number: i64) -> Self {
        Self(format!("b{number}"))
    }

    /// Reads the name of a run directory.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('b').unwrap_or(text);
        (!digits.is_empty() && digits.len() <= 18 && digits.bytes().all(|b| b.is_ascii_digit()))
            .then(|| Self(text.to_owned()))
    }

    /// The deployment's number, unless it is a build's.
    pub(crate) fn deployment_number(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for UnitName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a unit says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) deployment: DeploymentId,
    pub(crate) pid: u32,
    pub(crate) isolation: Isolation,
    pub(crate) slots: BTreeMap<u16, SlotReport>,
    /// Nothing before its first word.
    pub(crate) whole: Option<DeploymentReport>,
    /// It was told to end.
    pub(crate) is_stopping: bool,
    /// What its replicas had done when it was measured last.
    pub(crate) usage: Vec<ReplicaUsage>,
}

impl Report {
    pub(crate) fn phase(&self) -> Phase {
        if self.is_stopping {
            Phase::Stopping
        } else {
            self.whole.as_ref().map_or(Phase::Importing, |w| w.phase)
        }
    }

    pub(crate) fn reason(&self) -> &str {
        self.whole.as_ref().map_or("", |w| &w.reason)
    }
}

/// Why a unit was not started.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LaunchError(pub(crate) String);

/// Runs supervisors.
pub(crate) trait Launcher: Send + Sync + 'static {
    /// Finds the units that run already, after a restart of this program.
    fn adopt(&self) -> Work<'_, ()>;
    /// Starts a unit; nothing when it runs. Returns when its sockets are bound.
    fn launch(&self, unit: UnitName, spec: DeploymentSpec) -> Work<'_, Result<(), LaunchError>>;
    /// The units there are, and what each said last.
    fn observe(&self) -> BTreeMap<UnitName, Report>;
    /// Tells a unit to drain and end, once; one that does not is ended. Returns at once.
    fn stop(&self, unit: &UnitName, grace_ms: u64);
    /// Has a unit say what its replicas have done; resolves when it has, or soon without it.
    fn measure(&self, unit: &UnitName) -> Work<'_, ()>;
    /// Tells a unit to import anew; false when it is not there.
    fn restart(&self, unit: &UnitName) -> bool;
    /// Where a unit's sockets and logs are.
    fn run_dir(&self, unit: &UnitName) -> PathBuf;
    /// Forgets what a unit that has ended left: its logs.
    fn clear(&self, unit: &UnitName);
    /// Changes whenever an observation does.
    fn changes(&self) -> watch::Receiver<u64>;
}

#[cfg(test)]
mod tests {
    use super::UnitName;

    #[test]
    fn only_run_directories_are_units() {
        assert_eq!(UnitName::parse("7").unwrap().deployment_number(), Some(7));
        assert_eq!(UnitName::parse("b7").unwrap().deployment_number(), None);
        for other in ["", "b", "..", "7a", "lost+found"] {
            assert_eq!(UnitName::parse(other), None, "{other}");
        }
    }
}
