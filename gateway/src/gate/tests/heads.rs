//! One head after another, and what becomes of it.

use super::super::{
    Fault,
    chunks::Chunks,
    head::{Head, HeadScan, Length},
};

fn judge(head: &str) -> Result<Option<Head>, Fault> {
    HeadScan::default().advance(head.as_bytes())
}

/// A head of `POST /elsewhere` with these lines.
fn with(lines: &[&str]) -> String {
    format!("POST /elsewhere HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"))
}

#[track_caller]
fn passes(head: &str, length: Length) {
    let passed = judge(head).expect(head).expect(head);
    assert_eq!((passed.bytes, passed.length), (head.len(), length), "{head:?}");
}

#[track_caller]
fn is_malformed(head: &str) {
    assert!(matches!(judge(head), Err(Fault::Malformed(_))), "{head:?}: {:?}", judge(head));
}

#[track_caller]
fn is(head: &str, fault: Fault) {
    assert_eq!(judge(head), Err(fault), "{head:?}");
}

#[test]
fn what_is_well_formed_passes() {
    passes("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Length::Unsaid);
    passes("GET / HTTP/1.0\r\n\r\n", Length::Unsaid);
    passes(&with(&["hOsT: a.example:8080", "content-length:  12 "]), Length::Bytes(12));
    passes(&with(&["Host: [::1]:80", "Transfer-Encoding: Chunked"]), Length::Chunked);
    passes(&with(&["Host: a", "X-Text: caf\u{e9}\tau lait"]), Length::Unsaid);
    passes(&with(&["Host: a", "Upgrade: h2c", "Connection: upgrade", "X-Empty:"]), Length::Unsaid);
    passes("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Length::Unsaid);
    passes("GET http://A.example:80/x?y HTTP/1.1\r\nHost: a.EXAMPLE\r\n\r\n", Length::Unsaid);
    passes("GET https://a.example HTTP/1.1\r\nHost: a.example:443\r\n\r\n", Length::Unsaid);
}

#[test]
fn the_length_of_a_body_has_one_reading() {
    let host = "Host: a";
    is_malformed(&with(&[host, "Content-Length: 3", "Transfer-Encoding: chunked"]));
    is_malformed(&with(&[host, "Transfer-Encoding: chunked", "Content-Length: 3"]));
    is_malformed(&with(&[host, "Content-Length: 3", "Content-Length: 3"]));
    is_malformed(&with(&[host, "Content-Length: 3", "Content-Length: 4"]));
    for length in ["", "3, 3", "+3", "-3", "0x3", "3 3", "3.0", "\u{663}"] {
        is_malformed(&with(&[host, &format!("Content-Length: {length}")]));
    }
    is(&with(&[host, "Content-Length: 18446744073709551616"]), Fault::TooLarge);
    is(&with(&[host, "Content-Length: 18446744073709551615"]), Fault::TooLarge);
    is_malformed(&with(&[host, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]));
    for coding in
        ["", "identity", "chunked, gzip", "chunked, chunked", "xchunked", "\u{b}chunked", "chunked,"]
    {
        is_malformed(&with(&[host, &format!("Transfer-Encoding: {coding}")]));
    }
    is(&with(&[host, "Transfer-Encoding: gzip, chunked"]), Fault::CodingUnsupported);
    is_malformed("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    is("POST /model HTTP/1.1\r\nHost: a\r\n\r\n", Fault::LengthRequired);
    is("POST http://a/model?x HTTP/1.1\r\nHost: a\r\n\r\n", Fault::LengthRequired);
}

#[test]
fn a_host_is_there_once_and_is_that_of_the_target() {
    is_malformed("GET / HTTP/1.1\r\n\r\n");
    is_malformed("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n");
    is_malformed("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n");
    is_malformed("GET / HTTP/1.1\r\nHost:\r\n\r\n");
    for host in ["a b", "a/b", "a@b", "a,b", "a?b", "\u{e9}"] {
        is_malformed(&with(&[&format!("Host: {host}")]));
    }
    is_malformed("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n");
    is_malformed("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n");
    is_malformed("GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n");
    is_malformed("GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n");
    is_malformed("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn lines_are_lines() {
    is_malformed("GET / HTTP/1.1\nHost: a\r\n\r\n");
    is_malformed("GET / HTTP/1.1\r\nHost: a\n");
    is_malformed("GET / HTTP/1.1\r\nHost: a\r\n\n");
    is_malformed("GET / HTTP/1.1\r\nX: a\rb\r\nHost: a\r\n\r\n");
    is_malformed("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n");
    is_malformed("GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n");
    is_malformed("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n");
    for header in
        ["X : a", ": a", "X\0: a", "X\u{7f}: a", "X: a\0", "X: \u{1}", "X: \u{7f}", "(X): a", "\u{e9}: a"]
    {
        is_malformed(&with(&["Host: a", header]));
    }
}

#[test]
fn a_request_line_is_method_target_version() {
    for line in [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /",
        "GET / a HTTP/1.1",
        "GE(T / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.1x",
        "GET x HTTP/1.1",
        "GET * HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /#a HTTP/1.1",
        "",
    ] {
        is_malformed(&format!("{line}\r\nHost: a\r\n\r\n"));
    }
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9"] {
        is(&format!("GET / {version}\r\nHost: a\r\n\r\n"), Fault::VersionUnsupported);
    }
    is("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Fault::MethodNotAllowed);
}

#[test]
fn a_head_has_limits_that_do_not_wait_for_its_end() {
    let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 1));
    passes(&target(8_192), Length::Unsaid);
    is(&target(8_193), Fault::TargetTooLong);
    is(&"x".repeat(9_000), Fault::TargetTooLong);
    let headers = |count: usize| {
        with(&vec!["Host: a"; 1].into_iter().chain(vec!["X: a"; count - 1]).collect::<Vec<_>>())
    };
    passes(&headers(100), Length::Unsaid);
    is(&headers(101), Fault::HeadTooLarge);
    let value = |bytes: usize| {
        let head = with(&["Host: a", "X: "]);
        with(&["Host: a", &format!("X: {}", "x".repeat(bytes - head.len()))])
    };
    passes(&value(32_768), Length::Unsaid);
    is(&value(32_769), Fault::HeadTooLarge);
    is(&value(40_000)[..32_769], Fault::HeadTooLarge);
    assert_eq!(judge(&value(40_000)[..32_768]), Ok(None));
}

fn chunks(body: &[u8], bytes_max: u64) -> Result<(usize, bool), Fault> {
    let mut chunks = Chunks::new(bytes_max);
    chunks.advance(body).map(|bytes| (bytes, chunks.is_end()))
}

#[test]
fn a_chunked_body_ends_where_it_says() {
    for body in [
        "0\r\n\r\n",
        "3\r\nabc\r\n0\r\n\r\n",
        "0003\r\nabc\r\n000\r\n\r\n",
        "3;a=b\r\nabc\r\n0\r\nX: a\r\nY:\r\n\r\n",
    ] {
        assert_eq!(chunks(body.as_bytes(), 10), Ok((body.len(), true)), "{body:?}");
        let behind = format!("{body}GET /");
        assert_eq!(chunks(behind.as_bytes(), 10), Ok((body.len(), true)), "{body:?}");
    }
    for body in [
        "3 \r\n",
        " 3\r\n",
        "3\t\r\n",
        "\r\n",
        ";\r\n",
        "+3\r\n",
        "0x3\r\n",
        "g\r\n",
        "3\n",
        "3\r\r",
        "3;a\n",
        "3;a b\r\n",
        "3;\0\r\n",
        "3\r\nabcd",
        "3\r\nabc\n",
        "3\r\nabc\r0",
        "0\r\n\n",
        "0\r\nX\r\n",
        "0\r\n: a\r\n",
        "0\r\n a\r\n",
        "0\r\nX: \0",
        "0\r\nX: a\n",
        "00000000000000003\r\n",
    ] {
        assert!(matches!(chunks(body.as_bytes(), 10), Err(Fault::Malformed(_))), "{body:?}");
    }
    let many = format!("0\r\n{}\r\n", "X: a\r\n".repeat(33));
    assert_eq!(chunks(many.as_bytes(), 10), Err(Fault::HeadTooLarge));
}

#[test]
fn a_chunk_past_the_limit_is_refused_at_the_digit_that_makes_it_so() {
    assert_eq!(chunks(b"b", 10), Err(Fault::TooLarge));
    assert_eq!(chunks(b"a\r\n0123456789\r\n0\r\n\r\n", 10), Ok((20, true)));
    assert_eq!(chunks(b"a\r\n0123456789\r\n1", 10), Err(Fault::TooLarge));
    assert_eq!(chunks(b"ffffffffffffffff", u64::MAX >> 1), Err(Fault::TooLarge));
}
