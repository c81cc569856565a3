//! The stages of a call one by one, for the measurements in `bench/`. Not an interface: it changes with what it shows.

use std::{collections::HashSet, sync::Arc};

use millgate_contract::{ids::KeyId, route::Verification};

use crate::{
    VerifyingKeyError,
    gate::Framing,
    gateway::Gateway,
    keys::{KeyRing, Look},
    line::{Budget, Lease, Line, LineLimits, Place},
};

/// The gate judges a whole request; true if it passes to its last byte.
pub fn head(request: &[u8]) -> bool {
    let mut framing = Framing::new();
    framing.judge(request) == request.len() && framing.is_over()
}

/// True if an access key leads to a model: a keyed digest and two look-ups.
pub fn route(gateway: &Gateway, access_key: &str) -> bool {
    gateway.inner().table().as_ref().is_some_and(|table| table.by_access_key(access_key).is_some())
}

/// The verifying keys of API keys.
pub struct Keys {
    ring: KeyRing,
    revoked: HashSet<KeyId>,
}

impl Keys {
    /// Remembers at most `verdicts_max` verdicts.
    pub fn new(verification: &Verification, verdicts_max: usize) -> Result<Self, VerifyingKeyError> {
        Ok(Self { ring: KeyRing::new(verification, verdicts_max)?, revoked: HashSet::new() })
    }

    /// True if a key is remembered as good.
    pub fn is_known(&self, key: &str, now_s: u64) -> bool {
        matches!(self.ring.look(key, now_s, &self.revoked), Look::Good(_))
    }

    /// Checks the signature of a key that is not remembered, and remembers it.
    pub fn verify(&self, key: &str, now_s: u64) -> bool {
        match self.ring.look(key, now_s, &self.revoked) {
            Look::Unknown(unverified) => self.ring.verify(unverified, now_s, &self.revoked).is_ok(),
            _ => false,
        }
    }
}

/// A line with one idle replica.
pub struct OneIdle(Arc<Line<Idle>>);

struct Idle;

impl Place for Idle {
    fn is_retired(&self) -> bool {
        false
    }

    fn is_kept(&self) -> bool {
        false
    }

    fn decline(&mut self) {}
}

impl Default for OneIdle {
    fn default() -> Self {
        let limits = LineLimits { calls_max: 1, bytes_max: 1 };
        let line = Line::new(limits, Budget::new(1));
        line.offer(Idle);
        Self(line)
    }
}

impl OneIdle {
    /// Leases the replica and gives it back.
    pub fn lease(&self) -> bool {
        let Ok(Lease::Now(idle)) = self.0.lease(self.0.ticket(), 1) else { return false };
        self.0.offer(idle);
        true
    }
}
