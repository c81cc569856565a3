//! The figures of one model and deployment, with every handle resolved when its route is built.

use std::sync::atomic::AtomicU64;

use millgate_contract::{
    frame::Timings,
    ids::SlotIndex,
    route::{ModelRoute, Target},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    codes::{ByCode, CODES, OK},
    replicas::{self, ReplicaSeconds},
    start::{Start, StartSeries, Starts},
};
use crate::{line::Census, slots::usage::Spent};

/// From half a millisecond to half a minute.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    model: String,
    name: String,
    deployment: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
    name: String,
}

/// Seconds of processor time.
pub(super) type CpuSeconds = Counter<f64, AtomicU64>;
type Histograms = Family<ModelLabels, Histogram, fn() -> Histogram>;

/// The families that have a series for each model.
pub(super) struct Families {
    calls: Family<CallLabels, Counter>,
    call_seconds: Histograms,
    wait_seconds: Histograms,
    request_bytes: Family<ModelLabels, Counter>,
    response_bytes: Family<ModelLabels, Counter>,
    cpu_seconds: Family<ModelLabels, CpuSeconds>,
    line_calls: Family<ModelLabels, Gauge>,
    line_bytes: Family<ModelLabels, Gauge>,
    slots: Family<ModelLabels, Gauge>,
    slots_connected: Family<ModelLabels, Gauge>,
    replicas_idle: Family<ModelLabels, Gauge>,
    replicas_busy: Family<ModelLabels, Gauge>,
    replica_seconds: ReplicaSeconds,
    starts: Starts,
}

/// The figures of one model and deployment.
pub(crate) struct ModelMetrics {
    labels: CallLabels,
    calls: Family<CallLabels, Counter>,
    by_code: ByCode,
    pub(crate) call_seconds: Histogram,
    pub(crate) wait_seconds: Histogram,
    pub(crate) request_bytes: Counter,
    pub(crate) response_bytes: Counter,
    cpu_seconds: CpuSeconds,
    line_calls: Gauge,
    line_bytes: Gauge,
    slots_connected: Gauge,
    replicas_idle: Gauge,
    replicas_busy: Gauge,
    replica_seconds: ReplicaSeconds,
    start: StartSeries,
}

impl Families {
    pub(super) fn new() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        Self {
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(seconds),
            wait_seconds: Family::new_with_constructor(seconds),
            request_bytes: Family::default(),
            response_bytes: Family::default(),
            cpu_seconds: Family::default(),
            line_calls: Family::default(),
            line_bytes: Family::default(),
            slots: Family::default(),
            slots_connected: Family::default(),
            replicas_idle: Family::default(),
            replicas_busy: Family::default(),
            replica_seconds: Family::default(),
            starts: Family::default(),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        let bytes = || Unit::Bytes;
        r.register("calls", "Calls by model, deployment and code", self.calls.clone());
        let of_call = "Time from a call's head to its answer";
        r.register_with_unit("call", of_call, Unit::Seconds, self.call_seconds.clone());
        let of_wait = "Time a call that was let in waited for a replica";
        r.register_with_unit("wait", of_wait, Unit::Seconds, self.wait_seconds.clone());
        r.register_with_unit("request", "Bodies of calls", bytes(), self.request_bytes.clone());
        r.register_with_unit("response", "Bodies of good answers", bytes(), self.response_bytes.clone());
        let of_cpu = "Processor time of calls that came to an end, user and system, by their replicas' word";
        r.register_with_unit("cpu", of_cpu, Unit::Seconds, self.cpu_seconds.clone());
        r.register("line_calls", "Calls in line for a replica", self.line_calls.clone());
        r.register_with_unit(
            "line",
            "Bodies of calls in line for a replica",
            bytes(),
            self.line_bytes.clone(),
        );
        r.register("slots", "Replicas there should be", self.slots.clone());
        r.register("slots_connected", "Replicas that are connected", self.slots_connected.clone());
        r.register("replicas_idle", "Connected replicas that nobody calls", self.replicas_idle.clone());
        r.register(
            "replicas_busy",
            "Connected replicas that are leased to a call",
            self.replicas_busy.clone(),
        );
        let of_replicas =
            "What replicas do with their time, by slot, some seconds late and by their own word";
        r.register_with_unit("replica", of_replicas, Unit::Seconds, self.replica_seconds.clone());
        r.register(
            "start_mode_info",
            "How replicas are started, and why not by a fork, or what speaks against it",
            self.starts.clone(),
        );
    }

    /// The figures of a route.
    pub(super) fn of(&self, route: &ModelRoute) -> ModelMetrics {
        let (labels, model) = labels(route);
        let slots = match &route.target {
            Target::Deployment(target) => target.slots,
            Target::Unavailable(_) => 0,
        };
        self.slots.get_or_create_owned(&model).set(slots.into());
        ModelMetrics {
            start: StartSeries::of(&self.starts, &model.model, &model.name),
            labels,
            calls: self.calls.clone(),
            by_code: ByCode::new(),
            call_seconds: self.call_seconds.get_or_create_owned(&model),
            wait_seconds: self.wait_seconds.get_or_create_owned(&model),
            request_bytes: self.request_bytes.get_or_create_owned(&model),
            response_bytes: self.response_bytes.get_or_create_owned(&model),
            cpu_seconds: self.cpu_seconds.get_or_create_owned(&model),
            line_calls: self.line_calls.get_or_create_owned(&model),
            line_bytes: self.line_bytes.get_or_create_owned(&model),
            slots_connected: self.slots_connected.get_or_create_owned(&model),
            replicas_idle: self.replicas_idle.get_or_create_owned(&model),
            replicas_busy: self.replicas_busy.get_or_create_owned(&model),
            replica_seconds: self.replica_seconds.clone(),
        }
    }

    /// Takes out the calls of a deployment that is routed to no more.
    pub(super) fn forget_deployment(&self, route: &ModelRoute) {
        let (mut labels, _) = labels(route);
        for code in CODES {
            labels.code = code;
            self.calls.remove(&labels);
        }
        replicas::forget(&self.replica_seconds, route);
    }

    /// Takes out everything of a model that is gone or renamed.
    pub(super) fn forget_model(&self, route: &ModelRoute) {
        self.forget_deployment(route);
        let (_, model) = labels(route);
        self.call_seconds.remove(&model);
        self.wait_seconds.remove(&model);
        self.request_bytes.remove(&model);
        self.response_bytes.remove(&model);
        self.cpu_seconds.remove(&model);
        let gauges =
            [&self.line_calls, &self.line_bytes, &self.slots, &self.slots_connected, &self.replicas_idle];
        for gauge in gauges.into_iter().chain([&self.replicas_busy]) {
            gauge.remove(&model);
        }
    }
}

impl ModelMetrics {
    /// Counts a call by what it ended with.
    pub(crate) fn count(&self, code: &'static str) {
        self.by_code
            .inc(code, || self.calls.get_or_create_owned(&CallLabels { code, ..self.labels.clone() }));
    }

    /// Counts what a call cost.
    pub(crate) fn charge(&self, cost: &Timings) {
        self.cpu_seconds.inc_by(cpu_seconds(cost));
    }

    /// Counts what replicas have spent their time on.
    pub(crate) fn add_usage(&self, spent: &[(SlotIndex, Spent)]) {
        replicas::add(&self.replica_seconds, (&self.labels.model, &self.labels.name), spent);
    }

    /// What is true just now.
    pub(crate) fn set_state(&self, line: Census, slots_connected: u16, start: Option<&Start>) {
        self.start.show(start);
        let figure = |figure: usize| i64::try_from(figure).unwrap_or(i64::MAX);
        self.line_calls.set(figure(line.calls));
        self.line_bytes.set(figure(line.bytes));
        self.slots_connected.set(slots_connected.into());
        self.replicas_idle.set(figure(line.idle));
        self.replicas_busy.set(figure(usize::from(slots_connected).saturating_sub(line.idle)));
    }
}

pub(super) fn cpu_seconds(cost: &Timings) -> f64 {
    (f64::from(cost.cpu_user_us) + f64::from(cost.cpu_system_us)) / 1e6
}

fn labels(route: &ModelRoute) -> (CallLabels, ModelLabels) {
    let deployment = match &route.target {
        Target::Deployment(target) => target.deployment.as_str().to_owned(),
        Target::Unavailable(_) => String::new(),
    };
    let (model, name) = (route.model.as_str().to_owned(), route.name.clone());
    (
        CallLabels { model: model.clone(), name: name.clone(), deployment, code: OK },
        ModelLabels { model, name },
    )
}
