//! How a deployment is served: how its replicas are started, ended and renewed, how long a call may run, and what a
//! caller who hangs up does to it. A model has one too: what its deployments get where they say nothing.
//!
//! It is fixed when a deployment is made, so that what serves changes by a deployment and by nothing else, and a
//! rollback brings back what there was.

use millgate_contract::{
    route::OnHangUp,
    spec::{Network, ReplicaPolicy, StartPolicy},
};
use serde::{Deserialize, Serialize};

use crate::rows::Amounts;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServingPolicy {
    pub(crate) replicas: ReplicaPolicy,
    /// Milliseconds the function may run; unset is the server's.
    pub(crate) request_timeout_ms: Option<u64>,
    pub(crate) on_hang_up: OnHangUp,
    pub(crate) network: Network,
    /// Refuse to start what this host cannot hold in by all there is, whatever the server says.
    pub(crate) require_isolation: bool,
}

impl Default for ServingPolicy {
    fn default() -> Self {
        Self {
            replicas: ReplicaPolicy::default(),
            request_timeout_ms: None,
            on_hang_up: OnHangUp::Finish,
            network: Network::Kept,
            require_isolation: false,
        }
    }
}

impl ServingPolicy {
    /// The reverse of [`Self::stored`].
    pub(crate) fn parse(stored: &str) -> Self {
        serde_json::from_str(stored).unwrap_or_default()
    }

    /// As the store keeps it.
    pub(crate) fn stored(&self) -> String {
        serde_json::to_string(self).expect("a policy holds nothing that JSON cannot")
    }

    /// MB that a deployment's processes may use in all: its replicas, its spares, and the template that they are forked
    /// from. Replicas that are started afresh have neither.
    pub(crate) fn memory_total_mb(&self, amounts: Amounts) -> i64 {
        let others = match self.replicas.start {
            StartPolicy::Spawn => 0,
            StartPolicy::Auto | StartPolicy::Fork => i64::from(self.replicas.spares) + 1,
        };
        amounts.memory_mb.saturating_mul(amounts.replicas.saturating_add(others))
    }
}

#[cfg(test)]
mod tests {
    use millgate_contract::spec::{CallIsolation, OnException};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn template_and_spares_are_counted_in_the_memory_that_is_asked_for() {
        let amounts = Amounts { memory_mb: 100, replicas: 3, ..Amounts::default() };
        for (start, spares, total_mb) in [
            (StartPolicy::Auto, 1, 500),
            (StartPolicy::Auto, 0, 400),
            (StartPolicy::Fork, 4, 800),
            (StartPolicy::Spawn, 4, 300),
        ] {
            let replicas = ReplicaPolicy { start, spares, ..ReplicaPolicy::default() };
            let policy = ServingPolicy { replicas, ..ServingPolicy::default() };
            assert_eq!(policy.memory_total_mb(amounts), total_mb, "{start:?} {spares}");
        }
    }

    proptest! {
        #[test]
        fn the_store_gives_back_what_it_was_given(
            bounds in any::<[Option<u64>; 4]>(), spares in any::<u16>(), word in 0_usize..3,
        ) {
            let policy = ServingPolicy {
                replicas: ReplicaPolicy {
                    start: [StartPolicy::Auto, StartPolicy::Fork, StartPolicy::Spawn][word],
                    on_exception: [None, Some(OnException::Keep), Some(OnException::Replace)][word],
                    isolation: [CallIsolation::Replica, CallIsolation::Call, CallIsolation::Call][word],
                    calls_max: bounds[0],
                    age_s_max: bounds[1],
                    memory_bytes_max: bounds[2],
                    spares,
                },
                request_timeout_ms: bounds[3],
                on_hang_up: [OnHangUp::Finish, OnHangUp::Cancel, OnHangUp::Finish][word],
                network: [Network::Kept, Network::None, Network::None][word],
                require_isolation: word == 1,
            };
            prop_assert_eq!(ServingPolicy::parse(&policy.stored()), policy);
        }
    }

    #[test]
    fn what_was_stored_before_there_were_policies_is_the_default() {
        assert_eq!(ServingPolicy::parse(""), ServingPolicy::default());
        assert_eq!(ServingPolicy::parse("{}"), ServingPolicy::default());
    }
}
