//! Replicas that serve and are replaced all the same, and those that die as fast as they are replaced.

use millgate_contract::{ids::SlotIndex, supervision::SlotState};

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
    assert!(world.log.contains(&Action::Terminate(large.clone())));
    world.say(Event::Memory { replica: large, bytes: 2_000 });
    assert_eq!(terminated(&world), 1);
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
