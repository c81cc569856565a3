//! The body of a call, whole: bounded in bytes by the contract, in time by the configuration.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use millgate_contract::{limits::BODY_BYTES_MAX, refusal::Refusal};
use tokio::time::{Instant, timeout_at};

use super::CallerBody;
use crate::{config::GatewayConfig, gate::Fault};

/// Why there is no body.
pub(super) enum Failed {
    /// The caller is told.
    Refused(Refusal),
    /// The caller is gone, or its bytes are not HTTP: nobody to tell.
    Broken,
}

/// Reads the body. One that is declared too large is refused unread.
pub(super) async fn read(mut body: CallerBody, config: &GatewayConfig) -> Result<Bytes, Failed> {
    let declared = body.size_hint().exact().unwrap_or(0);
    if declared > BODY_BYTES_MAX as u64 {
        return Err(Failed::Refused(Refusal::TooLarge));
    }
    let clock = Clock { begun: Instant::now(), config };
    // Most bodies are one piece, which is taken as it lies in the connection's buffer.
    let Some(first) = piece(&mut body, clock.until(0)).await? else { return Ok(Bytes::new()) };
    if first.len() as u64 == declared {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(usize::try_from(declared).unwrap_or(0).max(first.len()));
    let mut next = Some(first);
    while let Some(bytes) = next {
        if whole.len() + bytes.len() > BODY_BYTES_MAX {
            return Err(Failed::Refused(Refusal::TooLarge));
        }
        whole.extend_from_slice(&bytes);
        next = piece(&mut body, clock.until(whole.len())).await?;
    }
    Ok(whole.freeze())
}

/// How long a body may take: a whole time, a time without a byte, and a rate on the average.
struct Clock<'a> {
    begun: Instant,
    config: &'a GatewayConfig,
}

impl Clock<'_> {
    /// Until when the next piece must be there, after so many bytes.
    fn until(&self, bytes: usize) -> Instant {
        let (idle, whole) = (self.config.body_idle_ms_max, self.config.body_ms_max);
        let earned = bytes as u64 * 1_000 / self.config.body_bytes_per_s_min.max(1);
        let by_rate = self.begun + Duration::from_millis(whole.min(idle + earned));
        by_rate.min(Instant::now() + Duration::from_millis(idle))
    }
}

async fn piece(body: &mut CallerBody, until: Instant) -> Result<Option<Bytes>, Failed> {
    loop {
        match timeout_at(until, body.frame()).await {
            Err(_) => return Err(Failed::Refused(Refusal::Slow)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                let fault = Fault::of(&*error);
                return Err(fault.map_or(Failed::Broken, |fault| Failed::Refused(fault.into())));
            }
            // Trailers mean nothing here.
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}
