//! From a replica's `Done` to what the caller reads: the value in its envelope, or the refusal that it means. CRN, UUID
//! and times are the gateway's; the replica gives values only.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use millgate_contract::{
    envelope::{self, Prediction},
    frame::{Done, Outcome},
    limits::EXCEPTION_TEXT_BYTES_MAX,
    refusal::Refusal,
};

use crate::{dispatch::Ran, gateway::Inner, routes::Route, sink::TrackedPrediction};

/// The body of a `200`, or the refusal that this end of a call means.
pub(crate) fn answer(inner: &Inner, route: &Route, ran: &Ran, done: &Done) -> Result<Vec<u8>, Refusal> {
    match done.outcome {
        Outcome::Ok if done.collects_metrics => {
            let uuid = uuid::Uuid::new_v4().to_string();
            let deployment_crn = &ran.shared.route().crn;
            let body = envelope::success(
                &done.value,
                &ran.replica,
                Some(Prediction { deployment_crn, uuid: &uuid }),
            );
            keep(inner, route, ran, uuid, done.metrics.clone());
            Ok(body)
        }
        Outcome::Ok => Ok(envelope::success(&done.value, &ran.replica, None)),
        Outcome::Exception => Err(Refusal::FunctionException(text(&done.value))),
        Outcome::BadOutput => Err(Refusal::FunctionBadOutput(text(&done.value))),
        Outcome::BadInput => Err(Refusal::Malformed(text(&done.value).into())),
        // Nobody but us may cancel, and we do only when the caller is gone.
        Outcome::Cancelled => Err(Refusal::ReplicaCrashed),
    }
}

fn keep(inner: &Inner, route: &Route, ran: &Ran, uuid: String, metrics: Bytes) {
    let Some(sink) = &inner.config.metrics_sink else { return };
    let end_ms = unix_ms();
    let target = ran.shared.route();
    let kept = sink.append(TrackedPrediction {
        uuid,
        model: route.spec.model.clone(),
        deployment: target.deployment.clone(),
        deployment_crn: target.crn.clone(),
        replica: ran.replica.clone(),
        start_ms: end_ms.saturating_sub(u64::try_from(ran.took.as_millis()).unwrap_or(u64::MAX)),
        end_ms,
        metrics,
    });
    if let Err(error) = kept {
        inner.metrics.predictions_unkept.inc();
        tracing::error!(%error, model = %route.spec.model, "tracked metrics could not be kept");
    }
}

/// Text of the replica's, which is anything: cut at a character, what is not UTF-8 replaced.
fn text(raw: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&raw[..raw.len().min(EXCEPTION_TEXT_BYTES_MAX + 4)]).into_owned();
    text.truncate(text.floor_char_boundary(EXCEPTION_TEXT_BYTES_MAX));
    text
}

/// Unix time in milliseconds.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
