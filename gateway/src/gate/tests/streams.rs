//! Streams of requests through the gate into hyper: however they are split, and whatever is done to them.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt, Either, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::{Answered, BodyLimits, Exchange, Fault, Gate, GateLimits, framing::Framing};

/// A caller that sends pieces, each when the last one is read, takes all answers, and hangs up a second later.
struct Script {
    pieces: VecDeque<Vec<u8>>,
    is_due: bool,
    end: Pin<Box<tokio::time::Sleep>>,
    answers: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_due = !self.is_due;
        if !self.is_due {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut piece) = self.pieces.pop_front() else {
            return self.end.as_mut().poll(cx).map(Ok);
        };
        let rest = piece.split_off(piece.len().min(buf.remaining()));
        buf.put_slice(&piece);
        if !rest.is_empty() {
            self.pieces.push_front(rest);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.answers.lock().unwrap().extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a service saw of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Whole(String, Vec<u8>),
    /// The head was refused.
    Refused(Fault),
    /// The body was.
    Broken(Option<Fault>),
}

/// What hyper makes of the pieces behind the gate.
fn run(pieces: Vec<Vec<u8>>) -> (Vec<Seen>, String) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::new(Mutex::new(Vec::new()));
    let exchange = Arc::new(Exchange::default());
    let limits = GateLimits {
        head_max: Duration::from_secs(10),
        idle_max: Duration::from_secs(75),
        body: BodyLimits { idle_max: Duration::from_secs(30), bytes_per_s_min: 1_000 },
    };
    let service = service_fn({
        let (seen, exchange) = (Arc::clone(&seen), Arc::clone(&exchange));
        move |request: Request<Incoming>| {
            let (seen, exchange) = (Arc::clone(&seen), Arc::clone(&exchange));
            async move {
                let target = request.uri().to_string();
                let what = match exchange.refused() {
                    Some(fault) => Seen::Refused(fault),
                    None => match request.into_body().collect().await {
                        Ok(body) => Seen::Whole(target, body.to_bytes().to_vec()),
                        Err(error) => Seen::Broken(Fault::of(&error)),
                    },
                };
                seen.lock().unwrap().push(what);
                let body = Answered::new(Either::Left(Full::from("answer")), exchange);
                Ok::<_, Infallible>(Response::new(body))
            }
        }
    });
    runtime.block_on(async {
        let end = Box::pin(tokio::time::sleep(Duration::from_secs(1)));
        let script = Script { pieces: pieces.into(), is_due: false, end, answers: Arc::clone(&answers) };
        let gate = Gate::new(script, exchange, limits);
        let mut builder = http1::Builder::new();
        let serving = builder.half_close(false).serve_connection(TokioIo::new(gate), service);
        // A gate that forgets to wake its task shows as the end of this time.
        let _ = tokio::time::timeout(Duration::from_secs(100), serving).await.expect("the connection hangs");
    });
    let answers = String::from_utf8(std::mem::take(&mut *answers.lock().unwrap())).unwrap();
    let seen = seen.lock().unwrap().clone();
    (seen, answers)
}

/// What the gate alone says: the targets and bodies of whole requests, and the fault that ends them.
fn framed(stream: &[u8]) -> (Vec<(String, Vec<u8>)>, Option<Fault>) {
    let (mut requests, mut at) = (Vec::new(), 0);
    // Until nothing is left, or not a whole request.
    while at < stream.len() {
        if stream[at..].starts_with(b"\r\n") {
            at += 2;
        }
        let mut framing = Framing::new();
        let passed = framing.judge(&stream[at..]);
        if framing.is_over() {
            let request = &stream[at..at + passed];
            let head = request.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            let line = String::from_utf8_lossy(&request[..head]);
            let target: hyper::Uri = line.split(' ').nth(1).unwrap().parse().expect("hyper takes it too");
            let is_chunked = request[..head].windows(7).any(|w| w.eq_ignore_ascii_case(b"chunked"))
                && String::from_utf8_lossy(&request[..head]).to_lowercase().contains("\ntransfer-encoding:");
            let body = if is_chunked { dechunk(&request[head..]) } else { request[head..].to_vec() };
            requests.push((target.to_string(), body));
            at += passed;
            if request[..head].windows(11).any(|w| w == b" HTTP/1.0\r\n") {
                // Nothing is read behind it.
                return (requests, None);
            }
        } else {
            return (requests, framing.fault());
        }
    }
    (requests, None)
}

/// The content of a chunked body that is well formed.
fn dechunk(mut chunked: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = chunked.windows(2).position(|w| w == b"\r\n").unwrap();
        let digits = std::str::from_utf8(&chunked[..line]).unwrap().split(';').next().unwrap();
        let size = usize::from_str_radix(digits, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&chunked[line + 2..line + 2 + size]);
        chunked = &chunked[line + 2 + size + 2..];
    }
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    let target = prop_oneof![Just("/model"), Just("/a"), Just("/a?b=c"), Just("http://a/model")];
    let chunk_bytes = 1_usize..9;
    let kind = 0..4;
    (kind, target, body, chunk_bytes).prop_map(|(kind, target, body, chunk_bytes)| {
        let head =
            |line: &str| format!("POST {target} HTTP/1.1\r\nhost: a\r\nX: y\r\n{line}\r\n").into_bytes();
        match kind {
            0 => format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
            1 => [head(&format!("Content-Length: {}\r\n", body.len())), body].concat(),
            2 => {
                [head(&format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len())), body].concat()
            }
            _ => {
                let mut request = head("Transfer-Encoding: chunked\r\n");
                for chunk in body.chunks(chunk_bytes) {
                    request.extend_from_slice(format!("{:x};e=1\r\n", chunk.len()).as_bytes());
                    request.extend_from_slice(chunk);
                    request.extend_from_slice(b"\r\n");
                }
                request.extend_from_slice(b"0\r\nT: 1\r\n\r\n");
                request
            }
        }
    })
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(request(), 1..4).prop_map(|requests| requests.concat())
}

/// What parsers quarrel about.
const NASTY: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"a",
    b"\xff",
    b"Content-Length: 3\r\n",
    b"\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n",
    b"/",
    b"?",
    b"%",
    b"@",
    b"[",
    b"{",
    b"|",
    b"^",
    b"`",
    b"'",
    b"",
];

/// A stream with a few bytes put in, taken out, or replaced.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let nasty = proptest::sample::select(NASTY);
    let damage = (any::<prop::sample::Index>(), 0_usize..3, nasty);
    (stream(), proptest::collection::vec(damage, 0..4)).prop_map(|(mut stream, damages)| {
        for (at, removed, inserted) in damages {
            let at = at.index(stream.len());
            let end = (at + removed).min(stream.len());
            stream.splice(at..end, inserted.iter().copied());
            if stream.is_empty() {
                break;
            }
        }
        stream
    })
}

fn cut(stream: &[u8], mut at: Vec<prop::sample::Index>) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = at.drain(..).map(|index| index.index(stream.len().max(1))).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|ends| stream[ends[0]..ends[1]].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_well_formed_arrives_whole_and_is_answered_in_order(
        stream in stream(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let (requests, fault) = framed(&stream);
        prop_assert_eq!(fault, None);
        let (seen, answers) = run(cut(&stream, cuts));
        let expected: Vec<_> = requests.into_iter().map(|(target, body)| Seen::Whole(target, body)).collect();
        prop_assert_eq!(answers.matches("HTTP/1.1 200").count(), expected.len());
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn a_verdict_does_not_depend_on_how_bytes_are_split(
        stream in damaged(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        prop_assert_eq!(run(vec![stream.clone()]).0, run(cut(&stream, cuts)).0);
    }

    #[test]
    fn hyper_reads_what_passes_as_the_gate_does(stream in damaged()) {
        let (requests, fault) = framed(&stream);
        let (mut seen, answers) = run(vec![stream]);
        let last = seen.iter().position(|what| !matches!(what, Seen::Whole(..)));
        let end = last.map(|at| seen.split_off(at));
        let whole: Vec<_> = requests.into_iter().map(|(target, body)| Seen::Whole(target, body)).collect();
        prop_assert_eq!(&seen, &whole);
        match (fault, end.as_deref()) {
            (Some(fault), Some([Seen::Refused(found) | Seen::Broken(Some(found))])) => prop_assert_eq!(*found, fault),
            // Cut off in a head, or in a body.
            (None, None | Some([Seen::Broken(None)])) => {}
            other => prop_assert!(false, "{:?}", other),
        }
        // hyper itself has nothing to refuse.
        prop_assert!(!answers.contains("HTTP/1.1 4"), "{answers}");
    }
}
