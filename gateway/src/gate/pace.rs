//! HTTP/2 answers that nobody takes. A caller that closes its window stops its answers without stopping its socket, so
//! the clock of a socket's writes does not see it: each answer notes when its caller last wanted more of it.
//!
//! It counts a connection's requests too, for one without any is idle.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::http::{Body as AnswerBody, BoxError};

/// Bytes given at once: what is given lies in the connection's buffers until the caller takes it.
const PIECE_BYTES: usize = 16 * 1024;

/// The answers of one connection.
#[derive(Debug)]
pub(crate) struct Pace {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u64,
    /// Requests that are not answered to their end. Of each: since when it waits for its caller, if it does.
    open: HashMap<u64, Option<Instant>>,
    /// Without a request since then.
    idle_since: Instant,
    has_asked: bool,
}

/// How long a connection may be what it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PaceLimits {
    pub(crate) first: Duration,
    pub(crate) idle: Duration,
    pub(crate) untaken: Duration,
}

impl Pace {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { next: 0, open: HashMap::new(), idle_since: Instant::now(), has_asked: false };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Another request.
    pub(crate) fn begin(self: &Arc<Self>) -> Asked {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.has_asked = true;
        state.open.insert(id, None);
        Asked { id, pace: Arc::clone(self) }
    }

    /// Waits until the connection should end.
    pub(crate) async fn until_late(&self, limits: PaceLimits) {
        let shortest = limits.first.min(limits.idle).min(limits.untaken);
        while !self.is_late(limits) {
            tokio::time::sleep((shortest / 4).max(Duration::from_millis(1))).await;
        }
    }

    pub(super) fn is_late(&self, limits: PaceLimits) -> bool {
        let state = self.lock();
        if state.open.is_empty() {
            let max = if state.has_asked { limits.idle } else { limits.first };
            return state.idle_since.elapsed() >= max;
        }
        state.open.values().flatten().any(|since| since.elapsed() >= limits.untaken)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request, until its answer is taken or it is dropped.
pub(crate) struct Asked {
    id: u64,
    pace: Arc<Pace>,
}

impl Asked {
    /// The answer's body, which is waited for from now on.
    pub(crate) fn answer(self, body: AnswerBody) -> Paced {
        self.note(Some(Instant::now()));
        Paced { body, rest: Bytes::new(), asked: self }
    }

    fn note(&self, waits_since: Option<Instant>) {
        self.pace.lock().open.insert(self.id, waits_since);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.pace.lock();
        state.open.remove(&self.id);
        state.idle_since = Instant::now();
    }
}

/// A body in pieces, that notes whether it waits for its caller.
pub(crate) struct Paced {
    body: AnswerBody,
    /// Of the last piece, what was not given.
    rest: Bytes,
    asked: Asked,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let paced = self.get_mut();
        if paced.rest.is_empty() {
            match Pin::new(&mut paced.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => paced.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending => {
                    // Now the caller waits for us.
                    paced.asked.note(None);
                    return Poll::Pending;
                }
            }
        }
        paced.asked.note(Some(Instant::now()));
        let piece = paced.rest.split_to(PIECE_BYTES.min(paced.rest.len()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
