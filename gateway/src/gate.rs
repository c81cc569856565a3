//! The gate between a caller's socket and hyper.
//!
//! hyper accepts framings that other parsers read differently and does not notice a caller that hangs up with bytes
//! behind its request. So every HTTP/1 head is judged here first, the end of every body is tracked here, and hyper gets
//! one request at a time, byte for byte as it came: the next one is held until the answer is flushed. What is refused
//! here is answered by the same service and written by hyper, so that answers keep their order and their form.
//!
//! | module | job |
//! | --- | --- |
//! | `head`, `target`, `chunks` | what a request may look like; pure |
//! | `framing` | where one request ends and the next begins; pure |
//! | `exchange` | what the gate and the service of a connection tell each other |
//! | `caller_body` | how long a body that is not a call's may take |
//! | `stream` | the gate itself: bytes, clocks, hang-ups |
//! | `clock` | a timer that is seldom touched |
//! | `frames` | budgets of HTTP/2 frames that cost a caller nothing |
//! | `pace` | HTTP/2 answers that nobody takes |

mod caller_body;
mod chunks;
mod clock;
mod exchange;
mod frames;
mod framing;
mod head;
mod pace;
mod stream;
mod target;

#[cfg(test)]
mod tests;

use millgate_contract::refusal::Refusal;

pub(crate) use caller_body::BodyLimits;
pub use caller_body::CallerBody;
pub(crate) use exchange::{Answered, Exchange};
pub(crate) use frames::Counted;
pub(crate) use framing::Framing;
#[cfg(any(test, feature = "oracles"))]
pub(crate) use head::{Head, HeadScan, Length};
pub(crate) use pace::{Pace, PaceLimits};
pub(crate) use stream::{Gate, GateLimits};

/// What is wrong with a request's framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the target is too long")]
    TargetTooLong,
    #[error("the head is too large")]
    HeadTooLarge,
    #[error("nothing says how long the body is")]
    LengthRequired,
    #[error("the transfer coding is not supported")]
    CodingUnsupported,
    #[error("the version of HTTP is not supported")]
    VersionUnsupported,
    #[error("the method is not allowed")]
    MethodNotAllowed,
    #[error("the body is too large")]
    TooLarge,
    #[error("the request did not arrive in time")]
    Slow,
}

impl Fault {
    /// The fault that an error of a body comes from, if it comes from the gate.
    pub(crate) fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(fault) = error.downcast_ref::<Self>() {
                return Some(*fault);
            }
            let inner = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
            if let Some(fault) = inner.and_then(|inner| inner.downcast_ref::<Self>()) {
                return Some(*fault);
            }
            next = error.source();
        }
        None
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(what) => Self::Malformed(what.into()),
            Fault::TargetTooLong => Self::TargetTooLong,
            Fault::HeadTooLarge => Self::HeadTooLarge,
            Fault::LengthRequired => Self::LengthRequired,
            Fault::CodingUnsupported => Self::CodingUnsupported,
            Fault::VersionUnsupported => Self::VersionUnsupported,
            Fault::MethodNotAllowed => Self::MethodNotAllowed,
            Fault::TooLarge => Self::TooLarge,
            Fault::Slow => Self::Slow,
        }
    }
}

impl From<Fault> for std::io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, fault)
    }
}
