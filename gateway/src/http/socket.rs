//! A caller's socket: it ends a connection whose caller takes no byte of its answer for too long. Under TLS it lies below
//! the session, so that what counts as taken are bytes on the wire, whoever wrote them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// What a caller must take of its answer on the average.
const TAKEN_BYTES_PER_S_MIN: u64 = 1_000;

/// See the module.
pub(super) struct Socket {
    tcp: TcpStream,
    backlog: Backlog,
    /// Runs while the caller does not read. Made when that first happens, which for most it never does.
    late: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, write_idle_max: Duration) -> Self {
        Self { tcp, backlog: Backlog { idle_max: write_idle_max, late_at: None }, late: None }
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

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
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
        Pin::new(&mut self.tcp).poll_shutdown(cx)
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
