//! What the gate and the service of one connection tell each other: that the gate refuses, that an answer is taken; and
//! what both are told: that the connection ends when it is idle.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::Fault;
use crate::http::{Body as AnswerBody, BoxError};

/// Shared by the two ends of a connection.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// hyper has taken the whole answer; what it buffers is written before it next flushes.
    is_taken: AtomicBool,
    is_refused: AtomicBool,
    is_leaving: AtomicBool,
    fault: Mutex<Option<Fault>>,
}

impl Exchange {
    /// The next request that the service sees stands for one that is refused so.
    pub(super) fn refuse(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        self.is_refused.store(true, Ordering::Release);
    }

    /// Why the request that the service has got is refused, if it is.
    pub(crate) fn refused(&self) -> Option<Fault> {
        if !self.is_refused.load(Ordering::Acquire) {
            return None;
        }
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection ends as soon as it is idle and nothing has come. Whoever says so polls the connection after it.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// True once for each answer that has been taken.
    pub(super) fn take_end(&self) -> bool {
        self.is_taken.load(Ordering::Acquire) && self.is_taken.swap(false, Ordering::AcqRel)
    }
}

/// The body of an answer: hyper drops it when it has all of it, and the gate is told.
pub(crate) struct Answered {
    body: AnswerBody,
    exchange: Arc<Exchange>,
}

impl Answered {
    pub(crate) fn new(body: AnswerBody, exchange: Arc<Exchange>) -> Self {
        Self { body, exchange }
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.exchange.is_taken.store(true, Ordering::Release);
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
