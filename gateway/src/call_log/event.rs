//! What is told of one call, and how it is written: one line of JSON.

use std::{
    io::Write as _,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use millgate_contract::{
    ids::{DeploymentId, ModelId, ReplicaId, RequestId},
    route::ModelRoute,
};
use time::UtcDateTime;

use crate::keys::KeyFacts;

/// A model as its calls' events name it: one for all of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    model: ModelId,
    name: String,
    /// Both, as members of an event.
    members: Vec<u8>,
}

impl Names {
    pub(crate) fn new(model: ModelId, name: String) -> Self {
        let mut members = Vec::new();
        text(&mut members, "model", model.as_str());
        text(&mut members, "model_name", &name);
        Self { model, name, members }
    }

    pub(crate) fn model(&self) -> &ModelId {
        &self.model
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn of(route: &ModelRoute) -> Arc<Self> {
        Arc::new(Self::new(route.model.clone(), route.name.clone()))
    }
}

/// One call, when it has ended. What is not known of it is left out.
#[derive(Debug)]
pub(crate) struct CallEvent {
    /// When it ended.
    pub(crate) time: SystemTime,
    pub(crate) request_id: RequestId,
    pub(crate) trace_id: Option<String>,
    pub(crate) names: Option<Arc<Names>>,
    pub(crate) deployment: Option<DeploymentId>,
    pub(crate) replica: Option<ReplicaId>,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    /// How long it waited for a replica.
    pub(crate) waited: Option<Duration>,
    /// How long the function ran, as the replica measured it; where it did not say, how long the call was there.
    pub(crate) ran: Option<Duration>,
    /// From its head to its end.
    pub(crate) took: Duration,
    pub(crate) request_bytes: usize,
    pub(crate) response_bytes: usize,
    pub(crate) address: IpAddr,
    /// Whose key it came with.
    pub(crate) holder: Option<Arc<KeyFacts>>,
}

/// Writes events. By `serde_json` making and writing one took 27,900 of the gateway's 131,000 instructions of a call, most
/// of them for a flattened map and the date; writing takes 4,500 so (`make bench-counts`, stage `call event`).
#[derive(Debug, Default)]
pub(crate) struct Writer {
    /// The second of the event before, and its text.
    second: u64,
    date: String,
}

impl Writer {
    /// Appends one event and the end of its line.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, event: &CallEvent) {
        self.time(out, event.time);
        text(out, "request_id", event.request_id.as_str());
        optional(out, "trace_id", event.trace_id.as_deref());
        if let Some(names) = &event.names {
            out.extend_from_slice(&names.members);
        }
        optional(out, "deployment", event.deployment.as_ref().map(DeploymentId::as_str));
        optional(out, "replica", event.replica.as_ref().map(ReplicaId::as_str));
        number(out, "status", event.status.into());
        text(out, "code", event.code);
        if let Some(waited) = event.waited {
            milliseconds(out, "wait_ms", waited);
        }
        if let Some(ran) = event.ran {
            milliseconds(out, "run_ms", ran);
        }
        milliseconds(out, "total_ms", event.took);
        number(out, "request_bytes", event.request_bytes as u64);
        number(out, "response_bytes", event.response_bytes as u64);
        name(out, "address");
        write!(out, "\"{}\"", event.address).expect("memory takes what is written");
        if let Some(holder) = &event.holder {
            text(out, "user", holder.user.as_str());
            text(out, "key", holder.key.as_str());
        }
        out.extend_from_slice(b"}\n");
    }

    /// The first member. Dates are made once a second.
    fn time(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != since.as_secs() || self.date.is_empty() {
            self.second = since.as_secs();
            self.date = text_of(UNIX_EPOCH + Duration::from_secs(self.second));
            self.date.truncate("2024-05-08T12:00:00".len());
        }
        out.extend_from_slice(br#"{"time":""#);
        out.extend_from_slice(self.date.as_bytes());
        out.push(b'.');
        digits(out, since.subsec_millis());
        out.extend_from_slice(b"Z\"");
    }
}

fn name(out: &mut Vec<u8>, name: &str) {
    for part in [",\"", name, "\":"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn text(out: &mut Vec<u8>, named: &str, value: &str) {
    name(out, named);
    serde_json::to_writer(out, value).expect("text is JSON, and memory takes it");
}

fn optional(out: &mut Vec<u8>, named: &str, value: Option<&str>) {
    if let Some(value) = value {
        text(out, named, value);
    }
}

fn number(out: &mut Vec<u8>, named: &str, value: u64) {
    name(out, named);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// To the microsecond: `1.5`, `2.0`.
fn milliseconds(out: &mut Vec<u8>, named: &str, time: Duration) {
    number(out, named, u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    out.push(b'.');
    let begin = out.len();
    digits(out, time.subsec_micros() % 1_000);
    while out.len() > begin + 1 && out.ends_with(b"0") {
        out.pop();
    }
}

/// Three of them.
fn digits(out: &mut Vec<u8>, value: u32) {
    out.extend([value / 100, value / 10 % 10, value % 10].map(|digit| b'0' + digit as u8));
}

/// `2024-05-08T12:00:00.123Z`: one length for all, so that they sort as text.
pub(super) fn text_of(time: SystemTime) -> String {
    let t = UtcDateTime::from(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.millisecond()
    )
}
