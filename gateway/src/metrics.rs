//! Every figure the gateway publishes, declared here and in `metrics/` and nowhere else. Handles are resolved when a
//! route is built or a key is verified; series of models and keys that are gone are taken out with them. Labels come
//! from the route table, the table of refusals and the bounded set of keys, never from a caller.

mod codes;
mod edges;
mod keys;
mod model;
mod process;
mod replicas;
mod start;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use millgate_contract::route::ModelRoute;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::{rates, spans::SpanCounts};
use codes::ByCode;
pub(crate) use codes::{CALLER_GONE, OK};
pub(crate) use edges::{ConnectionRefused, Edges};
pub(crate) use keys::{KeyCalls, KeySeries};
use model::Families;
pub(crate) use model::ModelMetrics;
use process::Process;
pub(crate) use start::Start;

/// The rates a call can be over.
const RATES: [&str; 3] = [rates::KEY, rates::MODEL, rates::AUTHENTICATION];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RateLabels {
    rate: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

/// Where a gateway is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has no routes yet.
    Starting,
    Serving,
    /// It ends; calls that run are answered.
    Draining,
    /// Another process accepts at its address; it answers what is kept alive once more.
    HandedOver,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Starting, Self::Serving, Self::Draining, Self::HandedOver];

    fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::HandedOver => "handed_over",
        }
    }
}

/// The registries and what is counted here and there.
pub(crate) struct Metrics {
    own: Registry,
    process: Registry,
    models: Families,
    unrouted: Family<CodeLabels, Counter>,
    unrouted_by_code: ByCode,
    over_rate: Family<RateLabels, Counter>,
    over_rate_by_name: [(&'static str, Counter); 3],
    phases: Family<PhaseLabels, Gauge>,
    snapshot_age: Gauge<f64, AtomicU64>,
    /// When the snapshot in use was taken into use or last known to be good, in Unix milliseconds; 0 without one.
    snapshot_ms: AtomicU64,
    pub(crate) keys: Arc<KeySeries>,
    pub(crate) retries: Counter,
    pub(crate) connections: Gauge,
    pub(crate) edges: Arc<Edges>,
    pub(crate) generation: Gauge<u64, AtomicU64>,
    pub(crate) snapshots_rejected: Counter,
    pub(crate) snapshot_unsaved: Gauge,
    pub(crate) control_connected: Gauge,
    pub(crate) call_events_lost: Counter,
    pub(crate) spans: SpanCounts,
    damaged_builds: Gauge<u64, AtomicU64>,
    damaged_builds_counted: Option<Arc<AtomicU64>>,
}

/// The figures of a spool, which is there before the gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpoolMetrics {
    pub(crate) bytes: Gauge<u64, AtomicU64>,
    pub(crate) bytes_max: Gauge<u64, AtomicU64>,
    pub(crate) is_failing: Gauge<u64, AtomicU64>,
    pub(crate) refused_calls: Counter,
    pub(crate) failed_calls: Counter,
    pub(crate) shipped_bytes: Counter,
    pub(crate) unreadable_bytes: Counter,
}

impl Metrics {
    /// `key_series_max`: how many API keys have a series of their own.
    pub(crate) fn new(key_series_max: usize) -> Self {
        let over_rate = Family::<RateLabels, Counter>::default();
        let mut metrics = Self {
            own: Registry::with_prefix("millgate"),
            process: Registry::with_prefix("process"),
            models: Families::new(),
            unrouted: Family::default(),
            unrouted_by_code: ByCode::new(),
            over_rate_by_name: RATES.map(|rate| (rate, over_rate.get_or_create_owned(&RateLabels { rate }))),
            over_rate,
            phases: Family::default(),
            snapshot_age: Gauge::default(),
            snapshot_ms: AtomicU64::new(0),
            keys: Arc::new(KeySeries::new(key_series_max)),
            retries: Counter::default(),
            connections: Gauge::default(),
            edges: Arc::default(),
            generation: Gauge::default(),
            snapshots_rejected: Counter::default(),
            snapshot_unsaved: Gauge::default(),
            control_connected: Gauge::default(),
            call_events_lost: Counter::default(),
            spans: SpanCounts::default(),
            damaged_builds: Gauge::default(),
            damaged_builds_counted: None,
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.own;
        self.models.register(r);
        let unrouted = "Calls refused before their model was known, by code";
        r.register("unrouted_calls", unrouted, self.unrouted.clone());
        self.keys.register(r);
        r.register("rate_refusals", "Calls over a rate, by whose", self.over_rate.clone());
        r.register("retries", "Tries that are proven not to have started a call", self.retries.clone());
        r.register("connections", "Connections of callers", self.connections.clone());
        self.edges.register(r);
        r.register("phase", "Where the gateway is in its life: one of these is 1", self.phases.clone());
        r.register("route_generation", "Generation of the route snapshot in use", self.generation.clone());
        let age = "Time since the route snapshot in use came; of one from disk, since it was kept";
        r.register_with_unit("route_snapshot_age", age, Unit::Seconds, self.snapshot_age.clone());
        let rejected = "Route snapshots that were refused";
        r.register("route_snapshots_rejected", rejected, self.snapshots_rejected.clone());
        let unsaved = "1 while the route snapshot in use is not on disk because it could not be written";
        r.register("route_snapshot_unsaved", unsaved, self.snapshot_unsaved.clone());
        let connected = "1 while the control API is connected";
        r.register("control_connected", connected, self.control_connected.clone());
        let lost = "Events of calls that could not be kept";
        r.register("call_events_lost", lost, self.call_events_lost.clone());
        let exported = "Calls whose spans were sent";
        r.register("spans_exported_calls", exported, self.spans.exported.clone());
        let lost = "Calls whose spans could not be sent";
        r.register("spans_lost_calls", lost, self.spans.lost.clone());
        self.process.register_collector(Box::new(Process));
    }

    /// Puts the figures of a spool on the page.
    pub(crate) fn register_spool(&mut self, spool: &SpoolMetrics) {
        let r = self.own.sub_registry_with_prefix("spool");
        r.register("bytes", "Bytes of tracked metrics on the spool", spool.bytes.clone());
        r.register("bytes_max", "Bytes that the spool may hold", spool.bytes_max.clone());
        r.register("failing", "1 while the spool cannot be written to", spool.is_failing.clone());
        let refused = "Calls refused because the spool had no room";
        r.register("refused_calls", refused, spool.refused_calls.clone());
        let failed = "Calls that ran and whose metrics could not be written";
        r.register("failed_calls", failed, spool.failed_calls.clone());
        let shipped = "Bytes of tracked metrics that the control API has kept";
        r.register("shipped_bytes", shipped, spool.shipped_bytes.clone());
        let unreadable = "Bytes found on the spool that are no record";
        r.register("unreadable_bytes", unreadable, spool.unreadable_bytes.clone());
    }

    /// Puts what the control API counts on the page.
    pub(crate) fn register_damaged_builds(&mut self, damaged: Arc<AtomicU64>) {
        let r = &mut self.own;
        r.register(
            "damaged_builds",
            "Builds whose files are not what was sealed",
            self.damaged_builds.clone(),
        );
        self.damaged_builds_counted = Some(damaged);
    }

    /// The figures of a route.
    pub(crate) fn of(&self, route: &ModelRoute) -> ModelMetrics {
        self.models.of(route)
    }

    /// Takes out the calls of a deployment that is routed to no more.
    pub(crate) fn forget_deployment(&self, route: &ModelRoute) {
        self.models.forget_deployment(route);
    }

    /// Takes out everything of a model that is gone or renamed.
    pub(crate) fn forget_model(&self, route: &ModelRoute) {
        self.models.forget_model(route);
    }

    /// Counts a call whose model is not known.
    pub(crate) fn count_unrouted(&self, code: &'static str) {
        self.unrouted_by_code.inc(code, || self.unrouted.get_or_create_owned(&CodeLabels { code }));
    }

    /// Counts a call that was over the rate of this name.
    pub(crate) fn count_over_rate(&self, rate: &'static str) {
        for (_, calls) in self.over_rate_by_name.iter().filter(|(name, _)| *name == rate) {
            calls.inc();
        }
    }

    /// A snapshot is routed by that came, or was kept, at this time.
    pub(crate) fn routed(&self, generation: u64, came: SystemTime) {
        self.generation.set(generation);
        self.snapshot_ms.store(unix_ms(came), Ordering::Relaxed);
    }

    /// The page.
    pub(crate) fn page(&self, phase: Phase) -> String {
        for each in Phase::ALL {
            let is = PhaseLabels { phase: each.name() };
            self.phases.get_or_create(&is).set(i64::from(each == phase));
        }
        if let Some(damaged) = &self.damaged_builds_counted {
            self.damaged_builds.set(damaged.load(Ordering::Relaxed));
        }
        let came_ms = self.snapshot_ms.load(Ordering::Relaxed);
        let age_ms = if came_ms == 0 { 0 } else { unix_ms(SystemTime::now()).saturating_sub(came_ms) };
        self.snapshot_age.set(Duration::from_millis(age_ms).as_secs_f64());
        let mut page = String::new();
        text::encode_registry(&mut page, &self.own)
            .and_then(|()| text::encode(&mut page, &self.process))
            .expect("writing to a string does not fail");
        page
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
