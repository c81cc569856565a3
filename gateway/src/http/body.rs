//! The body of a call, whole: bounded in bytes by the contract, in time by the configuration.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use millgate_contract::{limits::BODY_BYTES_MAX, refusal::Refusal};
use tokio::time::{Instant, timeout_at};

use crate::config::GatewayConfig;

/// Why there is no body.
pub(super) enum Failed {
    /// The caller is told.
    Refused(Refusal),
    /// The caller is gone, or its bytes are not HTTP: nobody to tell.
    Broken,
}

/// Reads the body. One that is declared too large is refused unread.
pub(super) async fn read(mut body: Incoming, config: &GatewayConfig) -> Result<Bytes, Failed> {
    let declared = body.size_hint().exact().unwrap_or(0);
    if declared > BODY_BYTES_MAX as u64 {
        return Err(Failed::Refused(Refusal::TooLarge));
    }
    let until = Instant::now() + Duration::from_millis(config.body_ms_max);
    // Most bodies are one piece, which is taken as it lies in the connection's buffer.
    let Some(first) = piece(&mut body, until, config).await? else { return Ok(Bytes::new()) };
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
        next = piece(&mut body, until, config).await?;
    }
    Ok(whole.freeze())
}

async fn piece(body: &mut Incoming, until: Instant, config: &GatewayConfig) -> Result<Option<Bytes>, Failed> {
    let idle_until = Instant::now() + Duration::from_millis(config.body_idle_ms_max);
    loop {
        match timeout_at(until.min(idle_until), body.frame()).await {
            Err(_) => return Err(Failed::Refused(Refusal::Slow)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(Failed::Broken),
            // Trailers mean nothing here.
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}
