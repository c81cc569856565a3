//! What to do next, from what is wished and what is seen: a pure function, run again after each change. Every step is
//! safe to repeat, since it is a compare-and-set or does nothing when done.
//!
//! Invariants: calls go to a deployment only after all its slots have been ready and its build counts as built; a
//! deployment's processes are stopped only when no gateway sends calls to it; what fails leaves the one that serves.

use std::collections::{HashMap, HashSet};

use millgate_contract::ids::{DeploymentId, ModelId};

use super::room::Room;
use crate::rows::{BuildStatus, DeploymentStatus};

/// All that counts, at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) models: Vec<ModelView>,
    /// Those that are not over, the oldest first.
    pub(crate) deployments: Vec<DeploymentView>,
    /// Numbers of the deployments' units there are.
    pub(crate) units: Vec<i64>,
    /// MB that deployments may ask for together; 0 is without a bound.
    pub(crate) memory_mb: i64,
}

/// A model.
#[derive(Debug, Clone)]
pub(crate) struct ModelView {
    pub(crate) id: ModelId,
    /// Where its calls go; '' is nowhere.
    pub(crate) routed: String,
    pub(crate) is_deleting: bool,
}

/// A deployment.
#[derive(Debug, Clone)]
pub(crate) struct DeploymentView {
    pub(crate) id: DeploymentId,
    pub(crate) number: i64,
    pub(crate) model: ModelId,
    pub(crate) status: DeploymentStatus,
    pub(crate) is_stop_requested: bool,
    pub(crate) build: BuildStatus,
    pub(crate) unit: UnitView,
    pub(crate) reach: Reach,
    /// MB that it asks for.
    pub(crate) memory_mb: i64,
    /// What it asks for and no host has.
    pub(crate) lacks: Option<String>,
    /// Why it waits, as was last said of it.
    pub(crate) waits: String,
}

/// A deployment's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UnitView {
    /// There are none.
    Absent,
    /// On their way.
    Starting,
    /// Every slot has been ready.
    Ready,
    /// They cannot start; why.
    Failed(String),
    /// On their way out.
    Stopping,
}

/// Which gateways send calls to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// None does, none will.
    Nowhere,
    /// Some may.
    Underway,
    /// All do, and are connected to it.
    Everywhere,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Move a deployment's status on.
    Move { deployment: DeploymentId, from: DeploymentStatus, to: DeploymentStatus, reason: String },
    /// Say why it stays where it is.
    Wait { deployment: DeploymentId, reason: String },
    /// Start its processes.
    Launch { deployment: DeploymentId },
    /// Send the model's calls there; every older deployment of the model is then wished to stop.
    Route { model: ModelId, from: String, to: DeploymentId },
    /// Send the model's calls nowhere.
    Unroute { model: ModelId, from: DeploymentId },
    /// Stop a unit's processes.
    Stop { number: i64 },
    /// Have a model forgotten, and what it holds freed.
    Purge { model: ModelId },
}

const BUILD_FAILED: &str = "its build failed; see the build's log";

/// What to do next.
pub(crate) fn decide(world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    let models: HashMap<&ModelId, &ModelView> = world.models.iter().map(|model| (&model.id, model)).collect();
    let mut used = HashSet::new();
    let mut room = Room::of(world);
    for deployment in &world.deployments {
        if let Some(model) = models.get(&deployment.model) {
            used.insert(&model.id);
            steps.extend(advance(model, deployment, &mut room));
        }
    }
    let unused = world.models.iter().filter(|model| model.is_deleting && !used.contains(&model.id));
    steps.extend(unused.map(|model| Step::Purge { model: model.id.clone() }));
    let known: HashSet<i64> = world.deployments.iter().map(|d| d.number).collect();
    let unknown = world.units.iter().filter(|number| !known.contains(number));
    steps.extend(unknown.map(|number| Step::Stop { number: *number }));
    steps
}

fn advance(model: &ModelView, d: &DeploymentView, room: &mut Room<'_>) -> Option<Step> {
    let is_wanted = !d.is_stop_requested && !model.is_deleting;
    match d.status {
        DeploymentStatus::Pending if is_wanted => pending(model, d, room),
        DeploymentStatus::Pending => Some(match d.unit {
            UnitView::Absent => step(d, DeploymentStatus::Stopped, String::new()),
            _ => Step::Stop { number: d.number },
        }),
        DeploymentStatus::Deploying if is_wanted => deploying(model, d),
        DeploymentStatus::Deployed if is_wanted => deployed(model, d),
        DeploymentStatus::Deploying | DeploymentStatus::Deployed => {
            withdraw(model, d, DeploymentStatus::Stopping, String::new())
        }
        DeploymentStatus::Stopping => match d.unit {
            UnitView::Absent => Some(step(d, DeploymentStatus::Stopped, String::new())),
            _ => Some(Step::Stop { number: d.number }),
        },
        DeploymentStatus::Stopped | DeploymentStatus::Failed => None,
    }
}

fn pending(model: &ModelView, d: &DeploymentView, room: &mut Room<'_>) -> Option<Step> {
    if d.unit != UnitView::Absent {
        // Of a life before this one (`:restart` of a stopped deployment): it goes first.
        return Some(Step::Stop { number: d.number });
    }
    match (d.build, &d.lacks) {
        (BuildStatus::Pushing | BuildStatus::Built, Some(lacks)) => {
            Some(step(d, DeploymentStatus::Failed, format!("unschedulable: {lacks}")))
        }
        (BuildStatus::Pushing | BuildStatus::Built, None) => match room.take(model, d) {
            Ok(()) => Some(step(d, DeploymentStatus::Deploying, String::new())),
            Err(reason) => (d.waits != reason).then(|| Step::Wait { deployment: d.id.clone(), reason }),
        },
        (BuildStatus::Failed, _) => Some(step(d, DeploymentStatus::Failed, BUILD_FAILED.to_owned())),
        (BuildStatus::Pending | BuildStatus::Queued | BuildStatus::Building, _) => None,
    }
}

fn deploying(model: &ModelView, d: &DeploymentView) -> Option<Step> {
    if d.build == BuildStatus::Failed {
        return withdraw(model, d, DeploymentStatus::Failed, BUILD_FAILED.to_owned());
    }
    match &d.unit {
        UnitView::Absent => Some(Step::Launch { deployment: d.id.clone() }),
        UnitView::Starting | UnitView::Stopping => None,
        // Its start was the build's trial: the builder has the word.
        UnitView::Ready if d.build == BuildStatus::Pushing => None,
        UnitView::Failed(reason) => withdraw(model, d, DeploymentStatus::Failed, reason.clone()),
        UnitView::Ready if model.routed != d.id.as_str() => Some(route(model, d)),
        UnitView::Ready => {
            (d.reach == Reach::Everywhere).then(|| step(d, DeploymentStatus::Deployed, String::new()))
        }
    }
}

fn deployed(model: &ModelView, d: &DeploymentView) -> Option<Step> {
    match &d.unit {
        // The host or its supervisor went down: the same again, its route waits.
        UnitView::Absent => Some(Step::Launch { deployment: d.id.clone() }),
        UnitView::Failed(reason) => withdraw(model, d, DeploymentStatus::Failed, reason.clone()),
        // It failed, lost its calls, died before it was given up, and came back well: it gets them again.
        UnitView::Ready if model.routed != d.id.as_str() => Some(route(model, d)),
        UnitView::Starting | UnitView::Ready | UnitView::Stopping => None,
    }
}

/// Takes calls away first, waits until no gateway sends any, then moves on.
fn withdraw(model: &ModelView, d: &DeploymentView, to: DeploymentStatus, reason: String) -> Option<Step> {
    if model.routed == d.id.as_str() && !model.is_deleting {
        return Some(Step::Unroute { model: model.id.clone(), from: d.id.clone() });
    }
    (d.reach == Reach::Nowhere).then(|| step(d, to, reason))
}

fn route(model: &ModelView, d: &DeploymentView) -> Step {
    Step::Route { model: model.id.clone(), from: model.routed.clone(), to: d.id.clone() }
}

fn step(d: &DeploymentView, to: DeploymentStatus, reason: String) -> Step {
    Step::Move { deployment: d.id.clone(), from: d.status, to, reason }
}
