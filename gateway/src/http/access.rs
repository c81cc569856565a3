//! What is kept of a call: one event, one count, two times. Written when the call ends, also when it ends by the
//! caller's going away: then by the drop of this record.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use hyper::http::request::Parts;
use millgate_contract::{
    frame::Timings,
    ids::{DeploymentId, KeyId, ReplicaId, RequestId, Username},
    refusal::Refusal,
};

use crate::{
    call_log::{CallEvent, CallLog, millis},
    caller_address::CallerAddress,
    gateway::Inner,
    metrics::{CALLER_GONE, OK},
    rates::Standings,
    routes::Route,
    spans::{CallSpans, CallTrace, Tracer},
    trace_context::{TraceContext, trace_id},
};

/// What is known of a call so far. Never a key, never a body.
pub(super) struct Record<'a> {
    inner: &'a Inner,
    request_id: &'a RequestId,
    begun: Instant,
    address: IpAddr,
    /// What the replica is told of the trace: the caller's context, ours where the call is recorded, or nothing.
    pub(super) traceparent: Cow<'a, str>,
    trace: Option<CallTrace>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) user: Option<Username>,
    pub(super) key: Option<KeyId>,
    pub(super) rates: Standings,
    pub(super) deployment: Option<DeploymentId>,
    pub(super) replica: Option<ReplicaId>,
    /// From its beginning to its place in line.
    lined_up: Option<Duration>,
    /// How long it waited for replicas, once it was let in.
    pub(super) waited: Option<Duration>,
    /// How long it was on a replica.
    pub(super) ran: Option<Duration>,
    /// What it cost, by the replica's word.
    pub(super) timings: Option<Timings>,
    pub(super) request_bytes: usize,
    response_bytes: usize,
    status: u16,
    code: &'static str,
}

impl<'a> Record<'a> {
    pub(super) fn begin(inner: &'a Inner, request_id: &'a RequestId, parts: &'a Parts) -> Self {
        let context = TraceContext::of(&parts.headers);
        let trace = inner.tracer.as_ref().and_then(|tracer| tracer.begin(context));
        let traceparent = match &trace {
            Some(trace) => Cow::Owned(trace.traceparent()),
            None => Cow::Borrowed(context.map_or("", TraceContext::as_str)),
        };
        Self {
            inner,
            request_id,
            begun: Instant::now(),
            address: CallerAddress::of(&parts.extensions),
            traceparent,
            trace,
            route: None,
            user: None,
            key: None,
            rates: Standings::default(),
            deployment: None,
            replica: None,
            lined_up: None,
            waited: None,
            ran: None,
            timings: None,
            request_bytes: 0,
            response_bytes: 0,
            status: 499,
            code: CALLER_GONE,
        }
    }

    /// It is let in, and wants a replica.
    pub(super) fn line_up(&mut self) {
        self.lined_up = Some(self.begun.elapsed());
    }

    /// It is answered with success.
    pub(super) fn succeed(&mut self, response_bytes: usize) {
        (self.status, self.code, self.response_bytes) = (200, OK, response_bytes);
    }

    /// It is refused.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        (self.status, self.code) = (refusal.status(), refusal.code());
        if let (Refusal::RateLimited { .. }, Some(rate)) = (refusal, self.rates.last()) {
            self.inner.metrics.count_over_rate(rate);
        }
    }

    fn count(&self, took: Duration) {
        let Some(route) = &self.route else {
            self.inner.metrics.count_unrouted(self.code);
            return;
        };
        let metrics = &route.metrics;
        metrics.count(self.code);
        metrics.call_seconds.observe(took.as_secs_f64());
        if let Some(waited) = self.waited {
            metrics.wait_seconds.observe(waited.as_secs_f64());
        }
        metrics.request_bytes.inc_by(self.request_bytes as u64);
        metrics.response_bytes.inc_by(self.response_bytes as u64);
    }

    fn trace(&mut self, tracer: &Tracer, trace: CallTrace, took: Duration) {
        tracer.take(Box::new(CallSpans {
            trace,
            request_id: self.request_id.clone(),
            names: self.route.as_ref().map(|route| Arc::clone(&route.names)),
            deployment: self.deployment.clone(),
            replica: self.replica.clone(),
            status: self.status,
            code: self.code,
            lined_up: self.lined_up,
            waited: self.waited,
            ran: self.ran,
            timings: self.timings,
            took,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        }));
    }

    fn tell(&mut self, log: &CallLog, took: Duration) {
        log.take(Box::new(CallEvent {
            time: SystemTime::now(),
            request_id: self.request_id.clone(),
            trace_id: trace_id(&self.traceparent).map(str::to_owned),
            names: self.route.as_ref().map(|route| Arc::clone(&route.names)),
            deployment: self.deployment.take(),
            replica: self.replica.take(),
            status: self.status,
            code: self.code,
            wait_ms: self.waited.map(millis),
            run_ms: self.timings.map(|cost| millis(Duration::from_micros(cost.run_us.into()))),
            total_ms: millis(took),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            address: self.address,
            user: self.user.take(),
            key: self.key.take(),
        }));
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.count(took);
        if let (Some(tracer), Some(trace)) = (&self.inner.tracer, self.trace.take()) {
            self.trace(tracer, trace, took);
        }
        if let Some(log) = &self.inner.call_log {
            self.tell(log, took);
        }
    }
}
