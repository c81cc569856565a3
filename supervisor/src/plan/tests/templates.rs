//! The life of templates, and restarts.

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    supervision::{Phase, SlotState},
};

use super::world::{START_MS, TemplateState, World};
use crate::plan::{Event, TemplateId};

#[test]
fn an_import_that_fails_is_final_and_keeps_its_reason() {
    let mut world = World::new(2);
    world.say(Event::ImportFailed { template: TemplateId(0), reason: "import: no sklearn".into() });
    assert_eq!(world.plan.deployment_report().phase, Phase::Failed);
    assert_eq!(world.plan.deployment_report().reason, "import: no sklearn");
    assert!(world.plan.slot_reports().all(|report| report.state == SlotState::Failing));
    world.advance(1_000_000);
    assert_eq!(world.templates.len(), 1);
    world.say(Event::Restart);
    world.import();
    world.all_ready();
    assert_eq!(world.plan.deployment_report().phase, Phase::Serving);
}

#[test]
fn a_dead_template_is_followed_by_another_and_the_replicas_serve_on() {
    let mut world = World::serving(2);
    world.templates.insert(TemplateId(0), TemplateState::Gone);
    world.say(Event::TemplateDied { template: TemplateId(0) });
    world.import();
    assert!(world.plan.slot_reports().all(|report| report.state == SlotState::Ready));
    assert_eq!(world.forks(), 2);
    let dead = world.in_slot(SlotIndex(0)).unwrap();
    world.die(&dead);
    assert_eq!(world.forks(), 3);
}

#[test]
fn three_fresh_forks_failing_in_a_row_renew_the_template() {
    let mut world = World::serving(1);
    for _ in 0..4 {
        let replica = world.in_slot(SlotIndex(0)).unwrap();
        world.place(&replica);
        world.die(&replica);
        world.until_forked(SlotIndex(0));
    }
    assert_eq!(world.templates.len(), 2);
    world.import();
    assert_eq!(world.templates[&TemplateId(0)], TemplateState::Gone);
    world.make_ready(SlotIndex(0));
    assert_eq!(world.plan.deployment_report().phase, Phase::Serving);
}

#[test]
fn a_restart_replaces_one_replica_after_another_by_those_of_a_new_template() {
    let mut world = World::serving(3);
    let old: Vec<ReplicaId> = (0..3).map(|k| world.in_slot(SlotIndex(k)).unwrap()).collect();
    world.say(Event::Restart);
    assert!(world.plan.slot_reports().all(|report| report.state == SlotState::Ready));
    world.import();
    for (k, replica) in old.iter().enumerate() {
        assert!(world.plan.slot_reports().all(|report| report.state == SlotState::Ready));
        world.warm_all();
        let serving = world.plan.slot_reports().filter(|report| report.state == SlotState::Ready).count();
        assert_eq!(serving, 2, "one at a time");
        assert_eq!(world.in_slot(SlotIndex(k as u16)).as_ref(), Some(replica));
        world.die(replica);
        world.make_ready(SlotIndex(k as u16));
    }
    assert!(world.plan.slot_reports().all(|report| report.state == SlotState::Ready));
    assert!(world.plan.rolling.is_empty());
}

#[test]
fn a_restart_whose_import_fails_leaves_everything_serving_and_says_why() {
    let mut world = World::serving(2);
    world.say(Event::Restart);
    world.say(Event::ImportFailed { template: TemplateId(1), reason: "import: syntax".into() });
    assert!(world.plan.slot_reports().all(|report| report.state == SlotState::Ready));
    assert_eq!(world.plan.deployment_report().phase, Phase::Serving);
    assert_eq!(world.plan.deployment_report().reason, "import: syntax");
    let dead = world.in_slot(SlotIndex(0)).unwrap();
    world.die(&dead);
    world.make_ready(SlotIndex(0));
    assert_eq!(world.last_reports[&SlotIndex(0)].state, SlotState::Ready);
}

#[test]
fn a_template_that_hangs_in_its_import_is_ended() {
    let mut world = World::new(1);
    world.advance(START_MS);
    assert_eq!(world.templates[&TemplateId(0)], TemplateState::Gone);
    assert_eq!(world.plan.deployment_report().phase, Phase::Failed);
}
