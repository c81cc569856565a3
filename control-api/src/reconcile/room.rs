//! Memory of the host, given out to deployments before they start: what does not fit waits. Pure.
//!
//! First come, first served, save that a smaller deployment may pass a larger one that waits: otherwise one that asks for
//! most of a host would keep everybody waiting. Who holds room keeps it until its processes are gone, so that what
//! serves is launched again without waiting, whatever happened to it.

use super::decide::{DeploymentView, ModelView, UnitView, World};
use crate::rows::DeploymentStatus;

/// What is left.
pub(super) struct Room<'a> {
    world: &'a World,
    free_mb: i64,
}

impl<'a> Room<'a> {
    pub(super) fn of(world: &'a World) -> Self {
        let held: i64 = world.deployments.iter().filter(|d| holds(d)).map(|d| d.memory_mb).sum();
        Self { world, free_mb: world.memory_mb - held }
    }

    /// Room for a deployment that begins; else why it waits, for people.
    pub(super) fn take(&mut self, model: &ModelView, d: &DeploymentView) -> Result<(), String> {
        if self.world.memory_mb == 0 || d.memory_mb <= self.free_mb {
            self.free_mb -= d.memory_mb;
            return Ok(());
        }
        let own = |other: &&DeploymentView| other.model == model.id && holds(other);
        let beside = self.world.deployments.iter().find(own).map_or(String::new(), |other| {
            format!("; deployment {} of this model holds {} MB until then", other.number, other.memory_mb)
        });
        Err(format!(
            "waits for memory: it asks for {} MB, {} of {} MB are free; it goes on by itself when others end{beside}",
            d.memory_mb,
            self.free_mb.max(0),
            self.world.memory_mb
        ))
    }
}

fn holds(d: &DeploymentView) -> bool {
    d.status != DeploymentStatus::Pending || d.unit != UnitView::Absent
}
