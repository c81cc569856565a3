//! What the gateway adds to a call: calls by HTTP, and calls of the same replicas by their own sockets, in turns, from two
//! callers that each make half as many as they could by HTTP.
//!
//! `overhead ADDRESS AUTHORIZATION ACCESS_KEY RUN_DIR SECONDS ROUNDS` prints one line of JSON, microseconds.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use millgate_contract::{
    frame::{Call, Frame, HEADER_BYTES, Header, Join, PROTOCOL, RefusalReason, Role},
    ids::{CallId, RequestId},
};

const CALLERS: usize = 2;
const BUSY_POLL_US: u16 = 100;
const REQUEST: &[u8] = br#"{"a": 3, "b": 5}"#;
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// Calls by which it is found out how many can be made.
const PROBE_CALLS: u32 = 500;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), BoxError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, authorization, access_key, run_dir, seconds, rounds] = &args[..] else {
        return Err("usage: overhead ADDRESS AUTHORIZATION ACCESS_KEY RUN_DIR SECONDS ROUNDS".into());
    };
    let time = Duration::from_secs_f64(seconds.parse()?);
    let by_http = || Http::open(address, authorization, access_key);
    let mut probe = by_http()?;
    let begun = Instant::now();
    for _ in 0..PROBE_CALLS {
        probe.call()?;
    }
    // Both callers are paced so that together they make half of what one alone could make without a pause.
    let interval = begun.elapsed() / PROBE_CALLS * 2 * u32::try_from(CALLERS)?;
    let mut rows = Vec::new();
    for _ in 0..rounds.parse()? {
        let http = paced((0..CALLERS).map(|_| by_http()).collect::<Result<Vec<_>, _>>()?, interval, time)?;
        let slots =
            (0..CALLERS).map(|slot| Direct::open(PathBuf::from(run_dir).join(format!("s{slot}.sock"))));
        let direct = paced(slots.collect::<Result<Vec<_>, _>>()?, interval, time)?;
        rows.push(serde_json::json!({
            "http_p50_us": quantile(&http, 0.5), "http_p99_us": quantile(&http, 0.99),
            "direct_p50_us": quantile(&direct, 0.5), "direct_p99_us": quantile(&direct, 0.99),
                "calls_per_s": CALLERS as f64 / interval.as_secs_f64(),
        }));
    }
    println!("{}", serde_json::Value::from(rows));
    Ok(())
}

trait Caller: Send + 'static {
    fn call(&mut self) -> Result<(), BoxError>;
}

/// Calls at fixed times on as many threads as there are callers; the sorted times from call to answer.
#[expect(
    clippy::disallowed_methods,
    reason = "a pace is kept by the clock, and no other task shares these threads"
)]
fn paced<C: Caller>(callers: Vec<C>, interval: Duration, time: Duration) -> Result<Vec<Duration>, BoxError> {
    let begun = Instant::now();
    let running: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            std::thread::spawn(move || {
                let (mut times, mut next) = (Vec::new(), begun);
                while begun.elapsed() < time {
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    let start = Instant::now();
                    caller.call()?;
                    times.push(start.elapsed());
                    next += interval;
                }
                Ok::<_, BoxError>(times)
            })
        })
        .collect();
    let mut all = Vec::new();
    for caller in running {
        all.extend(caller.join().expect("a caller does not panic")?);
    }
    all.sort_unstable();
    Ok(all)
}

fn quantile(sorted: &[Duration], share: f64) -> f64 {
    #[expect(clippy::cast_sign_loss, reason = "a share of a count is not negative")]
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// By the gateway.
struct Http {
    stream: TcpStream,
    request: String,
}

impl Http {
    fn open(address: &str, authorization: &str, access_key: &str) -> Result<Self, BoxError> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let request = String::from_utf8_lossy(REQUEST);
        let body = format!(r#"{{"accessKey":"{access_key}","request":{request}}}"#);
        let head = format!("POST /model HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        Ok(Self { stream, request })
    }
}

impl Caller for Http {
    fn call(&mut self) -> Result<(), BoxError> {
        self.stream.write_all(self.request.as_bytes())?;
        let mut answer = [0; ANSWER_BYTES_MAX];
        let bytes = self.stream.read(&mut answer)?;
        if answer[..bytes].starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err("not 200".into()) }
    }
}

/// By the replica's own socket, as a gateway speaks.
struct Direct {
    stream: UnixStream,
    received: BytesMut,
    calls: u64,
}

impl Direct {
    fn open(socket: PathBuf) -> Result<Self, BoxError> {
        let stream = UnixStream::connect(socket)?;
        let mut direct = Self { stream, received: BytesMut::new(), calls: 0 };
        let Frame::Hello(_) = direct.frame()? else { return Err("not greeted".into()) };
        let join = Join { version: PROTOCOL.max, role: Role::Calls, gateway: "bench".into() };
        direct.stream.write_all(&Frame::Join(join).encode())?;
        Ok(direct)
    }

    fn frame(&mut self) -> Result<Frame, BoxError> {
        loop {
            if let Some(header) = self.received.first_chunk::<HEADER_BYTES>() {
                let header = Header::decode(header)?;
                if self.received.len() >= HEADER_BYTES + header.payload_bytes {
                    let whole = self.received.split_to(HEADER_BYTES + header.payload_bytes).freeze();
                    if let Some(frame) = header.decode_payload(whole.slice(HEADER_BYTES..))? {
                        return Ok(frame);
                    }
                    continue;
                }
            }
            let mut piece = [0; ANSWER_BYTES_MAX];
            match self.stream.read(&mut piece)? {
                0 => return Err("the replica has hung up".into()),
                bytes => self.received.extend_from_slice(&piece[..bytes]),
            }
        }
    }
}

impl Caller for Direct {
    fn call(&mut self) -> Result<(), BoxError> {
        self.calls += 1;
        let call = Call {
            id: CallId(self.calls),
            remaining_ms: 30_000,
            request_id: RequestId::new("0af7651916cd43dd8448eb211c80319c"),
            traceparent: String::new(),
            // As a gateway that has nothing else to do.
            busy_poll_us: BUSY_POLL_US,
        };
        self.stream.write_all(&Frame::Call(call, Bytes::from_static(REQUEST)).encode())?;
        loop {
            match self.frame()? {
                Frame::Done(_) => return Ok(()),
                Frame::Refused(_, RefusalReason::Busy) => {
                    return Err("the replica is busy for another".into());
                }
                _ => {}
            }
        }
    }
}
