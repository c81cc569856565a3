//! Whose turn it is at a replica that several gateways share.
//!
//! What gateways are told of it, and why, is in the contract's `frame`. Here are the decisions alone: connections are
//! numbers, and time is somebody else's. The main thread owns the one value; what the watcher refuses while a call runs
//! is handed over at the call's end.
//!
//! Invariants:
//! - nobody waits twice, and whose turn it is does not wait;
//! - a turn goes to who has waited longest, and who has had one waits behind all others that wait then;
//! - after [`Turns::next`] somebody waits only if it is somebody's turn: an idle replica is never kept from who wants it.
//!
//! With one gateway everything here stays empty.

use std::collections::VecDeque;

/// Who waits, and whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    waiting: VecDeque<u64>,
    turn: Option<u64>,
}

impl Turns {
    /// Nobody else has been promised the replica.
    pub(crate) fn may_call(&self, token: u64) -> bool {
        self.turn.is_none_or(|whose| whose == token)
    }

    /// A call of `token` was refused: it waits, if it did not before.
    pub(crate) fn refused(&mut self, token: u64) {
        if self.turn != Some(token) && !self.waiting.contains(&token) {
            self.waiting.push_back(token);
        }
    }

    /// A call of `token` begins; with it the turn ends.
    pub(crate) fn begin(&mut self, token: u64) {
        self.turn = None;
        self.waiting.retain(|waiting| *waiting != token);
    }

    /// The call has ended; `refused` were refused meanwhile, in this order. True when its `caller` now waits behind others.
    /// One that cannot be told so (`None`) does not: it may have nothing more to call for.
    pub(crate) fn end(&mut self, caller: Option<u64>, refused: &[u64]) -> bool {
        for token in refused {
            self.refused(*token);
        }
        match caller {
            Some(token) if !self.waiting.is_empty() => {
                self.refused(token);
                true
            }
            _ => false,
        }
    }

    /// Whose turn it has just become, if it was nobody's and somebody waits.
    pub(crate) fn next(&mut self) -> Option<u64> {
        if self.turn.is_some() {
            return None;
        }
        self.turn = self.waiting.pop_front();
        self.turn
    }

    /// Whose turn it is has no use for it. From anybody else it is an old word: the turn it answers has passed.
    pub(crate) fn decline(&mut self, token: u64) {
        if self.turn == Some(token) {
            self.turn = None;
        }
    }

    /// Whose turn it is has let its time go by.
    pub(crate) fn expire(&mut self) {
        self.turn = None;
    }

    /// A connection has ended.
    pub(crate) fn forget(&mut self, token: u64) {
        self.decline(token);
        self.waiting.retain(|waiting| *waiting != token);
    }

    /// Keeps those of who wait for which `is_there` says yes.
    pub(crate) fn keep(&mut self, mut is_there: impl FnMut(u64) -> bool) {
        self.waiting.retain(|token| is_there(*token));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn turns_go_round() {
        let mut turns = Turns::default();
        assert!(turns.may_call(1));
        turns.begin(1);
        assert!(turns.end(Some(1), &[2, 3, 2]));
        for whose in [2, 3, 1, 2, 3, 1] {
            assert_eq!(turns.next(), Some(whose));
            assert_eq!([1, 2, 3].map(|token| turns.may_call(token)), [1, 2, 3].map(|token| token == whose));
            turns.begin(whose);
            assert!(turns.end(Some(whose), &[]));
        }
    }

    #[test]
    fn with_one_gateway_nothing_is_queued() {
        let mut turns = Turns::default();
        turns.begin(1);
        assert!(!turns.end(Some(1), &[]));
        assert_eq!(turns.next(), None);
        assert!(turns.may_call(1));
    }

    #[test]
    fn a_gateway_that_cannot_be_told_is_queued_by_its_refusals_alone() {
        let mut turns = Turns::default();
        turns.begin(1);
        assert!(!turns.end(None, &[2]));
        assert_eq!(turns.next(), Some(2));
        turns.refused(1);
        turns.begin(2);
        assert!(turns.end(Some(2), &[]));
        assert_eq!(turns.next(), Some(1));
    }

    #[test]
    fn a_turn_that_is_declined_expired_or_orphaned_is_the_next_ones() {
        for end in [Turns::decline, |turns: &mut Turns, _| turns.expire(), Turns::forget] {
            let mut turns = Turns::default();
            turns.begin(1);
            turns.end(None, &[2, 3]);
            assert_eq!(turns.next(), Some(2));
            assert_eq!(turns.next(), None, "one at a time");
            end(&mut turns, 2);
            assert_eq!(turns.next(), Some(3));
            turns.decline(2);
            assert!(!turns.may_call(2), "a late word of another does not end it");
        }
    }

    /// What may happen at a replica, to a connection each.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Calls(u64),
        Ends,
        Declines(u64),
        Expires,
        Leaves(u64),
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let token = 0..4_u64;
        prop_oneof![
            4 => token.clone().prop_map(Event::Calls),
            4 => Just(Event::Ends),
            1 => token.clone().prop_map(Event::Declines),
            1 => Just(Event::Expires),
            1 => token.prop_map(Event::Leaves),
        ]
    }

    proptest! {
        /// Whatever happens: nobody has two turns or calls while another waits, and an idle replica is somebody's who
        /// waits.
        #[test]
        fn nobody_is_served_twice_while_another_waits(events in proptest::collection::vec(any_event(), 1..200)) {
            let mut turns = Turns::default();
            let mut running = None;
            // How often each other one was served since this one began to wait.
            let mut waits: [Option<[u32; 4]>; 4] = [None; 4];
            let mut refused: Vec<u64> = Vec::new();
            for event in events {
                match event {
                    Event::Calls(token) if running == Some(token) => {}
                    Event::Calls(token) if running.is_none() && turns.may_call(token) => {
                        turns.begin(token);
                        running = Some(token);
                        waits[token as usize] = None;
                        for wait in waits.iter_mut().flatten() {
                            wait[token as usize] += 1;
                            prop_assert!(wait[token as usize] <= 1, "{token} twice while another waited");
                        }
                    }
                    Event::Calls(token) => {
                        if running.is_some() { refused.push(token) } else { turns.refused(token) }
                        waits[token as usize].get_or_insert([0; 4]);
                    }
                    Event::Ends => {
                        if let Some(token) = running.take()
                            && turns.end(Some(token), &std::mem::take(&mut refused))
                        {
                            waits[token as usize] = Some([0; 4]);
                        }
                    }
                    Event::Declines(token) if running.is_none() && turns.turn == Some(token) => {
                        turns.decline(token);
                        waits[token as usize] = None;
                    }
                    Event::Expires if running.is_none() => {
                        if let Some(token) = turns.turn {
                            waits[token as usize] = None;
                        }
                        turns.expire();
                    }
                    Event::Leaves(token) if running != Some(token) => {
                        turns.forget(token);
                        refused.retain(|other| *other != token);
                        waits[token as usize] = None;
                    }
                    _ => {}
                }
                if running.is_none() {
                    turns.next();
                    let somebody_waits = waits.iter().any(Option::is_some);
                    prop_assert_eq!(turns.turn.is_some(), somebody_waits, "idle, and somebody waits without a turn");
                }
                let mut queued: Vec<u64> = turns.waiting.iter().copied().chain(turns.turn).collect();
                queued.sort_unstable();
                let all = queued.len();
                queued.dedup();
                prop_assert_eq!(queued.len(), all, "queued twice");
            }
        }
    }
}
