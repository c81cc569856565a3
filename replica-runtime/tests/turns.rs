//! Several gateways at one replica: it is theirs in turn.
#![allow(clippy::unwrap_used, unsafe_code, missing_docs)]

mod harness;

use harness::{Gateway, Project, Replica, Template, text};
use millgate_contract::{
    frame::{Done, Frame, RefusalReason, Role},
    ids::CallId,
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

/// A replica with `WAITING` and the file that ends its calls.
struct House {
    gate: std::path::PathBuf,
    replica: Replica,
    _template: Template,
}

impl House {
    fn new() -> Self {
        Self::with(WAITING)
    }

    fn with(code: &str) -> Self {
        let project = Project::new(code);
        let gate = project.folder.path().join("gate");
        let template = project.import();
        Self { gate, replica: template.ready(), _template: template }
    }

    fn request(&self, name: &str) -> String {
        serde_json::json!({"name": name, "until": self.gate}).to_string()
    }

    /// Lets the running call, and all that follow, end.
    fn open(&self) {
        std::fs::write(&self.gate, "").unwrap();
    }

    /// Gateways of which the first runs a call that the others, in their order, were refused for.
    fn contended<const N: usize>(&self) -> ([Gateway; N], CallId) {
        let mut gateways = std::array::from_fn(|n| self.replica.join(&format!("gw-{n}"), Role::Calls));
        let running = gateways[0].begin(&self.request("0"));
        gateways[0].expect_accepted(running);
        for gateway in &mut gateways[1..] {
            let refused = gateway.begin(&self.request("refused"));
            gateway.expect_refused(refused);
        }
        (gateways, running)
    }

    fn call(&self, gateway: &mut Gateway, name: &str) -> Done {
        let done = gateway.call(&self.request(name));
        assert_eq!(text(&done.value), format!("\"{name}\""));
        done
    }

    /// How many calls have begun, once the replica has ended.
    fn begun(self) -> usize {
        self.replica.terminate();
        self.replica.expect_leaving();
        self.replica.log.whole().matches("begun").count()
    }
}

#[test]
fn a_replica_is_each_gateway_s_in_turn_while_others_wait() {
    let house = House::new();
    let ([mut one, mut two, mut three], running) = house.contended();
    // Asking again is refused again, and is no second place in the queue.
    let refused = three.begin(&house.request("refused"));
    three.expect_refused(refused);
    let refused = two.begin(&house.request("refused"));
    two.expect_refused(refused);
    // One that connects in the middle of the call is greeted, refused and queued as well.
    let mut four = house.replica.join("gw-4", Role::Calls);
    let refused = four.begin(&house.request("refused"));
    four.expect_refused(refused);
    house.open();
    let done = one.expect_done(running);
    assert!(done.is_queued, "others wait");
    for _ in 0..3 {
        for (gateway, name) in [(&mut two, "2"), (&mut three, "3"), (&mut four, "4"), (&mut one, "1")] {
            gateway.expect_grant();
            assert!(house.call(gateway, name).is_queued);
        }
    }
    // Each has its own turn coming still, and nobody has had a frame that is not read above.
    two.expect_grant();
    assert_eq!(house.begun(), 13, "refused calls are not run");
    for gateway in [&mut one, &mut three, &mut four] {
        assert_eq!(gateway.receive(), None);
    }
}

#[test]
fn who_calls_when_it_is_another_one_s_turn_is_refused_and_queued() {
    let house = House::new();
    let ([mut one, mut two], running) = house.contended();
    house.open();
    assert!(one.expect_done(running).is_queued);
    two.expect_grant();
    let early = one.begin(&house.request("early"));
    one.expect_refused(early);
    let mut three = house.replica.join("gw-3", Role::Calls);
    let early = three.begin(&house.request("early"));
    three.expect_refused(early);
    house.call(&mut two, "2");
    one.expect_grant();
    house.call(&mut one, "1");
    three.expect_grant();
    house.call(&mut three, "3");
    assert_eq!(house.begun(), 4);
}

#[test]
fn a_turn_that_is_declined_is_the_next_one_s_and_its_gateway_is_not_queued() {
    let house = House::new();
    let ([mut one, mut two, mut three], running) = house.contended();
    house.open();
    one.expect_done(running);
    two.expect_grant();
    two.send(&Frame::Decline);
    three.expect_grant();
    assert!(house.call(&mut three, "3").is_queued);
    one.expect_grant();
    one.send(&Frame::Decline);
    three.expect_grant();
    three.send(&Frame::Decline);
    // Nobody waits, and whoever comes is served, as often as it likes.
    for _ in 0..3 {
        assert!(!house.call(&mut two, "2").is_queued);
    }
}

#[test]
fn an_old_word_does_not_end_another_one_s_turn() {
    let house = House::new();
    let ([mut one, mut two], running) = house.contended();
    one.send(&Frame::Decline);
    two.send(&Frame::Decline);
    // What is answered after that word of the same connection tells that it was read: in time to be an old one.
    let again = two.begin(&house.request("refused"));
    two.expect_refused(again);
    house.open();
    one.expect_done(running);
    two.expect_grant();
    one.send(&Frame::Decline);
    let early = one.begin(&house.request("early"));
    one.expect_refused(early);
    house.call(&mut two, "2");
    one.expect_grant();
}

#[test]
fn a_turn_that_nobody_comes_for_passes() {
    // With a loop of its own the replica waits in another way.
    let with_loop = WAITING.replace("def", "async def").replace("time.sleep", "await asyncio.sleep");
    for code in [WAITING, &format!("import asyncio\n{with_loop}")] {
        let house = House::with(code);
        let ([mut one, mut two, mut three], running) = house.contended();
        house.open();
        one.expect_done(running);
        two.expect_grant();
        three.expect_grant();
        one.expect_grant();
        assert!(!house.call(&mut one, "1").is_queued, "who did not come is not queued");
        house.call(&mut two, "2");
    }
}

#[test]
fn the_turn_of_a_gateway_that_is_gone_is_the_next_one_s() {
    let house = House::new();
    let ([mut one, mut two, three, mut four], running) = house.contended();
    // One that ends while it waits, lent to the watcher, and one whose turn it is.
    drop(three);
    house.open();
    one.expect_done(running);
    two.expect_grant();
    drop(two);
    four.expect_grant();
    house.call(&mut four, "4");
    one.expect_grant();
    house.call(&mut one, "1");
}

#[test]
fn one_gateway_alone_hears_nothing_of_turns() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let replica = template.ready();
    let (mut gateway, _idle) = (replica.gateway(), replica.join("idle", Role::Calls));
    for _ in 0..50 {
        let done = gateway.call("1");
        assert!(!done.is_queued);
    }
}

#[test]
fn a_gateway_of_the_version_before_asks_again_and_has_its_turns() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let replica = template.ready();
    let mut old = replica.join_as(1, "old", Role::Calls);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for gateway in 0..2 {
            let (replica, is_over) = (&replica, &is_over);
            // Two of this version that always want the replica: between them it would never be idle.
            scope.spawn(move || {
                let mut gateway = replica.join(&format!("gw-{gateway}"), Role::Calls);
                while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                    let id = gateway.begin("1");
                    match gateway.next() {
                        Frame::Refused(..) => gateway.expect_grant(),
                        Frame::Accepted(_) if gateway.expect_done(id).is_queued => gateway.expect_grant(),
                        _ => {}
                    }
                }
            });
        }
        for call in 0..50 {
            let request = call.to_string();
            loop {
                let id = old.begin(&request);
                match old.next() {
                    Frame::Refused(refused, RefusalReason::Busy) => {
                        assert_eq!(refused, id);
                        std::thread::yield_now();
                    }
                    Frame::Accepted(accepted) => {
                        assert_eq!(accepted, id);
                        let done = old.expect_done(id);
                        assert_eq!(text(&done.value), request);
                        assert!(!done.is_queued, "it could not be told of its turn");
                        break;
                    }
                    other => panic!("the version before does not know this: {other:?}"),
                }
            }
        }
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}

#[test]
fn many_gateways_calling_at_once_get_their_own_answers() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let replica = template.ready();
    std::thread::scope(|scope| {
        for gateway in 0..4_u32 {
            let replica = &replica;
            scope.spawn(move || {
                let mut connection = replica.join(&format!("gw-{gateway}"), Role::Calls);
                let mut answered = 0;
                while answered < 300 {
                    let request = format!("[{gateway},{answered}]");
                    let id = connection.begin(&request);
                    match connection.next() {
                        Frame::Refused(refused, RefusalReason::Busy) => {
                            assert_eq!(refused, id);
                            connection.expect_grant();
                        }
                        Frame::Accepted(accepted) => {
                            assert_eq!(accepted, id);
                            let done = connection.expect_done(id);
                            assert_eq!(&done.value[..], request.as_bytes());
                            answered += 1;
                            if done.is_queued {
                                connection.expect_grant();
                            }
                        }
                        other => panic!("unexpected: {other:?}"),
                    }
                }
                // Its last turn may be coming, or be there.
                connection.send(&Frame::Decline);
            });
        }
    });
}
