//! What lies under hyper: a caller's socket, plain or under TLS. It gives back the bytes that were read to tell the
//! protocols apart.
//!
//! It closes in two steps: a caller that is refused while it still sends reads its answer only if its bytes are taken
//! for a while, for closing over unread bytes is a reset that discards what was sent.
//!
//! Framing is not judged here: that is the gate's job, between this and hyper.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_rustls::server::TlsStream;

use super::socket::Socket;
use crate::tls::HTTP2;

/// What an HTTP/2 client without TLS says first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes read before the protocol is known.
const FIRST_BYTES: usize = 1_024;

/// How long a refused caller's remaining bytes are taken.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// How many of them.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Which protocol a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// How a caller's bytes travel.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// A caller's connection.
pub(super) struct Wire {
    stream: Stream,
    /// Read already, to be read again.
    first: BytesMut,
    is_shut_down: bool,
    /// Runs from the end of our own bytes.
    lingering: Option<Lingering>,
}

struct Lingering {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Stream {
    /// What was agreed on in the handshake, if something was.
    fn agreed(&self) -> Option<Protocol> {
        let Self::Tls(tls) = self else { return None };
        let agreed = tls.get_ref().1.alpn_protocol()?;
        Some(if agreed == HTTP2 { Protocol::Http2 } else { Protocol::Http1 })
    }

    /// Below TLS.
    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.get_mut().0,
        }
    }
}

impl Wire {
    /// Reads until it is clear which protocol is spoken.
    pub(super) async fn open(mut stream: Stream) -> io::Result<(Self, Protocol)> {
        let mut first = BytesMut::with_capacity(FIRST_BYTES);
        let agreed = stream.agreed();
        let protocol = loop {
            if stream.read_buf(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(agreed) = agreed {
                break agreed;
            }
            let common = first.len().min(HTTP2_PREFACE.len());
            if first[..common] != HTTP2_PREFACE[..common] {
                break Protocol::Http1;
            }
            if common == HTTP2_PREFACE.len() {
                break Protocol::Http2;
            }
        };
        Ok((Self { stream, first, is_shut_down: false, lingering: None }, protocol))
    }

    /// Takes what the caller still sends, until its end, a time, or a size.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut lingering) = self.lingering.take() else { return Poll::Ready(()) };
        let mut space = [MaybeUninit::uninit(); 16 * 1024];
        while lingering.until.as_mut().poll(cx).is_pending() && lingering.bytes < LINGER_BYTES_MAX {
            let mut buf = ReadBuf::uninit(&mut space);
            // Nobody will look at them, so nothing is deciphered.
            match Pin::new(self.stream.socket()).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => lingering.bytes += buf.filled().len(),
                Poll::Ready(_) => break,
                Poll::Pending => {
                    self.lingering = Some(lingering);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let bytes = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..bytes]);
        self.first.advance(bytes);
        if self.first.is_empty() {
            self.first = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        if !wire.is_shut_down {
            ready!(Pin::new(&mut wire.stream).poll_shutdown(cx))?;
            wire.is_shut_down = true;
            let until = Box::pin(tokio::time::sleep(LINGER_MAX));
            wire.lingering = Some(Lingering { until, bytes: 0 });
        }
        wire.linger(cx).map(Ok)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
