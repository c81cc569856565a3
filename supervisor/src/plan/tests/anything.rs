//! Whatever happens, in any order.

use millgate_contract::{
    ids::{CallId, ReplicaId, SlotIndex},
    spec::StartPolicy,
    supervision::SlotState,
};
use proptest::prelude::*;

use super::world::{TemplateState, World, settings};
use crate::{
    limits,
    plan::{Event, Settings, TemplateId},
    slot::Stage,
};

/// One thing that happens, to whichever process the number picks.
#[derive(Debug, Clone)]
enum Move {
    Import,
    ImportWithHazard,
    ImportFails,
    TemplateDies(u8),
    Place(u8),
    Ready(u8),
    Warm(u8),
    Fail(u8),
    Leave(u8),
    Die(u8),
    Expire(u8),
    Answer(u8),
    Grow(u8),
    Restart,
    Stop,
    Pass(u16),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => Just(Move::Import),
        1 => Just(Move::ImportWithHazard),
        1 => Just(Move::ImportFails),
        1 => any::<u8>().prop_map(Move::TemplateDies),
        8 => any::<u8>().prop_map(Move::Place),
        8 => any::<u8>().prop_map(Move::Ready),
        4 => any::<u8>().prop_map(Move::Warm),
        2 => any::<u8>().prop_map(Move::Fail),
        3 => any::<u8>().prop_map(Move::Leave),
        4 => any::<u8>().prop_map(Move::Die),
        2 => any::<u8>().prop_map(Move::Expire),
        1 => any::<u8>().prop_map(Move::Answer),
        1 => any::<u8>().prop_map(Move::Grow),
        1 => Just(Move::Restart),
        1 => Just(Move::Stop),
        4 => any::<u16>().prop_map(Move::Pass),
    ]
}

impl World {
    fn pick(&self, number: u8) -> Option<ReplicaId> {
        let count = self.replicas.len();
        (count > 0).then(|| self.replicas.keys().nth(usize::from(number) % count).cloned()).flatten()
    }

    fn make(&mut self, one: Move) {
        if self.is_finished {
            return;
        }
        match one {
            Move::Import => self.import(),
            Move::ImportWithHazard => self.import_with(Some("a connection is open")),
            Move::ImportFails => {
                let importing = self.templates.iter().find(|(_, state)| **state == TemplateState::Importing);
                if let Some((&template, _)) = importing {
                    self.say(Event::ImportFailed { template, reason: "import: x".into() });
                }
            }
            Move::TemplateDies(number) => {
                let living: Vec<TemplateId> = self
                    .templates
                    .iter()
                    .filter(|(_, state)| **state != TemplateState::Gone)
                    .map(|(id, _)| *id)
                    .collect();
                if let Some(&template) = living.get(usize::from(number) % living.len().max(1)) {
                    self.templates.insert(template, TemplateState::Gone);
                    self.say(Event::TemplateDied { template });
                }
            }
            Move::Restart => self.say(Event::Restart),
            Move::Stop => {
                self.is_stopping = true;
                self.say(Event::Stop { grace_ms: 2_000 });
            }
            Move::Pass(ms) => self.advance(u64::from(ms)),
            Move::Place(number)
            | Move::Ready(number)
            | Move::Warm(number)
            | Move::Fail(number)
            | Move::Leave(number)
            | Move::Die(number)
            | Move::Answer(number)
            | Move::Grow(number)
            | Move::Expire(number) => {
                if let Some(replica) = self.pick(number) {
                    self.make_one(&one, &replica);
                }
            }
        }
    }

    fn make_one(&mut self, one: &Move, replica: &ReplicaId) {
        let state = self.replicas[replica].clone();
        match one {
            Move::Place(_) if !state.is_placed => self.place(replica),
            Move::Die(_) => self.die(replica),
            Move::Ready(_) if state.is_placed => {
                self.say(Event::Ready { replica: replica.clone(), example_response: Some("1".into()) });
            }
            Move::Warm(_) if state.is_placed => self.say(Event::Warm { replica: replica.clone() }),
            Move::Fail(_) => self.say(Event::Failed { replica: replica.clone(), reason: "setup: x".into() }),
            Move::Leave(_) if state.is_placed => {
                let stage = state.slot.map(|slot| &self.plan.slots[usize::from(slot.0)].stage);
                // One that is not ready has no listener to leave.
                if matches!(stage, Some(Stage::Ready { .. } | Stage::Ending { .. })) {
                    self.replicas.get_mut(replica).unwrap().has_left = true;
                }
                self.say(Event::Leaving { replica: replica.clone(), reason: "exception".into() });
            }
            Move::Answer(_) => self.say(Event::Answered { replica: replica.clone() }),
            Move::Grow(_) => self.say(Event::Memory { replica: replica.clone(), bytes: 2_000 }),
            Move::Expire(_) => {
                let slot = state.slot.unwrap_or(SlotIndex(0));
                let event = Event::Expired { slot, replica: replica.clone(), call: CallId(1) };
                self.say(event);
            }
            _ => {}
        }
    }
}

fn policies() -> impl Strategy<Value = Settings> {
    let start = prop_oneof![Just(StartPolicy::Auto), Just(StartPolicy::Fork), Just(StartPolicy::Spawn)];
    let figures = (1_u16..4, 0_u16..3);
    (start, any::<bool>(), any::<bool>(), figures).prop_map(|(start, has_example, is_recycled, figures)| {
        let (slots, spares) = figures;
        Settings {
            start,
            spares,
            has_example,
            age_ms_max: is_recycled.then_some(20_000),
            memory_bytes_max: is_recycled.then_some(1_000),
            ..settings(slots)
        }
    })
}

proptest! {
    #[test]
    fn whatever_happens_the_invariants_hold(
        policy in policies(),
        all in proptest::collection::vec(moves(), 0..120),
    ) {
        let mut world = World::with(policy);
        for one in all {
            world.make(one);
            if let Some(at_ms) = world.plan.deadline_ms() {
                prop_assert!(at_ms > world.now_ms, "what is due is done");
            }
        }
    }

    #[test]
    fn after_any_trouble_a_build_that_can_start_serves_again(
        policy in policies(),
        all in proptest::collection::vec(moves().prop_filter("goes on", |one| !matches!(one, Move::Stop)), 0..60),
    ) {
        // A recycling may be due at any moment, the last one included.
        let policy = Settings { age_ms_max: None, memory_bytes_max: None, ..policy };
        let mut world = World::serving_with(policy);
        for one in all {
            world.make(one);
        }
        for _ in 0..20 {
            let replicas: Vec<ReplicaId> = world.replicas.keys().cloned().collect();
            for replica in replicas {
                let is_ending = world.plan.find(&replica).is_none_or(|k| {
                    matches!(world.plan.slots[k].stage, Stage::Ending { .. })
                });
                world.place(&replica);
                if is_ending {
                    world.die(&replica);
                }
            }
            world.advance(limits::PAUSE_MS_MAX);
            world.import();
            world.all_ready();
            world.warm_all();
        }
        prop_assert!(world.plan.rolling.is_empty(), "a restart comes to its end");
        prop_assert!(world.spares().len() <= usize::from(world.plan.settings.spares), "nobody is kept for nothing");
        prop_assert!(world.plan.slot_reports().all(|report| report.state == SlotState::Ready));
    }
}
