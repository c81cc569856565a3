//! From a replica's `Done` to what the caller reads: the value in its envelope, or the refusal that it means. CRN, UUID
//! and times are the gateway's; the replica gives values only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millgate_contract::{
    envelope::{self, Prediction},
    frame::{Done, Outcome},
    limits::EXCEPTION_TEXT_BYTES_MAX,
    refusal::Refusal,
    tracked::TrackedPrediction,
};

use crate::{dispatch::Ran, gateway::Inner, routes::Route, spool::Allowance};

/// Room for what the call may track, before it is sent.
pub(crate) fn set_aside(inner: &Inner, route: &Route) -> Result<Option<Allowance>, Refusal> {
    let Some(spool) = &inner.config.spool else { return Ok(None) };
    spool.set_aside(&route.tracking).map_err(|_| {
        Refusal::Unavailable("what this model tracks cannot be kept just now; try again later".into())
    })
}

/// The body of a `200`, or the refusal that this end of a call means.
pub(crate) async fn answer(
    inner: &Inner,
    route: &Route,
    ran: &Ran,
    done: &Done,
    allowance: Option<Allowance>,
) -> Result<Vec<u8>, Refusal> {
    if route.is_of(&ran.shared.route().deployment) {
        route.tracking.learn(done.collects_metrics);
    }
    match done.outcome {
        Outcome::Ok if done.collects_metrics => {
            let uuid = uuid::Uuid::new_v4().to_string();
            let deployment_crn = &ran.shared.route().crn;
            let body = envelope::success(
                &done.value,
                &ran.replica,
                Some(Prediction { deployment_crn, uuid: &uuid }),
            );
            keep(inner, route, ran, (uuid, done), allowance).await?;
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

/// Puts what was tracked on the spool. A prediction that is not there is not answered: its UUID would name nothing.
async fn keep(
    inner: &Inner,
    route: &Route,
    ran: &Ran,
    (uuid, done): (String, &Done),
    allowance: Option<Allowance>,
) -> Result<(), Refusal> {
    let Some(spool) = &inner.config.spool else { return Ok(()) };
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let prediction = TrackedPrediction {
        uuid,
        model: route.spec.model.clone(),
        deployment: ran.shared.route().deployment.clone(),
        replica: ran.replica.clone(),
        start_ms: nearest_ms(end.saturating_sub(ran.took())),
        end_ms: nearest_ms(end),
        metrics: done.metrics.clone(),
    };
    spool.keep(&prediction, allowance).await.map_err(|_| Refusal::Internal)
}

/// Text of the replica's, which is anything: cut at a character, what is not UTF-8 replaced.
fn text(raw: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&raw[..raw.len().min(EXCEPTION_TEXT_BYTES_MAX + 4)]).into_owned();
    text.truncate(text.floor_char_boundary(EXCEPTION_TEXT_BYTES_MAX));
    text
}

/// Unix time in milliseconds, rounded to the nearest.
fn nearest_ms(time: Duration) -> u64 {
    u64::try_from((time.as_micros() + 500) / 1_000).unwrap_or(u64::MAX)
}
