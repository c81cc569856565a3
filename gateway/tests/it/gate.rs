//! What the gate does with bytes from real sockets: refusals in their order, hang-ups, clocks, budgets.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Request, Response};
use millgate_gateway::{CallerBody, Fallback, GatewayConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    double::Act,
    house::{House, call},
    http::{Caller, request},
    http2::{PREFACE, frame},
};

/// Answers with the length of the body it was sent, or 400 when it did not get it.
pub(crate) fn length_of_body() -> Fallback {
    Fallback::new(tower::service_fn(|request: Request<CallerBody>| async move {
        let (status, text) = match request.into_body().collect().await {
            Ok(body) => (200, body.to_bytes().len().to_string()),
            Err(_) => (400, String::new()),
        };
        let body = Full::from(text).map_err(|never: std::convert::Infallible| match never {});
        Ok(Response::builder().status(status).body(UnsyncBoxBody::new(body)).unwrap())
    }))
}

#[tokio::test]
async fn refused_framing_has_its_status_and_closes() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let long = "x".repeat(9_000);
    let cases = [
        (
            "POST /model HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .into(),
            400,
        ),
        ("POST /model HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".into(), 501),
        ("POST /model HTTP/1.1\r\nHost: a\r\n\r\n{}".into(), 411),
        ("POST /model HTTP/1.1\nHost: a\n\n".into(), 400),
        ("POST /model HTTP/1.1\r\nContent-Length: 0\r\n\r\n".into(), 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505),
        (format!("GET /{long} HTTP/1.1\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(100)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}", format!("X: {long}\r\n").repeat(4)), 431),
        ("POST /model HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\n".into(), 400),
        ("POST /model HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n500001".into(), 413),
    ];
    for (bytes, status) in cases {
        let mut caller = house.caller().await;
        caller.send(bytes.as_bytes()).await;
        let answer = caller.answer().await;
        assert_eq!(answer.status, status, "{bytes}");
        assert!(answer.body.contains(&format!("\"StatusCode\":{status}")), "{}", answer.body);
        assert!(answer.header("x-request-id").is_some());
        assert!(caller.is_closed().await, "{bytes}");
    }
    assert!(double.read().is_empty());
    let page = house.metrics().await;
    assert!(page.contains(r#"millgate_unrouted_calls_total{code="request.coding_unsupported"} 1"#), "{page}");
}

#[tokio::test]
async fn a_refusal_waits_for_the_answers_before_it() {
    let hold = Arc::new(Notify::new());
    let (house, double) = House::with_acts(2, vec![Act::Hold(hold.clone())]).await;
    let mut caller = house.caller().await;
    caller.send(&[call("1"), call("2"), b"BAD\r\n\r\n".to_vec(), call("3")].concat()).await;
    double.until_read(1).await;
    // The second has a free replica, and is held all the same.
    assert_eq!(house.call("4").await.status, 200);
    assert_eq!(double.read(), ["1", "4"]);
    hold.notify_one();
    assert!(caller.answer().await.body.contains("\"response\":1,"));
    assert!(caller.answer().await.body.contains("\"response\":2,"));
    assert_eq!(caller.answer().await.status, 400);
    assert!(caller.is_closed().await);
    assert_eq!(double.read(), ["1", "4", "2"]);
}

#[tokio::test]
async fn a_hang_up_behind_pipelined_bytes_is_noticed() {
    let hold = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::Hold(hold.clone())]).await;
    let mut running = house.begin("1").await;
    double.until_read(1).await;
    for behind in [0, 1, 5_000, 200_000, 10_000_000] {
        let mut gone = TcpStream::connect(house.address).await.unwrap();
        gone.write_all(&call("\"gone\"")).await.unwrap();
        house.until_in_line(1).await;
        gone.write_all(&vec![b'x'; behind]).await.unwrap();
        // Half of it is enough.
        gone.shutdown().await.unwrap();
        house.until_in_line(0).await;
        let mut rest = Vec::new();
        let _ = gone.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }
    hold.notify_one();
    assert_eq!(running.answer().await.status, 200);
    assert_eq!(house.call("2").await.status, 200);
    assert_eq!(double.read(), ["1", "2"]);
}

#[tokio::test]
async fn bytes_that_had_to_wait_are_read_when_their_turn_comes() {
    let hold = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::Hold(hold.clone())]).await;
    let mut caller = house.caller().await;
    caller.send(&call("1")).await;
    double.until_read(1).await;
    // Behind the call, one that is larger than a buffer, in pieces.
    let large = call(&format!("\"{}\"", "x".repeat(100_000)));
    for piece in large.chunks(20_000) {
        caller.send(piece).await;
        tokio::task::yield_now().await;
    }
    hold.notify_one();
    assert!(caller.answer().await.body.contains("\"response\":1,"));
    assert_eq!(caller.answer().await.status, 200);
    caller.send(&call("3")).await;
    assert!(caller.answer().await.body.contains("\"response\":3,"));
}

#[tokio::test]
async fn who_sends_too_much_before_an_answer_gets_that_answer_and_no_more() {
    let hold = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::Hold(hold.clone())]).await;
    let mut caller = house.caller().await;
    caller.send(&call("1")).await;
    double.until_read(1).await;
    caller.send(&call(&format!("\"{}\"", "x".repeat(5_000_000)))).await;
    hold.notify_one();
    assert!(caller.answer().await.body.contains("\"response\":1,"));
    assert!(caller.is_closed().await);
    assert_eq!(double.read(), ["1"]);
}

#[tokio::test]
async fn every_kind_of_answer_leaves_its_connection_usable() {
    let house = House::open_with(GatewayConfig::default(), length_of_body()).await;
    let mut caller = house.caller().await;
    for _ in 0..3 {
        caller.send(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(caller.head().await.starts_with("http/1.1 200"));
        caller.send(&request("OPTIONS", "/model", &[], "")).await;
        assert_eq!(caller.answer().await.status, 204);
        caller.send(&request("GET", "/model", &["Upgrade: h2c", "Connection: upgrade"], "")).await;
        assert_eq!(caller.answer().await.status, 405);
        caller.send(b"\r\nGET /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").await;
        assert_eq!(caller.answer().await.body, "0");
        caller.send(b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").await;
        assert!(caller.head().await.starts_with("http/1.1 100"));
        caller.send(b"abc").await;
        assert_eq!(caller.answer().await.body, "3");
    }
}

#[tokio::test]
async fn bodies_that_are_not_calls_may_be_large() {
    let house = House::open_with(GatewayConfig::default(), length_of_body()).await;
    let mut caller = house.caller().await;
    caller.send(b"PUT /api/v2/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..10 {
        caller.send(b"100000\r\n").await;
        caller.send(&vec![b'x'; 0x10_0000]).await;
        caller.send(b"\r\n").await;
    }
    caller.send(b"0\r\n\r\n").await;
    assert_eq!(caller.answer().await.body, (10 * 0x10_0000).to_string());
    caller.send(b"PUT /api/v2/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n").await;
    assert_eq!(caller.answer().await.status, 400);
    assert!(caller.is_closed().await);
}

/// Seconds until the connection is closed, and what came before that.
async fn until_closed(stream: &mut TcpStream) -> (u64, String) {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    (begun.elapsed().as_secs(), String::from_utf8(rest).unwrap())
}

/// Sends a byte a second until the connection is closed.
async fn trickle(stream: TcpStream, bytes: Vec<u8>) -> (u64, String) {
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        for byte in bytes {
            sleep(Duration::from_secs(1)).await;
            if write.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    });
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = read.read_to_end(&mut rest).await;
    sending.abort();
    (begun.elapsed().as_secs(), String::from_utf8(rest).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_is_idle_for_longer_than_a_head_may_take() {
    let (house, _double) = House::with_acts(1, vec![]).await;
    let mut caller = house.caller().await;
    for _ in 0..3 {
        caller.send(&call("1")).await;
        assert_eq!(caller.answer().await.status, 200);
        sleep(Duration::from_secs(70)).await;
    }
    caller.send(&call("1")).await;
    assert_eq!(caller.answer().await.status, 200);
    let begun = Instant::now();
    assert!(caller.is_closed().await);
    assert!((74..78).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn silence_is_ended_after_ten_seconds_and_a_trickle_within_thirty() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let connect = || TcpStream::connect(house.address);
    let mut silent = connect().await.unwrap();
    let (seconds, answer) = until_closed(&mut silent).await;
    assert!(seconds <= 11 && answer.is_empty(), "{seconds} {answer}");
    let (seconds, answer) = trickle(connect().await.unwrap(), call("1")).await;
    assert!(seconds <= 30 && answer.starts_with("HTTP/1.1 408"), "{seconds} {answer}");
    // In the second request of a connection as in the first.
    let mut kept = connect().await.unwrap();
    kept.write_all(&call("1")).await.unwrap();
    double.until_read(1).await;
    let (seconds, answer) = trickle(kept, call("2")).await;
    assert!(seconds <= 30 && answer.contains("HTTP/1.1 408"), "{seconds} {answer}");
    let mut in_body = connect().await.unwrap();
    let long = call(&format!("\"{}\"", "x".repeat(60)));
    let (head, body) = long.split_at(long.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4);
    in_body.write_all(head).await.unwrap();
    let (seconds, answer) = trickle(in_body, body.to_vec()).await;
    assert!(seconds <= 30 && answer.starts_with("HTTP/1.1 408"), "{seconds} {answer}");
    assert_eq!(double.read(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_trickled_upload_ends_too_and_a_slow_one_at_the_least_rate_does_not() {
    let house = House::open_with(GatewayConfig::default(), length_of_body()).await;
    let head = b"PUT /api/v2/files HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
    let mut trickled = TcpStream::connect(house.address).await.unwrap();
    trickled.write_all(head).await.unwrap();
    let (seconds, answer) = trickle(trickled, vec![b'x'; 200]).await;
    assert!(seconds <= 60 && answer.starts_with("HTTP/1.1 400"), "{seconds} {answer}");
    let mut slow = house.caller().await;
    slow.send(head).await;
    for _ in 0..100 {
        slow.send(&[b'x'; 2_000]).await;
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(slow.answer().await.body, "200000");
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let config = GatewayConfig { connections_per_address_max: 2, ..GatewayConfig::default() };
    let (house, _double) = House::with_config(config, 1, vec![]).await;
    let mut first = house.caller().await;
    first.send(&call("1")).await;
    assert_eq!(first.answer().await.status, 200);
    let second = house.caller().await;
    let mut third = house.caller().await;
    assert!(third.is_closed().await);
    drop(second);
    // The place is free when the gateway has noticed.
    while Caller::connect(house.address).await.try_ask(&call("1")).await.is_none() {}
    first.send(&call("1")).await;
    assert_eq!(first.answer().await.status, 200);
}

#[tokio::test]
async fn a_flood_of_http2_frames_ends_its_connection() {
    let (house, _double) = House::with_acts(1, vec![]).await;
    let preface = [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
    let floods = [
        frame(4, 0, 0, &[]),
        frame(6, 0, 0, &[0; 8]),
        // Headers of a `GET /` (indexed), and their stream's reset.
        [frame(1, 5, 1, &[0x82, 0x86, 0x84, 0x41, 1, b'a']), frame(3, 0, 1, &[0, 0, 0, 8])].concat(),
        frame(0xfa, 0, 0, b"?"),
    ];
    for flood in floods {
        let stream = TcpStream::connect(house.address).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let preface = preface.clone();
        let sending = tokio::spawn(async move {
            write.write_all(&preface).await.unwrap();
            let mut id = 1_u32;
            loop {
                let mut bytes = flood.clone();
                if bytes.len() == 28 {
                    // Both frames name a new stream.
                    bytes[5..9].copy_from_slice(&id.to_be_bytes());
                    bytes[20..24].copy_from_slice(&id.to_be_bytes());
                    id += 2;
                }
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        let mut rest = Vec::new();
        let _ = read.read_to_end(&mut rest).await;
        // Told why before the end: ENHANCE_YOUR_CALM.
        let last = rest.last_chunk::<17>().unwrap();
        assert_eq!((&last[..4], &last[13..]), (&[0, 0, 8, 7][..], &[0, 0, 0, 0xb][..]), "{rest:?}");
        drop(read);
        sending.await.unwrap();
    }
    assert_eq!(house.call("1").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_http2_caller_that_opens_no_window_is_let_go_and_its_replica_is_not_held() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    // INITIAL_WINDOW_SIZE is 0.
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let path = format!("/model?accessKey={}", crate::house::ACCESS_KEY);
    let mut block = vec![0x83, 0x86, 0x41, 1, b'a', 0x44, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    let call = [frame(1, 4, 1, &block), frame(0, 1, 1, br#"{"request":1}"#)].concat();
    stream.write_all(&[PREFACE.to_vec(), settings, call].concat()).await.unwrap();
    double.until_read(1).await;
    assert_eq!(house.call("2").await.status, 200);
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!((25..40).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}
