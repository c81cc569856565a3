//! Replicas that are replaced between calls, and hangs that end with everything below them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::{Deployment, processes_with, until};
use millgate_contract::{
    spec::{CallIsolation, Confinement, StartPolicy},
    supervision::{Phase, SlotState, ToSupervisor},
};

#[test]
fn a_replica_that_has_grown_is_replaced_between_calls() {
    for is_open in [false, true] {
        let source = "
held = []
def function(args):
    held.append(bytearray(args * 1024 * 1024))
    return len(held)
";
        let (deployment, mut client) = Deployment::serving(source, |spec| {
            spec.policy.memory_bytes_max = Some(64 << 20);
            if is_open {
                spec.confinement = Confinement::Open;
            }
        });
        let grown = client.replica(0);
        assert_eq!(deployment.gateway(0).value("1"), 1);
        assert_eq!(deployment.gateway(0).value("100"), 2);
        client.until_replaced(0, &grown);
        assert_eq!(deployment.gateway(0).value("1"), 1);
        assert!(
            deployment.log().iter().any(|line| line.text.contains("bytes of memory, over")),
            "{:?}",
            deployment.log()
        );
    }
}

#[test]
fn replicas_are_replaced_when_they_have_served_for_long() {
    let (deployment, mut client) = Deployment::serving("def function(args): return args", |spec| {
        spec.slots = 2;
        spec.policy.age_s_max = Some(1);
    });
    let old = [client.replica(0), client.replica(1)];
    for (slot, replica) in old.iter().enumerate() {
        client.until_replaced(slot as u16, replica);
        let ready = client.slots.values().filter(|slot| slot.state == SlotState::Ready).count();
        assert_eq!(ready, 2, "the other is not touched before");
    }
    drop(deployment);
}

#[test]
fn a_lone_replica_serves_until_the_one_that_takes_its_place_has_set_itself_up() {
    // What is set up takes a moment, in which the one before must serve.
    let source = "
import os, time
def setup():
    time.sleep(0.3)
def function(args):
    return os.getpid()
";
    for start in [StartPolicy::Fork, StartPolicy::Spawn] {
        let (deployment, mut client) = Deployment::serving(source, |spec| {
            spec.policy.start = start;
            spec.policy.spares = 0;
        });
        let old = client.replica(0);
        client.say(&ToSupervisor::Restart);
        client.until_replaced(0, &old);
        let log = deployment.log();
        let at = |part: &str| log.iter().position(|line| line.text.contains(part));
        assert!(at("waits as a spare").unwrap() < at("is replaced").unwrap(), "{start:?}: {log:?}");
        deployment.gateway(0).value("1");
    }
}

#[test]
fn a_restart_that_cannot_set_up_leaves_what_serves() {
    let source = "
import os
def setup():
    if os.path.exists('broken'):
        raise OSError('no database')
def function(args):
    return os.getpid()
";
    let (deployment, mut client) = Deployment::serving(source, |_| {});
    let before = deployment.gateway(0).value("1");
    std::fs::write(deployment.spec.function.root.join("broken"), "").unwrap();
    client.say(&ToSupervisor::Restart);
    client.until("the restart is called off", |client| {
        client.deployment.as_ref().is_some_and(|report| report.reason.contains("no database"))
    });
    assert_eq!(client.deployment.as_ref().unwrap().phase, Phase::Serving);
    assert_eq!(deployment.gateway(0).value("1"), before);
}

#[test]
fn each_call_has_a_process_of_its_own_where_that_is_wished() {
    let source = "
import os
calls = 0
def function(args):
    global calls
    calls += 1
    return [calls, os.getpid()]
";
    let (deployment, mut client) =
        Deployment::serving(source, |spec| spec.policy.isolation = CallIsolation::Call);
    let mut pids = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let replica = client.replica(0);
        let answer = deployment.gateway(0).value("{}");
        assert_eq!(answer[0], 1);
        pids.insert(answer[1].to_string());
        client.until_replaced(0, &replica);
    }
    assert_eq!(pids.len(), 20);
}

#[test]
fn a_hang_ends_with_everything_below_it_however_the_replica_was_started() {
    for (number, (is_open, start)) in [
        (false, StartPolicy::Fork),
        (true, StartPolicy::Fork),
        (false, StartPolicy::Spawn),
        (true, StartPolicy::Spawn),
    ]
    .into_iter()
    .enumerate()
    {
        let marker = format!("97531{}.{number}", std::process::id());
        let source = format!(
            "
import signal, subprocess
def function(args):
    if args != 'hang':
        return 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(3):
        subprocess.Popen(['/bin/sh', '-c', 'trap \"\" TERM; setsid sleep {marker} & wait'],
                         start_new_session=True)
    while True:
        pass
"
        );
        let (deployment, mut client) = Deployment::serving(&source, |spec| {
            spec.policy.start = start;
            if is_open {
                spec.confinement = Confinement::Open;
            }
        });
        let replica = client.replica(0);
        let mut gateway = deployment.gateway(0);
        gateway.send("\"hang\"");
        gateway.accepted();
        until("the grandchildren sleep", || processes_with(&format!("sleep\0{marker}")).len() == 3);
        client.expired(0, &replica);
        client.until_dead(&replica);
        client.until_replaced(0, &replica);
        until("no grandchild is left", || processes_with(&marker).is_empty());
        assert_eq!(deployment.gateway(0).value("1"), 1);
    }
}
