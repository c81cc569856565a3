//! The socket under hyper: it gives back the bytes that were read to tell the protocols apart, and it ends a connection
//! whose caller takes no byte of its answer for too long.
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
    net::TcpStream,
    time::{Instant, Sleep},
};

/// What an HTTP/2 client without TLS says first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes read before the protocol is known.
const FIRST_BYTES: usize = 1_024;

/// What a caller must take of its answer on the average.
const TAKEN_BYTES_PER_S_MIN: u64 = 1_000;

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

/// A caller's socket.
pub(super) struct Wire {
    tcp: TcpStream,
    /// Read already, to be read again.
    first: BytesMut,
    backlog: Backlog,
    /// Runs while the caller does not read. Made when that first happens, which for most it never does.
    late: Option<Pin<Box<Sleep>>>,
    is_shut_down: bool,
    /// Runs from the end of our own bytes.
    lingering: Option<Lingering>,
}

struct Lingering {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Wire {
    /// Reads until it is clear which protocol is spoken.
    pub(super) async fn open(mut tcp: TcpStream, write_idle_max: Duration) -> io::Result<(Self, Protocol)> {
        let mut first = BytesMut::with_capacity(FIRST_BYTES);
        let protocol = loop {
            if tcp.read_buf(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let common = first.len().min(HTTP2_PREFACE.len());
            if first[..common] != HTTP2_PREFACE[..common] {
                break Protocol::Http1;
            }
            if common == HTTP2_PREFACE.len() {
                break Protocol::Http2;
            }
        };
        Ok((
            Self {
                tcp,
                first,
                backlog: Backlog { idle_max: write_idle_max, late_at: None },
                late: None,
                is_shut_down: false,
                lingering: None,
            },
            protocol,
        ))
    }

    /// Takes what the caller still sends, until its end, a time, or a size.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut lingering) = self.lingering.take() else { return Poll::Ready(()) };
        let mut space = [MaybeUninit::uninit(); 16 * 1024];
        while lingering.until.as_mut().poll(cx).is_pending() && lingering.bytes < LINGER_BYTES_MAX {
            let mut buf = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *self).poll_read(cx, &mut buf) {
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

    /// Watches how slowly bytes are taken.
    fn progress(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            if let Ok(bytes) = written {
                self.backlog.taken(bytes);
            }
            return Poll::Ready(written);
        }
        let late_at = self.backlog.waits();
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(late_at)));
        if late.deadline() != late_at {
            late.as_mut().reset(late_at);
        }
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// What the caller has not taken: it may take none for a while, and must take a little on the average.
#[derive(Debug)]
struct Backlog {
    idle_max: Duration,
    /// There while something waits.
    late_at: Option<Instant>,
}

impl Backlog {
    /// Bytes cannot be written now: when their caller is too slow.
    fn waits(&mut self) -> Instant {
        *self.late_at.get_or_insert_with(|| Instant::now() + self.idle_max)
    }

    fn taken(&mut self, bytes: usize) {
        if let Some(late_at) = &mut self.late_at {
            let earned = Duration::from_millis(bytes as u64 * 1_000 / TAKEN_BYTES_PER_S_MIN);
            *late_at = (*late_at + earned).min(Instant::now() + self.idle_max);
        }
    }

    fn emptied(&mut self) {
        self.late_at = None;
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
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
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.progress(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.progress(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever flushes has written all that there is.
        self.backlog.emptied();
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        if !wire.is_shut_down {
            ready!(Pin::new(&mut wire.tcp).poll_shutdown(cx))?;
            wire.is_shut_down = true;
            let until = Box::pin(tokio::time::sleep(LINGER_MAX));
            wire.lingering = Some(Lingering { until, bytes: 0 });
        }
        wire.linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_byte_now_and_then_is_late_and_who_takes_enough_is_not() {
        let begun = Instant::now();
        let mut backlog = Backlog { idle_max: IDLE, late_at: None };
        assert_eq!(backlog.waits(), begun + IDLE);
        for _ in 0..20 {
            tokio::time::advance(Duration::from_secs(1)).await;
            backlog.taken(1);
        }
        assert_eq!(backlog.waits(), begun + IDLE + Duration::from_millis(20));
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(2)).await;
            backlog.taken(2_000);
        }
        assert!(backlog.waits() > Instant::now());
        // What was taken early buys no longer silence.
        backlog.taken(10_000_000);
        assert_eq!(backlog.waits(), Instant::now() + IDLE);
        backlog.emptied();
        tokio::time::advance(IDLE * 2).await;
        assert_eq!(backlog.waits(), Instant::now() + IDLE);
    }
}
