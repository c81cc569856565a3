//! Spans of calls for OpenTelemetry: one of the gateway, and below it the wait for a replica and the time on one. The
//! replica is told the last as its parent.
//!
//! A caller that says whether its trace is recorded is heeded; of the others a share is. A call that is not recorded
//! costs one look at its header, and a gateway without an endpoint not even that. Spans leave by a [`Lane`]; a collector
//! that is slow or gone costs spans, which are counted.
//!
//! The messages are written by hand ([`otlp`]): three kinds of span of one form need no tracing library, with its
//! contexts, processors and a second HTTP client. That they are what the protocol says is tested with the protocol's
//! own definitions.

mod export;
mod ids;
mod otlp;

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use millgate_contract::{
    frame::Timings,
    ids::{DeploymentId, ReplicaId, RequestId},
};
use prometheus_client::metrics::counter::Counter;

use crate::{call_log::Names, lane::Lane, trace_context::TraceContext};
use export::Exporter;
use ids::Ids;

/// Calls whose spans wait to be sent.
const WAITING_MAX: usize = 8_192;

/// Where spans go, and of how many calls.
#[derive(Debug, Clone, PartialEq)]
pub struct SpansConfig {
    /// OTLP over HTTP: `http://collector:4318/v1/traces`.
    pub endpoint: String,
    /// The share of calls that is recorded where the caller says nothing, from 0 to 1.
    pub sample_ratio: f64,
}

/// Decides which calls are recorded, and sends their spans away.
pub(crate) struct Tracer {
    ids: Ids,
    sample_ratio: f64,
    lane: Lane<Box<CallSpans>>,
}

/// A call that is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallTrace {
    trace: [u8; 16],
    /// The caller's span, if it has one.
    parent: Option<[u8; 8]>,
    call: [u8; 8],
    wait: [u8; 8],
    replica: [u8; 8],
    begun: SystemTime,
}

/// A recorded call, when it has ended.
#[derive(Debug)]
pub(crate) struct CallSpans {
    pub(crate) trace: CallTrace,
    pub(crate) request_id: RequestId,
    pub(crate) names: Option<Arc<Names>>,
    pub(crate) deployment: Option<DeploymentId>,
    pub(crate) replica: Option<ReplicaId>,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    /// From its beginning to its place in line, its wait, and its time on a replica: as far as it came.
    pub(crate) lined_up: Option<Duration>,
    pub(crate) waited: Option<Duration>,
    pub(crate) ran: Option<Duration>,
    pub(crate) timings: Option<Timings>,
    pub(crate) took: Duration,
    pub(crate) request_bytes: usize,
    pub(crate) response_bytes: usize,
}

/// What is counted of spans.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpanCounts {
    pub(crate) exported: Counter,
    pub(crate) lost: Counter,
}

impl Tracer {
    /// `instance`: this gateway's own name for itself.
    pub(crate) fn start(config: &SpansConfig, instance: &str, counts: SpanCounts) -> io::Result<Self> {
        let exporter = Exporter::new(config.endpoint.clone(), instance, counts.clone());
        Ok(Self {
            ids: Ids::new(),
            sample_ratio: config.sample_ratio,
            lane: Lane::start("millgate-spans", WAITING_MAX, counts.lost, exporter)?,
        })
    }

    /// The record of a call that begins now, if it is to be recorded.
    pub(crate) fn begin(&self, caller: Option<TraceContext<'_>>) -> Option<CallTrace> {
        let (trace, parent) = match caller {
            Some(context) if context.is_sampled() => (context.trace()?, Some(context.parent()?)),
            None if self.ids.share() < self.sample_ratio => (self.ids.trace(), None),
            _ => return None,
        };
        let [call, wait, replica] = [(); 3].map(|()| self.ids.span());
        Some(CallTrace { trace, parent, call, wait, replica, begun: SystemTime::now() })
    }

    /// Takes the spans of a call, at once.
    pub(crate) fn take(&self, spans: Box<CallSpans>) {
        self.lane.offer(spans);
    }
}

impl CallTrace {
    /// What the replica is told: this trace, and that its parent is the span of its own time.
    pub(crate) fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-01", u128::from_be_bytes(self.trace), u64::from_be_bytes(self.replica))
    }
}
