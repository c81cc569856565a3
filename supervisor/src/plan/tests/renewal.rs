//! Replicas that serve and are replaced all the same, and those that die as fast as they are replaced.

use millgate_contract::{
    ids::SlotIndex,
    spec::StartPolicy,
    supervision::{Phase, SlotState},
};

use super::world::{World, settings};
use crate::{
    limits,
    plan::{Action, Event, Settings},
};

fn terminated(world: &World) -> usize {
    world.count(|action| matches!(action, Action::Terminate(_)))
}

#[test]
fn old_replicas_are_replaced_one_after_another() {
    let mut world = World::serving_with(Settings { age_ms_max: Some(60_000), ..settings(3) });
    world.advance(59_999);
    assert_eq!(terminated(&world), 0);
    world.advance(1);
    for count in 1..=3 {
        assert_eq!(terminated(&world), count - 1, "not before its successor is warm");
        world.warm_all();
        assert_eq!(terminated(&world), count);
        let serving = world.plan.slot_reports().filter(|report| report.state == SlotState::Ready).count();
        assert_eq!(serving, 2, "one at a time");
        let Some(Action::Terminate(replica)) =
            world.log.iter().rfind(|action| matches!(action, Action::Terminate(_))).cloned()
        else {
            panic!("nobody is asked")
        };
        world.die(&replica);
        world.all_ready();
    }
    assert_eq!(world.spares().len(), 0);
    world.advance(59_999);
    assert_eq!(terminated(&world), 3);
}

#[test]
fn a_replica_that_has_grown_is_replaced_and_others_are_not() {
    let mut world = World::serving_with(Settings { memory_bytes_max: Some(1_000), ..settings(2) });
    let [small, large] = [0, 1].map(|k| world.in_slot(SlotIndex(k)).unwrap());
    world.say(Event::Memory { replica: small, bytes: 1_000 });
    assert_eq!(terminated(&world), 0);
    world.say(Event::Memory { replica: large.clone(), bytes: 1_001 });
    world.warm_all();
    assert!(world.log.contains(&Action::Terminate(large.clone())));
    world.say(Event::Memory { replica: large, bytes: 2_000 });
    assert_eq!(terminated(&world), 1);
}

fn of_one_slot(start: StartPolicy) -> World {
    let mut world = World::with(Settings { start, ..settings(1) });
    world.import();
    world.all_ready();
    world
}

#[test]
fn a_lone_replica_serves_until_its_successor_can() {
    for start in [StartPolicy::Fork, StartPolicy::Spawn] {
        let mut world = of_one_slot(start);
        let old = world.in_slot(SlotIndex(0)).unwrap();
        world.say(Event::Restart);
        world.import();
        assert_eq!(world.last_reports[&SlotIndex(0)].state, SlotState::Ready);
        let [successor] = &world.spares()[..] else { panic!("{:?}", world.replicas) };
        let successor = successor.clone();
        world.warm_all();
        assert!(world.log.contains(&Action::Terminate(old.clone())));
        world.replicas.get_mut(&old).unwrap().has_left = true;
        world.say(Event::Leaving { replica: old.clone(), reason: "asked".into() });
        assert!(world.log.contains(&Action::Serve { slot: SlotIndex(0), replica: successor.clone() }));
        world.make_ready(SlotIndex(0));
        assert_eq!(world.in_slot(SlotIndex(0)), Some(successor));
        assert_eq!(world.spares().len(), 0, "nobody is kept for nothing");
    }
}

#[test]
fn a_restart_whose_replicas_do_not_start_is_called_off_and_says_why() {
    for start in [StartPolicy::Fork, StartPolicy::Spawn] {
        let mut world = of_one_slot(start);
        let old = world.in_slot(SlotIndex(0));
        world.say(Event::Restart);
        world.import();
        for _ in 0..limits::SPARE_FAILURES_MAX {
            let spare = world.spares().remove(0);
            world.place(&spare);
            world.say(Event::Failed { replica: spare.clone(), reason: "setup: no database".into() });
            world.die(&spare);
            world.advance(limits::PAUSE_MS_MAX);
        }
        assert_eq!((world.spares().len(), terminated(&world)), (0, 0));
        assert_eq!(world.in_slot(SlotIndex(0)), old);
        let report = world.plan.deployment_report();
        assert_eq!((report.phase, report.reason.as_str()), (Phase::Serving, "setup: no database"));
        // Mended outside.
        world.say(Event::Restart);
        assert_eq!(world.plan.deployment_report().reason, "");
        world.import();
        world.warm_all();
        assert_eq!(terminated(&world), 1);
    }
}

#[test]
fn a_successor_that_is_needed_no_more_is_let_go() {
    let mut world = World::serving_with(Settings { memory_bytes_max: Some(1_000), ..settings(1) });
    let large = world.in_slot(SlotIndex(0)).unwrap();
    world.say(Event::Memory { replica: large.clone(), bytes: 2_000 });
    let successor = world.spares().remove(0);
    world.place(&successor);
    // It dies by itself while the other is not warm yet.
    world.die(&large);
    assert_ne!(world.in_slot(SlotIndex(0)), Some(successor.clone()));
    assert!(world.log.contains(&Action::Terminate(successor)));
}

#[test]
fn replicas_that_die_as_soon_as_they_are_ready_are_replaced_more_and_more_slowly() {
    let mut world = World::serving(1);
    let mut pauses = Vec::new();
    for _ in 0..30 {
        let replica = world.in_slot(SlotIndex(0)).unwrap();
        world.die(&replica);
        let died_at_ms = world.now_ms;
        world.until_forked(SlotIndex(0));
        pauses.push(world.now_ms - died_at_ms);
        world.make_ready(SlotIndex(0));
    }
    let free = limits::SUDDEN_DEATHS_FREE as usize;
    assert!(pauses[..free].iter().all(|pause_ms| *pause_ms == 0), "{pauses:?}");
    assert!(pauses.is_sorted() && pauses[29] == limits::SUDDEN_PAUSE_MS_MAX, "{pauses:?}");
    world.advance(limits::STEADY_MS_MIN);
    let replica = world.in_slot(SlotIndex(0)).unwrap();
    world.die(&replica);
    assert_ne!(world.in_slot(SlotIndex(0)), None, "one that has served for a while is followed at once");
}

#[test]
fn exceptions_are_followed_at_once_however_many() {
    let mut world = World::serving(1);
    for _ in 0..100 {
        let replica = world.in_slot(SlotIndex(0)).unwrap();
        world.replicas.get_mut(&replica).unwrap().has_left = true;
        world.say(Event::Leaving { replica: replica.clone(), reason: "the function raised".into() });
        world.make_ready(SlotIndex(0));
        world.die(&replica);
    }
    assert_eq!(world.now_ms, 0);
    assert_eq!(world.forks(), 101);
}
