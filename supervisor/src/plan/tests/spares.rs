//! Replicas that wait for a slot.

use millgate_contract::{ids::SlotIndex, spec::StartPolicy, supervision::SlotState};

use super::world::{GRACE_MS, START_MS, TemplateState, World, settings};
use crate::{
    limits,
    plan::{Action, Event, Settings},
};

/// A deployment that serves, with a spare that is warm.
fn with_spare(slots: u16) -> World {
    let mut world = World::serving_with(Settings { spares: 1, ..settings(slots) });
    world.warm_all();
    assert_eq!(world.spares().len(), 1);
    world.log.clear();
    world
}

#[test]
fn a_spare_is_forked_once_every_slot_serves() {
    let mut world = World::with(Settings { spares: 1, ..settings(2) });
    world.import();
    world.make_ready(SlotIndex(0));
    assert_eq!(world.spares().len(), 0);
    world.make_ready(SlotIndex(1));
    assert_eq!((world.spares().len(), world.forks()), (1, 2));
}

#[test]
fn a_warm_spare_takes_over_a_lost_slot_and_another_follows_it() {
    let mut world = with_spare(2);
    let spare = world.spares().remove(0);
    let dead = world.in_slot(SlotIndex(1)).unwrap();
    world.die(&dead);
    assert_eq!(world.in_slot(SlotIndex(1)), Some(spare.clone()));
    assert_eq!(world.forks(), 0);
    assert_eq!(world.last_reports[&SlotIndex(1)].pid, Some(7));
    world.say(Event::Ready { replica: spare, example_response: None });
    assert_eq!(world.last_reports[&SlotIndex(1)].state, SlotState::Ready);
    assert_eq!(world.spares().len(), 1);
}

#[test]
fn one_that_is_not_warm_yet_is_not_waited_for() {
    let mut world = with_spare(1);
    for forks in [0, 1] {
        let dead = world.in_slot(SlotIndex(0)).unwrap();
        world.die(&dead);
        assert_eq!(world.forks(), forks);
        world.make_ready(SlotIndex(0));
    }
}

#[test]
fn spares_that_do_not_start_are_tried_more_and_more_slowly_and_harm_nobody() {
    let mut world = World::serving_with(Settings { spares: 1, ..settings(1) });
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let spare = world.spares().remove(0);
        world.place(&spare);
        world.say(Event::Failed { replica: spare.clone(), reason: "setup: no database".into() });
        let failed_at_ms = world.now_ms;
        world.die(&spare);
        while world.spares().is_empty() {
            let next_ms = world.plan.deadline_ms().unwrap();
            world.advance(next_ms - world.now_ms);
        }
        pauses.push(world.now_ms - failed_at_ms);
    }
    assert!(pauses[0] >= limits::PAUSE_MS_MIN && pauses.is_sorted(), "{pauses:?}");
    assert_eq!(pauses[11], limits::PAUSE_MS_MAX);
    assert_eq!(world.templates.len(), 1);
    assert_eq!(world.last_reports[&SlotIndex(0)].state, SlotState::Ready);
}

#[test]
fn one_that_hangs_is_killed() {
    let mut world = World::serving_with(Settings { spares: 1, ..settings(1) });
    let spare = world.spares().remove(0);
    world.place(&spare);
    world.advance(START_MS);
    assert!(world.log.contains(&Action::Kill(spare)));
}

#[test]
fn those_of_an_older_template_are_let_go() {
    let mut world = with_spare(1);
    let spare = world.spares().remove(0);
    world.say(Event::Restart);
    world.import();
    assert!(world.log.contains(&Action::Terminate(spare.clone())));
    world.advance(GRACE_MS);
    assert!(world.log.contains(&Action::Kill(spare.clone())));
    world.die(&spare);
    assert_eq!(world.spares().len(), 1);
    let dead = world.in_slot(SlotIndex(0)).unwrap();
    world.die(&dead);
    assert_ne!(world.in_slot(SlotIndex(0)), Some(spare));
}

#[test]
fn replicas_that_are_started_afresh_have_none() {
    let mut world = World::with(Settings { spares: 1, start: StartPolicy::Spawn, ..settings(1) });
    world.all_ready();
    assert!(world.spares().is_empty());

    let mut world = World::serving_with(Settings { spares: 1, start: StartPolicy::Auto, ..settings(1) });
    world.warm_all();
    let spare = world.spares().remove(0);
    let hung = world.in_slot(SlotIndex(0)).unwrap();
    let call = millgate_contract::ids::CallId(1);
    world.say(Event::Expired { slot: SlotIndex(0), replica: hung, call });
    assert!(world.log.contains(&Action::Terminate(spare)));
    assert!(world.templates.values().all(|state| *state == TemplateState::Gone));
}

#[test]
fn a_stop_waits_for_them_too() {
    let mut world = with_spare(1);
    world.is_stopping = true;
    world.say(Event::Stop { grace_ms: 1_000 });
    let [spare, replica] = [world.spares().remove(0), world.in_slot(SlotIndex(0)).unwrap()];
    world.die(&replica);
    assert!(!world.is_finished);
    world.die(&spare);
    assert!(world.is_finished);
}
