//! Who calls. A key that is known to be good passes at once; any other is counted by its address before its signature
//! is looked at.
//!
//! An address that is over its rate is not refused for that: a good key that comes from it, for the first time, must
//! pass. Its signature is checked in a lane that bounds what such checks may cost all in all, first come, first served;
//! only when it turns out to be bad is the answer `429` in place of `401`.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{HeaderMap, header::AUTHORIZATION};
use millgate_contract::refusal::Refusal;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    config::GatewayConfig,
    gateway::Inner,
    keys::{KeyFacts, KeyInvalid, Look},
    rates::{self, KeyedLimiter, Limiter, Policy, Standings, network_of},
};

/// What unknown keys may cost.
pub(crate) struct Doorkeeper {
    /// Keys not known to be good, by address; none where they are not counted.
    strangers: Option<KeyedLimiter<IpAddr>>,
    /// Signature checks for addresses that are over their rate.
    lane: Limiter,
    /// Whose turn it is in the lane: the semaphore is fair.
    turn: Semaphore,
    lane_wait_max: Duration,
}

impl Doorkeeper {
    pub(crate) fn new(config: &GatewayConfig) -> Self {
        let strangers = config.failed_authentication_rate.map(|rate| {
            KeyedLimiter::new(Policy { name: rates::AUTHENTICATION, rate }, config.rate_keys_max)
        });
        Self {
            strangers,
            lane: Limiter::new(Policy { name: "verification", rate: config.verification_rate }),
            turn: Semaphore::new(1),
            lane_wait_max: Duration::from_millis(config.wait_ms_max),
        }
    }

    /// Waits for a signature check. `false` when it takes too long.
    async fn pass_lane(&self) -> bool {
        let passing = async {
            let _turn = self.turn.acquire().await;
            while let Err(exceeded) = self.lane.check() {
                sleep(exceeded.wait()).await;
            }
        };
        timeout(self.lane_wait_max, passing).await.is_ok()
    }
}

/// The holder of the key that came with a call.
pub(crate) async fn authenticate(
    inner: &Inner,
    headers: &HeaderMap,
    peer: IpAddr,
    standings: &mut Standings,
) -> Result<Arc<KeyFacts>, Refusal> {
    let key = bearer(headers)?;
    let looked = inner.look_at_key(key, now_s());
    if let Look::Good(facts) = looked {
        return Ok(facts);
    }
    let keeper = &inner.doorkeeper;
    let counted = keeper.strangers.as_ref().map(|strangers| strangers.check(&network_of(peer)));
    let is_over = matches!(counted, Some(Err(_)));
    let verified = match looked {
        Look::Unknown(unverified) if !is_over || keeper.pass_lane().await => {
            inner.prepare_key(key).await;
            inner.verify_key(key, unverified, now_s())
        }
        _ => Err(KeyInvalid),
    };
    match (verified, counted) {
        (Ok(facts), _) => Ok(facts),
        (Err(KeyInvalid), Some(over @ Err(_))) => {
            standings.note(over)?;
            Err(Refusal::ApiKeyInvalid)
        }
        (Err(KeyInvalid), _) => Err(Refusal::ApiKeyInvalid),
    }
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let header = headers.get(AUTHORIZATION).ok_or(Refusal::ApiKeyRequired)?;
    // What is not text is no key, and is counted as one that is wrong.
    let (scheme, key) = header.to_str().unwrap_or("bearer ").split_once(' ').unwrap_or(("bearer", ""));
    if scheme.eq_ignore_ascii_case("bearer") { Ok(key.trim()) } else { Err(Refusal::ApiKeyRequired) }
}

/// Unix time in seconds.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
