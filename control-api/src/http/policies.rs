//! The object `serving_policy` of API v2: read on top of what there is, and shown with every field. Numbers are taken as
//! text too; 0 is no bound, or for the request timeout the server's.

use millgate_contract::{
    route::OnHangUp,
    spec::{CallIsolation, Network, OnException, ReplicaPolicy, StartPolicy},
};
use serde_json::{Value, json};

use super::fields::Fields;
use crate::{
    fault::{Fault, Outcome},
    policy::ServingPolicy,
    rows::Amounts,
};

/// Its name.
const FIELD: &str = "serving_policy";
/// Seconds that the function may run, at most.
const REQUEST_TIMEOUT_S_MAX: f64 = 86_400.0;
/// Calls after which a replica is replaced, at most.
const CALLS_MAX: i64 = 1_000_000_000_000;
/// Seconds after which a replica is replaced, at most: ten years.
const AGE_S_MAX: i64 = 315_360_000;
/// MB of memory after which a replica is replaced, at most; more than any host has.
const MEMORY_MB_MAX: i64 = 65_536 * 1_024;

/// Where a policy is given and bounded.
pub(crate) struct Reader<'a> {
    /// What is not given.
    pub(crate) defaults: &'a ServingPolicy,
    /// The most spares a deployment may have.
    pub(crate) spares_max: u16,
}

impl Reader<'_> {
    /// The policy that a request asks for.
    pub(crate) fn read(&self, body: &mut Fields) -> Outcome<ServingPolicy> {
        let mut policy = self.defaults.clone();
        let Some(mut fields) = body.object(FIELD)? else { return Ok(policy) };
        self.take_replicas(&mut fields, &mut policy.replicas)?;
        if fields.has("request_timeout_seconds") {
            let seconds = fields.decimal("request_timeout_seconds", REQUEST_TIMEOUT_S_MAX)?;
            policy.request_timeout_ms = seconds.map(|s| ((s * 1_000.0).round() as i64).max(1).unsigned_abs());
        }
        if let Some(on_hang_up) = fields.word("on_hang_up", "`finish`, `cancel`", parse_on_hang_up)? {
            policy.on_hang_up = on_hang_up;
        }
        if let Some(network) = fields.word("network", "`kept`, `none`", parse_network)? {
            policy.network = network;
        }
        if let Some(is_required) = fields.flag("require_isolation")? {
            policy.require_isolation = is_required;
        }
        body.note(fields.unknown());
        Ok(policy)
    }

    fn take_replicas(&self, fields: &mut Fields, replicas: &mut ReplicaPolicy) -> Outcome<()> {
        if let Some(start) = fields.word("start", "`auto`, `fork`, `spawn`", parse_start)? {
            replicas.start = start;
        }
        let by_start_mode = |word: &str| match word {
            "auto" => Some(None),
            "keep" => Some(Some(OnException::Keep)),
            "replace" => Some(Some(OnException::Replace)),
            _ => None,
        };
        let words = "`auto`, `keep`, `replace`";
        if let Some(on_exception) = fields.word("on_exception", words, by_start_mode)? {
            replicas.on_exception = on_exception;
        }
        if let Some(isolation) = fields.word("isolation", "`replica`, `call`", parse_isolation)? {
            replicas.isolation = isolation;
        }
        let bound = |given: i64| u64::try_from(given).ok().filter(|n| *n > 0);
        if let Some(calls) = fields.integer("calls_max", 0, CALLS_MAX)? {
            replicas.calls_max = bound(calls);
        }
        if let Some(age_s) = fields.integer("age_seconds_max", 0, AGE_S_MAX)? {
            replicas.age_s_max = bound(age_s);
        }
        if let Some(memory_mb) = fields.integer("memory_mb_max", 0, MEMORY_MB_MAX)? {
            replicas.memory_bytes_max = bound(memory_mb).map(|mb| mb << 20);
        }
        if let Some(spares) = fields.integer("spares", 0, self.spares_max.into())? {
            replicas.spares = u16::try_from(spares).expect("it is within the bounds of a u16");
        }
        Ok(())
    }
}

/// Refuses what could never act with these amounts.
pub(crate) fn check(policy: &ServingPolicy, amounts: Amounts) -> Outcome<()> {
    let memory_mb = memory_mb(policy.replicas.memory_bytes_max);
    if memory_mb > 0 && memory_mb >= amounts.memory_mb {
        return Err(Fault::Invalid(format!(
            "field `{FIELD}.memory_mb_max` is {memory_mb}: it must be below the replica's memory of {} MB, \
             at which the system ends it",
            amounts.memory_mb
        )));
    }
    Ok(())
}

/// How it looks in the API: 0 is no bound, or for the request timeout the server's.
pub(crate) fn shown(policy: &ServingPolicy) -> Value {
    let replicas = &policy.replicas;
    json!({
        "start": replicas.start,
        "on_exception": replicas.on_exception.map_or(json!("auto"), |word| json!(word)),
        "isolation": replicas.isolation,
        "calls_max": replicas.calls_max.unwrap_or_default(),
        "age_seconds_max": replicas.age_s_max.unwrap_or_default(),
        "memory_mb_max": memory_mb(replicas.memory_bytes_max),
        "spares": replicas.spares,
        "request_timeout_seconds": seconds(policy.request_timeout_ms.unwrap_or_default()),
        "on_hang_up": policy.on_hang_up,
        "network": policy.network,
        "require_isolation": policy.require_isolation,
    })
}

fn memory_mb(bytes: Option<u64>) -> i64 {
    bytes.map_or(0, |bytes| i64::try_from(bytes >> 20).unwrap_or(i64::MAX))
}

/// Whole where it is whole.
fn seconds(ms: u64) -> Value {
    if ms.is_multiple_of(1_000) { json!(ms / 1_000) } else { json!(ms as f64 / 1_000.0) }
}

fn parse_start(word: &str) -> Option<StartPolicy> {
    match word {
        "auto" => Some(StartPolicy::Auto),
        "fork" => Some(StartPolicy::Fork),
        "spawn" => Some(StartPolicy::Spawn),
        _ => None,
    }
}

fn parse_isolation(word: &str) -> Option<CallIsolation> {
    match word {
        "replica" => Some(CallIsolation::Replica),
        "call" => Some(CallIsolation::Call),
        _ => None,
    }
}

fn parse_on_hang_up(word: &str) -> Option<OnHangUp> {
    match word {
        "finish" => Some(OnHangUp::Finish),
        "cancel" => Some(OnHangUp::Cancel),
        _ => None,
    }
}

fn parse_network(word: &str) -> Option<Network> {
    match word {
        "kept" => Some(Network::Kept),
        "none" => Some(Network::None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fields::tests::fields;

    fn read_on(defaults: &ServingPolicy, policy: &Value) -> (Outcome<ServingPolicy>, Vec<String>) {
        let mut body = fields(json!({ "serving_policy": policy }));
        let read = Reader { defaults, spares_max: 9 }.read(&mut body);
        (read, body.unknown())
    }

    fn read(policy: &Value) -> Outcome<ServingPolicy> {
        read_on(&ServingPolicy::default(), policy).0
    }

    #[test]
    fn every_field_is_taken_and_shown_and_numbers_may_be_texts() {
        let given = json!({
            "start": "spawn", "on_exception": "keep", "isolation": "call", "calls_max": "1000", "age_seconds_max": 60,
            "memory_mb_max": "512", "spares": 0, "request_timeout_seconds": "2.5", "on_hang_up": "cancel",
            "network": "none", "require_isolation": true,
        });
        let shown = shown(&read(&given).unwrap());
        assert_eq!(
            shown,
            json!({
                "start": "spawn", "on_exception": "keep", "isolation": "call", "calls_max": 1000, "age_seconds_max": 60,
                "memory_mb_max": 512, "spares": 0, "request_timeout_seconds": 2.5, "on_hang_up": "cancel",
                "network": "none", "require_isolation": true,
            })
        );
        assert_eq!(super::shown(&read(&shown).unwrap()), shown, "a client sends back what it read");
    }

    #[test]
    fn what_is_not_said_stays_and_zero_takes_a_bound_away() {
        let before = read(&json!({"start": "fork", "calls_max": 5, "request_timeout_seconds": 1})).unwrap();
        let changed = json!({"calls_max": 0, "request_timeout_seconds": 0, "start": "", "on_exception": null, "colour": 1});
        let (after, unknown) = read_on(&before, &changed);
        assert_eq!(after.unwrap(), read(&json!({"start": "fork"})).unwrap());
        assert_eq!(unknown, ["serving_policy.colour"]);
    }

    #[test]
    fn bad_values_are_named_with_field_and_rule() {
        let cases = [
            (
                json!({"start": "thread"}),
                "field `serving_policy.start` is \"thread\": it must be one of `auto`, `fork`, `spawn`",
            ),
            (
                json!({"spares": 10}),
                "field `serving_policy.spares` is 10: it must be a whole number from 0 to 9",
            ),
            (json!({"calls_max": -1}), "field `serving_policy.calls_max` is -1"),
            (
                json!({"request_timeout_seconds": "soon"}),
                "field `serving_policy.request_timeout_seconds` is \"soon\"",
            ),
            (json!({"on_hang_up": true}), "field `serving_policy.on_hang_up` is true: it must be a text"),
            (json!("fork"), "field `serving_policy` is \"fork\": it must be an object"),
        ];
        for (policy, expected) in cases {
            let message = read(&policy).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
        let checked = |mb: u64| check(&read(&json!({ "memory_mb_max": mb })).unwrap(), Amounts::default());
        let never = checked(2_048).unwrap_err().to_string();
        assert!(never.contains("below the replica's memory of 2048 MB"), "{never}");
        assert!(checked(2_047).is_ok());
    }
}
