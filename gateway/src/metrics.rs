//! Every figure the gateway publishes, declared here and nowhere else. Handles are resolved when a route is built;
//! series of models that are gone are taken out with them. Labels come from the route table and the table of refusals,
//! never from a caller.

use std::sync::{OnceLock, atomic::AtomicU64};

use millgate_contract::route::{ModelRoute, Target};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// The codes a call can end with: the table of refusals, success, and a caller that has gone.
const CODES: [&str; 24] = [
    OK,
    "request.malformed",
    "access_key.invalid",
    "api_key.required",
    "api_key.invalid",
    "api_key.forbidden",
    "request.slow",
    "request.too_large",
    "request.target_too_long",
    "request.head_too_large",
    "request.length_required",
    "request.coding_unsupported",
    "request.version_unsupported",
    "model.busy",
    "rate.limited",
    "function.exception",
    "function.bad_output",
    "replica.crashed",
    "model.unavailable",
    "model.timeout",
    "request.not_found",
    "request.method",
    "gateway.internal",
    CALLER_GONE,
];
/// The code of success.
pub(crate) const OK: &str = "ok";
/// The code of a call whose caller hung up before its answer.
pub(crate) const CALLER_GONE: &str = "caller.gone";

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

/// The registry and its families.
pub(crate) struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<ModelLabels, Histogram, fn() -> Histogram>,
    wait_seconds: Family<ModelLabels, Histogram, fn() -> Histogram>,
    line_calls: Family<ModelLabels, Gauge>,
    slots_connected: Family<ModelLabels, Gauge>,
    unrouted: Family<CodeLabels, Counter>,
    pub(crate) retries: Counter,
    pub(crate) connections: Gauge,
    pub(crate) generation: Gauge<u64, AtomicU64>,
    pub(crate) snapshots_rejected: Counter,
    pub(crate) predictions_unkept: Counter,
}

/// The figures of one model and deployment.
pub(crate) struct ModelMetrics {
    labels: CallLabels,
    calls: Family<CallLabels, Counter>,
    /// Resolved at the first call that ends so: most codes never occur on most models.
    by_code: [OnceLock<Counter>; CODES.len()],
    pub(crate) call_seconds: Histogram,
    pub(crate) wait_seconds: Histogram,
    line_calls: Gauge,
    slots_connected: Gauge,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("millgate"),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(seconds),
            wait_seconds: Family::new_with_constructor(seconds),
            line_calls: Family::default(),
            slots_connected: Family::default(),
            unrouted: Family::default(),
            retries: Counter::default(),
            connections: Gauge::default(),
            generation: Gauge::default(),
            snapshots_rejected: Counter::default(),
            predictions_unkept: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("calls", "Calls by model, deployment and code", self.calls.clone());
        let of_call = "Time from a call's head to its answer";
        r.register_with_unit("call", of_call, Unit::Seconds, self.call_seconds.clone());
        let of_wait = "Time a call waited for a replica";
        r.register_with_unit("wait", of_wait, Unit::Seconds, self.wait_seconds.clone());
        r.register("line_calls", "Calls in line for a replica", self.line_calls.clone());
        r.register("slots_connected", "Replicas that are connected", self.slots_connected.clone());
        r.register(
            "unrouted_calls",
            "Calls refused before their model was known, by code",
            self.unrouted.clone(),
        );
        r.register("retries", "Tries that are proven not to have started a call", self.retries.clone());
        r.register("connections", "Connections of callers", self.connections.clone());
        r.register("route_generation", "Generation of the route snapshot in use", self.generation.clone());
        let rejected = "Route snapshots that were refused";
        r.register("route_snapshots_rejected", rejected, self.snapshots_rejected.clone());
        let unkept = "Predictions whose tracked metrics could not be kept";
        r.register("predictions_unkept", unkept, self.predictions_unkept.clone());
    }

    /// The figures of a route.
    pub(crate) fn of(&self, route: &ModelRoute) -> ModelMetrics {
        let (labels, model) = labels(route);
        ModelMetrics {
            labels,
            calls: self.calls.clone(),
            by_code: [const { OnceLock::new() }; CODES.len()],
            call_seconds: self.call_seconds.get_or_create_owned(&model),
            wait_seconds: self.wait_seconds.get_or_create_owned(&model),
            line_calls: self.line_calls.get_or_create_owned(&model),
            slots_connected: self.slots_connected.get_or_create_owned(&model),
        }
    }

    /// Takes out the calls of a deployment that is routed to no more.
    pub(crate) fn forget_deployment(&self, route: &ModelRoute) {
        let (mut labels, _) = labels(route);
        for code in CODES {
            labels.code = code;
            self.calls.remove(&labels);
        }
    }

    /// Takes out everything of a model that is gone or renamed.
    pub(crate) fn forget_model(&self, route: &ModelRoute) {
        self.forget_deployment(route);
        let (_, model) = labels(route);
        self.call_seconds.remove(&model);
        self.wait_seconds.remove(&model);
        self.line_calls.remove(&model);
        self.slots_connected.remove(&model);
    }

    /// Counts a call whose model is not known.
    pub(crate) fn count_unrouted(&self, code: &'static str) {
        self.unrouted.get_or_create(&CodeLabels { code }).inc();
    }

    /// The page.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        encode(&mut page, &self.registry).expect("writing to a string does not fail");
        page
    }
}

impl ModelMetrics {
    /// Counts a call by what it ended with.
    pub(crate) fn count(&self, code: &'static str) {
        let Some(at) = CODES.iter().position(|c| *c == code) else { return };
        self.by_code[at]
            .get_or_init(|| self.calls.get_or_create_owned(&CallLabels { code, ..self.labels.clone() }))
            .inc();
    }

    /// What is true just now.
    pub(crate) fn set_state(&self, line_calls: usize, slots_connected: u16) {
        self.line_calls.set(i64::try_from(line_calls).unwrap_or(i64::MAX));
        self.slots_connected.set(slots_connected.into());
    }
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

#[cfg(test)]
mod tests {
    use millgate_contract::refusal::Refusal;

    use super::*;

    #[test]
    fn every_refusal_can_be_counted() {
        for refusal in Refusal::all() {
            assert!(CODES.contains(&refusal.code()), "{}", refusal.code());
        }
    }
}
