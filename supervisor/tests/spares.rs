//! Replicas that are set up before they are needed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::{Deployment, until};
use millgate_contract::{frame::Outcome, ids::ReplicaId, supervision::ToSupervisor};

/// Says when it sets up and tears down; the answer is the process that set up.
const SOURCE: &str = "
import os
def setup():
    global ready
    ready = os.getpid()
    print('set up')
def teardown():
    print('torn down')
def function(args):
    if args == 'raise':
        raise ValueError('no')
    return ready == os.getpid()
";

/// Who has printed this.
fn printers(deployment: &Deployment, text: &str) -> Vec<ReplicaId> {
    deployment.log().into_iter().filter(|line| line.text == text).filter_map(|line| line.replica).collect()
}

#[test]
fn a_spare_is_set_up_before_it_is_needed_and_takes_over_a_lost_slot() {
    let (deployment, mut client) = Deployment::serving(SOURCE, |_| {});
    for number in 0..5 {
        let raised = client.replica(0);
        until("a spare waits", || printers(&deployment, "waits as a spare").len() == number + 1);
        let known = printers(&deployment, "waits as a spare");
        let done = deployment.gateway(0).call("\"raise\"");
        assert_eq!(done.outcome, Outcome::Exception);
        client.until_replaced(0, &raised);
        assert!(known.contains(&client.replica(0)), "{known:?} {:?}", deployment.log());
        assert_eq!(deployment.gateway(0).value("1"), true);
    }
}

#[test]
fn a_spare_that_is_not_needed_tears_down_and_ends() {
    let (deployment, mut client) = Deployment::serving(SOURCE, |_| {});
    until("a spare waits", || printers(&deployment, "waits as a spare").len() == 1);
    let replica = client.replica(0);
    let spare = printers(&deployment, "waits as a spare").remove(0);
    client.say(&ToSupervisor::Restart);
    until("the spare has torn down", || printers(&deployment, "torn down").contains(&spare));
    client.until_replaced(0, &replica);
    assert_ne!(client.replica(0), spare);
    assert_eq!(deployment.gateway(0).value("1"), true);
    // The one that took the slot over has waited too.
    until("another waits", || printers(&deployment, "waits as a spare").len() == 3);
    client.stop_and_wait(5_000);
    let (set_up, torn_down) = (printers(&deployment, "set up"), printers(&deployment, "torn down"));
    assert_eq!(torn_down.len(), set_up.len(), "{:?}", deployment.log());
}

#[test]
fn without_spares_nothing_is_set_up_for_nobody() {
    let (deployment, client) = Deployment::serving(SOURCE, |spec| spec.policy.spares = 0);
    client.stop_and_wait(5_000);
    assert_eq!(printers(&deployment, "set up").len(), 1);
}
