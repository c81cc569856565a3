//! Budgets of HTTP/2 frames that cost a caller nothing and us something: resets, pings, settings, empty frames, and the
//! like. `h2` bounds some of them; this bounds all, in one place, before `h2` sees them.
//!
//! Only the nine bytes before each frame are looked at. A caller over a budget is told so (`GOAWAY`) and loses its
//! connection; one that keeps to the rates of a hundred honest clients does not notice.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

const HEADER_BYTES: usize = 9;
/// How long a budget lasts before it is filled again.
const WINDOW: Duration = Duration::from_secs(10);

/// A kind of frame that has a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reset,
    Ping,
    Settings,
    Empty,
    Priority,
    WindowUpdate,
    Unknown,
}

/// Frames of each kind in [`WINDOW`].
const BUDGETS: [u32; 7] = [200, 100, 50, 200, 400, 20_000, 100];

/// The headers of the frames in a stream of bytes, however it is cut.
#[derive(Debug, Default)]
struct Headers {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are there.
    filled: usize,
    /// Bytes before the next header.
    skip: usize,
}

impl Headers {
    /// The next header that is whole in what has come, and what has come behind it.
    fn next<'a>(&mut self, bytes: &'a [u8]) -> Option<([u8; HEADER_BYTES], &'a [u8])> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let bytes = &bytes[skipped..];
        let (taken, behind) = bytes.split_at((HEADER_BYTES - self.filled).min(bytes.len()));
        self.header[self.filled..self.filled + taken.len()].copy_from_slice(taken);
        self.filled += taken.len();
        if self.filled < HEADER_BYTES {
            return None;
        }
        self.filled = 0;
        let [a, b, c, ..] = self.header;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        Some((self.header, behind))
    }
}

/// Which frames a stream of bytes holds.
#[derive(Debug)]
pub(super) struct FrameBudget {
    headers: Headers,
    counts: [u32; BUDGETS.len()],
    window_ends: Option<Instant>,
}

impl FrameBudget {
    /// Before the first byte of a connection whose preface, which is not a frame, has so many.
    pub(super) fn new(preface_bytes: usize) -> Self {
        let headers = Headers { skip: preface_bytes, ..Headers::default() };
        Self { headers, counts: [0; BUDGETS.len()], window_ends: None }
    }

    /// Counts the frames that begin in these bytes. False when a budget is spent.
    pub(super) fn is_kept_by(&mut self, mut bytes: &[u8]) -> bool {
        while let Some((header, behind)) = self.headers.next(bytes) {
            bytes = behind;
            if let Some(kind) = kind(&header)
                && !self.spend(kind)
            {
                return false;
            }
        }
        true
    }

    fn spend(&mut self, kind: Kind) -> bool {
        let now = Instant::now();
        if self.window_ends.is_none_or(|end| end <= now) {
            self.window_ends = Some(now + WINDOW);
            self.counts = [0; BUDGETS.len()];
        }
        let at = kind as usize;
        self.counts[at] += 1;
        self.counts[at] <= BUDGETS[at]
    }
}

fn kind(header: &[u8; HEADER_BYTES]) -> Option<Kind> {
    const END_STREAM: u8 = 0x1;
    const END_HEADERS: u8 = 0x4;
    let is_empty = header[..3] == [0; 3];
    let flags = header[4];
    match header[3] {
        // DATA and HEADERS without content are good for something only at the end of a stream.
        0x0 | 0x1 if is_empty && flags & END_STREAM == 0 => Some(Kind::Empty),
        0x9 if is_empty && flags & END_HEADERS == 0 => Some(Kind::Empty),
        0x0 | 0x1 | 0x9 => None,
        0x2 => Some(Kind::Priority),
        0x3 => Some(Kind::Reset),
        0x4 => Some(Kind::Settings),
        0x6 => Some(Kind::Ping),
        0x8 => Some(Kind::WindowUpdate),
        _ => Some(Kind::Unknown),
    }
}

/// Whether what has been written ends where a frame ends.
#[derive(Debug, Default)]
struct Outgoing {
    headers: Headers,
}

impl Outgoing {
    fn wrote(&mut self, mut bytes: &[u8]) {
        while let Some((_, behind)) = self.headers.next(bytes) {
            bytes = behind;
        }
    }

    fn is_between_frames(&self) -> bool {
        self.headers.filled == 0 && self.headers.skip == 0
    }
}

/// `GOAWAY` for `ENHANCE_YOUR_CALM` (RFC 9113, 6.8 and 7). Any stream may have been acted on: it says nothing that would
/// allow for a second try.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb];

/// A socket whose frames are counted.
pub(crate) struct Counted<IO> {
    io: IO,
    budget: FrameBudget,
    outgoing: Outgoing,
    /// A budget is spent: what is left of the last word. Nothing else is read or written any more.
    last_word: Option<&'static [u8]>,
}

impl<IO> Counted<IO> {
    /// `preface_bytes` is what the caller says before its first frame.
    pub(crate) fn new(io: IO, preface_bytes: usize) -> Self {
        Self { io, budget: FrameBudget::new(preface_bytes), outgoing: Outgoing::default(), last_word: None }
    }
}

impl<IO: AsyncWrite + Unpin> Counted<IO> {
    /// Says why, closes so that it is heard, and fails.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while let Some(left) = self.last_word.filter(|left| !left.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, left)) {
                Ok(written) if written > 0 => self.last_word = Some(&left[written..]),
                _ => break,
            }
        }
        // It fails only where nobody listens.
        let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::InvalidData, "a budget of frames is spent"))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Counted<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let counted = self.get_mut();
        if counted.last_word.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut counted.io).poll_read(cx, buf))?;
            if counted.budget.is_kept_by(&buf.filled()[before..]) {
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(before);
            // Inside a frame that is underway there is no place for another.
            let is_heard = counted.outgoing.is_between_frames();
            counted.last_word = Some(if is_heard { &GOAWAY } else { &[] });
        }
        counted.poll_end(cx).map(Err)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Counted<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let counted = self.get_mut();
        if counted.last_word.is_some() {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = ready!(Pin::new(&mut counted.io).poll_write(cx, buf))?;
        counted.outgoing.wrote(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let counted = self.get_mut();
        if counted.last_word.is_some() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let written = ready!(Pin::new(&mut counted.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let bytes = left.min(buf.len());
            counted.outgoing.wrote(&buf[..bytes]);
            left -= bytes;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let counted = self.get_mut();
        if counted.last_word.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut counted.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
