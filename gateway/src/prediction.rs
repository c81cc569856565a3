//! From a replica's `Done` to what the caller reads: the value in its envelope, or the refusal that it means. CRN, UUID
//! and times are the gateway's; the replica gives values only.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use millgate_contract::{
    envelope::{self, Prediction},
    frame::{Done, Outcome},
    limits::EXCEPTION_TEXT_BYTES_MAX,
    prediction_id::{self, RANDOM_BYTES},
    refusal::Refusal,
    tracked::TrackedPrediction,
};
use ring::rand::{SecureRandom as _, SystemRandom};

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
            let start_ms = nearest_ms(end.saturating_sub(ran.took()));
            let uuid = new_uuid(start_ms).ok_or(Refusal::Internal)?;
            let deployment_crn = &ran.shared.route().crn;
            let body = envelope::success(
                &done.value,
                &ran.replica,
                Some(Prediction { deployment_crn, uuid: &uuid }),
            );
            let prediction = TrackedPrediction {
                uuid: &uuid,
                model: route.spec.model.as_str(),
                deployment: ran.shared.route().deployment.as_str(),
                replica: ran.replica.as_str(),
                start_ms,
                end_ms: nearest_ms(end),
                metrics: &done.metrics,
            };
            keep(inner, &prediction, allowance).await?;
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
    prediction: &TrackedPrediction<'_>,
    allowance: Option<Allowance>,
) -> Result<(), Refusal> {
    let Some(spool) = &inner.config.spool else { return Ok(()) };
    spool.keep(prediction, allowance).await.map_err(|_| Refusal::Internal)
}

/// A UUID for a prediction whose call began then; nothing where the kernel has no random bytes.
fn new_uuid(start_ms: u64) -> Option<String> {
    RANDOM.with_borrow_mut(Random::next).map(|random| prediction_id::new(start_ms, random))
}

thread_local! {
    static RANDOM: RefCell<Random> = const { RefCell::new(Random { bytes: [0; RESERVE_BYTES], used: RESERVE_BYTES }) };
}

/// For a hundred UUIDs: a system call for each would take half a microsecond of a call (perf, under load).
const RESERVE_BYTES: usize = 100 * RANDOM_BYTES;

/// Random bytes of the kernel's.
struct Random {
    bytes: [u8; RESERVE_BYTES],
    used: usize,
}

impl Random {
    fn next(&mut self) -> Option<[u8; RANDOM_BYTES]> {
        if self.used >= self.bytes.len() {
            SystemRandom::new().fill(&mut self.bytes).ok()?;
            self.used = 0;
        }
        let next = self.bytes[self.used..].first_chunk().copied();
        self.used += RANDOM_BYTES;
        next
    }
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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn uuids_are_of_version_4_say_when_their_call_began_and_are_never_the_same() {
        let uuids: BTreeSet<String> = (0..1_000).filter_map(|_| new_uuid(1_746_629_493_901)).collect();
        assert_eq!(uuids.len(), 1_000);
        for text in &uuids {
            let uuid = uuid::Uuid::parse_str(text).unwrap();
            assert_eq!((uuid.get_version_num(), uuid.get_variant()), (4, uuid::Variant::RFC4122));
            assert_eq!(prediction_id::start_ms(text), Some(1_746_629_493_901));
        }
    }
}
