//! Spans of calls, at a collector that reads them by the protocol's own definitions.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
};

use millgate_gateway::{GatewayConfig, SpansConfig};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;

use crate::{
    double::Act,
    house::{ACCESS_KEY, House},
    http::post,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Takes what is exported, as long as the test looks at it.
struct Collector {
    endpoint: String,
    requests: Receiver<ExportTraceServiceRequest>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                while let Some(body) = request(&mut reader) {
                    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                    if sender.send(ExportTraceServiceRequest::decode(&body[..]).unwrap()).is_err() {
                        return;
                    }
                }
            }
        });
        Self { endpoint, requests }
    }

    fn config(&self, sample_ratio: f64) -> GatewayConfig {
        let spans = SpansConfig { endpoint: self.endpoint.clone(), sample_ratio };
        GatewayConfig { name: "gw-1".into(), spans: Some(spans), ..GatewayConfig::default() }
    }

    /// The spans of the next request.
    fn next(&self) -> Vec<Span> {
        let mut request = self.requests.recv().unwrap();
        let mut of_resource = request.resource_spans.remove(0);
        let resource = of_resource.resource.unwrap().attributes;
        assert_eq!(text(&resource, "service.name"), "millgate");
        assert_eq!(text(&resource, "service.instance.id"), "gw-1");
        of_resource.scope_spans.remove(0).spans
    }
}

/// The body of a request that is what OTLP over HTTP says.
fn request(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap() == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    Some(body)
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|pair| pair.key == key).unwrap_or_else(|| panic!("no `{key}`"));
    match found.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("`{key}` is {other:?}"),
    }
}

fn number(attributes: &[KeyValue], key: &str) -> i64 {
    let found = attributes.iter().find(|pair| pair.key == key).unwrap_or_else(|| panic!("no `{key}`"));
    match found.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::IntValue(number)) => *number,
        other => panic!("`{key}` is {other:?}"),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"))
}

fn traced(flags: &str) -> Vec<u8> {
    let body = format!(r#"{{"accessKey":"{ACCESS_KEY}","request":1}}"#);
    post("/model", &[&format!("traceparent: 00-{TRACE}-{PARENT}-{flags}"), "X-Request-Id: r-9"], &body)
}

#[tokio::test]
async fn a_call_whose_caller_records_it_has_its_spans_and_one_whose_caller_does_not_has_none() {
    let collector = Collector::start();
    let acts = vec![Act::Echo, Act::DropAccepted];
    let (house, double) = House::with_config(collector.config(1.0), 1, acts).await;
    assert_eq!(house.ask(&traced("00")).await.status, 200);
    assert_eq!(double.calls()[0].traceparent, format!("00-{TRACE}-{PARENT}-00"), "passed on as it came");
    assert_eq!(house.ask(&traced("01")).await.status, 502);

    let spans = collector.next();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["POST /model", "wait", "replica"]);
    let [call, wait, replica] = &spans[..] else { panic!("three spans") };
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE && span.span_id.len() == 8));
    assert_eq!(hex(&call.parent_span_id), PARENT);
    assert_eq!((&wait.parent_span_id, &replica.parent_span_id), (&call.span_id, &call.span_id));
    assert_eq!(double.calls()[1].traceparent, format!("00-{TRACE}-{}-01", hex(&replica.span_id)));
    let kinds: Vec<i32> = spans.iter().map(|span| span.kind).collect();
    assert_eq!(kinds, [2, 1, 3], "server, internal, client");
    assert_eq!(number(&call.attributes, "http.response.status_code"), 502);
    for (key, value) in [
        ("error.type", "replica.crashed"),
        ("millgate.request_id", "r-9"),
        ("millgate.model_name", "add"),
        ("millgate.deployment", "d1"),
    ] {
        assert_eq!(text(&call.attributes, key), value);
    }
    assert_eq!(call.status.as_ref().map(|status| status.code), Some(2));
    assert_eq!(text(&replica.attributes, "millgate.replica"), "d1-r0");
    let (begun, ended) = (call.start_time_unix_nano, call.end_time_unix_nano);
    assert!(begun <= wait.start_time_unix_nano && wait.end_time_unix_nano <= replica.start_time_unix_nano);
    assert!(replica.end_time_unix_nano <= ended);
    house.until_figure("millgate_spans_exported_calls_total", "1").await;
}

#[tokio::test]
async fn a_share_of_the_other_calls_is_recorded_in_traces_of_their_own() {
    let collector = Collector::start();
    let (never, _double) = House::with_config(collector.config(0.0), 1, vec![]).await;
    let (always, double) = House::with_config(collector.config(1.0), 1, vec![]).await;
    assert_eq!(never.call("1").await.status, 200);
    assert_eq!(always.call("1").await.status, 200);
    let spans = collector.next();
    assert_eq!(spans.len(), 3);
    assert_eq!(spans[0].parent_span_id, [0; 0]);
    let told = format!("00-{}-{}-01", hex(&spans[0].trace_id), hex(&spans[2].span_id));
    assert_eq!(double.calls()[0].traceparent, told);
    assert_eq!(never.figure("millgate_spans_exported_calls_total").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_spans_and_no_call() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let spans = SpansConfig { endpoint: format!("http://{nowhere}/v1/traces"), sample_ratio: 1.0 };
    let config = GatewayConfig { spans: Some(spans), ..GatewayConfig::default() };
    let (house, _double) = House::with_config(config, 1, vec![]).await;
    for _ in 0..3 {
        assert_eq!(house.call("1").await.status, 200);
    }
    house.until_figure("millgate_spans_lost_calls_total", "3").await;
}
