//! The stages of a call one by one, for the measurements in `bench/`. Not an interface: it changes with what it shows.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use millgate_contract::{
    ids::{DeploymentId, KeyId, ModelId, ReplicaId, RequestId, Username},
    route::Verification,
};

use crate::{
    VerifyingKeyError,
    call_log::{CallEvent, Names, Writer},
    gate::Framing,
    gateway::Gateway,
    keys::{KeyFacts, KeyRing, Look},
    line::{Budget, Lease, Line, LineLimits, Place},
    metrics::KeyCalls,
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

    type Cargo = ();

    fn orphaned(self) {}
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
        let Ok(Lease::Now(idle)) = self.0.lease(self.0.ticket(), 1, || None) else { return false };
        self.0.offer(idle);
        true
    }
}

/// The event of a call that ended well.
pub struct Event {
    told: CallEvent,
    writer: Writer,
    line: Vec<u8>,
}

impl Default for Event {
    fn default() -> Self {
        let uuid = "1f0c5a3e-7d2b-4f6a-9c41-0b8f2f6f7a10";
        let holder = KeyFacts {
            key: KeyId::new(uuid),
            user: Username::new("admin"),
            expires_at_s: u64::MAX,
            not_before_s: 0,
            calls: KeyCalls::default(),
        };
        let told = CallEvent {
            time: SystemTime::now(),
            request_id: RequestId::new("0af7651916cd43dd8448eb211c80319c"),
            trace_id: None,
            names: Some(Arc::new(Names::new(ModelId::new(uuid), "add".to_owned()))),
            deployment: Some(DeploymentId::new(uuid)),
            replica: Some(ReplicaId::new("add-two-numbers-1-1-86b9b58b7b-g6s8r")),
            status: 200,
            code: "ok",
            waited: Some(Duration::from_micros(3)),
            ran: Some(Duration::from_micros(12)),
            took: Duration::from_micros(123),
            request_bytes: 77,
            response_bytes: 103,
            address: IpAddr::from([127, 0, 0, 1]),
            holder: Some(Arc::new(holder)),
        };
        Self { told, writer: Writer::default(), line: Vec::new() }
    }
}

impl Event {
    /// Writes its line; true if there is one.
    pub fn write(&mut self) -> bool {
        self.line.clear();
        self.writer.write(&mut self.line, &self.told);
        !self.line.is_empty()
    }
}
