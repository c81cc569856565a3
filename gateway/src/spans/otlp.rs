//! Spans as the OpenTelemetry protocol has them (`opentelemetry/proto/collector/trace/v1`, stable since 1.0), written in
//! protocol buffers' own encoding.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{CallSpans, CallTrace};

/// What a field's number is followed by: how its value is laid out.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

/// `Span.SpanKind`.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// `Status.StatusCode`.
const ERROR: u64 = 2;

/// A message that is being written.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | VARINT);
        self.varint(value);
    }

    fn fixed(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// `KeyValue` with text.
    fn text(&mut self, field: u64, key: &str, value: &str) {
        self.message(field, |pair| {
            pair.bytes(1, key.as_bytes());
            pair.message(2, |any| any.bytes(1, value.as_bytes()));
        });
    }

    /// `KeyValue` with a whole number.
    fn count(&mut self, field: u64, key: &str, value: u64) {
        self.message(field, |pair| {
            pair.bytes(1, key.as_bytes());
            pair.message(2, |any| any.number(3, value));
        });
    }
}

/// `ExportTraceServiceRequest` with the spans of these calls, from the gateway of this name.
pub(super) fn request(instance: &str, calls: &[Box<CallSpans>]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |resource_spans| {
        resource_spans.message(1, |resource| {
            resource.text(1, "service.name", "millgate");
            resource.text(1, "service.instance.id", instance);
            resource.text(1, "service.version", env!("CARGO_PKG_VERSION"));
        });
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| scope.bytes(1, b"millgate-gateway"));
            for call in calls {
                write_call(scope_spans, call);
            }
        });
    });
    request.0
}

/// The spans of one call.
fn write_call(scope_spans: &mut Message, call: &CallSpans) {
    let trace = &call.trace;
    scope_spans.message(2, |span| {
        let whole = Placed { id: trace.call, parent: trace.parent, from: Duration::ZERO, took: call.took };
        whole.write(span, trace, "POST /model", SERVER);
        write_attributes(span, call);
        if call.status >= 500 {
            span.message(15, |status| status.number(3, ERROR));
        }
    });
    let (Some(lined_up), Some(waited)) = (call.lined_up, call.waited) else { return };
    scope_spans.message(2, |span| {
        let wait = Placed { id: trace.wait, parent: Some(trace.call), from: lined_up, took: waited };
        wait.write(span, trace, "wait", INTERNAL);
    });
    let Some(ran) = call.ran else { return };
    scope_spans.message(2, |span| {
        let from = lined_up + waited;
        let replica = Placed { id: trace.replica, parent: Some(trace.call), from, took: ran };
        replica.write(span, trace, "replica", CLIENT);
        if let Some(replica) = &call.replica {
            span.text(9, "millgate.replica", replica.as_str());
        }
        if let Some(cost) = &call.timings {
            let costs =
                [("decode_us", cost.decode_us), ("run_us", cost.run_us), ("encode_us", cost.encode_us)];
            for (name, us) in costs {
                span.count(9, &format!("millgate.{name}"), us.into());
            }
        }
        if call.status >= 500 {
            span.message(15, |status| status.number(3, ERROR));
        }
    });
}

/// What is known of the call, by the names of OpenTelemetry's conventions for HTTP where they have one.
fn write_attributes(span: &mut Message, call: &CallSpans) {
    span.text(9, "http.request.method", "POST");
    span.count(9, "http.response.status_code", call.status.into());
    span.count(9, "http.request.body.size", call.request_bytes as u64);
    span.count(9, "http.response.body.size", call.response_bytes as u64);
    if call.status >= 400 {
        span.text(9, "error.type", call.code);
    }
    span.text(9, "millgate.request_id", call.request_id.as_str());
    if let Some(names) = &call.names {
        span.text(9, "millgate.model", names.model().as_str());
        span.text(9, "millgate.model_name", names.name());
    }
    if let Some(deployment) = &call.deployment {
        span.text(9, "millgate.deployment", deployment.as_str());
    }
}

/// A span's place in its call.
struct Placed {
    id: [u8; 8],
    parent: Option<[u8; 8]>,
    /// Since the call's beginning.
    from: Duration,
    took: Duration,
}

impl Placed {
    fn write(&self, span: &mut Message, trace: &CallTrace, name: &str, kind: u64) {
        let begun = trace.begun + self.from;
        span.bytes(1, &trace.trace);
        span.bytes(2, &self.id);
        if let Some(parent) = self.parent {
            span.bytes(4, &parent);
        }
        span.bytes(5, name.as_bytes());
        span.number(6, kind);
        span.fixed(7, unix_ns(begun));
        span.fixed(8, unix_ns(begun + self.took));
    }
}

fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
