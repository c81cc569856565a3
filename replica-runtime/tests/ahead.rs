//! Calls that a gateway writes behind the one that runs: run in their order, or given back.
#![allow(clippy::unwrap_used, unsafe_code, missing_docs)]

mod harness;

use harness::{Gateway, Project, Replica, Template, text};
use millgate_contract::{
    frame::{Frame, Outcome, RefusalReason, Role},
    ids::CallId,
};

/// Prints, and waits for a file to appear where it is told to; raises where it is told to.
const CODE: &str = r"
import os, time
def predict(args):
    print('begun', args['name'])
    while 'until' in args and not os.path.exists(args['until']):
        time.sleep(0.001)
    if args.get('raises'):
        raise ValueError(args['name'])
    return args['name']
";

struct House {
    gate: std::path::PathBuf,
    replica: Replica,
    _template: Template,
}

impl House {
    fn new() -> Self {
        let project = Project::new(CODE);
        let gate = project.folder.path().join("gate");
        let template = project.import();
        Self { gate, replica: template.ready(), _template: template }
    }

    fn join(&self) -> Gateway {
        self.replica.join("gw", Role::Calls)
    }

    /// A call that runs until [`House::open`].
    fn hold(&self, gateway: &mut Gateway) -> CallId {
        let held = gateway.begin(&serde_json::json!({"name": "held", "until": self.gate}).to_string());
        gateway.expect_accepted(held);
        held
    }

    fn open(&self) {
        std::fs::write(&self.gate, "").unwrap();
    }

    fn recall(&self, id: CallId, last: CallId) -> Gateway {
        let mut aside = self.replica.join("gw", Role::Aside);
        aside.send(&Frame::Recall(id, last));
        aside
    }

    /// Names of the calls that have begun, once the replica has ended.
    fn begun(self) -> Vec<String> {
        self.replica.terminate();
        self.replica.expect_leaving();
        let log = self.replica.log.whole();
        log.lines().filter_map(|line| line.split("begun ").nth(1)).map(str::to_owned).collect()
    }
}

fn named(name: &str) -> String {
    serde_json::json!({ "name": name }).to_string()
}

fn expect_answer(gateway: &mut Gateway, id: CallId, name: &str) {
    gateway.expect_accepted(id);
    assert_eq!(text(&gateway.expect_done(id).value), format!("\"{name}\""));
}

#[test]
fn calls_behind_the_running_one_run_in_their_order_each_with_its_own_frames() {
    let house = House::new();
    let mut gateway = house.join();
    let held = house.hold(&mut gateway);
    let behind = ["a", "b", "c"].map(|name| (gateway.begin(&named(name)), name));
    house.open();
    gateway.expect_done(held);
    for (id, name) in behind {
        expect_answer(&mut gateway, id, name);
    }
    assert_eq!(house.begun(), ["held", "a", "b", "c"]);
}

#[test]
fn what_is_recalled_is_refused_while_the_call_before_it_runs_and_never_run() {
    let house = House::new();
    let mut gateway = house.join();
    let held = house.hold(&mut gateway);
    let [a, b] = ["a", "b"].map(|name| gateway.begin(&named(name)));
    let aside = house.recall(held, b);
    gateway.expect_refused(a);
    gateway.expect_refused(b);
    // The end of such a connection is not its gateway's end.
    drop(aside);
    let c = gateway.begin(&named("c"));
    house.open();
    assert_eq!(gateway.expect_done(held).outcome, Outcome::Ok);
    expect_answer(&mut gateway, c, "c");
    assert_eq!(house.begun(), ["held", "c"]);
}

#[test]
fn what_was_read_before_it_was_recalled_is_given_back_as_well() {
    let house = House::new();
    let mut gateway = house.join();
    // All in one write, so that they are read at once.
    let first = serde_json::json!({"name": "held", "until": house.gate}).to_string();
    let frames = [first, named("a"), named("b")];
    let ids: Vec<CallId> = (1..).map(CallId).take(frames.len()).collect();
    let bytes: Vec<u8> = frames
        .iter()
        .zip(&ids)
        .flat_map(|(json, id)| harness::call_frame(*id, json, 30_000).encode().to_vec())
        .collect();
    std::io::Write::write_all(&mut gateway.stream, &bytes).unwrap();
    gateway.expect_accepted(ids[0]);
    house.recall(ids[0], ids[2]);
    gateway.expect_refused(ids[1]);
    gateway.expect_refused(ids[2]);
    house.open();
    gateway.expect_done(ids[0]);
    assert_eq!(house.begun(), ["held"]);
}

#[test]
fn a_recall_of_what_has_ended_or_is_another_gateway_s_means_nothing() {
    let house = House::new();
    let mut gateway = house.join();
    let done = gateway.begin(&named("done"));
    expect_answer(&mut gateway, done, "done");
    let held = house.hold(&mut gateway);
    let a = gateway.begin(&named("a"));
    house.recall(done, a);
    let mut other = house.replica.join("other", Role::Aside);
    other.send(&Frame::Recall(held, a));
    // Heard after both.
    let mut busy = house.replica.join("third", Role::Calls);
    let refused = busy.begin(&named("refused"));
    busy.expect_refused(refused);
    house.open();
    gateway.expect_done(held);
    // The third gateway waits, and has its turn first.
    gateway.expect_refused(a);
    assert_eq!(house.begun(), ["done", "held"]);
}

#[test]
fn a_replica_that_leaves_refuses_what_lies_behind_its_last_call_once() {
    let house = House::new();
    let mut gateway = house.join();
    let raising = serde_json::json!({"name": "held", "until": house.gate, "raises": true}).to_string();
    let held = gateway.begin(&raising);
    gateway.expect_accepted(held);
    let recalled = gateway.begin(&named("recalled"));
    house.recall(held, recalled);
    gateway.expect_refused(recalled);
    let behind = gateway.begin(&named("behind"));
    house.open();
    let done = gateway.expect_done(held);
    assert!(done.is_leaving && done.outcome == Outcome::Exception);
    assert_eq!(gateway.next(), Frame::Refused(behind, RefusalReason::Draining));
    assert_eq!(gateway.receive(), None);
    house.replica.expect_leaving();
    assert_eq!(house.replica.log.whole().matches("begun").count(), 1);
}
