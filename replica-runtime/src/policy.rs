//! What one process is used for: how many calls, and whether it outlives an exception.
//!
//! Decided after each call, from counts alone. What ends a replica whatever the policy says (a cancelled call, an
//! exit that the function asked for) is decided where it is seen, in `call.rs`.

use millgate_contract::{
    frame::Outcome,
    spec::{CallIsolation, OnException, ReplicaPolicy},
    supervision::StartMode,
};

/// A deployment's policy, as one replica keeps it.
#[derive(Debug)]
pub(crate) struct Policy {
    on_exception: OnException,
    calls_max: u64,
    calls: u64,
}

impl Policy {
    /// The policy of a replica that was started in this way.
    pub(crate) fn of(policy: &ReplicaPolicy, mode: StartMode) -> Self {
        let on_exception = policy.on_exception.unwrap_or(match mode {
            StartMode::Fork => OnException::Replace,
            // A start costs an import there: one bad input after another would keep the replica away.
            StartMode::Spawn => OnException::Keep,
        });
        let calls_max = match policy.isolation {
            CallIsolation::Call => 1,
            CallIsolation::Replica => policy.calls_max.unwrap_or(u64::MAX).max(1),
        };
        Self { on_exception, calls_max, calls: 0 }
    }

    /// True when an exception is the end of the replica.
    pub(crate) fn replaces_after_exception(&self) -> bool {
        self.on_exception == OnException::Replace
    }

    /// Counts a call of the function; why it was the last one, if it was.
    pub(crate) fn count(&mut self, outcome: Outcome) -> Option<&'static str> {
        if outcome == Outcome::BadInput {
            // The function was not called.
            return None;
        }
        self.calls += 1;
        (self.calls >= self.calls_max).then_some(if self.calls_max == 1 {
            "each call has a process of its own"
        } else {
            "it has had its number of calls"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(change: impl FnOnce(&mut ReplicaPolicy), mode: StartMode) -> Policy {
        let mut policy = ReplicaPolicy::default();
        change(&mut policy);
        Policy::of(&policy, mode)
    }

    #[test]
    fn an_exception_is_the_end_of_a_fork_and_not_of_a_spawned_replica_unless_said() {
        assert!(policy(|_| {}, StartMode::Fork).replaces_after_exception());
        assert!(!policy(|_| {}, StartMode::Spawn).replaces_after_exception());
        assert!(
            !policy(|p| p.on_exception = Some(OnException::Keep), StartMode::Fork).replaces_after_exception()
        );
        let replace = policy(|p| p.on_exception = Some(OnException::Replace), StartMode::Spawn);
        assert!(replace.replaces_after_exception());
    }

    #[test]
    fn calls_are_counted_where_the_function_was_called() {
        let mut three = policy(|p| p.calls_max = Some(3), StartMode::Fork);
        let ended: Vec<bool> = [Outcome::Ok, Outcome::BadInput, Outcome::Exception, Outcome::Ok]
            .map(|outcome| three.count(outcome).is_some())
            .into();
        assert_eq!(ended, [false, false, false, true]);
        let mut one = policy(|p| p.isolation = CallIsolation::Call, StartMode::Fork);
        assert!(one.count(Outcome::Ok).is_some());
        let mut any = policy(|_| {}, StartMode::Fork);
        assert!((0..1_000).all(|_| any.count(Outcome::Ok).is_none()));
    }
}
