//! A caller: one connection, one call at a time, HTTP/1.1 with keep-alive. Small on purpose, so that it costs less
//! than what it measures and can misbehave where a real client library would not.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// How long a request to the control API may take.
const API_TIME_MAX: Duration = Duration::from_secs(30);

/// An answer's status and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// The connection brings no other one.
    pub(crate) is_last: bool,
}

/// A kept-alive connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Head and body of one `POST`.
pub(crate) fn request(host: &str, path: &str, api_key: &str, body: &str) -> Vec<u8> {
    request_of("POST", host, path, api_key, body)
}

/// Head and body of one request.
pub(crate) fn request_of(method: &str, host: &str, path: &str, api_key: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Asks the control API, without a runtime.
pub(crate) fn ask(method: &str, host: &str, path: &str, api_key: &str) -> io::Result<Answer> {
    let mut stream = std::net::TcpStream::connect(host)?;
    stream.set_read_timeout(Some(API_TIME_MAX))?;
    stream.write_all(&request_of(method, host, path, api_key, ""))?;
    let mut received = Vec::new();
    loop {
        if let Some(answer) = take_answer(&mut received)? {
            return Ok(answer);
        }
        let mut more = [0; 4_096];
        match stream.read(&mut more)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => received.extend_from_slice(&more[..read]),
        }
    }
}

impl Connection {
    pub(crate) async fn open(host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4_096) })
    }

    /// From this address of our own.
    pub(crate) async fn open_from(address: IpAddr, host: &str) -> io::Result<Self> {
        let stream = stream_from(address, host, None).await?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends the bytes of a request and reads its answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.answer().await
    }

    /// Sends bytes, whatever they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Says that no more will be sent.
    pub(crate) async fn say_end(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// True when there is more than the answers that were asked for.
    pub(crate) fn has_surplus(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// True when the other side ends the connection in this time and says nothing more.
    pub(crate) async fn is_closed_within(&mut self, time: Duration) -> bool {
        self.buffer.is_empty() && matches!(tokio::time::timeout(time, self.fill()).await, Ok(Err(_)))
    }

    /// Reads one answer.
    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        loop {
            if let Some(answer) = take_answer(&mut self.buffer)? {
                return Ok(answer);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// A connection from this address of our own, with a receive buffer of so many bytes.
pub(crate) async fn stream_from(
    address: IpAddr,
    host: &str,
    receive_bytes: Option<u32>,
) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(SocketAddr::new(address, 0))?;
    let to = host.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    socket.connect(to).await
}

/// Takes one whole answer off the buffer, if there is one.
fn take_answer(buffer: &mut Vec<u8>) -> io::Result<Option<Answer>> {
    let Some(head) = parse_head(buffer)? else { return Ok(None) };
    let whole = head.bytes + head.body_bytes;
    if buffer.len() < whole {
        return Ok(None);
    }
    let body = buffer[head.bytes..whole].to_vec();
    buffer.drain(..whole);
    Ok(Some(Answer { status: head.status, body, is_last: head.is_last }))
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    bytes: usize,
    status: u16,
    body_bytes: usize,
    is_last: bool,
}

/// The head of an answer; nothing while it is not whole.
fn parse_head(buffer: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let text = std::str::from_utf8(&buffer[..end]).map_err(|_| invalid())?;
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(invalid)?;
    let (mut body_bytes, mut is_last) = (None, false);
    for (name, value) in text.lines().skip(1).filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            is_last = value.trim().eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(Head { bytes: end + 4, status, body_bytes: body_bytes.ok_or_else(invalid)?, is_last }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let raw = b"HTTP/1.1 200 OK\r\ncontent-Length: 2\r\n\r\n{}";
        let head = Head { bytes: 38, status: 200, body_bytes: 2, is_last: false };
        assert_eq!(parse_head(raw).unwrap(), Some(head));
        assert_eq!(parse_head(&raw[..30]).unwrap(), None);
    }

    #[test]
    fn an_answer_leaves_what_comes_behind_it() {
        let mut buffer = b"HTTP/1.1 429 x\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1rest".to_vec();
        let answer = take_answer(&mut buffer).unwrap().unwrap();
        assert_eq!((answer.status, answer.is_last, &answer.body[..]), (429, true, &b"1"[..]));
        assert_eq!(buffer, b"rest");
    }
}
