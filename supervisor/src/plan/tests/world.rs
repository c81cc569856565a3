//! What the outside is like: processes that do what the plan says, and checks that must hold at every step.

use std::collections::BTreeMap;

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    spec::StartPolicy,
    supervision::{Phase, SlotReport, SlotState},
};

use crate::{
    names::Names,
    plan::{Action, Event, Import, Plan, Settings, TemplateId},
    slot::Stage,
};

pub(super) const GRACE_MS: u64 = 500;
pub(super) const START_MS: u64 = 10_000;

pub(super) fn settings(slots: u16) -> Settings {
    Settings {
        slots,
        start_timeout_ms: START_MS,
        kill_grace_ms: GRACE_MS,
        start: StartPolicy::Fork,
        has_example: false,
        age_ms_max: None,
        memory_bytes_max: None,
        spares: 0,
    }
}

/// What the outside is like if the plan's actions are carried out faithfully.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now_ms: u64,
    pub(super) templates: BTreeMap<TemplateId, TemplateState>,
    pub(super) replicas: BTreeMap<ReplicaId, ReplicaState>,
    deaths: BTreeMap<ReplicaId, usize>,
    pub(super) last_reports: BTreeMap<SlotIndex, SlotReport>,
    pub(super) log: Vec<Action>,
    pub(super) is_finished: bool,
    pub(super) is_stopping: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TemplateState {
    Importing,
    Imported,
    Gone,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReplicaState {
    /// None for a spare.
    pub(super) slot: Option<SlotIndex>,
    /// A process exists.
    pub(super) is_placed: bool,
    /// It has said `Leaving` or `Failed`, or is dead: its listener is closed.
    pub(super) has_left: bool,
}

impl World {
    /// A deployment whose model insists on forking.
    pub(super) fn new(slots: u16) -> Self {
        Self::with(settings(slots))
    }

    pub(super) fn with(settings: Settings) -> Self {
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
    pub(super) fn serving(slots: u16) -> Self {
        Self::serving_with(settings(slots))
    }

    pub(super) fn serving_with(settings: Settings) -> Self {
        let mut world = Self::with(settings);
        world.import();
        world.all_ready();
        assert_eq!(world.plan.deployment_report().phase, Phase::Serving);
        world
    }

    pub(super) fn say(&mut self, event: Event) {
        let actions = self.plan.handle(self.now_ms, event);
        self.carry_out(actions);
    }

    pub(super) fn import(&mut self) {
        self.import_with(None);
    }

    /// An import after which this was seen of the template.
    pub(super) fn import_with(&mut self, hazard: Option<&str>) {
        let importing = self.templates.iter().find(|(_, state)| **state == TemplateState::Importing);
        if let Some((&template, _)) = importing {
            self.templates.insert(template, TemplateState::Imported);
            let hazard = hazard.map(str::to_owned);
            let import = Import { took_ms: 5, python: "3.11.7".into(), hazard };
            self.say(Event::Imported { template, import });
        }
    }

    pub(super) fn all_ready(&mut self) {
        for k in 0..self.plan.slots.len() {
            self.make_ready(SlotIndex(k as u16));
        }
    }

    pub(super) fn make_ready(&mut self, slot: SlotIndex) {
        if let Some(replica) = self.in_slot(slot) {
            self.place(&replica);
            self.say(Event::Ready { replica, example_response: None });
        }
    }

    pub(super) fn place(&mut self, replica: &ReplicaId) {
        if let Some(state) = self.replicas.get_mut(replica) {
            state.is_placed = true;
            self.say(Event::Placed { replica: replica.clone(), pid: Some(7) });
        }
    }

    pub(super) fn in_slot(&self, slot: SlotIndex) -> Option<ReplicaId> {
        self.plan.slots[usize::from(slot.0)].stage.replica().cloned()
    }

    pub(super) fn die(&mut self, replica: &ReplicaId) {
        if let Some(state) = self.replicas.get_mut(replica).filter(|state| state.is_placed) {
            state.has_left = true;
            let is_in_slot = state.slot.is_some();
            let before = self.deaths.get(replica).copied().unwrap_or(0);
            self.say(Event::Died { replica: replica.clone() });
            let after = self.deaths.get(replica).copied().unwrap_or(0);
            assert_eq!(
                after,
                before + usize::from(is_in_slot),
                "a death is reported once, when the kernel tells it"
            );
        }
    }

    pub(super) fn advance(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        self.say(Event::Due);
    }

    /// Passes the pause before a slot is filled again.
    pub(super) fn until_forked(&mut self, slot: SlotIndex) {
        while let Stage::Vacant { not_before_ms } = self.plan.slots[usize::from(slot.0)].stage {
            if !self.plan.may_fork() {
                return;
            }
            self.advance(not_before_ms - self.now_ms);
        }
    }

    pub(super) fn carry_out(&mut self, actions: Vec<Action>) {
        let mut spawned = Vec::new();
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
                    assert_eq!(self.templates[&template], TemplateState::Imported);
                    self.bear(Some(slot), replica, false);
                }
                Action::ForkSpare { template, replica } => {
                    assert_eq!(self.templates[&template], TemplateState::Imported);
                    self.bear(None, replica, false);
                }
                Action::Serve { slot, replica } => {
                    self.assert_free(slot);
                    let state = self.replicas.get_mut(&replica).unwrap();
                    assert!(state.is_placed && state.slot.is_none(), "a spare takes over");
                    state.slot = Some(slot);
                }
                Action::Spawn { slot, replica } => {
                    let living = self.templates.values().any(|state| *state != TemplateState::Gone);
                    assert!(!living, "no template is kept for nothing");
                    self.bear(Some(slot), replica.clone(), true);
                    spawned.push(replica);
                }
                Action::SpawnSpare { replica } => {
                    let living = self.templates.values().any(|state| *state != TemplateState::Gone);
                    assert!(!living, "no template is kept for nothing");
                    self.bear(None, replica.clone(), true);
                    spawned.push(replica);
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
        for replica in spawned {
            self.say(Event::Placed { replica, pid: Some(8) });
        }
        for slot in &self.plan.slots {
            if let Some(last) = self.last_reports.get(&slot.index) {
                assert_eq!(*last, slot.report(), "peers know what the plan knows");
            }
        }
    }

    fn bear(&mut self, slot: Option<SlotIndex>, replica: ReplicaId, is_placed: bool) {
        assert!(!self.is_stopping);
        if let Some(slot) = slot {
            self.assert_free(slot);
        }
        let state = ReplicaState { slot, is_placed, has_left: false };
        assert!(self.replicas.insert(replica, state).is_none(), "names are never used twice");
    }

    fn assert_free(&self, slot: SlotIndex) {
        let is_in = |one: &&ReplicaState| one.slot == Some(slot) && !one.has_left;
        assert_eq!(
            self.replicas.values().filter(is_in).count(),
            0,
            "one process at a time may accept in a slot"
        );
    }

    /// The replicas that have no slot.
    pub(super) fn spares(&self) -> Vec<ReplicaId> {
        let spares = self.replicas.iter().filter(|(_, state)| state.slot.is_none());
        spares.map(|(replica, _)| replica.clone()).collect()
    }

    pub(super) fn warm_all(&mut self) {
        for replica in self.spares() {
            self.place(&replica);
            self.say(Event::Warm { replica });
        }
    }

    pub(super) fn count(&self, wanted: impl Fn(&Action) -> bool) -> usize {
        self.log.iter().filter(|action| wanted(action)).count()
    }

    pub(super) fn spawns(&self) -> usize {
        self.count(|action| matches!(action, Action::Spawn { .. }))
    }

    pub(super) fn forks(&self) -> usize {
        self.count(|action| matches!(action, Action::Fork { .. }))
    }
}
