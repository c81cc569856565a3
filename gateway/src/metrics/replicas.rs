//! What the replicas of each model do with their time: a counter for each slot and activity. As many series as there are
//! slots, three times; a slot keeps its series whichever replica is in it.

use millgate_contract::{
    ids::SlotIndex,
    route::{ModelRoute, Target},
};
use prometheus_client::{encoding::EncodeLabelSet, metrics::family::Family};

use super::model::CpuSeconds as Seconds;
use crate::slots::usage::Spent;

const ACTIVITIES: [&str; 3] = ["busy", "interpreter_wait", "idle"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReplicaLabels {
    model: String,
    name: String,
    slot: u16,
    activity: &'static str,
}

pub(super) type ReplicaSeconds = Family<ReplicaLabels, Seconds>;

/// Adds what was spent in the slots of a route.
pub(super) fn add(family: &ReplicaSeconds, (model, name): (&str, &str), spent: &[(SlotIndex, Spent)]) {
    for (slot, spent) in spent {
        let each = [spent.busy, spent.interpreter_wait, spent.idle];
        for (activity, time) in ACTIVITIES.into_iter().zip(each) {
            let (model, name) = (model.to_owned(), name.to_owned());
            let labels = ReplicaLabels { model, name, slot: slot.0, activity };
            family.get_or_create(&labels).inc_by(time.as_secs_f64());
        }
    }
}

/// Takes out the series of a route's slots.
pub(super) fn forget(family: &ReplicaSeconds, route: &ModelRoute) {
    let Target::Deployment(target) = &route.target else { return };
    for slot in 0..target.slots {
        for activity in ACTIVITIES {
            let (model, name) = (route.model.as_str().to_owned(), route.name.clone());
            family.remove(&ReplicaLabels { model, name, slot, activity });
        }
    }
}
