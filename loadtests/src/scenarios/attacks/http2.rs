//! HTTP/2 without TLS, by frames.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{AT_ONCE, Found, call};
use crate::{
    processes,
    server::{Model, Server},
};

/// The bytes of a flood, by how many came before.
type Flood = Box<dyn Fn(u32) -> Vec<u8>>;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `POST`, `http`, `/`, authority `a`.
const HEAD: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'a'];
/// Streams of one connection at one time.
const STREAMS_MAX: u32 = 32;
/// Connections of the header bomb.
const BOMBS: usize = 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(super) async fn all(server: &Server, model: &Model) -> Vec<Found> {
    let opened = |stream: u32| frame(HEADERS, END_HEADERS, stream, HEAD);
    let floods: [(&str, Flood); 7] = [
        ("a flood of pings", Box::new(|_| frame(PING, 0, 0, &[0; 8]))),
        ("a flood of settings", Box::new(|_| frame(SETTINGS, 0, 0, &[]))),
        (
            "rapid resets",
            Box::new(move |n| [opened(2 * n + 1), frame(RESET, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()),
        ),
        ("a flood of empty data", Box::new(move |n| if n == 0 { opened(1) } else { frame(DATA, 0, 1, &[]) })),
        ("a flood of priorities", Box::new(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]))),
        (
            "a head that never ends",
            Box::new(|n| {
                let kind = if n == 0 { HEADERS } else { CONTINUATION };
                frame(kind, 0, 1, if n == 0 { HEAD } else { b"\0\x01a\x01b" })
            }),
        ),
        ("frames of an unknown kind", Box::new(|_| frame(0xfa, 0, 0, b"?"))),
    ];
    let mut found =
        vec![limits(model).await, one_stream_too_many(model).await, long_header_list(model).await];
    for (name, bytes) in floods {
        found.push(flood(model, name, bytes).await);
    }
    found.push(header_bomb(server, model).await);
    found
}

/// What the server says that it takes.
async fn limits(model: &Model) -> Found {
    let said = async {
        let mut stream = TcpStream::connect(&model.host).await?;
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut settings = vec![0; usize::from(head[2])];
        stream.read_exact(&mut settings).await?;
        Ok::<_, io::Error>(settings)
    };
    let settings = said.await.unwrap_or_default();
    let value = |id: u8| {
        let found = settings.chunks_exact(6).find(|s| s[..2] == [0, id])?;
        Some(u32::from_be_bytes([found[2], found[3], found[4], found[5]]))
    };
    let (streams, list) = (value(3), value(6));
    let is_bounded = streams.is_some_and(|n| n <= 32) && list.is_some_and(|n| n <= 8_192);
    let faults = if is_bounded { vec![] } else { vec!["must be at most 32 and 8192".to_owned()] };
    Found::new("HTTP/2: streams, and bytes of a header list", format!("{streams:?}, {list:?}"), faults)
}

/// Opens a stream more than is allowed: it must be refused, or the connection ended.
async fn one_stream_too_many(model: &Model) -> Found {
    let opened = (0..=STREAMS_MAX).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, HEAD));
    let what = said_about(model, &opened.collect::<Vec<u8>>(), 2 * STREAMS_MAX + 1).await;
    judge("HTTP/2: a stream more than 32", what)
}

/// A header list that is too long in sum, each header for itself being none.
async fn long_header_list(model: &Model) -> Found {
    let mut block = HEAD.to_vec();
    for _ in 0..100 {
        // Without indexing: name `x`, a value of 100 bytes.
        block.extend_from_slice(&[0x00, 1, b'x', 100]);
        block.extend_from_slice(&[b'v'; 100]);
    }
    let what = said_about(model, &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block), 1).await;
    judge("HTTP/2: a header list over 8 KB", what)
}

fn judge(name: &str, what: Said) -> Found {
    let (text, is_refused) = match what {
        Said::Nothing => ("no answer".to_owned(), false),
        Said::Served => ("served".to_owned(), false),
        Said::Refused(how) => (how.to_owned(), true),
    };
    Found::new(name, text, if is_refused { vec![] } else { vec!["must be refused".to_owned()] })
}

/// What became of a stream.
enum Said {
    Nothing,
    Served,
    Refused(&'static str),
}

/// Sends the frames, and reads until something is said about this stream.
async fn said_about(model: &Model, frames: &[u8], stream: u32) -> Said {
    /// `:status: 200` of the static table.
    const GOOD: u8 = 0x88;
    let reading = async {
        let mut connection = TcpStream::connect(&model.host).await?;
        connection.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), frames].concat()).await?;
        loop {
            let mut head = [0; 9];
            connection.read_exact(&mut head).await?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            connection.read_exact(&mut payload).await?;
            let about = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                GO_AWAY => return Ok(Said::Refused("connection ended")),
                RESET if about == stream => return Ok(Said::Refused("stream refused")),
                HEADERS if about == stream && payload.first() == Some(&GOOD) => return Ok(Said::Served),
                HEADERS if about == stream => return Ok(Said::Refused("answered with an error")),
                _ => {}
            }
        }
    };
    match timeout(AT_ONCE, reading).await {
        Ok(Ok::<_, io::Error>(said)) => said,
        Ok(Err(_)) => Said::Refused("connection closed"),
        Err(_) => Said::Nothing,
    }
}

/// Sends such frames until the connection ends, which it must do soon.
async fn flood(model: &Model, name: &str, bytes: Flood) -> Found {
    let stream = TcpStream::connect(&model.host).await.expect("the server accepts");
    let (mut read, mut write) = stream.into_split();
    let mut sent = 0;
    let sending = async {
        write.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
        while sent < 100_000 {
            write.write_all(&bytes(sent)).await?;
            sent += 1;
        }
        Ok::<_, io::Error>(())
    };
    let mut received = Vec::new();
    let ended = timeout(AT_ONCE * 2, async {
        // We never end it ourselves, so an end of what we read is the server's.
        tokio::join!(sending, read.read_to_end(&mut received))
    });
    let was_ended = ended.await.is_ok();
    let mut faults = if was_ended { vec![] } else { vec!["must end the connection".to_owned()] };
    if !call(model, "1").await.is_ok_and(|answer| answer.status == 200) {
        faults.push("a good caller is not served".to_owned());
    }
    Found::new(format!("HTTP/2: {name}"), format!("ended, {sent} frames sent"), faults)
}

/// A large header in the table of each connection, asked for thousands of times, and no window for answers.
async fn header_bomb(server: &Server, model: &Model) -> Found {
    let mut block = HEAD.to_vec();
    // With indexing: name `x`, a value of 4,000 bytes; then its index, 4,000 times.
    block.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend_from_slice(&[b'v'; 4_000]);
    block.extend_from_slice(&[0xbe; 4_000]);
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    for stream in 0..32 {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &block));
    }
    let before = processes::rss_bytes(server.pid());
    let mut open = Vec::new();
    for _ in 0..BOMBS {
        let mut stream = TcpStream::connect(&model.host).await.expect("the server accepts");
        let _ = stream.write_all(&bytes).await;
        open.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let grown = processes::rss_bytes(server.pid()).saturating_sub(before);
    let each = grown / BOMBS as u64;
    let faults = if each < 1_000_000 { vec![] } else { vec!["must be under 1 MB each".to_owned()] };
    drop(open);
    Found::new(
        "HTTP/2: a header bomb, the window closed",
        format!("{} KB a connection", each / 1_000),
        faults,
    )
}
