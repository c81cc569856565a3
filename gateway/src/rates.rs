//! How often something may be done: by key, by model, and by address for keys that are not known to be good.
//!
//! Callers are told by the two header fields that `draft-ietf-httpapi-ratelimit-headers` has had since its version 07,
//! `RateLimit-Policy` (what is allowed: `q` calls in `w` seconds) and `RateLimit` (`r` calls left, all of them again in
//! `t` seconds), one member for each rate. The three fields of earlier versions (`RateLimit-Limit`, `-Remaining`,
//! `-Reset`) can speak of one rate only, and a call here may meet two. `Retry-After` says the same to whoever knows
//! neither.
//!
//! The counting is `governor`'s (GCRA: all of a window's calls may come at once and are replenished evenly). The memory
//! of a keyed limiter is bounded by its [`store`]: whoever comes when it is full shares one state with the others who do.

mod store;

use std::{hash::Hash, net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{
    NotUntil, Quota, RateLimiter,
    clock::{Clock, DefaultClock, Reference},
    middleware::{StateInformationMiddleware, StateSnapshot},
    state::{InMemoryState, NotKeyed},
};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use millgate_contract::{rate::Rate, refusal::Refusal};

use store::BoundedStore;

/// `draft-ietf-httpapi-ratelimit-headers`: what is left, and until when.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The same draft: what is allowed.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Room for one of them: a name, two parameters, two numbers.
const ITEM_BYTES_MAX: usize = 96;
/// The names of the rates, as callers and operators know them.
pub(crate) const KEY: &str = "key";
pub(crate) const MODEL: &str = "model";
pub(crate) const AUTHENTICATION: &str = "authentication";
/// How often a full store is searched for what it may forget.
const SWEEPS: Rate = Rate { calls: NonZeroU32::MIN, window_s: NonZeroU32::MIN };

/// A limiter that tells what is left.
type Governor<K, S, C> = RateLimiter<K, S, C, StateInformationMiddleware>;

/// One rate for one thing.
pub(crate) struct Limiter<C: Clock = DefaultClock> {
    policy: Policy,
    governor: Governor<NotKeyed, InMemoryState, C>,
}

/// One rate for each of many things.
pub(crate) struct KeyedLimiter<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    policy: Policy,
    governor: Governor<K, BoundedStore<K>, C>,
    keys_max: usize,
    sweeps: Governor<NotKeyed, InMemoryState, C>,
}

/// A rate and what callers know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) name: &'static str,
    pub(crate) rate: Rate,
}

/// Where somebody stands with one rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    policy: Policy,
    remaining: u32,
    /// Until the next call when none remains, else until all are replenished.
    reset: Duration,
}

/// A rate is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded(pub(crate) Standing);

impl Limiter {
    pub(crate) fn new(policy: Policy) -> Self {
        Self::with_clock(policy, DefaultClock::default())
    }
}

impl<C: Clock> Limiter<C> {
    fn with_clock(policy: Policy, clock: C) -> Self {
        let governor = Governor::new(quota(policy.rate), InMemoryState::default(), clock);
        Self { policy, governor }
    }

    pub(crate) fn rate(&self) -> Rate {
        self.policy.rate
    }

    /// Counts one, if there is one left.
    pub(crate) fn check(&self) -> Result<Standing, Exceeded> {
        self.policy.standing(self.governor.check(), self.governor.clock())
    }
}

impl<K: Hash + Eq + Clone> KeyedLimiter<K> {
    pub(crate) fn new(policy: Policy, keys_max: usize) -> Self {
        Self::with_clock(policy, keys_max, DefaultClock::default())
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> KeyedLimiter<K, C> {
    fn with_clock(policy: Policy, keys_max: usize, clock: C) -> Self {
        let store = BoundedStore::new(keys_max);
        Self {
            policy,
            governor: Governor::new(quota(policy.rate), store, clock.clone()),
            keys_max,
            sweeps: Governor::new(quota(SWEEPS), InMemoryState::default(), clock),
        }
    }

    /// Counts one for `key`, if it has one left.
    pub(crate) fn check(&self, key: &K) -> Result<Standing, Exceeded> {
        if self.governor.len() >= self.keys_max && self.sweeps.check().is_ok() {
            // Who has not come for a window is not told from who never came: forgetting them changes nothing.
            self.governor.retain_recent();
        }
        let checked = self.governor.check_key(key);
        self.policy.standing(checked, self.governor.clock())
    }
}

impl Policy {
    fn standing<C: Clock>(
        self,
        checked: Result<StateSnapshot, NotUntil<C::Instant>>,
        clock: &C,
    ) -> Result<Standing, Exceeded>
    where
        C::Instant: Reference,
    {
        match checked {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let used = self.rate.calls.get().saturating_sub(remaining);
                Ok(Standing { policy: self, remaining, reset: interval(self.rate) * used })
            }
            Err(until) => {
                let reset = until.wait_time_from(clock.now());
                Err(Exceeded(Standing { policy: self, remaining: 0, reset }))
            }
        }
    }
}

impl Exceeded {
    /// How long until one is left again.
    pub(crate) fn wait(self) -> Duration {
        self.0.reset
    }
}

impl Standing {
    fn reset_s(self) -> u64 {
        self.reset.as_secs() + u64::from(self.reset.subsec_nanos() > 0)
    }
}

/// The rates that one call met, for its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standings([Option<Standing>; 2]);

impl Standings {
    /// Takes down what a limiter said.
    pub(crate) fn note(&mut self, checked: Result<Standing, Exceeded>) -> Result<(), Refusal> {
        let (standing, refusal) = match checked {
            Ok(standing) => (standing, Ok(())),
            Err(Exceeded(standing)) => {
                (standing, Err(Refusal::RateLimited { retry_after_s: standing.reset_s().max(1) }))
            }
        };
        let at = usize::from(self.0[0].is_some());
        self.0[at] = Some(standing);
        refusal
    }

    /// The name of the rate that was asked last: of a refused call, the one it is over.
    pub(crate) fn last(&self) -> Option<&'static str> {
        self.0.iter().flatten().last().map(|standing| standing.policy.name)
    }

    /// Tells the caller.
    pub(crate) fn put_on(&self, headers: &mut HeaderMap) {
        for standing in self.0.iter().flatten() {
            let Policy { name, rate } = standing.policy;
            let policy = item(name, [(";q=", rate.calls.get().into()), (";w=", rate.window_s.get().into())]);
            let left = item(name, [(";r=", standing.remaining.into()), (";t=", standing.reset_s())]);
            headers.append(RATE_LIMIT_POLICY, policy);
            headers.append(RATE_LIMIT, left);
        }
    }
}

/// A name in quotes and its parameters. The four of a call with two rates were 7,500 of the gateway's 131,000
/// instructions when they were made by `format!` (`make bench-profile OPTIONS=--instructions`); in a buffer that grows each
/// took two allocations, one that nobody else keeps and one for sharing it.
fn item(name: &str, parameters: [(&str, u64); 2]) -> HeaderValue {
    let mut digits = itoa::Buffer::new();
    let (mut text, mut bytes) = ([0; ITEM_BYTES_MAX], 0);
    let mut push = |part: &str| {
        text[bytes..bytes + part.len()].copy_from_slice(part.as_bytes());
        bytes += part.len();
    };
    for part in ["\"", name, "\""] {
        push(part);
    }
    for (key, number) in parameters {
        push(key);
        push(digits.format(number));
    }
    // Names are ours and the rest is digits.
    HeaderValue::from_bytes(&text[..bytes]).expect("a policy is visible ASCII")
}

/// An address as failures are counted by it: an IPv6 host has a whole /64 to come from.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Time between two calls of a rate that is just kept.
fn interval(rate: Rate) -> Duration {
    (Duration::from_secs(rate.window_s.get().into()) / rate.calls.get()).max(Duration::from_nanos(1))
}

fn quota(rate: Rate) -> Quota {
    Quota::with_period(interval(rate)).expect("an interval is at least a nanosecond").allow_burst(rate.calls)
}

#[cfg(test)]
mod tests;
