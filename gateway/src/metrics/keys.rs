//! Calls and their processor time by API key: a bounded number of series. The first keys to call have their own; all others are `other`. A key
//! that is deleted or has expired leaves and makes room. A key's series is found once, when its signature has been
//! checked, and kept with what is known of the key.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use millgate_contract::{frame::Timings, ids::KeyId};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::{Registry, Unit},
};

use super::model::{CpuSeconds, cpu_seconds};

/// What keys without a series of their own are counted as. No key has this id: ours are UUIDs, an issuer's have a prefix.
const OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KeyLabels {
    key: String,
}

/// The series there are.
pub(crate) struct KeySeries {
    calls: Family<KeyLabels, Counter>,
    cpu_seconds: Family<KeyLabels, CpuSeconds>,
    other: Counters,
    /// Who has one, and until when (Unix seconds).
    kept: Mutex<HashMap<KeyId, u64>>,
    kept_max: usize,
}

/// The counters of one series.
#[derive(Debug, Clone)]
struct Counters {
    calls: Counter,
    cpu_seconds: CpuSeconds,
}

/// Where the calls of one key are counted: found at its first call.
#[derive(Debug, Default)]
pub(crate) struct KeyCalls(OnceLock<Counters>);

impl KeyCalls {
    /// Counts what a call cost that was counted before.
    pub(crate) fn charge(&self, cost: &Timings) {
        if let Some(counters) = self.0.get() {
            counters.cpu_seconds.inc_by(cpu_seconds(cost));
        }
    }
}

/// Where a key is counted is nothing that keys differ in.
impl PartialEq for KeyCalls {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for KeyCalls {}

impl KeySeries {
    pub(super) fn new(kept_max: usize) -> Self {
        let (calls, cpu_seconds) = (Family::default(), Family::default());
        let other = counters(&calls, &cpu_seconds, OTHER);
        Self { calls, cpu_seconds, other, kept: Mutex::default(), kept_max }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        let of_key = "Calls by API key, by its id; keys beyond the configured number are `other`";
        r.register("key_calls", of_key, self.calls.clone());
        let of_cpu = "Processor time of the calls of an API key that came to an end, user and system";
        r.register_with_unit("key_cpu", of_cpu, Unit::Seconds, self.cpu_seconds.clone());
    }

    /// Counts a call with a key that is good until `expires_at_s`.
    pub(crate) fn count(&self, calls: &KeyCalls, key: &KeyId, expires_at_s: u64) {
        calls.0.get_or_init(|| self.find(key, expires_at_s)).calls.inc();
    }

    fn find(&self, key: &KeyId, expires_at_s: u64) -> Counters {
        let mut kept = self.lock();
        if !kept.contains_key(key) && kept.len() >= self.kept_max {
            return self.other.clone();
        }
        let until = kept.entry(key.clone()).or_insert(expires_at_s);
        *until = expires_at_s.max(*until);
        counters(&self.calls, &self.cpu_seconds, key.as_str())
    }

    /// Takes out the keys of which `is_gone` says yes, told when they expire.
    pub(crate) fn forget(&self, is_gone: impl Fn(&KeyId, u64) -> bool) {
        self.lock().retain(|key, expires_at_s| {
            let stays = !is_gone(key, *expires_at_s);
            if !stays {
                self.calls.remove(&labels(key.as_str()));
                self.cpu_seconds.remove(&labels(key.as_str()));
            }
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, u64>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counters(
    calls: &Family<KeyLabels, Counter>,
    cpu_seconds: &Family<KeyLabels, CpuSeconds>,
    key: &str,
) -> Counters {
    let labels = labels(key);
    Counters {
        calls: calls.get_or_create_owned(&labels),
        cpu_seconds: cpu_seconds.get_or_create_owned(&labels),
    }
}

fn labels(key: &str) -> KeyLabels {
    KeyLabels { key: key.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(series: &KeySeries, key: &str) -> Option<u64> {
        series.calls.get(&labels(key)).map(|calls| calls.get())
    }

    #[test]
    fn so_many_keys_have_a_series_the_rest_share_one_and_who_is_gone_makes_room() {
        let series = KeySeries::new(2);
        let calls: [KeyCalls; 4] = Default::default();
        let keys = ["a", "b", "c", "d"].map(KeyId::new);
        for (calls, key) in calls.iter().zip(&keys).take(3) {
            series.count(calls, key, 100);
            series.count(calls, key, 100);
        }
        assert_eq!(
            [figure(&series, "a"), figure(&series, "b"), figure(&series, "c")],
            [Some(2), Some(2), None]
        );
        assert_eq!(figure(&series, OTHER), Some(2));
        let cost = Timings { cpu_user_us: 250_000, cpu_system_us: 1_000_000, ..Timings::default() };
        for calls in &calls {
            calls.charge(&cost);
        }
        let cpu = |key| series.cpu_seconds.get(&labels(key)).map(|seconds| seconds.get());
        assert_eq!([cpu("a"), cpu("b"), cpu(OTHER), cpu("d")], [Some(1.25), Some(1.25), Some(1.25), None]);

        series.forget(|key, _| key.as_str() == "a");
        assert_eq!(figure(&series, "a"), None);
        assert!(series.cpu_seconds.get(&labels("a")).is_none());
        series.count(&calls[3], &keys[3], 200);
        assert_eq!(figure(&series, "d"), Some(1));
        // A token that is newer than the one before keeps the series of its key.
        series.count(&KeyCalls::default(), &keys[1], 300);
        series.forget(|_, expires_at_s| expires_at_s <= 250);
        assert_eq!([figure(&series, "b"), figure(&series, "d")], [Some(3), None]);
        // What is still counted of one that is gone is seen nowhere.
        series.count(&calls[0], &keys[0], 100);
        assert_eq!(figure(&series, "a"), None);
    }
}
