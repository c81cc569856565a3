//! Several gateways, cancelling, leaving, and peers that do not keep to the rules.
#![allow(clippy::unwrap_used, unsafe_code, missing_docs)]

mod harness;

use std::io::Write as _;

use harness::{Project, call_frame, until};
use millgate_contract::{
    frame::{Frame, Join, Outcome, RefusalReason, Role},
    ids::CallId,
    nursery::FromReplica,
};

/// Prints, and then waits for a file to appear: a call that lasts as long as the test wants.
const WAITING: &str = r"
import os, time
def predict(args):
    print('begun', args['name'])
    while not os.path.exists(args['until']):
        time.sleep(0.001)
    return args['name']
";

struct Gate(std::path::PathBuf);

impl Gate {
    fn new(project: &Project) -> Self {
        Self(project.folder.path().join("gate"))
    }

    fn request(&self, name: &str) -> String {
        serde_json::json!({"name": name, "until": self.0}).to_string()
    }

    fn open(&self) {
        std::fs::write(&self.0, "").unwrap();
    }
}

#[test]
fn a_call_that_comes_together_with_its_join_is_answered() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let replica = template.ready();
    let mut gateway = replica.connect();
    gateway.hello();
    let join = Frame::Join(Join { version: 1, role: Role::Calls, gateway: "gw".into() }).encode();
    gateway.stream.write_all(&[join, call_frame(CallId(1), "5", 1_000).encode()].concat()).unwrap();
    gateway.expect_accepted(CallId(1));
    assert_eq!(&gateway.expect_done(CallId(1)).value[..], b"5");
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_still_a_frame() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let replica = template.ready();
    let (mut slow, mut fast) = (replica.join("slow", Role::Calls), replica.join("fast", Role::Calls));
    let frame = call_frame(CallId(1), "[1,2]", 1_000).encode();
    let (last, first) = frame.split_last().unwrap();
    for byte in first {
        slow.stream.write_all(&[*byte]).unwrap();
        // The others' calls go on meanwhile, and lend and return the connection each time.
        assert_eq!(fast.answer("7"), "7");
    }
    slow.stream.write_all(&[*last]).unwrap();
    slow.expect_accepted(CallId(1));
    assert_eq!(&slow.expect_done(CallId(1)).value[..], b"[1,2]");
}

#[test]
fn cancel_interrupts_the_running_call_and_ends_the_replica() {
    for code in [
        "def predict(args):\n    print('begun')\n    while True:\n        pass\n",
        "import time\ndef predict(args):\n    print('begun')\n    time.sleep(3600)\n",
        "import asyncio\nasync def predict(args):\n    print('begun')\n    await asyncio.sleep(3600)\n",
    ] {
        let template = Project::new(code).import();
        let replica = template.ready();
        let (mut calls, mut control) = (replica.gateway(), replica.join("gw", Role::Control));
        let id = calls.begin("1");
        calls.expect_accepted(id);
        replica.log.wait_for("begun");
        control.send(&Frame::Cancel(id));
        let done = calls.expect_done(id);
        assert_eq!((done.outcome, done.is_leaving), (Outcome::Cancelled, true), "{code}");
        assert_eq!(replica.expect_leaving(), "a call was cancelled");
        replica.expect_end();
    }
}

#[test]
fn cancelling_another_call_or_as_another_gateway_does_nothing() {
    let project = Project::new(WAITING);
    let gate = Gate::new(&project);
    let template = project.import();
    let replica = template.ready();
    let mut calls = replica.gateway();
    let (mut own, mut foreign) = (replica.join("gw", Role::Control), replica.join("other", Role::Control));
    let id = calls.begin(&gate.request("x"));
    calls.expect_accepted(id);
    own.send(&Frame::Cancel(CallId(id.0 + 1)));
    foreign.send(&Frame::Cancel(id));
    // Both are read before these connections end, and their end is what can be waited for.
    foreign.send(&Frame::Accepted(id));
    assert_eq!(foreign.receive(), None);
    gate.open();
    assert_eq!(calls.expect_done(id).outcome, Outcome::Ok);
}

#[test]
fn a_cancel_that_comes_late_never_interrupts_the_next_call() {
    let template = Project::new("def predict(args):\n    return sum(range(2000))\n").import();
    let replica = template.ready();
    let (mut calls, mut control) = (replica.gateway(), replica.join("gw", Role::Control));
    let mut cancelled = 0;
    for _ in 0..300 {
        let id = calls.begin("1");
        calls.expect_accepted(id);
        control.send(&Frame::Cancel(id));
        let done = calls.expect_done(id);
        if done.outcome == Outcome::Cancelled {
            cancelled += 1;
            break;
        }
        assert_eq!(done.outcome, Outcome::Ok);
        // This one nobody cancels.
        assert_eq!(calls.answer("1"), "1999000");
    }
    assert!(cancelled <= 1);
}

#[test]
fn sigterm_lets_the_running_call_finish_refuses_others_and_leaves() {
    let project = Project::new(WAITING);
    let gate = Gate::new(&project);
    let template = project.import();
    let replica = template.ready();
    let (mut first, mut second) = (replica.join("one", Role::Calls), replica.join("two", Role::Calls));
    let id = first.begin(&gate.request("first"));
    first.expect_accepted(id);
    replica.log.wait_for("begun");
    replica.terminate();
    // The watcher acts on the signal in its own time; until then it is merely busy.
    until("calls are refused because it drains", || {
        let refused = second.begin(&gate.request("second"));
        match second.next() {
            Frame::Refused(id, reason) => {
                assert_eq!(id, refused);
                reason == RefusalReason::Draining
            }
            other => panic!("not refused: {other:?}"),
        }
    });
    gate.open();
    let done = first.expect_done(id);
    assert_eq!((done.outcome, done.is_leaving), (Outcome::Ok, true));
    assert_eq!(replica.expect_leaving(), "asked to leave");
    replica.expect_end();
    assert_eq!(second.receive(), None);
}

#[test]
fn an_idle_replica_leaves_at_once_and_its_slot_goes_on_with_the_next() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let replica = template.ready();
    let mut idle = replica.gateway();
    replica.terminate();
    assert_eq!(replica.expect_leaving(), "asked to leave");
    // Connects to a listener that this process has closed and another still holds.
    let mut waiting = replica.connect();
    replica.expect_end();
    assert_eq!(idle.receive(), None);
    waiting.stream.set_nonblocking(true).unwrap();
    let error = std::io::Read::read(&mut waiting.stream, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "it waits in the queue and is not cut off");
}

#[test]
fn the_end_of_the_supervisor_is_the_end_of_the_replica() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let mut replica = template.ready();
    let mut gateway = replica.gateway();
    assert_eq!(gateway.answer("1"), "1");
    let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut replica.channel, other.into()));
    assert_eq!(gateway.receive(), None);
}

#[test]
fn a_worker_process_of_user_code_dies_of_sigterm_and_the_replica_does_not() {
    let code = "import os, signal\ndef predict(args):\n    pid = os.fork()\n    if pid == 0:\n        signal.pause()\n        os._exit(0)\n    os.kill(pid, signal.SIGTERM)\n    return os.waitpid(pid, 0)[1]\n";
    let template = Project::new(code).import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    assert_eq!(gateway.answer("1"), "15");
    assert_eq!(gateway.answer("1"), "15");
}

#[test]
fn a_gateway_that_hangs_up_in_a_call_interrupts_it() {
    let template =
        Project::new("def predict(args):\n    print('begun')\n    while True:\n        pass\n").import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    gateway.begin("1");
    replica.log.wait_for("begun");
    drop(gateway);
    assert_eq!(replica.expect_leaving(), "a call was cancelled");
}

#[test]
fn a_call_that_no_gateway_waits_for_and_no_interrupt_ends_is_over_at_its_deadline() {
    let code = "def predict(args):\n    while True:\n        try:\n            print('begun')\n            while True:\n                pass\n        except KeyboardInterrupt:\n            print('not me')\n";
    let template = Project::new(code).import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    let control = replica.join("gw", Role::Control);
    let id = gateway.begin_within("1", 300);
    gateway.expect_accepted(id);
    replica.log.wait_for("begun");
    drop(control);
    replica.expect_end();
    replica.log.wait_for("the gateway of a call is gone");
}

#[test]
fn hostile_and_broken_peers_are_dropped_and_others_served() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let replica = template.ready();
    let mut good = replica.gateway();
    let join = |role| Frame::Join(Join { version: 1, role, gateway: "gw".into() }).encode();
    let call = call_frame(CallId(1), "1", 1_000).encode();
    let too_large = [&[0xff; 16][..], &[0; 64]].concat();
    let attacks: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        too_large.clone(),
        call.to_vec(),
        Frame::Join(Join { version: 99, role: Role::Calls, gateway: "gw".into() }).encode().to_vec(),
        [&join(Role::Calls)[..], &too_large].concat(),
        [&join(Role::Calls)[..], &Frame::Accepted(CallId(1)).encode()].concat(),
        [&join(Role::Calls)[..], &join(Role::Calls)].concat(),
        [&join(Role::Control)[..], &call].concat(),
    ];
    for attack in attacks {
        let mut bad = replica.connect();
        bad.hello();
        bad.stream.write_all(&attack).unwrap();
        assert_eq!(bad.receive(), None, "{attack:?}");
        assert_eq!(good.answer("2"), "2");
    }
}

#[test]
fn silent_newcomers_are_bounded_and_do_not_keep_others_out() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let replica = template.ready();
    let mut silent: Vec<_> = (0..100).map(|_| replica.connect()).collect();
    assert_eq!(replica.gateway().answer("1"), "1");
    let first = silent.first_mut().unwrap();
    first.hello();
    assert_eq!(first.receive(), None, "the oldest gave way");
}

#[test]
fn a_gateway_that_ends_between_calls_or_before_its_answer_harms_nobody() {
    let project = Project::new(WAITING);
    let gate = Gate::new(&project);
    gate.open();
    let template = project.import();
    let replica = template.ready();
    for _ in 0..20 {
        drop(replica.gateway());
        let mut half = replica.gateway();
        let frame = call_frame(CallId(1), &gate.request("half"), 1_000).encode();
        half.stream.write_all(&frame[..20]).unwrap();
    }
    assert_eq!(replica.gateway().answer(&gate.request("whole")), "\"whole\"");
    assert!(!replica.log.text().contains("half"));
}

#[test]
fn a_forked_replica_says_once_that_it_has_answered() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    assert_eq!(gateway.answer("1"), "1");
    assert_eq!(replica.next_of_all(), FromReplica::Answered);
    assert_eq!(gateway.answer("2"), "2");
    replica.terminate();
    assert!(matches!(replica.next_of_all(), FromReplica::Leaving { .. }));
}
