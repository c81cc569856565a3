//! How a deployment says that replicas are warmed, ended and renewed.
#![allow(clippy::unwrap_used, unsafe_code, missing_docs)]

mod harness;

use harness::{Project, text};
use millgate_contract::{
    frame::Outcome,
    nursery::{FromReplica, Step},
    spec::{CallIsolation, OnException, ReplicaPolicy},
};

const COUNTER: &str = "
calls = 0
def predict(args):
    global calls
    calls += 1
    if args == 'raise':
        raise ValueError('asked to')
    return calls
def teardown():
    print('torn down after', calls)
";

fn with(policy: ReplicaPolicy) -> Project {
    let mut project = Project::new(COUNTER);
    project.spec.policy = policy;
    project
}

#[test]
fn a_fork_that_keeps_goes_on_after_an_exception() {
    let policy = ReplicaPolicy { on_exception: Some(OnException::Keep), ..ReplicaPolicy::default() };
    let template = with(policy).import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    let done = gateway.call(r#""raise""#);
    assert_eq!((done.outcome, done.is_leaving), (Outcome::Exception, false));
    assert_eq!(gateway.answer("0"), "2");
}

#[test]
fn a_spawned_replica_that_replaces_ends_after_an_exception() {
    let policy = ReplicaPolicy { on_exception: Some(OnException::Replace), ..ReplicaPolicy::default() };
    let replica = with(policy).spawn();
    replica.expect_ready();
    let done = replica.gateway().call(r#""raise""#);
    assert_eq!((done.outcome, done.is_leaving), (Outcome::Exception, true));
    assert_eq!(replica.expect_leaving(), "the function raised");
}

#[test]
fn a_replica_leaves_with_the_answer_of_its_last_call_and_tears_down() {
    let policy = ReplicaPolicy { calls_max: Some(2), ..ReplicaPolicy::default() };
    let template = with(policy).import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    assert!(!gateway.call("0").is_leaving);
    let last = gateway.call("0");
    assert_eq!((last.outcome, last.is_leaving, text(&last.value).as_str()), (Outcome::Ok, true, "2"));
    assert_eq!(replica.expect_leaving(), "it has had its number of calls");
    replica.log.wait_for("torn down after 2");
    replica.expect_end();
}

#[test]
fn with_isolation_of_calls_each_has_a_fork_of_its_own() {
    let policy = ReplicaPolicy { isolation: CallIsolation::Call, ..ReplicaPolicy::default() };
    let template = with(policy).import();
    for _ in 0..3 {
        let replica = template.ready();
        let done = replica.gateway().call("0");
        assert_eq!((text(&done.value).as_str(), done.is_leaving), ("1", true));
        assert_eq!(replica.expect_leaving(), "each call has a process of its own");
        replica.expect_end();
    }
}

#[test]
fn the_example_does_not_count_as_a_call() {
    let policy = ReplicaPolicy { isolation: CallIsolation::Call, ..ReplicaPolicy::default() };
    let template = with(policy).example("0").import();
    assert_eq!(template.ready().gateway().answer("0"), "2");
}

#[test]
fn warmup_runs_after_setup_and_before_the_example() {
    let code = "done = []\ndef setup():\n    done.append('setup')\nasync def warmup():\n    done.append('warmup')\ndef predict(args):\n    return done\n";
    let template = Project::new(code).example("0").import();
    let replica = template.fork();
    replica.go();
    assert_eq!(replica.expect_ready().as_deref(), Some(r#"["setup","warmup"]"#));
}

#[test]
fn a_warmup_that_fails_keeps_a_replica_from_being_ready_and_is_named() {
    let template =
        Project::new("def warmup():\n    raise OSError('no model')\ndef predict(args): pass\n").import();
    let replica = template.fork();
    replica.go();
    let FromReplica::Failed(failure) = replica.next() else { panic!("not failed") };
    assert_eq!((failure.step, failure.message.as_str()), (Step::Setup, "`warmup()`: OSError: no model"));
    replica.expect_end();
}

#[test]
fn siblings_draw_different_random_numbers() {
    let code = "import random\nrandom.seed(1)\ndef predict(args):\n    return random.random()\n";
    let template = Project::new(code).import();
    let mut drawn: Vec<String> = (0..4).map(|_| template.ready().gateway().answer("0")).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 4);
}

#[test]
fn generators_of_numpy_and_torch_are_reseeded_in_each_fork_and_one_that_cannot_be_is_named() {
    // Stands for the libraries: what counts is that their `seed()` is called, after the fork.
    let code = "
import sys, types
seeded = []
def fails():
    raise RuntimeError('no entropy')
torch, numpy_random = types.ModuleType('torch'), types.ModuleType('numpy.random')
torch.seed = lambda: seeded.append('torch')
numpy_random.seed = fails
sys.modules.update({'torch': torch, 'numpy.random': numpy_random})
def predict(args):
    return seeded
";
    let template = Project::new(code).import();
    for _ in 0..2 {
        let replica = template.ready();
        assert_eq!(replica.gateway().answer("0"), "[\"torch\"]");
        replica.log.wait_for("millgate: numpy.random was not reseeded: RuntimeError: no entropy");
    }
    let replica = Project::new(code).spawn();
    replica.expect_ready();
    assert_eq!(replica.gateway().answer("0"), "[]");
}
