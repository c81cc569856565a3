//! Sends spans to a collector, on the lane's thread: OTLP over HTTP, binary. What it does not take is lost, and while it
//! does not answer nothing is sent for a while.

use std::time::{Duration, Instant};

use ureq::Agent;

use super::{CallSpans, SpanCounts, otlp};
use crate::lane::Drain;

/// How long a collector may take. The end of a gateway waits for it once, at most.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// How long nothing is sent after a failure.
const PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Exporter {
    agent: Agent,
    endpoint: String,
    instance: String,
    counts: SpanCounts,
    paused_until: Option<Instant>,
}

impl Exporter {
    pub(super) fn new(endpoint: String, instance: &str, counts: SpanCounts) -> Self {
        // A collector is near: what this host uses to reach the internet is not asked.
        let agent = Agent::config_builder().timeout_global(Some(ANSWER_WAIT)).proxy(None).build().into();
        Self { agent, endpoint, instance: instance.to_owned(), counts, paused_until: None }
    }

    fn send(&self, calls: &[Box<CallSpans>]) -> Result<(), ureq::Error> {
        let request = otlp::request(&self.instance, calls);
        self.agent.post(&self.endpoint).content_type("application/x-protobuf").send(&request)?;
        Ok(())
    }
}

impl Drain<Box<CallSpans>> for Exporter {
    fn take(&mut self, batch: &mut Vec<Box<CallSpans>>) {
        let calls = batch.len() as u64;
        let is_paused = self.paused_until.is_some_and(|until| Instant::now() < until);
        let sent = if is_paused { None } else { Some(self.send(batch)) };
        batch.clear();
        match sent {
            Some(Ok(())) => {
                self.counts.exported.inc_by(calls);
                self.paused_until = None;
            }
            None => {
                self.counts.lost.inc_by(calls);
            }
            Some(Err(error)) => {
                self.counts.lost.inc_by(calls);
                if self.paused_until.is_none() {
                    tracing::warn!(%error, endpoint = self.endpoint, "spans are lost");
                }
                self.paused_until = Some(Instant::now() + PAUSE);
            }
        }
    }
}
