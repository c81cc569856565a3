//! Calls that a gateway writes behind the one that runs: run in their order, or given back.
#![allow(clippy::unwrap_used, unsafe_code, missing_docs)]

mod harness;

use std::io::Write as _;

use harness::{Gateway, Project, Replica, Template, call_frame, text};
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

/// Three calls as they arrive together, so that the first and the second are answered while the next one lies there.
fn three_at_once(gateway: &mut Gateway, behind: &[u8]) -> [(CallId, &'static str); 3] {
    let calls = [(CallId(101), "a"), (CallId(102), "b"), (CallId(103), "c")];
    let frames = calls.map(|(id, name)| call_frame(id, &named(name), 30_000).encode());
    gateway.stream.write_all(&[&frames.concat(), behind].concat()).unwrap();
    calls
}

#[test]
fn calls_that_arrive_together_are_answered_each_and_the_last_one_at_once() {
    let house = House::new();
    let mut gateway = house.join();
    assert_eq!(gateway.answer(&named("first")), r#""first""#);
    for (id, name) in three_at_once(&mut gateway, b"") {
        expect_answer(&mut gateway, id, name);
    }
    // Also when a frame follows that has not arrived whole.
    let next = call_frame(CallId(104), &named("d"), 30_000).encode();
    for (id, name) in three_at_once(&mut gateway, &next[..20]) {
        expect_answer(&mut gateway, id, name);
    }
    gateway.stream.write_all(&next[20..]).unwrap();
    expect_answer(&mut gateway, CallId(104), "d");
    assert_eq!(house.begun(), ["first", "a", "b", "c", "a", "b", "c", "d"]);
}

#[test]
fn calls_are_answered_whatever_follows_them() {
    let house = House::new();
    let mut gateway = house.join();
    assert_eq!(gateway.answer(&named("first")), r#""first""#);
    for (id, name) in three_at_once(&mut gateway, &[0xFF; 64]) {
        expect_answer(&mut gateway, id, name);
    }
    assert_eq!(gateway.receive(), None, "that was no frame");
}

#[test]
fn an_answer_comes_before_the_refusal_of_what_lies_behind_it_when_it_is_another_one_s_turn() {
    let house = House::new();
    let (mut one, mut other) = (house.join(), house.replica.join("other", Role::Calls));
    assert_eq!(one.answer(&named("first")), r#""first""#);
    let held = serde_json::json!({"name": "held", "until": house.gate}).to_string();
    let calls = [(CallId(101), held), (CallId(102), named("a"))];
    let frames = calls.map(|(id, json)| call_frame(id, &json, 30_000).encode());
    one.stream.write_all(&frames.concat()).unwrap();
    one.expect_accepted(CallId(101));
    let refused = other.begin(&named("other's"));
    other.expect_refused(refused);
    house.open();
    one.expect_done(CallId(101));
    one.expect_refused(CallId(102));
    other.expect_grant();
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
        .flat_map(|(json, id)| call_frame(*id, json, 30_000).encode().to_vec())
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
