//! A caller, as plain as can be: bytes over TCP.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        body["error"]["code"].as_str().unwrap_or("ok").to_owned()
    }
}

/// A request that is being answered.
pub(crate) struct Caller<S = TcpStream> {
    stream: S,
    received: Vec<u8>,
}

impl Caller {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Caller<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The gateway may have answered and closed before it has read everything.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends a request; its answer, unless the connection is closed instead.
    pub(crate) async fn try_ask(&mut self, bytes: &[u8]) -> Option<Answer> {
        self.send(bytes).await;
        if !self.read_more().await {
            return None;
        }
        Some(self.answer().await)
    }

    /// The next answer on this connection.
    pub(crate) async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let length =
            head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
        while self.received.len() < length {
            assert!(self.read_more().await, "closed inside an answer");
        }
        let body = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body }
    }

    /// The next head, in lower case.
    pub(crate) async fn head(&mut self) -> String {
        let head_bytes = loop {
            if let Some(at) = self.received.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.read_more().await,
                "closed before an answer: {}",
                String::from_utf8_lossy(&self.received)
            );
        };
        String::from_utf8(self.received.drain(..head_bytes).collect()).unwrap().to_lowercase()
    }

    /// True when the gateway has closed the connection, having sent nothing more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.received.is_empty() && !self.read_more().await
    }

    async fn read_more(&mut self) -> bool {
        self.stream.read_buf(&mut self.received).await.is_ok_and(|n| n > 0)
    }
}

/// A `POST` with a length.
pub(crate) fn post(path: &str, headers: &[&str], body: &str) -> Vec<u8> {
    request("POST", path, headers, body)
}

pub(crate) fn request(method: &str, path: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let mut lines = vec![format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}", body.len())];
    lines.extend(headers.iter().map(|header| (*header).to_owned()));
    format!("{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
}
