//! The plan against a small world of processes: whatever happens in whatever order, its invariants hold.

use std::collections::BTreeMap;

use millgate_contract::supervision::SlotState;
use proptest::prelude::*;

use super::*;

const GRACE_MS: u64 = 500;
const START_MS: u64 = 10_000;

/// What the outside is like if the plan's actions are carried out faithfully.
#[derive(Debug)]
struct World {
    plan: Plan,
    now_ms: u64,
    templates: BTreeMap<TemplateId, TemplateState>,
    replicas: BTreeMap<ReplicaId, ReplicaState>,
    deaths: BTreeMap<ReplicaId, usize>,
    last_reports: BTreeMap<SlotIndex, SlotReport>,
    log: Vec<Action>,
    is_finished: bool,
    is_stopping: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum TemplateState {
    Importing,
    Imported,
    Gone,
}

#[derive(Debug, Clone, PartialEq)]
struct ReplicaState {
    slot: SlotIndex,
    /// A process exists.
    is_placed: bool,
    /// It has said `Leaving` or `Failed`, or is dead: its listener is closed.
    has_left: bool,
}

impl World {
    fn new(slots: u16) -> Self {
        let settings = Settings { slots, start_timeout_ms: START_MS, kill_grace_ms: GRACE_MS };
        let (plan, actions) = Plan::new(settings, Names::new("m-1-1-b", 1), 0);
        let mut world = Self {
            plan,
            now_ms: 0,
            templates: BTreeMap::new(),
            replicas: BTreeMap::new(),
            deaths: BTreeMap::new(),
            last_reports: BTreeMap::new(),
            log: Vec::new(),
            is_finished: false,
            is_stopping: false,
        };
        world.carry_out(actions);
        world
    }

    /// A deployment that serves.
    fn serving(slots: u16) -> Self {
        let mut world = Self::new(slots);
        world.import();
        world.all_ready();
        assert_eq!(world.plan.deployment_report().phase, Phase::Serving);
        world
    }

    fn say(&mut self, event: Event) {
        let actions = self.plan.handle(self.now_ms, event);
        self.carry_out(actions);
    }

    fn import(&mut self) {
        let importing = self.templates.iter().find(|(_, state)| **state == TemplateState::Importing);
        if let Some((&template, _)) = importing {
            self.templates.insert(template, TemplateState::Imported);
            self.say(Event::Imported { template, import_ms: 5, python: "3.11.7".into() });
        }
    }

    fn all_ready(&mut self) {
        for k in 0..self.plan.slots.len() {
            self.make_ready(SlotIndex(k as u16));
        }
    }

    fn make_ready(&mut self, slot: SlotIndex) {
        if let Some(replica) = self.in_slot(slot) {
            self.place(&replica);
            self.say(Event::Ready { replica, example_response: None });
        }
    }

    fn place(&mut self, replica: &ReplicaId) {
        if let Some(state) = self.replicas.get_mut(replica) {
            state.is_placed = true;
            self.say(Event::Placed { replica: replica.clone(), pid: Some(7) });
        }
    }

    fn in_slot(&self, slot: SlotIndex) -> Option<ReplicaId> {
        self.plan.slots[usize::from(slot.0)].stage.replica().cloned()
    }

    fn die(&mut self, replica: &ReplicaId) {
        if let Some(state) = self.replicas.get_mut(replica).filter(|state| state.is_placed) {
            state.has_left = true;
            let before = self.deaths.get(replica).copied().unwrap_or(0);
            self.say(Event::Died { replica: replica.clone() });
            let after = self.deaths.get(replica).copied().unwrap_or(0);
            assert_eq!(after, before + 1, "a death is reported once, when the kernel tells it");
        }
    }

    fn advance(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        self.say(Event::Due);
    }

    /// Passes the pause before a slot is filled again.
    fn until_forked(&mut self, slot: SlotIndex) {
        while let Stage::Vacant { not_before_ms } = self.plan.slots[usize::from(slot.0)].stage {
            if !self.plan.may_fork() {
                return;
            }
            self.advance(not_before_ms - self.now_ms);
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(!self.is_finished, "nothing follows the end");
            self.log.push(action.clone());
            match action {
                Action::StartTemplate(id) => {
                    assert!(!self.is_stopping);
                    let alive = |state: &&TemplateState| **state != TemplateState::Gone;
                    assert!(self.templates.values().filter(alive).count() < 2, "at most two templates");
                    self.templates.insert(id, TemplateState::Importing);
                }
                Action::EndTemplate(id) => {
                    self.templates.insert(id, TemplateState::Gone);
                }
                Action::Fork { template, slot, replica } => {
                    assert!(!self.is_stopping);
                    assert_eq!(self.templates[&template], TemplateState::Imported);
                    let accepting =
                        self.replicas.values().filter(|one| one.slot == slot && !one.has_left).count();
                    assert_eq!(accepting, 0, "one process at a time may accept in a slot");
                    let state = ReplicaState { slot, is_placed: false, has_left: false };
                    assert!(self.replicas.insert(replica, state).is_none(), "names are never used twice");
                }
                Action::Bury(replica) => {
                    self.replicas.remove(&replica);
                }
                Action::ReportSlot(report) => {
                    if report.state == SlotState::Dead {
                        *self.deaths.entry(report.replica.clone().unwrap()).or_default() += 1;
                    }
                    self.last_reports.insert(report.slot, report);
                }
                Action::Terminate(replica) | Action::Kill(replica) => {
                    assert!(self.replicas.contains_key(&replica), "only the living are signalled");
                }
                Action::Finish => self.is_finished = true,
                Action::ReportDeployment(_) | Action::Note { .. } => {}
            }
        }
        for slot in &self.plan.slots {
            if let Some(last) = self.last_reports.get(&slot.index) {
                assert_eq!(*last, slot.report(), "peers know what the plan knows");
            }
        }
    }

    fn count(&self, wanted: impl Fn(&Action) -> bool) -> usize {
        self.log.iter().filter(|action| wanted(action)).count()
    }

    fn forks(&self) -> usize {
        self.count(|action| matches!(action, Action::Fork { .. }))
    }
}

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

/// One thing that happens, to whichever process the number picks.
#[derive(Debug, Clone)]
enum Move {
    Import,
    ImportFails,
    TemplateDies(u8),
    Place(u8),
    Ready(u8),
    Fail(u8),
    Leave(u8),
    Die(u8),
    Expire(u8),
    Restart,
    Stop,
    Pass(u16),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => Just(Move::Import),
        1 => Just(Move::ImportFails),
        1 => any::<u8>().prop_map(Move::TemplateDies),
        8 => any::<u8>().prop_map(Move::Place),
        8 => any::<u8>().prop_map(Move::Ready),
        2 => any::<u8>().prop_map(Move::Fail),
        3 => any::<u8>().prop_map(Move::Leave),
        4 => any::<u8>().prop_map(Move::Die),
        2 => any::<u8>().prop_map(Move::Expire),
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
            | Move::Fail(number)
            | Move::Leave(number)
            | Move::Die(number)
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
            Move::Fail(_) => self.say(Event::Failed { replica: replica.clone(), reason: "setup: x".into() }),
            Move::Leave(_) if state.is_placed => {
                let slot = &self.plan.slots[usize::from(state.slot.0)].stage;
                // One that is not ready has no listener to leave.
                if matches!(slot, Stage::Ready { .. } | Stage::Ending { .. }) {
                    self.replicas.get_mut(replica).unwrap().has_left = true;
                }
                self.say(Event::Leaving { replica: replica.clone(), reason: "exception".into() });
            }
            Move::Expire(_) => {
                let event = Event::Expired { slot: state.slot, replica: replica.clone(), call: CallId(1) };
                self.say(event);
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_invariants_hold(
        slots in 1_u16..4,
        all in proptest::collection::vec(moves(), 0..120),
    ) {
        let mut world = World::new(slots);
        for one in all {
            world.make(one);
            if let Some(at_ms) = world.plan.deadline_ms() {
                prop_assert!(at_ms > world.now_ms, "what is due is done");
            }
        }
    }

    #[test]
    fn after_any_trouble_a_build_that_can_start_serves_again(
        all in proptest::collection::vec(moves().prop_filter("goes on", |one| !matches!(one, Move::Stop)), 0..60),
    ) {
        let mut world = World::serving(2);
        for one in all {
            world.make(one);
        }
        for _ in 0..20 {
            let replicas: Vec<ReplicaId> = world.replicas.keys().cloned().collect();
            for replica in replicas {
                let is_ending = world.plan.find(&replica).is_none_or(|k| {
                    matches!(world.plan.slots[k].stage, Stage::Ending { .. })
                });
                if is_ending {
                    world.die(&replica);
                }
            }
            world.advance(limits::PAUSE_MS_MAX);
            world.import();
            world.all_ready();
        }
        prop_assert!(world.plan.slot_reports().all(|report| report.state == SlotState::Ready));
    }
}
