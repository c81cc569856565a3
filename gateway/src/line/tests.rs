//! The line and its budget: examples, any order of events, and real threads. Every order of a few threads is in
//! `tests/interleavings.rs`.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use proptest::prelude::*;

use crate::line::{Budget, Lease, Line, LineLimits, Place, Standing, Ticket, Turned};

/// A replica without a socket.
#[derive(Debug)]
struct Token {
    number: u32,
    is_retired: Arc<AtomicBool>,
    is_kept: bool,
    declined: Arc<AtomicUsize>,
    /// Handed to calls that were gone.
    orphaned: Arc<Mutex<Vec<u32>>>,
}

impl Place for Token {
    fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }

    fn is_kept(&self) -> bool {
        self.is_kept
    }

    fn decline(&mut self) {
        self.is_kept = false;
        self.declined.fetch_add(1, Ordering::SeqCst);
    }

    /// What the test knows it by.
    type Cargo = char;

    fn orphaned(self) {
        self.orphaned.lock().unwrap().push(self.number);
    }
}

fn token(number: u32) -> Token {
    Token {
        number,
        is_retired: Arc::default(),
        is_kept: false,
        declined: Arc::default(),
        orphaned: Arc::default(),
    }
}

fn line(calls_max: usize, bytes_max: usize) -> Arc<Line<Token>> {
    Line::new(LineLimits { calls_max, bytes_max }, Budget::new(usize::MAX))
}

fn stand(line: &Arc<Line<Token>>, ticket: Ticket) -> Standing<Token> {
    match line.lease(ticket, 1, || None).unwrap() {
        Lease::Later(standing) => standing,
        Lease::Now(_) => panic!("nothing was idle"),
    }
}

fn poll(standing: &mut Standing<Token>) -> Poll<Result<Token, Turned>> {
    Pin::new(standing).poll(&mut Context::from_waker(Waker::noop()))
}

fn granted(standing: &mut Standing<Token>) -> Option<u32> {
    match poll(standing) {
        Poll::Ready(Ok(token)) => Some(token.number),
        _ => None,
    }
}

#[test]
fn who_came_first_is_served_first() {
    let line = line(10, 10);
    let mut standing: Vec<_> = (0..3).map(|_| stand(&line, line.ticket())).collect();
    line.offer(token(1));
    line.offer(token(2));
    assert_eq!(granted(&mut standing[2]), None);
    assert_eq!(granted(&mut standing[1]), Some(2));
    assert_eq!(granted(&mut standing[0]), Some(1));
}

#[test]
fn a_call_that_must_wait_again_keeps_its_place() {
    let line = line(2, 10);
    let first = line.ticket();
    line.offer(token(1));
    assert!(matches!(line.lease(first, 1, || None), Ok(Lease::Now(_))));
    let mut others: Vec<_> = (0..2).map(|_| stand(&line, line.ticket())).collect();
    let mut again = stand(&line, first.again());
    line.offer(token(2));
    assert_eq!(granted(&mut others[0]), None);
    assert_eq!(granted(&mut again), Some(2));
}

#[test]
fn a_full_line_turns_a_call_away_by_number_and_by_bytes() {
    let by_calls = line(1, 1_000);
    let _first = stand(&by_calls, by_calls.ticket());
    assert_eq!(by_calls.lease(by_calls.ticket(), 1, || None).err(), Some(Turned::Full));
    let by_bytes = line(10, 100);
    let _first = by_bytes.lease(by_bytes.ticket(), 60, || None).unwrap();
    assert_eq!(by_bytes.lease(by_bytes.ticket(), 60, || None).err(), Some(Turned::Full));
    assert!(by_bytes.lease(by_bytes.ticket(), 40, || None).is_ok());
}

#[test]
fn who_leaves_frees_the_place_and_its_bytes() {
    let line = line(1, 1);
    drop(stand(&line, line.ticket()));
    assert_eq!(line.len(), 0);
    let mut next = stand(&line, line.ticket());
    line.offer(token(1));
    assert_eq!(granted(&mut next), Some(1));
}

#[test]
fn a_replica_granted_to_a_call_that_vanished_goes_to_the_next() {
    let line = line(10, 10);
    let first = stand(&line, line.ticket());
    let mut second = stand(&line, line.ticket());
    line.offer(token(1));
    drop(first);
    assert_eq!(granted(&mut second), Some(1));
    let last = stand(&line, line.ticket());
    line.offer(token(2));
    drop(last);
    assert_eq!(line.idle_len(), 1);
}

#[test]
fn a_retired_replica_is_neither_kept_nor_granted() {
    let line = line(10, 10);
    let is_retired = Arc::new(AtomicBool::new(false));
    line.offer(Token { is_retired: is_retired.clone(), ..token(1) });
    is_retired.store(true, Ordering::SeqCst);
    assert_eq!(line.take_idle(|t| t.is_retired()).len(), 1);
    let mut standing = stand(&line, line.ticket());
    line.offer(Token { is_retired, ..token(1) });
    assert_eq!(granted(&mut standing), None);
    assert_eq!(line.idle_len(), 0);
}

#[test]
fn a_replica_that_is_kept_for_nobody_is_declined_and_idle() {
    let line = line(10, 10);
    let declined = Arc::<AtomicUsize>::default();
    let kept = |number| Token { is_kept: true, declined: declined.clone(), ..token(number) };
    let first = stand(&line, line.ticket());
    line.offer(kept(1));
    assert_eq!(declined.load(Ordering::SeqCst), 0, "somebody waits for it");
    drop(first);
    assert_eq!((declined.load(Ordering::SeqCst), line.idle_len()), (1, 1));
    line.offer(kept(2));
    assert_eq!((declined.load(Ordering::SeqCst), line.idle_len()), (2, 2));
    let Ok(Lease::Now(token)) = line.lease(line.ticket(), 1, || None) else { panic!("two are idle") };
    assert!(!token.is_kept);
}

#[test]
fn what_is_taken_comes_back_by_its_drop() {
    let budget = Budget::new(10);
    let one = budget.take(6).unwrap();
    assert!(budget.take(5).is_none());
    let two = budget.take_anyway(5);
    drop(one);
    let three = budget.take(5).unwrap();
    assert!(budget.take(1).is_none());
    drop((two, three));
    assert!(budget.take(10).is_some());
    assert!(budget.take(usize::MAX).is_none());
}

/// A call that may be sent ahead.
fn stand_with(line: &Arc<Line<Token>>, cargo: char) -> Standing<Token> {
    match line.lease(line.ticket(), 1, || Some(cargo)).unwrap() {
        Lease::Later(standing) => standing,
        Lease::Now(_) => panic!("nothing was idle"),
    }
}

/// What is sent ahead, and the places of those calls.
fn send_ahead(line: &Line<Token>, calls_max: usize) -> (String, Vec<u64>) {
    let (mut cargo, mut numbers) = (String::new(), Vec::new());
    line.send_ahead(calls_max, 0, |number, one| {
        cargo.push(one);
        numbers.push(number);
    });
    (cargo, numbers)
}

#[test]
fn the_oldest_calls_are_sent_ahead_and_handed_the_replica_in_their_order() {
    let line = line(10, 10);
    let mut standing: Vec<_> = ['a', 'b', 'c', 'd'].map(|cargo| stand_with(&line, cargo)).into();
    let (cargo, numbers) = send_ahead(&line, 2);
    assert_eq!(cargo, "ab");
    assert_eq!(send_ahead(&line, 1).0, "c");
    assert_eq!(line.len(), 1);
    assert_eq!(line.census().calls, 4, "who was sent ahead still waits");
    // Another replica is for those that were not.
    line.offer(token(2));
    assert_eq!(standing.iter_mut().map(granted).collect::<Vec<_>>(), [None, None, None, Some(2)]);
    assert!(standing[0].is_sent());
    for number in 0..2 {
        assert!(line.hand(numbers[number], token(1)).is_ok());
        assert!(standing[number].is_sent());
        assert_eq!(granted(&mut standing[number]), Some(1));
    }
}

#[test]
fn as_many_as_are_left_to_others_are_not_sent_ahead() {
    let line = line(10, 10);
    let _standing = ['a', 'b', 'c'].map(|cargo| stand_with(&line, cargo));
    let mut cargo = String::new();
    line.send_ahead(3, 1, |_, one| cargo.push(one));
    assert_eq!((&*cargo, line.len()), ("ab", 1));
    line.send_ahead(3, 1, |_, one| cargo.push(one));
    assert_eq!((&*cargo, line.len()), ("ab", 1));
}

#[test]
fn a_call_that_cannot_be_sent_ahead_is_not_overtaken() {
    let line = line(10, 10);
    let _first = stand(&line, line.ticket());
    let _second = stand_with(&line, 'b');
    assert_eq!(send_ahead(&line, 2).0, "");
}

#[test]
fn a_call_that_is_given_back_has_its_old_place_and_is_not_sent_ahead_again() {
    let line = line(10, 2);
    let mut first = stand_with(&line, 'a');
    let mut second = stand_with(&line, 'b');
    let (_, numbers) = send_ahead(&line, 1);
    line.give_back(numbers[0]);
    assert!(!first.is_sent());
    assert_eq!(send_ahead(&line, 2).0, "");
    line.offer(token(1));
    assert_eq!((granted(&mut second), granted(&mut first)), (None, Some(1)));
    // What is given back while a replica is idle is granted it.
    line.offer(token(2));
    assert_eq!(granted(&mut second), Some(2));
    let mut third = stand_with(&line, 'c');
    let (_, numbers) = send_ahead(&line, 1);
    line.offer(token(3));
    line.give_back(numbers[0]);
    assert_eq!(granted(&mut third), Some(3));
}

#[test]
fn who_holds_a_replica_learns_that_a_call_sent_ahead_has_lost_its_caller() {
    let line = line(10, 2);
    let (first, second) = (stand_with(&line, 'a'), stand_with(&line, 'b'));
    let (_, numbers) = send_ahead(&line, 2);
    drop(first);
    assert_eq!(line.hand(numbers[0], token(1)).map_err(|token| token.number), Err(1));
    // And who vanishes once it has been handed one leaves it to whoever follows such calls, not to the line.
    let handed = token(2);
    let orphaned = handed.orphaned.clone();
    assert!(line.hand(numbers[1], handed).is_ok());
    drop(second);
    assert_eq!(*orphaned.lock().unwrap(), [2]);
    assert_eq!((line.idle_len(), line.census().calls), (0, 0));
    assert!(line.lease(line.ticket(), 2, || None).is_ok(), "bytes were not given back");
}

#[test]
fn who_is_sent_ahead_is_not_sent_away() {
    let line = line(10, 10);
    let (mut first, mut second) = (stand_with(&line, 'a'), stand_with(&line, 'b'));
    let (_, numbers) = send_ahead(&line, 1);
    line.close();
    assert!(poll(&mut first).is_pending(), "it may have begun");
    assert!(matches!(poll(&mut second), Poll::Ready(Err(Turned::Dismissed))));
    line.give_back(numbers[0]);
    assert!(matches!(poll(&mut first), Poll::Ready(Err(Turned::Dismissed))));
}

#[test]
fn everyone_can_be_sent_away() {
    let line = line(10, 10);
    let mut standing = stand(&line, line.ticket());
    assert!(poll(&mut standing).is_pending());
    line.dismiss();
    assert!(matches!(poll(&mut standing), Poll::Ready(Err(Turned::Dismissed))));
}

#[test]
fn a_closed_line_turns_everyone_away_until_it_opens() {
    let line = line(10, 10);
    let mut standing = stand(&line, line.ticket());
    line.close();
    assert!(matches!(poll(&mut standing), Poll::Ready(Err(Turned::Dismissed))));
    assert_eq!(line.lease(line.ticket(), 1, || None).err(), Some(Turned::Dismissed));
    line.open();
    assert!(line.lease(line.ticket(), 1, || None).is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_bounds_the_wait_leaves_the_line_at_the_bound() {
    let line = line(10, 10);
    let began = tokio::time::Instant::now();
    let standing = stand(&line, line.ticket());
    assert!(tokio::time::timeout(Duration::from_secs(30), standing).await.is_err());
    assert_eq!(began.elapsed(), Duration::from_secs(30));
    assert_eq!(line.len(), 0);
}

proptest! {
    /// Any order of arrivals, frees, vanishings and looks: calls are granted in order of arrival, and every replica is
    /// somewhere at the end.
    #[test]
    fn no_order_of_events_loses_a_replica_or_a_place(events in proptest::collection::vec((0_u8..4, any::<prop::sample::Index>()), 1..120)) {
        let line = line(1_000, 1_000);
        let replicas = 3;
        (0..replicas).for_each(|n| line.offer(token(n)));
        let mut running: Vec<Token> = Vec::new();
        let mut waiting: Vec<(usize, Standing<Token>)> = Vec::new();
        let mut arrivals = 0..;
        for (event, index) in events {
            match event {
                0 => match line.lease(line.ticket(), 1, || None).unwrap() {
                    Lease::Now(token) => {
                        prop_assert_eq!(line.len(), 0, "served before those in line");
                        running.push(token);
                    }
                    Lease::Later(standing) => waiting.push((arrivals.next().unwrap(), standing)),
                },
                1 if !running.is_empty() => line.offer(running.swap_remove(index.index(running.len()))),
                2 if !waiting.is_empty() => drop(waiting.remove(index.index(waiting.len()))),
                _ if !waiting.is_empty() => {
                    let mut served = Vec::new();
                    let mut still = Vec::new();
                    for (number, mut standing) in waiting.drain(..) {
                        match poll(&mut standing) {
                            Poll::Ready(Ok(token)) => { running.push(token); served.push(number); }
                            _ => still.push((number, standing)),
                        }
                    }
                    prop_assert!(served.iter().all(|s| still.iter().all(|(n, _)| s < n)));
                    waiting = still;
                }
                _ => {}
            }
        }
        drop(waiting);
        prop_assert_eq!(line.idle_len() + running.len(), replicas as usize);
        prop_assert_eq!(line.len(), 0);
    }
}

/// One call in a line, as the test keeps it.
struct Stood {
    /// Its place in the order of arrival.
    arrival: usize,
    bytes: usize,
    ticket: Ticket,
    standing: Standing<Token>,
}

proptest! {
    /// Two lines under one budget: a new call is let in exactly when calls, bytes and budget have room for it; one that
    /// stood before always, and at its old place.
    #[test]
    fn bounds_hold_for_who_comes_and_never_for_who_has_to_wait_again(
        events in proptest::collection::vec((0_u8..4, 0_usize..2, 1_usize..40, any::<prop::sample::Index>()), 1..150),
    ) {
        const CALLS_MAX: usize = 4;
        const BYTES_MAX: usize = 80;
        const BUDGET: usize = 110;
        let budget = Budget::new(BUDGET);
        let limits = LineLimits { calls_max: CALLS_MAX, bytes_max: BYTES_MAX };
        let lines = [Line::<Token>::new(limits, budget.clone()), Line::new(limits, budget)];
        let mut stood: [Vec<Stood>; 2] = Default::default();
        let mut arrivals = 0..;
        for (event, at, bytes, index) in events {
            let line = &lines[at];
            let held = |stood: &[Stood]| stood.iter().map(|call| call.bytes).sum::<usize>();
            let (calls, in_line, in_all) =
                (stood[at].len(), held(&stood[at]), held(&stood[0]) + held(&stood[1]));
            match event {
                0 | 1 => {
                    let ticket = line.ticket();
                    let arrival = arrivals.next().unwrap();
                    let has_room = calls < CALLS_MAX && in_line + bytes <= BYTES_MAX && in_all + bytes <= BUDGET;
                    match line.lease(ticket, bytes, || None) {
                        Ok(Lease::Later(standing)) => {
                            prop_assert!(has_room);
                            stood[at].push(Stood { arrival, bytes, ticket, standing });
                        }
                        Ok(Lease::Now(_)) => prop_assert!(false, "nothing is idle"),
                        Err(turned) => {
                            prop_assert_eq!(turned, Turned::Full);
                            prop_assert!(!has_room);
                        }
                    }
                }
                // The oldest is granted a replica that does not start it, and waits again at its place.
                2 if calls > 0 => {
                    line.offer(token(1));
                    let oldest = stood[at].iter().enumerate().min_by_key(|(_, call)| call.arrival).unwrap().0;
                    let Stood { arrival, bytes, ticket, mut standing } = stood[at].swap_remove(oldest);
                    prop_assert!(granted(&mut standing).is_some());
                    drop(standing);
                    prop_assert!(stood[at].iter_mut().all(|other| granted(&mut other.standing).is_none()));
                    let Ok(Lease::Later(standing)) = line.lease(ticket.again(), bytes, || None) else {
                        return Err(TestCaseError::fail("who stood before was turned away"));
                    };
                    stood[at].push(Stood { arrival, bytes, ticket, standing });
                }
                _ if calls > 0 => drop(stood[at].swap_remove(index.index(calls))),
                _ => {}
            }
            prop_assert_eq!(line.len(), stood[at].len());
        }
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Callers on many threads, half of which vanish at a random moment, among them the very one of their grant.
#[test]
fn no_race_of_a_grant_and_a_vanishing_caller_loses_a_replica() {
    const REPLICAS: u32 = 2;
    let line = line(1_000, 1_000);
    (0..REPLICAS).for_each(|n| line.offer(token(n)));
    let served = AtomicUsize::new(0);
    let running = [const { AtomicBool::new(false) }; REPLICAS as usize];
    std::thread::scope(|scope| {
        for thread in 0_usize..6 {
            let (line, served, running) = (&line, &served, &running);
            scope.spawn(move || {
                let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                for round in 0_usize..3_000 {
                    let mut lease = line.lease(line.ticket(), 1, || None).unwrap();
                    let looks_max = if (thread + round) % 2 == 0 { usize::MAX } else { round % 3 };
                    let mut looks = 0;
                    let token = loop {
                        match lease {
                            Lease::Now(token) => break Some(token),
                            Lease::Later(ref mut standing) => {
                                if looks == looks_max {
                                    break None;
                                }
                                looks += 1;
                                if let Poll::Ready(got) =
                                    Pin::new(standing).poll(&mut Context::from_waker(&waker))
                                {
                                    break Some(got.unwrap());
                                }
                                if looks_max == usize::MAX {
                                    std::thread::park();
                                }
                            }
                        }
                    };
                    if let Some(token) = token {
                        let is_busy = &running[token.number as usize];
                        assert!(!is_busy.swap(true, Ordering::SeqCst), "two callers on one replica");
                        served.fetch_add(1, Ordering::Relaxed);
                        is_busy.store(false, Ordering::SeqCst);
                        line.offer(token);
                    }
                }
            });
        }
    });
    assert_eq!(line.idle_len(), REPLICAS as usize);
    assert_eq!(line.len(), 0);
    assert!(served.load(Ordering::Relaxed) >= 9_000);
}
