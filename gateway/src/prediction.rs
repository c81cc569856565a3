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
            let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let uuid = new_uuid(end);
            let deployment_crn = &ran.shared.route().crn;
            let body = envelope::success(
                &done.value,
                &ran.replica,
                Some(Prediction { deployment_crn, uuid: &uuid }),
            );
            keep(inner, route, ran, (uuid, end, done), allowance).await?;
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
    (uuid, end, done): (String, Duration, &Done),
    allowance: Option<Allowance>,
) -> Result<(), Refusal> {
    let Some(spool) = &inner.config.spool else { return Ok(()) };
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

/// A UUID of a prediction that ended then, in the form of version 4: 48 bits of milliseconds, then 74 random ones. Rows
/// are kept by their UUIDs, and the next one's place is beside the last one's: random ones would each write to a page of
/// the index of their own.
fn new_uuid(end: Duration) -> String {
    let mut bytes = uuid::Uuid::new_v4().into_bytes();
    bytes[..6].copy_from_slice(&nearest_ms(end).to_be_bytes()[2..]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_of_version_4_and_ascend_with_time() {
        let at = |ms| new_uuid(Duration::from_millis(ms));
        let uuids = [at(1_746_629_493_901), at(1_746_629_493_902), at(1_846_629_493_901)];
        assert!(uuids.is_sorted(), "{uuids:?}");
        for uuid in &uuids {
            let uuid = uuid::Uuid::parse_str(uuid).unwrap();
            assert_eq!((uuid.get_version_num(), uuid.get_variant()), (4, uuid::Variant::RFC4122));
        }
        assert_ne!(at(1), at(1));
    }
}
