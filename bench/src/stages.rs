//! The stages of a call of `add`, and of one with 1 MB of floats where size matters, in the order of a call.

use std::{hint::black_box, path::Path};

use bytes::{Bytes, BytesMut};
use millgate_contract::{
    envelope,
    frame::{Call, Done, Frame, HEADER_BYTES, Header, Outcome, Timings, encode_call_head, encode_done_head},
    ids::{CallId, ReplicaId, RequestId},
    limits,
};
use millgate_gateway::{Gateway, GatewayConfig, bench, split::split};
use millgate_replica_runtime::{
    bench::Imported,
    json::{self, Codec},
};
use pyo3::prelude::*;

use crate::issuer::{Issuer, access_key};

/// Any moment at which the keys here are valid, Unix seconds.
const NOW_S: u64 = 1_800_000_000;
const ADD: &str = r#"{"a": 3, "b": 5}"#;
/// Numbers of the larger request: about 1 MB of JSON.
const FLOATS: u32 = 52_000;
const FUNCTIONS: &str = "def add(args):\n    return args['a'] + args['b']\n";

/// One stage.
pub struct Stage {
    /// Unique; results are filed under it.
    pub name: &'static str,
    /// Does it once.
    pub run: Box<dyn FnMut()>,
}

impl Stage {
    fn new(name: &'static str, run: impl FnMut() + 'static) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// All of them. Python stays attached to this thread for good, and `runtime` holds a gateway without callers.
pub fn all(runtime: &tokio::runtime::Runtime, folder: &Path) -> Vec<Stage> {
    let mut stages = admission(runtime, folder);
    stages.extend(frames());
    stages.extend(python(folder));
    stages.extend(answers());
    stages
}

/// A request as `wrk` sends it.
pub fn request(api_key: &str, body: &str) -> String {
    format!(
        "POST /model HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer {api_key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A body as a caller sends it.
pub fn body(number: usize, request: &str) -> String {
    format!(r#"{{"accessKey":"{}","request":{request}}}"#, access_key(number))
}

/// About 1 MB of floats, the same each time.
pub fn floats() -> String {
    let mut text = String::from("[");
    let mut state = 1_u64;
    for k in 0..FLOATS {
        // A linear congruence (Knuth's MMIX constants) is random enough for digits.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if k > 0 {
            text.push_str(", ");
        }
        text.push_str(&((state >> 11) as f64 / (1_u64 << 53) as f64).to_string());
    }
    text.push(']');
    text
}

fn admission(runtime: &tokio::runtime::Runtime, folder: &Path) -> Vec<Stage> {
    let issuer = Issuer::default();
    let whole = request(&issuer.api_key(0), &body(0, ADD));
    let (small, large) = (body(0, ADD), body(0, &floats()));
    let gateway = {
        let _runtime = runtime.enter();
        let gateway = Gateway::new(GatewayConfig::default());
        gateway.apply(issuer.snapshot(1, 1, folder)).expect("the snapshot is good");
        gateway
    };
    let keys = bench::Keys::new(&issuer.verification(), 10_000).expect("the key is one");
    let known = issuer.api_key(0);
    assert!(keys.verify(&known, NOW_S), "the signature is ours");
    // One verdict is remembered, and the keys come in turn: neither is ever known.
    let forgetful = bench::Keys::new(&issuer.verification(), 1).expect("the key is one");
    let mut strangers = [issuer.api_key(1), issuer.api_key(2)];
    let line = bench::OneIdle::default();
    let model = access_key(0);
    vec![
        Stage::new("head check", move || assert!(bench::head(black_box(whole.as_bytes())))),
        Stage::new("split", move || assert!(split(black_box(small.as_bytes())).is_ok())),
        Stage::new("split, 1 MB", move || assert!(split(black_box(large.as_bytes())).is_ok())),
        Stage::new("access key", move || assert!(bench::route(&gateway, black_box(&model)))),
        Stage::new("key verdict, known", move || assert!(keys.is_known(black_box(&known), NOW_S))),
        Stage::new("key verdict, signature", move || {
            strangers.swap(0, 1);
            assert!(forgetful.verify(black_box(&strangers[0]), NOW_S));
        }),
        Stage::new("lease", move || assert!(line.lease())),
    ]
}

fn frames() -> Vec<Stage> {
    let call = Call {
        id: CallId(7),
        remaining_ms: 30_000,
        request_id: RequestId::new("0af7651916cd43dd8448eb211c80319c"),
        traceparent: String::new(),
        busy_poll_us: 0,
    };
    let done = done();
    let mut call_head = BytesMut::with_capacity(256);
    let mut done_head = BytesMut::with_capacity(256);
    let call_frame = Frame::Call(call.clone(), Bytes::from_static(ADD.as_bytes())).encode();
    let done_frame = Frame::Done(done.clone()).encode();
    vec![
        Stage::new("frame out, Call", move || {
            call_head.clear();
            encode_call_head(&mut call_head, black_box(&call), ADD.len());
        }),
        Stage::new("frame in, Call", move || decode(black_box(&call_frame))),
        Stage::new("frame out, Done", move || {
            done_head.clear();
            encode_done_head(&mut done_head, black_box(&done));
        }),
        Stage::new("frame in, Done", move || decode(black_box(&done_frame))),
    ]
}

fn done() -> Done {
    Done {
        id: CallId(7),
        outcome: Outcome::Ok,
        collects_metrics: false,
        is_leaving: false,
        is_queued: false,
        timings: Timings::default(),
        value: Bytes::from_static(b"8"),
        metrics: Bytes::new(),
    }
}

fn decode(frame: &Bytes) {
    let header = Header::decode(frame.first_chunk::<HEADER_BYTES>().expect("it has a header"));
    let frame = header.and_then(|header| header.decode_payload(frame.slice(HEADER_BYTES..)));
    assert!(matches!(frame, Ok(Some(_))));
}

fn python(folder: &Path) -> Vec<Stage> {
    Python::initialize();
    std::fs::write(folder.join("functions.py"), FUNCTIONS).expect("the folder is ours");
    let (small, large) = (ADD.as_bytes().to_vec(), floats().into_bytes());
    let (value, codec, run_add) = Python::attach(|py| {
        let value = json::decode(py, &large).expect("it is JSON").unbind();
        let imported = Imported::load(py, folder, Path::new("functions.py"), "add");
        let imported: &'static Imported = Box::leak(Box::new(imported.expect("the file can be imported")));
        (value, Codec::new(py).expect("its Python half compiles"), imported)
    });
    let small_again = small.clone();
    let value_of_large = move |out: &mut Vec<u8>| {
        Python::attach(|py| {
            out.clear();
            assert!(codec.encode(value.bind(py), out, limits::RESPONSE_BYTES_MAX).is_ok());
        });
    };
    let mut out = Vec::new();
    vec![
        Stage::new("JSON in", move || {
            Python::attach(|py| drop(json::decode(py, black_box(&small)).expect("it is JSON")));
        }),
        Stage::new("JSON in, 1 MB", move || {
            Python::attach(|py| drop(json::decode(py, black_box(&large)).expect("it is JSON")));
        }),
        Stage::new("JSON in, call, JSON out", move || {
            Python::attach(|py| assert!(run_add.runner(py)(black_box(&small_again)).is_some()));
        }),
        Stage::new("JSON out, 1 MB", move || value_of_large(&mut out)),
    ]
}

fn answers() -> Vec<Stage> {
    let replica = ReplicaId::new("add-two-numbers-1-1-86b9b58b7b-g6s8r");
    let mut event = bench::Event::default();
    vec![
        Stage::new("envelope", move || {
            black_box(envelope::success(black_box(b"8"), &replica, None));
        }),
        Stage::new("call event", move || assert!(event.write())),
    ]
}
