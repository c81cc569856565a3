//! A small world that does what the steps say, random things happening in between, and laws that hold after each step.

use millgate_contract::ids::{DeploymentId, ModelId};
use proptest::prelude::*;

use crate::{
    reconcile::decide::{DeploymentView, ModelView, Reach, Step, UnitView, World, decide},
    rows::{BuildStatus, DeploymentStatus},
};

/// What happens from outside.
#[derive(Debug, Clone)]
enum Event {
    Deploy,
    BuildIsSealed {
        nth: usize,
    },
    BuildEnds {
        nth: usize,
        is_good: bool,
    },
    UnitStarts {
        nth: usize,
        is_good: bool,
    },
    UnitDies {
        nth: usize,
    },
    Stop {
        nth: usize,
    },
    /// Gateways take the newest snapshot.
    GatewaysFollow,
    /// The reconciler does the first `steps` of what it decided, and is then killed.
    Reconcile {
        steps: usize,
    },
}

#[derive(Debug, Clone)]
struct Deployment {
    status: DeploymentStatus,
    is_stop_requested: bool,
    build: BuildStatus,
    unit: UnitView,
    waits: String,
}

/// One model; deployments by number.
#[derive(Debug, Clone, Default)]
struct Sim {
    deployments: Vec<Deployment>,
    /// Where the store says that calls go.
    routed: Option<usize>,
    /// Where gateways send calls.
    followed: Option<usize>,
    /// A deployment that served and was neither wished away nor broken since.
    serving: Option<usize>,
}

/// Of the deployments that hold memory at once, the most that there is room for: one that serves and one that begins.
const ROOM: i64 = 2;

fn id(n: usize) -> DeploymentId {
    DeploymentId::new(format!("d{n}"))
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}

fn index(id: &DeploymentId) -> usize {
    id.as_str()[1..].parse().unwrap()
}

impl Sim {
    fn world(&self) -> World {
        let model = ModelId::new("m");
        let reach = |n| match (self.routed == Some(n), self.followed == Some(n)) {
            (true, true) => Reach::Everywhere,
            (false, false) if self.routed == self.followed => Reach::Nowhere,
            _ => Reach::Underway,
        };
        World {
            models: vec![ModelView {
                id: model.clone(),
                routed: self.routed.map_or(String::new(), |n| id(n).to_string()),
                is_deleting: false,
            }],
            deployments: (0..self.deployments.len())
                .filter(|n| !self.deployments[*n].status.is_over())
                .map(|n| {
                    let d = &self.deployments[n];
                    DeploymentView {
                        id: id(n),
                        number: number(n),
                        model: model.clone(),
                        status: d.status,
                        is_stop_requested: d.is_stop_requested,
                        build: d.build,
                        unit: d.unit.clone(),
                        reach: reach(n),
                        memory_mb: 1,
                        lacks: None,
                        waits: d.waits.clone(),
                    }
                })
                .collect(),
            units: (0..self.deployments.len())
                .filter(|n| self.deployments[*n].unit != UnitView::Absent)
                .map(number)
                .collect(),
            memory_mb: ROOM,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Move { deployment, from, to, .. } => {
                let n = index(deployment);
                if self.deployments[n].status == *from {
                    self.deployments[n].status = *to;
                    if *to == DeploymentStatus::Deployed {
                        self.serving = Some(n);
                    }
                }
            }
            Step::Wait { deployment, reason } => {
                self.deployments[index(deployment)].waits.clone_from(reason);
            }
            Step::Launch { deployment } => {
                let unit = &mut self.deployments[index(deployment)].unit;
                if *unit == UnitView::Absent {
                    *unit = UnitView::Starting;
                }
            }
            Step::Route { from, to, .. } => {
                if self.routed.map_or(String::new(), |n| id(n).to_string()) == *from {
                    let to = index(to);
                    assert_eq!(self.deployments[to].unit, UnitView::Ready, "routed before it was ready");
                    assert_eq!(self.deployments[to].build, BuildStatus::Built, "routed before it was built");
                    self.routed = Some(to);
                    for d in self.deployments[..to].iter_mut().filter(|d| !d.status.is_over()) {
                        d.is_stop_requested = true;
                    }
                }
            }
            Step::Unroute { from, .. } => {
                if self.routed == Some(index(from)) {
                    self.routed = None;
                }
            }
            Step::Stop { number } => {
                let n = usize::try_from(*number).unwrap();
                assert_ne!(self.followed, Some(n), "stopped while gateways send calls to it");
                assert_ne!(self.routed, Some(n), "stopped while it is routed");
                self.deployments[n].unit = UnitView::Absent;
            }
            Step::Purge { .. } => panic!("the model is not being deleted"),
        }
    }

    fn happen(&mut self, event: &Event) {
        let pick = |nth: usize, count: usize| (count > 0).then(|| nth % count);
        let count = self.deployments.len();
        match event {
            Event::Deploy => self.deployments.push(Deployment {
                status: DeploymentStatus::Pending,
                is_stop_requested: false,
                build: BuildStatus::Queued,
                unit: UnitView::Absent,
                waits: String::new(),
            }),
            Event::BuildIsSealed { nth } => {
                if let Some(n) = pick(*nth, count)
                    && self.deployments[n].build == BuildStatus::Queued
                {
                    self.deployments[n].build = BuildStatus::Pushing;
                }
            }
            Event::BuildEnds { nth, is_good } => {
                if let Some(n) = pick(*nth, count)
                    && matches!(self.deployments[n].build, BuildStatus::Queued | BuildStatus::Pushing)
                {
                    self.deployments[n].build =
                        if *is_good { BuildStatus::Built } else { BuildStatus::Failed };
                }
            }
            Event::UnitStarts { nth, is_good } => {
                if let Some(n) = pick(*nth, count)
                    && self.deployments[n].unit == UnitView::Starting
                {
                    self.deployments[n].unit =
                        if *is_good { UnitView::Ready } else { UnitView::Failed("import".into()) };
                    if !is_good && self.is_called(n) {
                        self.serving = None;
                    }
                }
            }
            Event::UnitDies { nth } => {
                if let Some(n) = pick(*nth, count) {
                    self.deployments[n].unit = UnitView::Absent;
                }
            }
            Event::Stop { nth } => {
                if let Some(n) = pick(*nth, count) {
                    self.deployments[n].is_stop_requested = true;
                    if self.is_called(n) {
                        self.serving = None;
                    }
                }
            }
            Event::GatewaysFollow => self.followed = self.routed,
            Event::Reconcile { steps } => {
                for step in decide(&self.world()).iter().take(*steps) {
                    self.take(step);
                    self.check();
                }
            }
        }
        self.check();
    }

    /// It serves, or has taken over from what did.
    fn is_called(&self, n: usize) -> bool {
        self.serving == Some(n) || self.routed == Some(n)
    }

    /// What holds at every moment.
    fn check(&self) {
        use DeploymentStatus::{Deployed, Deploying, Stopping};
        if let Some(n) = self.serving {
            // Calls go to what served, or to something newer that has been ready since.
            assert!(self.routed.is_some_and(|r| r >= n), "a gap: {n} served, calls go to {:?}", self.routed);
        }
        let holding = self.deployments.iter().filter(|d| matches!(d.status, Deploying | Deployed | Stopping));
        assert!(number(holding.count()) <= ROOM, "more memory is given out than there is: {self:?}");
        let serving = self
            .deployments
            .iter()
            .filter(|d| d.status == Deployed && !d.is_stop_requested && d.unit == UnitView::Ready);
        assert!(serving.count() <= 1, "two deployments serve, and neither is on its way out");
    }

    /// Everything that can happen by itself happens, until nothing changes.
    fn settle(&mut self) {
        for _ in 0..200 {
            let before = format!("{self:?}");
            for n in 0..self.deployments.len() {
                self.happen(&Event::BuildEnds { nth: n, is_good: true });
                self.happen(&Event::UnitStarts { nth: n, is_good: true });
            }
            self.happen(&Event::GatewaysFollow);
            self.happen(&Event::Reconcile { steps: usize::MAX });
            if format!("{self:?}") == before {
                return;
            }
        }
        panic!("it never settles: {self:?}");
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Deploy),
        3 => (0..6_usize).prop_map(|nth| Event::BuildIsSealed { nth }),
        3 => (0..6_usize, prop::bool::weighted(0.8))
            .prop_map(|(nth, is_good)| Event::BuildEnds { nth, is_good }),
        3 => (0..6_usize, prop::bool::weighted(0.8))
            .prop_map(|(nth, is_good)| Event::UnitStarts { nth, is_good }),
        1 => (0..6_usize).prop_map(|nth| Event::UnitDies { nth }),
        1 => (0..6_usize).prop_map(|nth| Event::Stop { nth }),
        3 => Just(Event::GatewaysFollow),
        8 => (0..4_usize).prop_map(|steps| Event::Reconcile { steps }),
    ]
}

#[test]
fn a_deployment_that_failed_died_and_came_back_gets_its_calls_again() {
    let all = usize::MAX;
    let mut sim = Sim::default();
    for event in [
        Event::Deploy,
        Event::BuildEnds { nth: 0, is_good: true },
        Event::Reconcile { steps: all },
        Event::Reconcile { steps: all },
        Event::UnitStarts { nth: 0, is_good: true },
        Event::Reconcile { steps: all },
        Event::GatewaysFollow,
        Event::Reconcile { steps: all },
        Event::UnitDies { nth: 0 },
        Event::Reconcile { steps: all },
        Event::UnitStarts { nth: 0, is_good: false },
        Event::Reconcile { steps: 1 },
        Event::UnitDies { nth: 0 },
    ] {
        sim.happen(&event);
    }
    assert_eq!((sim.routed, sim.deployments[0].status), (None, DeploymentStatus::Deployed));
    sim.settle();
    assert_eq!((sim.routed, sim.deployments[0].status), (Some(0), DeploymentStatus::Deployed));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_leaves_a_gap_or_stops_what_is_called(events in prop::collection::vec(event(), 0..80)) {
        let mut sim = Sim::default();
        for event in &events {
            sim.happen(event);
        }
    }

    #[test]
    fn every_history_ends_with_the_latest_wanted_deployment_serving_alone(
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut sim = Sim::default();
        for event in &events {
            sim.happen(event);
        }
        sim.settle();
        for (n, d) in sim.deployments.iter().enumerate() {
            let is_serving = sim.routed == Some(n);
            let expected = if is_serving { UnitView::Ready } else { UnitView::Absent };
            prop_assert_eq!(&d.unit, &expected, "deployment {} of {:?}", n, sim);
            let is_right = if is_serving { d.status == DeploymentStatus::Deployed } else { d.status.is_over() };
            prop_assert!(is_right, "deployment {} is {:?} in {:?}", n, d.status, sim);
        }
    }

    #[test]
    fn deciding_twice_and_doing_it_twice_is_doing_it_once(events in prop::collection::vec(event(), 0..60)) {
        let mut once = Sim::default();
        for event in &events {
            once.happen(event);
        }
        let mut twice = once.clone();
        let steps = decide(&once.world());
        prop_assert_eq!(&steps, &decide(&once.world()));
        for step in &steps {
            once.take(step);
            twice.take(step);
            twice.take(step);
        }
        prop_assert_eq!(format!("{once:?}"), format!("{twice:?}"));
    }
}
