//! What is kept of a call: one access event, one count, two times. Written when the call ends, also when it ends by the
//! caller's going away: then by the drop of this record.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use millgate_contract::{
    frame::Timings,
    ids::{KeyId, ReplicaId, RequestId, Username},
    refusal::Refusal,
};

use crate::{
    gateway::Inner,
    metrics::{CALLER_GONE, OK},
    rates::Standings,
    routes::Route,
};

/// What is known of a call so far. Never a key, never a body.
pub(super) struct Record<'a> {
    inner: &'a Inner,
    request_id: &'a RequestId,
    begun: Instant,
    pub(super) route: Option<Arc<Route>>,
    pub(super) user: Option<Username>,
    pub(super) key: Option<KeyId>,
    pub(super) rates: Standings,
    pub(super) replica: Option<ReplicaId>,
    /// How long it waited for replicas, once it was let in.
    pub(super) waited: Option<Duration>,
    pub(super) timings: Timings,
    pub(super) request_bytes: usize,
    response_bytes: usize,
    status: u16,
    code: &'static str,
}

impl<'a> Record<'a> {
    pub(super) fn begin(inner: &'a Inner, request_id: &'a RequestId) -> Self {
        Self {
            inner,
            request_id,
            begun: Instant::now(),
            route: None,
            user: None,
            key: None,
            rates: Standings::default(),
            replica: None,
            waited: None,
            timings: Timings::default(),
            request_bytes: 0,
            response_bytes: 0,
            status: 499,
            code: CALLER_GONE,
        }
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
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.count(took);
        let route = self.route.as_deref();
        tracing::info!(
            target: "millgate::access",
            request_id = self.request_id.as_str(),
            status = self.status,
            code = self.code,
            model = route.map(|r| r.spec.model.as_str()),
            model_name = route.map(|r| r.spec.name.as_str()),
            replica = self.replica.as_ref().map(ReplicaId::as_str),
            user = self.user.as_ref().map(Username::as_str),
            key = self.key.as_ref().map(KeyId::as_str),
            request_bytes = self.request_bytes,
            response_bytes = self.response_bytes,
            waited_us = self.waited.map(|waited| u64::try_from(waited.as_micros()).unwrap_or(u64::MAX)),
            run_us = self.timings.run_us,
            took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "call"
        );
    }
}
