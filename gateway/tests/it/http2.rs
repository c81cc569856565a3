//! HTTP/2 by its frames: what one connection may take, how its bodies and its end are kept in time.

use std::{sync::Arc, time::Duration};

use millgate_gateway::GatewayConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, mpsc},
    time::{Instant, sleep},
};

use crate::{
    gate::length_of_body,
    house::{ACCESS_KEY, House},
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2 on a stream.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A caller that says what it likes, and answers when it is asked whether it lives.
struct Frames {
    write: Arc<Mutex<OwnedWriteHalf>>,
    frames: mpsc::UnboundedReceiver<Frame>,
}

impl Frames {
    /// Connects, with settings of its own.
    async fn open(house: &House, settings: &[u8]) -> Self {
        let (mut read, write) = TcpStream::connect(house.address).await.unwrap().into_split();
        let write = Arc::new(Mutex::new(write));
        let (sender, frames) = mpsc::unbounded_channel();
        tokio::spawn({
            let write = Arc::clone(&write);
            async move {
                while let Some(frame) = read_frame(&mut read).await {
                    if frame.kind == PING && frame.flags & ACK == 0 {
                        let alive = super::http2::frame(PING, ACK, 0, &frame.payload);
                        let _ = write.lock().await.write_all(&alive).await;
                    }
                    if sender.send(frame).is_err() {
                        break;
                    }
                }
            }
        });
        let mut caller = Self { write, frames };
        caller.send(&[PREFACE.to_vec(), frame(SETTINGS, 0, 0, settings)].concat()).await;
        caller
    }

    async fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.write.lock().await.write_all(bytes).await {
            let mut last = None;
            while let Some(frame) = self.frames.recv().await {
                last = Some(frame);
            }
            panic!("{error}: {last:?}");
        }
    }

    /// The next frame, unless the connection has ended.
    async fn next(&mut self) -> Option<Frame> {
        self.frames.recv().await
    }

    /// The next frame of a kind.
    async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let next = self.next().await.expect("the connection goes on");
            if next.kind == kind {
                return next;
            }
            let is_fault = next.kind == GOAWAY && next.payload[4..] != [0; 4];
            assert!(!is_fault, "the connection ends: {next:?}");
        }
    }
}

async fn read_frame(read: &mut OwnedReadHalf) -> Option<Frame> {
    let mut header = [0; 9];
    read.read_exact(&mut header).await.ok()?;
    let [a, b, c, kind, flags, stream @ ..] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    read.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
}

/// The beginning of a `POST` to a model, or a `PUT` of a file.
fn head(is_call: bool) -> Vec<u8> {
    let path = if is_call { format!("/model?accessKey={ACCESS_KEY}") } else { "/api/v2/files".to_owned() };
    let mut block = if is_call { vec![0x83] } else { vec![0x42, 3, b'P', b'U', b'T'] };
    block.extend([0x86, 0x41, 1, b'a', 0x44, u8::try_from(path.len()).unwrap()]);
    block.extend_from_slice(path.as_bytes());
    block
}

/// `:status` of an answer's head, where it is one of those that occur here.
fn status(head: &Frame) -> u16 {
    match &head.payload[..] {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        // A name from the table, and three digits in the code of RFC 7541, appendix B.
        [0x08 | 0x48, 0x83, 0x69, 0x90, 0xff, ..] | [0x08 | 0x48, 3, b'4', b'3', b'1', ..] => 431,
        _ => panic!("another status: {head:?}"),
    }
}

#[tokio::test]
async fn a_connection_is_told_its_limits() {
    let (house, _double) = House::with_acts(1, vec![]).await;
    let mut caller = Frames::open(&house, &[]).await;
    let settings = caller.next_of(SETTINGS).await.payload;
    let of = |wanted: u16| {
        let found = settings.chunks(6).find(|setting| setting[..2] == wanted.to_be_bytes());
        found.map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()))
    };
    assert_eq!((of(3), of(6)), (Some(32), Some(8 * 1024)));
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_those_below_it_served() {
    let (house, _double) = House::with_acts(1, vec![]).await;
    let mut caller = Frames::open(&house, &[]).await;
    caller.next_of(SETTINGS).await;
    for at in 0..33 {
        // Without an end, so that none is over.
        caller.send(&frame(HEADERS, END_HEADERS, at * 2 + 1, &head(true))).await;
    }
    let refused = caller.next_of(RESET).await;
    // REFUSED_STREAM: it may be tried again.
    assert_eq!((refused.stream, &refused.payload[..]), (65, &[0, 0, 0, 7][..]));
    caller.send(&frame(DATA, END_STREAM, 1, br#"{"request":1}"#)).await;
    let answer = caller.next_of(HEADERS).await;
    assert_eq!((answer.stream, status(&answer)), (1, 200));
}

/// A head that is small on the wire and large unpacked: one long value, and then its index again and again.
fn bomb(times: usize) -> Vec<u8> {
    let mut block = head(true);
    // A literal that is kept in the table: `x: xxx…` of 3,900 bytes (length by RFC 7541, 5.1).
    block.extend([0x40, 1, b'x', 0x7f, 0xbd, 0x1d]);
    block.extend([b'x'; 3_900]);
    block.extend(vec![0xbe; times]);
    block
}

#[tokio::test]
async fn a_head_that_is_too_large_unpacked_is_431_and_the_connection_goes_on() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let mut caller = Frames::open(&house, &[]).await;
    caller.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb(2))).await;
    assert_eq!(status(&caller.next_of(HEADERS).await), 431);
    caller.send(&frame(HEADERS, END_HEADERS, 3, &head(true))).await;
    caller.send(&frame(DATA, END_STREAM, 3, br#"{"request":1}"#)).await;
    let answer = caller.next_of(HEADERS).await;
    assert_eq!((answer.stream, status(&answer)), (3, 200));
    assert_eq!(double.read(), ["1"]);
    // Beyond all measure, the connection ends.
    caller.send(&frame(HEADERS, END_HEADERS | END_STREAM, 5, &bomb(12_000))).await;
    while caller.next().await.is_some() {}
}

/// Bytes of memory that this process has.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[tokio::test]
async fn a_header_bomb_with_a_closed_window_takes_less_than_a_megabyte() {
    const CONNECTIONS: usize = 64;
    let (house, _double) = House::with_acts(1, vec![]).await;
    assert_eq!(house.call("1").await.status, 200);
    let before = resident_bytes();
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        // INITIAL_WINDOW_SIZE is 0: no answer's body can be sent.
        let mut caller = Frames::open(&house, &[0, 4, 0, 0, 0, 0]).await;
        for stream in 0..32 {
            // Just below what is refused: each is kept until its answer is taken.
            let flags = END_HEADERS | END_STREAM;
            caller.send(&frame(HEADERS, flags, stream * 2 + 1, &bomb(1))).await;
        }
        for _ in 0..32 {
            assert_eq!(status(&caller.next_of(HEADERS).await), 400);
        }
        callers.push(caller);
    }
    let taken = resident_bytes().saturating_sub(before);
    assert!(taken < CONNECTIONS * 1_000_000, "{taken} bytes for {CONNECTIONS} connections");
    assert_eq!(house.call("2").await.status, 200);
    drop(callers);
}

#[tokio::test]
async fn an_upload_over_http2_is_kept_in_time_as_over_http1() {
    // Not on paused time, which is not what the clocks of HTTP/2 connections go by.
    let config = GatewayConfig { other_body_idle_ms_max: 100, ..GatewayConfig::default() };
    let house = House::open_with(config, length_of_body()).await;
    let mut caller = Frames::open(&house, &[]).await;
    caller.send(&frame(HEADERS, END_HEADERS, 1, &head(false))).await;
    let trickling = tokio::spawn({
        let write = Arc::clone(&caller.write);
        async move {
            loop {
                let _ = write.lock().await.write_all(&frame(DATA, 0, 1, b"x")).await;
                sleep(Duration::from_millis(20)).await;
            }
        }
    });
    assert_eq!(status(&caller.next_of(HEADERS).await), 400);
    trickling.abort();
    // The connection goes on with what is in time.
    caller.send(&frame(HEADERS, END_HEADERS, 3, &head(false))).await;
    caller.send(&frame(DATA, END_STREAM, 3, &[b'x'; 2_000])).await;
    let answer = caller.next_of(HEADERS).await;
    assert_eq!((answer.stream, status(&answer)), (3, 200));
}

#[tokio::test]
async fn a_connection_is_told_to_go_when_another_process_has_taken_over_and_loses_nothing() {
    let (mut house, double) = House::with_acts(1, vec![]).await;
    let mut caller = Frames::open(&house, &[]).await;
    caller.send(&frame(HEADERS, END_HEADERS, 1, &head(true))).await;
    caller.next_of(SETTINGS).await;
    house.gateway.succeeded();
    house.begin_close();
    caller.next_of(GOAWAY).await;
    // A request that was underway is answered to its end.
    caller.send(&frame(DATA, END_STREAM, 1, br#"{"request":1}"#)).await;
    let answer = caller.next_of(HEADERS).await;
    assert_eq!((answer.stream, status(&answer)), (1, 200));
    while caller.next().await.is_some() {}
    house.until_closed().await;
    assert_eq!(double.read(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_say_whether_it_lives_does_not_hold_up_the_end() {
    let (mut house, _double) = House::with_acts(1, vec![]).await;
    let mut silent = TcpStream::connect(house.address).await.unwrap();
    silent.write_all(&[PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let mut header = [0; 9];
    silent.read_exact(&mut header).await.unwrap();
    let begun = Instant::now();
    house.begin_close();
    house.until_closed().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
