//! The gate itself: a stream around a caller's socket that hyper reads one request at a time from.
//!
//! Bytes are judged where hyper reads them, in its own buffer, and are copied only when they must wait: a head without
//! its end, and what a caller sends before it has its answer. That is read, and not left in the socket, because behind
//! it may be the caller's end, which the kernel tells only when there is room for all that comes before it.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    Fault,
    caller_body::{BodyClock, BodyLimits},
    clock::Clock,
    exchange::Exchange,
    framing::Framing,
};

/// What hyper reads in place of a request that is refused. The service knows, and answers with the refusal.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";
/// Bytes read at once of what comes behind a request.
const NEXT_BYTES: usize = 4 * 1024;
/// Bytes behind a request that are kept until it is answered. Of a caller that sends more nothing is kept, and its
/// connection ends with the answer.
const BEHIND_BYTES_MAX: usize = 128 * 1024;
/// Bytes behind a request before its caller is taken for one that has gone mad, and left.
const DISCARDED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The clocks of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GateLimits {
    /// To a whole head, from its first byte, and to the first byte of a connection.
    pub(crate) head_max: Duration,
    /// Between an answer and the first byte of the next request.
    pub(crate) idle_max: Duration,
    /// Of a body that is not a call's.
    pub(crate) body: BodyLimits,
}

/// See the module.
pub(crate) struct Gate<IO> {
    io: IO,
    exchange: Arc<Exchange>,
    limits: GateLimits,
    framing: Framing,
    /// Read and not passed on.
    carry: BytesMut,
    /// So much of it may be.
    pass: usize,
    is_refused: bool,
    /// The answer to the request at hand is flushed.
    is_answered: bool,
    /// Nothing more comes from the caller, or is wanted from it.
    is_end: bool,
    /// More came behind the request than is kept; so much has been discarded.
    discarded_bytes: u64,
    /// Not the first request.
    is_kept: bool,
    clock: Clock,
    /// When this request's clock began: at the end of the last answer, then at its first byte.
    since: Instant,
    has_begun: bool,
    /// An empty line came before this request.
    has_skipped: bool,
    body: BodyClock,
}

/// What the end of a clock means.
enum Late {
    /// Nothing had begun: the connection just ends.
    Idle,
    Head,
    Body,
}

impl<IO: AsyncRead + Unpin> Gate<IO> {
    pub(crate) fn new(io: IO, exchange: Arc<Exchange>, limits: GateLimits) -> Self {
        Self {
            io,
            exchange,
            limits,
            framing: Framing::new(),
            carry: BytesMut::new(),
            pass: 0,
            is_refused: false,
            is_answered: false,
            is_end: false,
            discarded_bytes: 0,
            is_kept: false,
            clock: Clock::default(),
            since: Instant::now(),
            has_begun: false,
            has_skipped: false,
            body: BodyClock::default(),
        }
    }

    /// The next request may come.
    fn begin_next(&mut self) {
        self.framing = Framing::new();
        self.is_answered = false;
        self.is_kept = true;
        self.since = Instant::now();
        self.has_begun = false;
        self.has_skipped = false;
        self.body = BodyClock::default();
        self.is_end |= self.discarded_bytes > 0;
    }

    /// Looks at the bytes that are kept.
    fn judge_kept(&mut self) {
        if self.framing.is_in_head() {
            // One empty line before a request is forgiven (RFC 9112, 2.2); hyper does not see it.
            if !self.has_skipped && self.carry.starts_with(b"\r\n") {
                self.carry.advance(2);
                self.has_skipped = true;
            }
            let may_be_skipped = !self.has_skipped && *self.carry == *b"\r";
            if may_be_skipped || self.carry.is_empty() {
                return;
            }
            self.begin();
        }
        self.pass = self.framing.judge(&self.carry);
    }

    /// A byte of the request is there.
    fn begin(&mut self) {
        if !self.has_begun {
            self.has_begun = true;
            self.since = Instant::now();
        }
    }

    fn refuse(&mut self, fault: Fault) {
        self.exchange.refuse(fault);
        self.is_refused = true;
        self.carry.clear();
        self.carry.extend_from_slice(REFUSED);
        self.pass = REFUSED.len();
    }

    /// Whether the caller is late, when there is nothing to read.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let (deadline, late) = if !self.framing.is_in_head() {
            if self.framing.is_model() {
                return Poll::Pending;
            }
            (self.body.deadline(self.limits.body), Late::Body)
        } else if self.has_begun {
            (self.since + self.limits.head_max, Late::Head)
        } else if self.exchange.is_leaving() {
            return Poll::Ready(Late::Idle);
        } else {
            let max = if self.is_kept { self.limits.idle_max } else { self.limits.head_max };
            (self.since + max, Late::Idle)
        };
        ready!(self.clock.poll(cx, deadline));
        Poll::Ready(late)
    }

    /// Ready when the caller has hung up, while its request is being answered. A half-close is a hang-up.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_end {
            let mut space = [MaybeUninit::uninit(); NEXT_BYTES];
            let mut buf = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf));
            let behind = buf.filled();
            self.is_end = read.is_err() || behind.is_empty() || self.discarded_bytes > DISCARDED_BYTES_MAX;
            if self.discarded_bytes == 0 && self.carry.len() + behind.len() <= BEHIND_BYTES_MAX {
                self.carry.extend_from_slice(behind);
            } else {
                self.carry = BytesMut::new();
                self.discarded_bytes += behind.len() as u64;
            }
        }
        Poll::Ready(())
    }

    /// Sees to it that the next request wakes this task: hyper reads again only when it is woken.
    fn look_ahead(&mut self, cx: &mut Context<'_>) {
        if self.carry.is_empty() && !self.is_end {
            let mut space = [MaybeUninit::uninit(); NEXT_BYTES];
            let mut buf = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Pending if self.poll_late(cx).is_pending() => return,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.carry.extend_from_slice(buf.filled()),
                Poll::Ready(_) => self.is_end = true,
                Poll::Pending => {}
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Judges what was just read into hyper's buffer, behind `before`, and leaves there what may pass.
    fn judge_read(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let read = &buf.filled()[before..];
        let mut is_plain = self.carry.is_empty();
        if self.framing.is_in_head() {
            is_plain &= read.first() != Some(&b'\r');
        } else {
            self.body.arrived(read.len());
        }
        let passed = if is_plain { self.framing.judge(read) } else { 0 };
        if passed < read.len() {
            self.carry.extend_from_slice(&read[passed..]);
            buf.set_filled(before + passed);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gate<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        loop {
            if gate.pass > 0 {
                let bytes = gate.pass.min(buf.remaining());
                buf.put_slice(&gate.carry[..bytes]);
                gate.carry.advance(bytes);
                gate.pass -= bytes;
                if gate.carry.is_empty() {
                    gate.carry = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if gate.is_refused {
                return gate.poll_hang_up(cx).map(Ok);
            }
            if gate.framing.is_over() {
                if !gate.is_answered {
                    return gate.poll_hang_up(cx).map(Ok);
                }
                gate.begin_next();
            }
            if !gate.carry.is_empty() {
                gate.judge_kept();
                match gate.framing.fault() {
                    _ if gate.pass > 0 => continue,
                    None => {}
                    Some(fault) if gate.framing.is_in_head() => {
                        gate.refuse(fault);
                        continue;
                    }
                    Some(fault) => return Poll::Ready(Err(fault.into())),
                }
            }
            if gate.is_end {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            match Pin::new(&mut gate.io).poll_read(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() > before => {
                    gate.judge_read(buf, before);
                    if buf.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(ended) => return Poll::Ready(ended),
                Poll::Pending => match ready!(gate.poll_late(cx)) {
                    Late::Idle => return Poll::Ready(Ok(())),
                    Late::Head => gate.refuse(Fault::Slow),
                    Late::Body => return Poll::Ready(Err(Fault::Slow.into())),
                },
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        ready!(Pin::new(&mut gate.io).poll_flush(cx))?;
        // hyper flushes only when it has written all that it had, so an answer that it has taken is out.
        if gate.exchange.take_end() {
            gate.is_answered = true;
            if gate.framing.is_over() && gate.pass == 0 && !gate.is_refused {
                gate.begin_next();
                gate.look_ahead(cx);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
