//! Requests whose framing could be read in more than one way, or that ask for too much.

use std::time::{Duration, Instant};

use super::{AT_ONCE, Found, Row, call, good, runs, with_lines};
use crate::{http::Connection, server::Model};

/// What callers that hang up in line have sent behind their requests.
const BEHIND_BYTES: [usize; IN_LINE] = [0, 1, 1_000, 100_000, 10_000_000];
/// Calls that the line of the model holds on which they stand.
pub(super) const IN_LINE: usize = 5;
/// How long a refusal for a full line may take; a call that has none after that stands in line.
const LOOK: Duration = Duration::from_millis(100);
/// In what time who hangs up has left the line.
const LEFT_WITHIN: Duration = Duration::from_millis(50);

/// All rows of one connection each.
pub(super) fn rows(model: &Model) -> Vec<Row> {
    [lengths(model), heads(model), chunks(model), orders(model)].into_iter().flatten().collect()
}

fn refused(name: &str, bytes: Vec<u8>, status: u16) -> Row {
    Row { name: name.to_owned(), bytes, statuses: vec![status], closes: true, runs: 0 }
}

fn answered(name: &str, bytes: Vec<u8>) -> Row {
    Row { name: name.to_owned(), bytes, statuses: vec![200], closes: false, runs: 1 }
}

/// How long the body is.
fn lengths(model: &Model) -> Vec<Row> {
    let body = model.body("1");
    let (length, chunked) = (format!("Content-Length: {}", body.len()), "Transfer-Encoding: chunked");
    let coded = |coding: &str| with_lines(model, &[&format!("Transfer-Encoding: {coding}")], b"0\r\n\r\n");
    let counted = |value: &str| with_lines(model, &[&format!("Content-Length: {value}")], body.as_bytes());
    let old = format!("POST /model HTTP/1.0\r\nHost: a\r\n{chunked}\r\n\r\n0\r\n\r\n");
    vec![
        refused(
            "Content-Length, then Transfer-Encoding",
            with_lines(model, &[&length, chunked], b"0\r\n\r\n"),
            400,
        ),
        refused(
            "Transfer-Encoding, then Content-Length",
            with_lines(model, &[chunked, &length], b"0\r\n\r\n"),
            400,
        ),
        refused("two equal Content-Length", with_lines(model, &[&length, &length], body.as_bytes()), 400),
        refused(
            "two different Content-Length",
            with_lines(model, &[&length, "Content-Length: 3"], body.as_bytes()),
            400,
        ),
        refused("Content-Length with a list", counted("3, 3"), 400),
        refused("Content-Length with a sign", counted("+3"), 400),
        refused("Content-Length in hexadecimal", counted("0x3"), 400),
        refused("Content-Length without a value", counted(""), 400),
        refused("Content-Length that overflows", counted("18446744073709551616"), 413),
        refused("Content-Length over the limit", counted("5242881"), 413),
        refused(
            "Expect: 100-continue over the limit",
            with_lines(model, &["Expect: 100-continue", "Content-Length: 5242881"], b""),
            413,
        ),
        refused("nothing says how long the body is", with_lines(model, &[], body.as_bytes()), 411),
        refused("Transfer-Encoding: identity", coded("identity"), 400),
        refused("Transfer-Encoding: xchunked", coded("xchunked"), 400),
        refused("Transfer-Encoding: chunked, identity", coded("chunked, identity"), 400),
        refused("Transfer-Encoding: chunked, chunked", coded("chunked, chunked"), 400),
        refused("Transfer-Encoding with a vertical tab", coded("\u{b}chunked"), 400),
        refused("Transfer-Encoding: gzip, chunked", coded("gzip, chunked"), 501),
        refused("Transfer-Encoding twice", with_lines(model, &[chunked, chunked], b"0\r\n\r\n"), 400),
        refused("Transfer-Encoding on HTTP/1.0", old.into_bytes(), 400),
    ]
}

/// Request lines and headers.
fn heads(model: &Model) -> Vec<Row> {
    let plain = |head: &str| head.as_bytes().to_vec();
    let long = "x".repeat(8_193);
    let line = |line: &str| with_lines(model, &[line, "Content-Length: 0"], b"");
    let body = model.body("1");
    let length = format!("Content-Length: {}", body.len());
    vec![
        refused("bare LF in the head", plain("POST /model HTTP/1.1\nHost: a\n\n"), 400),
        refused("bare LF at one header", line("X: a\nY: b"), 400),
        refused("bare CR in a value", line("X: a\rb"), 400),
        refused("no Host", plain("POST /model HTTP/1.1\r\nContent-Length: 0\r\n\r\n"), 400),
        refused("Host twice", line("Host: a"), 400),
        refused("Host that is no host", plain("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400),
        refused("Host unlike the target's", plain("GET http://b/model HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
        refused("a folded header", line("X: a\r\n b"), 400),
        refused("space before the colon", line("Content-Type : a"), 400),
        refused("NUL in a header's name", line("X\0: a"), 400),
        refused("NUL in a header's value", line("X: \0"), 400),
        refused("a control character in a value", line("X: \u{1}"), 400),
        refused("a header without a colon", line("X"), 400),
        refused("101 headers", line(&"X: a\r\n".repeat(101)), 431),
        refused("a head over 32 KB", line(&format!("X: {long}\r\n").repeat(4)), 431),
        refused("a target over 8 KB", plain(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), 414),
        refused("a target over 8 KB, without an end", plain(&format!("GET /{long}{long}")), 414),
        refused("two spaces in the request line", plain("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
        refused("a control character in the target", plain("GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
        refused("HTTP/2.0 in the request line", plain("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505),
        refused("HTTP/0.9", plain("GET /\r\n\r\n"), 400),
        refused("CONNECT", plain("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), 405),
        refused("TLS on a plain port", vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, b'\n'], 400),
        answered(
            "Upgrade is ignored",
            with_lines(model, &["Upgrade: h2c", "Connection: upgrade", &length], body.as_bytes()),
        ),
    ]
}

/// Chunked bodies.
fn chunks(model: &Model) -> Vec<Row> {
    let chunked = |body: &str| with_lines(model, &["Transfer-Encoding: chunked"], body.as_bytes());
    let body = model.body("1");
    let good = format!("{:x};a=b\r\n{body}\r\n0\r\nT: 1\r\n\r\n", body.len());
    vec![
        answered("a good chunked body", chunked(&good)),
        refused("space behind a chunk's size", chunked("3 \r\nabc\r\n0\r\n\r\n"), 400),
        refused("space before a chunk's size", chunked(" 3\r\nabc\r\n0\r\n\r\n"), 400),
        refused("0x before a chunk's size", chunked("0x3\r\nabc\r\n0\r\n\r\n"), 400),
        refused("a chunk without a size", chunked("\r\nabc"), 400),
        refused("bare LF behind a chunk's size", chunked("3\nabc\r\n0\r\n\r\n"), 400),
        refused("bare LF in a chunk's extension", chunked("3;a\nabc\r\n0\r\n\r\n"), 400),
        refused("a chunk longer than its size", chunked("3\r\nabcd\r\n0\r\n\r\n"), 400),
        refused("a trailer that is no header", chunked("0\r\nX\r\n\r\n"), 400),
        refused("a chunk's size over the limit, at once", chunked("500001"), 413),
        refused("chunks over the limit together, at once", chunked("1\r\nx\r\n500000"), 413),
        refused("a chunk's size that overflows", chunked("fffffffffffffffff\r\n"), 413),
    ]
}

/// More than one request on a connection.
fn orders(model: &Model) -> Vec<Row> {
    let row = |name: &str, requests: &[Vec<u8>], statuses: &[u16], runs| Row {
        name: name.to_owned(),
        bytes: requests.concat(),
        statuses: statuses.to_vec(),
        closes: statuses.iter().any(|s| *s != 200),
        runs,
    };
    let bad = b"BAD\r\n\r\n".to_vec();
    let smuggled = with_lines(model, &["Content-Length: 4", "Transfer-Encoding: chunked"], b"0\r\n\r\n");
    vec![
        row("three calls at once", &[good(model, "1"), good(model, "2"), good(model, "3")], &[200; 3], 3),
        row("a refusal behind a call", &[good(model, "1"), bad, good(model, "2")], &[200, 400], 1),
        row("a call behind a smuggler", &[smuggled, good(model, "1")], &[400], 0),
    ]
}

/// Callers that hang up while they wait, with bytes behind their request: they are out of the line, which they filled,
/// at once, nothing runs for them, and whoever comes next is not kept waiting.
pub(super) async fn hang_up(model: &Model, says_end_only: bool) -> Found {
    let before = runs(model).await;
    let mut first = Connection::open(&model.host).await.expect("the server accepts");
    first.send(&good(model, r#"{"do":"sleep","s":2}"#)).await.expect("the server reads");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut standing = Vec::new();
    for bytes in BEHIND_BYTES {
        let mut caller = Connection::open(&model.host).await.expect("the server accepts");
        caller.send(&good(model, "1")).await.expect("the server reads");
        caller.send(&vec![b'x'; bytes]).await.expect("the server reads");
        standing.push(caller);
    }
    let mut faults = Vec::new();
    // One that gets a place in spite of them holds it until it is tried, and has left it when this goes on.
    if !is_turned_away(model).await {
        faults.push("they do not stand in line".to_owned());
    }
    let mut half_closed = Vec::new();
    let begun = Instant::now();
    for mut caller in standing {
        if says_end_only {
            caller.say_end().await.expect("the connection is open");
            half_closed.push(caller);
        }
    }
    while is_turned_away(model).await && begun.elapsed() < AT_ONCE {}
    // The last look has waited for an answer that did not come.
    let left_after = begun.elapsed().saturating_sub(LOOK);
    if left_after > LEFT_WITHIN {
        faults.push("the line was full for longer than 50 ms".to_owned());
    }
    if !first.answer().await.is_ok_and(|answer| answer.status == 200) {
        faults.push("the running call has no answer".to_owned());
    }
    if !call(model, "2").await.is_ok_and(|answer| answer.status == 200) {
        faults.push("the next call has no answer".to_owned());
    }
    let ran = runs(model).await - before;
    if ran != 2 {
        faults.push(format!("the function ran {ran} times and not twice"));
    }
    drop(half_closed);
    let text = format!(
        "{} gone, a place in line after {} ms, {} ran",
        BEHIND_BYTES.len(),
        left_after.as_millis(),
        ran.saturating_sub(2)
    );
    let how = if says_end_only { "closing one half" } else { "hanging up" };
    Found::new(format!("{how} in line, bytes behind the request"), text, faults)
}

/// The line is full. Where it is not, the call that looks has stood in it, and hangs up.
async fn is_turned_away(model: &Model) -> bool {
    let mut looking = Connection::open(&model.host).await.expect("the server accepts");
    looking.send(&good(model, "3")).await.expect("the server reads");
    let answer = tokio::time::timeout(LOOK, looking.answer()).await;
    matches!(answer, Ok(Ok(answer)) if answer.status == 429)
}

/// The limits of calls are not those of uploads, which share the listener.
pub(super) async fn upload(model: &Model) -> Found {
    const BYTES: usize = 6_000_000;
    let part = "--b\r\nContent-Disposition: form-data; name=\"large.bin\"; filename=\"large.bin\"\r\n\r\n";
    let body = [part.as_bytes(), &vec![b'x'; BYTES], b"\r\n--b--\r\n"].concat();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n",
        model.files_path(),
        model.host,
        model.api_key,
        body.len()
    );
    let mut connection = Connection::open(&model.host).await.expect("the server accepts");
    let answer = connection.exchange(&[head.as_bytes(), &body].concat()).await;
    let status = answer.map_or(0, |answer| answer.status);
    let faults = if status == 200 { vec![] } else { vec!["must be 200".to_owned()] };
    Found::new("an upload over the limit of calls is taken", status, faults)
}
