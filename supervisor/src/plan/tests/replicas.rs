//! The life of replicas, and of the deployment as a whole.

use millgate_contract::{
    ids::{CallId, ReplicaId, SlotIndex},
    supervision::{Phase, SlotState},
};

use super::world::{GRACE_MS, World};
use crate::{
    limits,
    plan::{Action, Event},
};

#[test]
fn slots_are_filled_after_the_import_and_serve_when_ready() {
    let mut world = World::new(3);
    assert_eq!(world.forks(), 0);
    world.import();
    assert_eq!(world.forks(), 3);
    assert_eq!(world.plan.deployment_report().phase, Phase::Filling);
    world.all_ready();
    assert_eq!(world.plan.deployment_report().phase, Phase::Serving);
}

#[test]
fn a_death_is_told_first_and_the_slot_refilled_at_once() {
    let mut world = World::serving(2);
    let dead = world.in_slot(SlotIndex(1)).unwrap();
    world.log.clear();
    world.die(&dead);
    let Action::ReportSlot(report) = &world.log[0] else { panic!("{:?}", world.log) };
    assert_eq!((report.state, report.replica.as_ref()), (SlotState::Dead, Some(&dead)));
    assert_eq!(world.forks(), 1);
    assert_ne!(world.in_slot(SlotIndex(1)).unwrap(), dead);
}

#[test]
fn the_place_of_a_leaving_replica_is_filled_before_it_is_dead() {
    let mut world = World::serving(1);
    let leaver = world.in_slot(SlotIndex(0)).unwrap();
    world.log.clear();
    world.replicas.get_mut(&leaver).unwrap().has_left = true;
    world.say(Event::Leaving { replica: leaver.clone(), reason: "exception".into() });
    assert_eq!(world.forks(), 1);
    world.make_ready(SlotIndex(0));
    world.advance(GRACE_MS);
    assert!(world.log.contains(&Action::Kill(leaver.clone())));
    world.die(&leaver);
    assert_eq!(world.last_reports[&SlotIndex(0)].state, SlotState::Ready);
}

#[test]
fn an_expired_call_ends_its_replica_by_term_and_then_by_kill() {
    let mut world = World::serving(1);
    let replica = world.in_slot(SlotIndex(0)).unwrap();
    let expired = |replica: &ReplicaId| Event::Expired {
        slot: SlotIndex(0),
        replica: replica.clone(),
        call: CallId(9),
    };
    world.say(expired(&replica));
    assert!(world.log.contains(&Action::Terminate(replica.clone())));
    world.advance(GRACE_MS - 1);
    assert!(!world.log.contains(&Action::Kill(replica.clone())));
    world.advance(1);
    assert!(world.log.contains(&Action::Kill(replica.clone())));
    world.die(&replica);
    world.make_ready(SlotIndex(0));
    world.log.clear();
    world.say(expired(&replica));
    assert!(world.log.is_empty(), "the slot has another: {:?}", world.log);
}

#[test]
fn a_build_of_which_no_replica_ever_starts_is_given_up() {
    let mut world = World::new(1);
    world.import();
    for _ in 0..limits::FORK_FAILURES_MAX {
        let replica = world.in_slot(SlotIndex(0)).unwrap();
        world.place(&replica);
        world.say(Event::Failed { replica: replica.clone(), reason: "setup: no database".into() });
        world.die(&replica);
        world.until_forked(SlotIndex(0));
    }
    assert_eq!(world.plan.deployment_report().phase, Phase::Failed);
    assert_eq!(world.plan.deployment_report().reason, "setup: no database");
    assert_eq!(world.forks(), 3);
}

#[test]
fn a_stop_ends_when_the_last_process_is_gone_or_the_grace_is_over() {
    for patient in [true, false] {
        let mut world = World::serving(2);
        world.is_stopping = true;
        world.say(Event::Stop { grace_ms: 1_000 });
        assert!(!world.is_finished);
        if patient {
            for slot in [SlotIndex(0), SlotIndex(1)] {
                let replica = world.in_slot(slot).unwrap();
                world.die(&replica);
            }
        } else {
            world.advance(1_000);
        }
        assert!(world.is_finished);
    }
}

#[test]
fn a_deployment_that_nobody_claims_for_an_hour_ends() {
    let mut world = World::serving(1);
    world.say(Event::Peers { is_any: true });
    world.advance(2 * limits::UNCLAIMED_MS_MAX);
    world.say(Event::Peers { is_any: false });
    world.advance(limits::UNCLAIMED_MS_MAX - 1);
    assert_eq!(world.plan.deployment_report().phase, Phase::Serving);
    world.is_stopping = true;
    world.advance(1);
    assert_eq!(world.plan.deployment_report().phase, Phase::Stopping);
}
