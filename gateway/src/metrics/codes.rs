//! The codes that a call can end with: a label from a bounded set.

use std::sync::OnceLock;

use prometheus_client::metrics::counter::Counter;

/// The code of success.
pub(crate) const OK: &str = "ok";
/// The code of a call whose caller hung up before its answer.
pub(crate) const CALLER_GONE: &str = "caller.gone";
/// The table of refusals, success, and a caller that has gone.
pub(super) const CODES: [&str; 24] = [
    OK,
    "request.malformed",
    "access_key.invalid",
    "api_key.required",
    "api_key.invalid",
    "api_key.forbidden",
    "request.slow",
    "request.too_large",
    "request.target_too_long",
    "request.head_too_large",
    "request.length_required",
    "request.coding_unsupported",
    "request.version_unsupported",
    "model.busy",
    "rate.limited",
    "function.exception",
    "function.bad_output",
    "replica.crashed",
    "model.unavailable",
    "model.timeout",
    "request.not_found",
    "request.method",
    "gateway.internal",
    CALLER_GONE,
];

/// A counter for each code, found at the first use of it: most codes never occur on most models.
pub(super) struct ByCode([OnceLock<Counter>; CODES.len()]);

impl ByCode {
    pub(super) fn new() -> Self {
        Self([const { OnceLock::new() }; CODES.len()])
    }

    /// Counts one. `find` resolves the counter when there is none yet.
    pub(super) fn inc(&self, code: &'static str, find: impl FnOnce() -> Counter) {
        let Some(at) = CODES.iter().position(|c| *c == code) else { return };
        self.0[at].get_or_init(find).inc();
    }
}

#[cfg(test)]
mod tests {
    use millgate_contract::refusal::Refusal;

    use super::*;

    #[test]
    fn every_refusal_can_be_counted() {
        for refusal in Refusal::all() {
            assert!(CODES.contains(&refusal.code()), "{}", refusal.code());
        }
    }
}
