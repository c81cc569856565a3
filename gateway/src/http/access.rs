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
    ids::{DeploymentId, ReplicaId, RequestId},
    refusal::Refusal,
};

use crate::{
    call_log::{CallEvent, CallLog},
    caller_address::CallerAddress,
    dispatch::{Progress, Ran},
    gateway::Inner,
    keys::KeyFacts,
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
    pub(super) address: IpAddr,
    /// What the replica is told of the trace: the caller's context, ours where the call is recorded, or nothing.
    pub(super) traceparent: Cow<'a, str>,
    trace: Option<CallTrace>,
    pub(super) route: Option<Arc<Route>>,
    /// Whose key it came with.
    pub(super) holder: Option<Arc<KeyFacts>>,
    pub(super) rates: Standings,
    /// From its beginning to its place in line.
    lined_up: Option<Duration>,
    /// How far it came from there.
    pub(super) progress: Progress,
    /// What it cost, by the replica's word.
    pub(super) timings: Option<Timings>,
    pub(super) request_bytes: usize,
    response_bytes: usize,
    status: u16,
    code: &'static str,
}

impl<'a> Record<'a> {
    pub(super) fn begin(
        inner: &'a Inner,
        request_id: &'a RequestId,
        parts: &'a Parts,
        caller: CallerAddress,
    ) -> Self {
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
            address: caller.0,
            traceparent,
            trace,
            route: None,
            holder: None,
            rates: Standings::default(),
            lined_up: None,
            progress: Progress::default(),
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

    /// The replica it is or was on.
    pub(super) fn replica(&self) -> Option<&ReplicaId> {
        self.progress.ran().map(|ran| &ran.replica)
    }

    fn deployment(&self) -> Option<DeploymentId> {
        self.progress.ran().map(|ran| ran.shared.route().deployment.clone())
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

    /// How long the function ran, by its replica's word; where there is none, how long the call was there.
    fn run(&self) -> Option<Duration> {
        let told = self.timings.map(|cost| Duration::from_micros(cost.run_us.into()));
        told.or_else(|| self.progress.ran().map(Ran::took))
    }

    fn count(&self, took: Duration) {
        let Some(route) = &self.route else {
            self.inner.metrics.count_unrouted(self.code);
            return;
        };
        let metrics = &route.metrics;
        metrics.count(self.code);
        metrics.call_seconds.observe(took.as_secs_f64());
        if let Some(waited) = self.progress.waited() {
            metrics.wait_seconds.observe(waited.as_secs_f64());
        }
        if let Some(cost) = &self.timings {
            metrics.charge(cost);
            self.holder.iter().for_each(|facts| facts.calls.charge(cost));
        }
        metrics.request_bytes.inc_by(self.request_bytes as u64);
        metrics.response_bytes.inc_by(self.response_bytes as u64);
    }

    fn trace(&mut self, tracer: &Tracer, trace: CallTrace, took: Duration) {
        tracer.take(Box::new(CallSpans {
            trace,
            request_id: self.request_id.clone(),
            names: self.route.as_ref().map(|route| Arc::clone(&route.names)),
            deployment: self.deployment(),
            replica: self.replica().cloned(),
            status: self.status,
            code: self.code,
            lined_up: self.lined_up,
            waited: self.progress.waited(),
            ran: self.progress.ran().map(Ran::took),
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
            deployment: self.deployment(),
            replica: self.replica().cloned(),
            status: self.status,
            code: self.code,
            waited: self.progress.waited(),
            ran: self.run(),
            took,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            address: self.address,
            holder: self.holder.clone(),
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
