//! The line under every order in which a few threads can meet in it, by loom.
//!
//! It is the gateway's own module, compiled once more with loom's locks and counters in the place of the standard ones.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{pin::Pin, sync::Arc, task::Waker};

use loom::{
    future::block_on,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crate::gateway::line::{Budget, Lease, Line, LineLimits, Place, Standing, Turned};

mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
}

#[path = "../src"]
#[allow(dead_code, reason = "a part of the line is for others than its callers")]
mod gateway {
    pub(crate) mod line;
}

/// What is known of all replicas of one test.
#[derive(Default)]
struct Fleet {
    is_retired: AtomicBool,
    in_use: AtomicUsize,
    gone: AtomicUsize,
    declined: AtomicUsize,
    followed: Mutex<Vec<Token>>,
}

/// A replica.
struct Token {
    fleet: Arc<Fleet>,
    is_kept: bool,
}

impl Place for Token {
    fn is_retired(&self) -> bool {
        self.fleet.is_retired.load(Ordering::SeqCst)
    }

    fn is_kept(&self) -> bool {
        self.is_kept
    }

    fn decline(&mut self) {
        self.is_kept = false;
        self.fleet.declined.fetch_add(1, Ordering::SeqCst);
    }

    type Cargo = ();

    /// Its call has lost its caller: it is seen to its end, and then the replica is free.
    fn orphaned(self) {
        let fleet = self.fleet.clone();
        fleet.followed.lock().unwrap().push(self);
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.fleet.gone.fetch_add(1, Ordering::SeqCst);
    }
}

struct World {
    line: Arc<Line<Token>>,
    fleet: Arc<Fleet>,
}

impl World {
    fn new() -> Self {
        let limits = LineLimits { calls_max: 10, bytes_max: 10 };
        Self { line: Line::new(limits, Budget::new(10)), fleet: Arc::default() }
    }

    fn offer(&self, is_kept: bool) {
        self.line.offer(Token { fleet: self.fleet.clone(), is_kept });
    }

    fn lease(&self) -> Result<Lease<Token>, Turned> {
        self.line.lease(self.line.ticket(), 1, || Some(()))
    }

    fn stand(&self) -> Standing<Token> {
        match self.lease() {
            Ok(Lease::Later(standing)) => standing,
            _ => panic!("nothing is idle yet"),
        }
    }

    /// One call that waits as long as it takes; false when it was sent away.
    fn call(&self) -> bool {
        let token = match self.lease() {
            Ok(Lease::Now(token)) => token,
            Ok(Lease::Later(standing)) => match block_on(standing) {
                Ok(token) => token,
                Err(turned) => return turned != Turned::Dismissed,
            },
            Err(_) => return false,
        };
        self.run(token);
        true
    }

    fn run(&self, mut token: Token) {
        assert_eq!(self.fleet.in_use.fetch_add(1, Ordering::SeqCst), 0, "two calls on one replica");
        thread::yield_now();
        self.fleet.in_use.fetch_sub(1, Ordering::SeqCst);
        token.is_kept = false;
        self.line.offer(token);
    }

    fn spawn(self: &Arc<Self>, work: impl FnOnce(&Self) + 'static) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || work(&world))
    }

    /// The one replica is idle and kept for nobody, nobody waits, and no bytes are counted.
    fn expect_calm(&self) {
        assert_eq!((self.line.len(), self.line.idle_len()), (0, 1));
        assert_eq!(self.fleet.gone.load(Ordering::SeqCst), 0);
        let Ok(Lease::Now(token)) = self.lease() else { panic!("it is idle") };
        assert!(!token.is_kept);
        assert!(self.line.lease(self.line.ticket(), 10, || Some(())).is_ok(), "bytes were not given back");
    }
}

fn look(standing: &mut Standing<Token>) -> Option<Result<Token, Turned>> {
    let mut cx = std::task::Context::from_waker(Waker::noop());
    match Pin::new(standing).poll(&mut cx) {
        std::task::Poll::Ready(result) => Some(result),
        std::task::Poll::Pending => None,
    }
}

fn explore(test: impl Fn(&Arc<World>) + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    // Every order with at most so many switches away from a thread that could go on: enough for each pair of steps.
    model.preemption_bound = Some(3);
    model.check(move || test(&Arc::new(World::new())));
}

#[test]
fn each_of_two_callers_gets_the_replica_and_one_at_a_time() {
    explore(|world| {
        let callers = [world.spawn(|w| assert!(w.call())), world.spawn(|w| assert!(w.call()))];
        world.offer(false);
        for caller in callers {
            caller.join().unwrap();
        }
        world.expect_calm();
    });
}

#[test]
fn a_caller_that_vanishes_while_it_is_granted_a_replica_loses_none() {
    explore(|world| {
        let leaver = world.spawn(|w| match w.lease().unwrap() {
            Lease::Now(token) => w.run(token),
            Lease::Later(mut standing) => {
                if let Some(token) = look(&mut standing) {
                    w.run(token.unwrap());
                }
            }
        });
        let stayer = world.spawn(|w| assert!(w.call()));
        world.offer(false);
        leaver.join().unwrap();
        stayer.join().unwrap();
        world.expect_calm();
    });
}

#[test]
fn a_kept_replica_is_a_caller_s_or_declined_and_never_both_kept_and_idle() {
    explore(|world| {
        let caller = world.spawn(|w| assert!(w.call()));
        let leaver = world.spawn(|w| match w.lease().unwrap() {
            Lease::Now(token) => w.run(token),
            Lease::Later(standing) => drop(standing),
        });
        world.offer(true);
        caller.join().unwrap();
        leaver.join().unwrap();
        world.expect_calm();
        assert!(world.fleet.declined.load(Ordering::SeqCst) <= 1);
    });
}

#[test]
fn nobody_overtakes() {
    explore(|world| {
        let (mut first, mut second) = (world.stand(), world.stand());
        let offering = world.spawn(|w| w.offer(false));
        // The second is looked at first: if it has something by then, so has the first.
        let of_second = look(&mut second).is_some();
        let of_first = look(&mut first).is_some();
        assert!(!of_second || of_first);
        assert!(!of_second, "there was one replica");
        offering.join().unwrap();
    });
}

#[test]
fn a_caller_that_vanishes_while_its_call_is_handed_a_replica_leaves_it_to_who_follows() {
    explore(|world| {
        let standing = world.stand();
        let mut sent = Vec::new();
        world.line.send_ahead(1, 0, |number, ()| sent.push(number));
        let leaver = world.spawn(move |_| drop(standing));
        let token = Token { fleet: world.fleet.clone(), is_kept: false };
        let returned = world.line.hand(sent[0], token).err();
        leaver.join().unwrap();
        // Either the hand came back, or what it held was orphaned; never both, and never nothing.
        let mut followed = std::mem::take(&mut *world.fleet.followed.lock().unwrap());
        followed.extend(returned);
        assert_eq!(followed.len(), 1);
        world.line.offer(followed.pop().unwrap());
        world.expect_calm();
    });
}

#[test]
fn a_call_that_is_given_back_meets_a_replica_that_is_offered_in_the_same_moment() {
    explore(|world| {
        let mut standing = world.stand();
        let mut sent = Vec::new();
        world.line.send_ahead(1, 0, |number, ()| sent.push(number));
        let offering = world.spawn(|w| w.offer(false));
        world.line.give_back(sent[0]);
        offering.join().unwrap();
        let token = look(&mut standing).expect("idle, while somebody waits").unwrap();
        world.line.offer(token);
        drop(standing);
        world.expect_calm();
    });
}

#[test]
fn a_line_that_closes_sends_everyone_away_and_loses_no_replica() {
    explore(|world| {
        let caller = world.spawn(|w| {
            w.call();
        });
        let closing = world.spawn(|w| w.line.close());
        world.offer(false);
        caller.join().unwrap();
        closing.join().unwrap();
        assert!(matches!(world.lease(), Err(Turned::Dismissed)));
        world.line.open();
        world.expect_calm();
    });
}

#[test]
fn a_replica_that_retires_while_it_is_offered_is_not_left_idle() {
    explore(|world| {
        let retiring = world.spawn(|w| {
            w.fleet.is_retired.store(true, Ordering::SeqCst);
            drop(w.line.take_idle(|token| token.is_retired()));
        });
        world.offer(false);
        retiring.join().unwrap();
        assert_eq!((world.line.idle_len(), world.fleet.gone.load(Ordering::SeqCst)), (0, 1));
    });
}

#[test]
fn bytes_of_two_lines_never_exceed_their_common_budget() {
    loom::model(|| {
        let budget = Budget::new(10);
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let budget = budget.clone();
                thread::spawn(move || budget.take(6))
            })
            .collect();
        let taken: Vec<_> = takers.into_iter().filter_map(|taker| taker.join().unwrap()).collect();
        assert_eq!(taken.len(), 1);
        drop(taken);
        assert!(budget.take(10).is_some());
    });
}
