//! What a supervisor can say of a replica without asking it: how its time was spent.
#![allow(missing_docs, clippy::unwrap_used)]

mod harness;

use harness::{Deployment, client::Client, until};
use millgate_contract::{spec::StartPolicy, supervision::ReplicaUsage};

/// Microseconds that the functions here take at least.
const TAKES_US: u64 = 30_000;

fn usage(client: &mut Client) -> ReplicaUsage {
    let replica = client.replica(0);
    let mut found = None;
    // From its first wait for a call on, a moment after it is ready.
    until("the replica notes what it does", || {
        found = client.usage(&replica);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_replica_that_nobody_calls_is_idle_and_one_that_sleeps_or_computes_in_a_call_is_busy() {
    for start in [StartPolicy::Fork, StartPolicy::Spawn] {
        let (deployment, mut client) = Deployment::serving(
            "
import time
def function(args):
    if args == 'sleep':
        time.sleep(0.03)
    end = time.monotonic() + 0.03
    while args == 'compute' and time.monotonic() < end:
        pass
",
            |spec| spec.policy.start = start,
        );
        let before = usage(&mut client);
        until("it was idle for longer", || usage(&mut client).idle_us > before.idle_us + TAKES_US);
        let idle = usage(&mut client);
        assert_eq!((idle.calls, idle.busy_us / TAKES_US), (0, 0), "{idle:?}");
        let mut gateway = deployment.gateway(0);
        for (n, what) in [r#""sleep""#, r#""compute""#].into_iter().enumerate() {
            let before = usage(&mut client);
            gateway.value(what);
            let after = usage(&mut client);
            assert_eq!(after.calls, n as u64 + 1);
            assert!(after.busy_us >= before.busy_us + TAKES_US, "{what}: {before:?} {after:?}");
        }
    }
}

#[test]
fn a_call_that_hangs_is_seen_as_it_goes_on() {
    let (deployment, mut client) =
        Deployment::serving("import time\ndef function(args): time.sleep(1000)", |_| {});
    let mut gateway = deployment.gateway(0);
    gateway.send("1");
    gateway.accepted();
    until("it is busy for longer and longer", || usage(&mut client).busy_us > 3 * TAKES_US);
    assert_eq!(usage(&mut client).calls, 1);
}

#[test]
fn time_for_which_another_thread_holds_the_interpreter_is_told_apart() {
    let (deployment, mut client) = Deployment::serving(
        "
import ctypes, threading
library = ctypes.PyDLL(None)
def hold():
    while True:
        library.usleep(10_000)
def function(args):
    if args == 'hold':
        threading.Thread(target=hold, daemon=True).start()
",
        |_| {},
    );
    let mut gateway = deployment.gateway(0);
    gateway.value("1");
    gateway.value(r#""hold""#);
    until("a call has waited for the interpreter", || {
        gateway.value("1");
        usage(&mut client).interpreter_wait_us > TAKES_US
    });
    let whole = usage(&mut client);
    assert!(whole.idle_us > 0 && whole.busy_us > 0, "{whole:?}");
}
