//! How replicas are started, and what changes that.

use millgate_contract::{
    ids::{CallId, SlotIndex},
    spec::StartPolicy,
    supervision::{Phase, SlotState, StartMode},
};

use super::world::{START_MS, TemplateState, World, settings};
use crate::{
    limits,
    plan::{Event, Settings},
};

fn auto(slots: u16) -> Settings {
    Settings { start: StartPolicy::Auto, ..settings(slots) }
}

fn mode(world: &World) -> (StartMode, &str) {
    let report = world.plan.deployment_report();
    (report.start_mode, &report.start_mode_reason)
}

#[test]
fn a_model_that_asks_for_it_has_no_template() {
    let mut world = World::with(Settings { start: StartPolicy::Spawn, ..settings(2) });
    assert_eq!((world.spawns(), world.templates.len()), (2, 0));
    assert_eq!(mode(&world), (StartMode::Spawn, "the model asks for it"));
    world.all_ready();
    assert_eq!(world.plan.deployment_report().phase, Phase::Serving);
    let dead = world.in_slot(SlotIndex(1)).unwrap();
    world.die(&dead);
    assert_eq!(world.spawns(), 3);
}

#[test]
fn a_template_of_which_nothing_speaks_against_it_is_forked() {
    let world = World::serving_with(auto(1));
    assert_eq!(mode(&world), (StartMode::Fork, ""));
}

#[test]
fn a_sign_seen_after_the_import_ends_the_template_and_is_the_reason() {
    let mut world = World::with(auto(2));
    world.import_with(Some("a connection is open"));
    assert!(world.templates.values().all(|state| *state == TemplateState::Gone));
    assert_eq!((world.forks(), world.spawns()), (0, 2));
    assert_eq!(mode(&world), (StartMode::Spawn, "a connection is open"));
    world.all_ready();
    assert_eq!(world.plan.deployment_report().phase, Phase::Serving);
}

#[test]
fn a_model_that_insists_is_forked_and_the_sign_told() {
    let mut world = World::new(1);
    world.import_with(Some("a connection is open"));
    assert_eq!(world.forks(), 1);
    assert_eq!(mode(&world), (StartMode::Fork, "forked as the model asks, although a connection is open"));
    world.say(Event::Restart);
    world.import();
    assert_eq!(mode(&world), (StartMode::Fork, ""));
}

#[test]
fn forks_that_hang_in_their_example_are_followed_by_a_start_afresh_while_there_is_time() {
    let mut world = World::with(auto(2));
    world.import();
    let hung = [0, 1].map(|k| world.in_slot(SlotIndex(k)).unwrap());
    for replica in &hung {
        world.place(replica);
    }
    world.advance(START_MS / 2);
    assert_eq!(mode(&world).0, StartMode::Spawn);
    assert!(mode(&world).1.contains("not ready within 5000 ms"), "{}", mode(&world).1);
    for replica in &hung {
        world.die(replica);
    }
    assert_eq!(world.spawns(), 2);
    assert_eq!(world.plan.deployment_report().phase, Phase::Filling);
    world.all_ready();
    assert_eq!(world.plan.deployment_report().phase, Phase::Serving);
}

#[test]
fn a_start_afresh_that_hangs_too_is_given_up() {
    let mut world = World::with(Settings { start: StartPolicy::Spawn, ..settings(1) });
    world.advance(START_MS);
    assert_eq!(world.plan.deployment_report().phase, Phase::Failed);
}

#[test]
fn forks_that_die_without_a_word_are_followed_by_starts_afresh_and_those_that_speak_are_not() {
    let mut world = World::with(auto(1));
    world.import();
    for _ in 0..limits::FORK_FAILURES_MAX {
        let replica = world.in_slot(SlotIndex(0)).unwrap();
        world.place(&replica);
        world.die(&replica);
        world.until_forked(SlotIndex(0));
    }
    assert_eq!((mode(&world).0, world.spawns()), (StartMode::Spawn, 1));

    let mut world = World::with(auto(1));
    world.import();
    for _ in 0..limits::FORK_FAILURES_MAX {
        let replica = world.in_slot(SlotIndex(0)).unwrap();
        world.place(&replica);
        world.say(Event::Failed { replica: replica.clone(), reason: "setup: no database".into() });
        world.die(&replica);
        world.until_forked(SlotIndex(0));
    }
    assert_eq!((mode(&world).0, world.plan.deployment_report().phase), (StartMode::Fork, Phase::Failed));
}

#[test]
fn a_first_call_that_runs_past_its_deadline_changes_the_mode_unless_another_was_answered_before() {
    for (has_answered, has_example) in [(false, false), (true, false), (false, true)] {
        let mut world = World::serving_with(Settings { has_example, ..auto(2) });
        let [hung, other] = [0, 1].map(|k| world.in_slot(SlotIndex(k)).unwrap());
        if has_answered {
            world.say(Event::Answered { replica: hung.clone() });
        }
        world.say(Event::Expired { slot: SlotIndex(0), replica: hung.clone(), call: CallId(7) });
        world.die(&hung);
        if has_answered || has_example {
            assert_eq!(mode(&world), (StartMode::Fork, ""));
            continue;
        }
        assert_eq!(mode(&world).0, StartMode::Spawn);
        assert!(mode(&world).1.contains("call 7, the first"), "{}", mode(&world).1);
        assert_eq!(world.spawns(), 1);
        assert_eq!(world.in_slot(SlotIndex(1)), Some(other.clone()), "one after another");
        world.make_ready(SlotIndex(0));
        world.die(&other);
        world.make_ready(SlotIndex(1));
        assert_eq!((world.spawns(), world.plan.slot_reports().count()), (2, 2));
        assert!(world.plan.slot_reports().all(|report| report.state == SlotState::Ready));
    }
}

#[test]
fn a_restart_replaces_replicas_that_were_started_afresh() {
    let mut world = World::with(Settings { start: StartPolicy::Spawn, ..settings(2) });
    world.all_ready();
    let old = [0, 1].map(|k| world.in_slot(SlotIndex(k)).unwrap());
    world.say(Event::Restart);
    for (k, replica) in old.iter().enumerate() {
        world.warm_all();
        world.die(replica);
        world.make_ready(SlotIndex(k as u16));
    }
    assert_eq!(world.spawns(), 2);
    assert_eq!(world.count(|action| matches!(action, crate::plan::Action::SpawnSpare { .. })), 2);
    assert!(world.plan.slot_reports().all(|report| report.state == SlotState::Ready));
}
