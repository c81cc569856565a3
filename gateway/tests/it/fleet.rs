//! Replicas as several gateways meet them. Each decides whose turn it is by the real replica's own module, runs a call for a
//! moment, stalls now and then, and dies, all by dice; its supervisor is a [`Double`].
//!
//! A replica here checks what it sees: that no call starts twice, that none is sent ahead to one that cannot give it back, and
//! that no gateway is served twice while another one waits.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use millgate_contract::{
    frame::{
        AHEAD_SINCE, Done, Frame, Hello, Outcome, PROTOCOL, ProtocolRange, RefusalReason, Role, TURNS_SINCE,
    },
    ids::{BuildId, CallId, DeploymentId, ReplicaId, SlotIndex},
    limits::{AHEAD_CALLS_MAX, TURN_MS_MAX},
};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use turns::Turns;

use crate::{
    dice::Dice,
    double::{Double, bind, done, next_frame, text},
};

#[path = "../../../replica-runtime/src/turns.rs"]
#[allow(dead_code, reason = "connections end here in one way only")]
mod turns;

/// What a turn lasts that cannot be told.
const SILENT_TURN_MS: u64 = 20;

/// A deployment whose replicas live for a while.
pub(crate) struct Fleet {
    pub(crate) double: Arc<Double>,
    seen: Arc<Seen>,
    _slots: JoinSet<()>,
}

/// What all replicas have seen.
#[derive(Default)]
pub(crate) struct Seen {
    seed: u64,
    is_calm: AtomicBool,
    /// Calls in the order in which they were accepted, and where.
    pub(crate) accepted: Mutex<Vec<(String, SlotIndex)>>,
    /// Calls that were running when their replica died.
    pub(crate) died: Mutex<HashSet<String>>,
    /// How often whose turn it was has been decided.
    pub(crate) turns: Mutex<u64>,
    /// How many calls were sent ahead.
    pub(crate) ahead: Mutex<u64>,
    /// How many of those were wanted back.
    pub(crate) recalled: Mutex<u64>,
}

impl Fleet {
    pub(crate) fn start(root: &Path, slots: u16, seed: u64) -> Self {
        let double = Arc::new(Double::supervisor(root, "d1", slots));
        let seen = Arc::new(Seen { seed, ..Seen::default() });
        let mut tasks = JoinSet::new();
        for slot in (0..slots).map(SlotIndex) {
            let listener = bind(&double.run_dir, &format!("s{slot}.sock"));
            let dice = Dice(seed.wrapping_mul(1_000).wrapping_add(slot.0.into()));
            tasks.spawn(keep_filled(Arc::clone(&double), Arc::clone(&seen), slot, listener, dice));
        }
        Self { double, seen, _slots: tasks }
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// From now on no replica dies or stalls, and calls take so long that those of one moment overlap.
    pub(crate) fn calm_down(&self) {
        self.seen.is_calm.store(true, Ordering::SeqCst);
    }
}

/// One process after another in one slot.
async fn keep_filled(
    double: Arc<Double>,
    seen: Arc<Seen>,
    slot: SlotIndex,
    listener: UnixListener,
    mut dice: Dice,
) {
    for number in 0.. {
        let replica = ReplicaId::new(format!("d1-s{slot}-{number}"));
        // Now and then one of a version before.
        let max = if dice.roll(4) == 0 { 1 + u16::try_from(dice.roll(2)).unwrap() } else { PROTOCOL.max };
        let protocol = ProtocolRange { max, ..PROTOCOL };
        let hello = Hello {
            protocol,
            deployment: DeploymentId::new("d1"),
            build: BuildId::new("b"),
            slot,
            replica: replica.clone(),
            nonce: number,
        };
        let dies_at = Instant::now() + Duration::from_millis(20 + dice.roll(400));
        let mut process = Process {
            seen: &seen,
            hello,
            dice,
            turns: Turns::default(),
            turn: None,
            refused: Vec::new(),
            peers: HashMap::new(),
            running: None,
            behind: VecDeque::new(),
            waits: HashMap::new(),
        };
        let readers = process.live(&listener, dies_at).await;
        let Process { running, peers, dice: left, .. } = process;
        dice = left;
        if let Some(running) = running {
            seen.died.lock().unwrap().insert(running.request);
        }
        let sockets = (peers, readers);
        let pause = Duration::from_millis(dice.roll(4));
        // A grandchild may keep sockets open beyond the word; the word may be late.
        if dice.roll(2) == 0 {
            double.say_dead(slot.0, replica.as_str());
            sleep(pause).await;
            drop(sockets);
        } else {
            drop(sockets);
            sleep(pause).await;
            double.say_dead(slot.0, replica.as_str());
        }
        sleep(Duration::from_millis(dice.roll(10))).await;
    }
}

struct Peer {
    writer: OwnedWriteHalf,
    version: u16,
    role: Role,
}

struct Running {
    token: u64,
    id: CallId,
    request: String,
    until: Instant,
}

struct Process<'a> {
    seen: &'a Seen,
    hello: Hello,
    dice: Dice,
    turns: Turns,
    /// Whose turn it is, and until when.
    turn: Option<(u64, Instant)>,
    refused: Vec<u64>,
    peers: HashMap<u64, Peer>,
    running: Option<Running>,
    /// Calls that were sent ahead, behind the running one on its connection.
    behind: VecDeque<(CallId, String)>,
    /// Who waits, and how often each other one was served meanwhile.
    waits: HashMap<u64, HashMap<u64, u32>>,
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

impl Process<'_> {
    /// Until it dies; its sockets end with what it leaves.
    async fn live(&mut self, listener: &UnixListener, dies_at: Instant) -> JoinSet<()> {
        let (tell, mut heard) = mpsc::unbounded_channel();
        let mut readers = JoinSet::new();
        let mut tokens = 0..;
        loop {
            let dies_at = (!self.seen.is_calm.load(Ordering::SeqCst)).then_some(dies_at);
            let (call_ends, turn_ends) = (self.running.as_ref().map(|r| r.until), self.turn.map(|t| t.1));
            tokio::select! {
                biased;
                () = at(dies_at) => return readers,
                () = at(call_ends) => self.end().await,
                () = at(turn_ends) => self.expire().await,
                Some((token, frame)) = heard.recv() => if !self.hear(token, frame).await {
                    return readers;
                },
                accepted = listener.accept() => {
                    let token = tokens.next().unwrap();
                    let (mut reader, writer) = accepted.unwrap().0.into_split();
                    self.peers.insert(token, Peer { writer, version: 0, role: Role::Calls });
                    self.say(token, Frame::Hello(self.hello.clone())).await;
                    let tell = tell.clone();
                    readers.spawn(async move {
                        while let Some(frame) = next_frame(&mut reader).await {
                            let _ = tell.send((token, Some(frame)));
                        }
                        let _ = tell.send((token, None));
                    });
                }
            }
        }
    }

    /// False when the process ends of it.
    async fn hear(&mut self, token: u64, frame: Option<Frame>) -> bool {
        if self.dice.roll(6) == 0 && !self.seen.is_calm.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(self.dice.roll(8))).await;
        }
        match frame {
            Some(Frame::Join(join)) => {
                assert_ne!(join.role, Role::Control, "no caller's model cancels");
                let peer = self.peers.get_mut(&token).unwrap();
                (peer.version, peer.role) = (join.version, join.role);
            }
            Some(Frame::Call(call, body)) => self.call(token, call.id, text(&body)).await,
            Some(Frame::Recall(id, last)) => {
                assert_eq!(self.peers[&token].role, Role::Aside);
                self.give_back(id, last).await;
            }
            Some(Frame::Decline) => {
                if self.turn.is_some_and(|turn| turn.0 == token) {
                    self.lose_turn(token);
                }
                self.turns.decline(token);
                self.pass_turn().await;
            }
            Some(other) => panic!("a gateway does not say this: {other:?}"),
            // As when its gateway dies, the call is cancelled, and with it the process ends.
            None if self.running.as_ref().is_some_and(|running| running.token == token) => return false,
            None => {
                self.peers.remove(&token);
                self.refused.retain(|other| *other != token);
                self.waits.remove(&token);
                if self.turn.is_some_and(|turn| turn.0 == token) {
                    self.turn = None;
                }
                self.turns.forget(token);
                self.pass_turn().await;
            }
        }
        true
    }

    async fn call(&mut self, token: u64, id: CallId, request: String) {
        let seed = self.seen.seed;
        if let Some(running) = &self.running {
            if running.token == token {
                assert!(
                    self.peers[&token].version >= AHEAD_SINCE,
                    "seed {seed}: a call on a busy connection"
                );
                self.behind.push_back((id, request));
                assert!(self.behind.len() <= AHEAD_CALLS_MAX, "seed {seed}");
                *self.seen.ahead.lock().unwrap() += 1;
                return;
            }
            self.refused.push(token);
        } else if self.turns.may_call(token) {
            return self.begin(token, id, request).await;
        } else {
            self.turns.refused(token);
        }
        self.waits.entry(token).or_default();
        self.say(token, Frame::Refused(id, RefusalReason::Busy)).await;
    }

    async fn begin(&mut self, token: u64, id: CallId, request: String) {
        let seed = self.seen.seed;
        self.turns.begin(token);
        self.turn = None;
        self.waits.remove(&token);
        for served in self.waits.values_mut() {
            let times = served.entry(token).or_default();
            *times += 1;
            // Of the version before nobody can be told whose turn it is, and whoever asks first has it.
            assert!(
                *times == 1 || self.hello.protocol.max < TURNS_SINCE,
                "seed {seed}: {token} was served twice while another waited"
            );
        }
        if !self.say(token, Frame::Accepted(id)).await {
            return;
        }
        let mut accepted = self.seen.accepted.lock().unwrap();
        assert!(accepted.iter().all(|(other, _)| *other != request), "seed {seed}: {request} ran twice");
        accepted.push((request.clone(), self.hello.slot));
        drop(accepted);
        let is_calm = self.seen.is_calm.load(Ordering::SeqCst);
        let runs_ms = if is_calm { 50 } else { 1 + self.dice.roll(12) };
        let until = Instant::now() + Duration::from_millis(runs_ms);
        self.running = Some(Running { token, id, request, until });
    }

    async fn end(&mut self) {
        let Running { token, id, request, .. } = self.running.take().unwrap();
        let refused = std::mem::take(&mut self.refused);
        let can_be_told = self.peers[&token].version >= TURNS_SINCE;
        let is_queued = self.turns.end(can_be_told.then_some(token), &refused);
        if is_queued {
            self.waits.entry(token).or_default();
        }
        self.say(token, Frame::Done(Done { is_queued, ..done(id, Outcome::Ok, request.into()) })).await;
        self.pass_turn().await;
        for (id, request) in std::mem::take(&mut self.behind) {
            // The first one runs now, if it may, and the others are behind it.
            self.call(token, id, request).await;
        }
    }

    /// Refuses those behind a running call, if it is that one that runs.
    async fn give_back(&mut self, id: CallId, last: CallId) {
        let Some(running) = self.running.as_ref().filter(|running| running.id == id) else { return };
        let token = running.token;
        while let Some((behind, _)) = self.behind.pop_front_if(|(behind, _)| *behind <= last) {
            *self.seen.recalled.lock().unwrap() += 1;
            self.say(token, Frame::Refused(behind, RefusalReason::Busy)).await;
        }
    }

    async fn expire(&mut self) {
        if let Some((token, _)) = self.turn {
            self.lose_turn(token);
        }
        self.turns.expire();
        self.pass_turn().await;
    }

    fn lose_turn(&mut self, token: u64) {
        self.turn = None;
        self.waits.remove(&token);
    }

    async fn pass_turn(&mut self) {
        if self.running.is_some() {
            return;
        }
        while let Some(token) = self.turns.next() {
            let Some(peer) = self.peers.get(&token) else {
                self.turns.forget(token);
                continue;
            };
            *self.seen.turns.lock().unwrap() += 1;
            let is_told = peer.version >= TURNS_SINCE;
            let kept_ms = if is_told { TURN_MS_MAX } else { SILENT_TURN_MS };
            self.turn = Some((token, Instant::now() + Duration::from_millis(kept_ms)));
            if is_told {
                self.say(token, Frame::Grant).await;
            }
            return;
        }
    }

    /// False when the peer is gone, of which its reader will tell.
    async fn say(&mut self, token: u64, frame: Frame) -> bool {
        let Some(peer) = self.peers.get_mut(&token) else { return false };
        peer.writer.write_all(&frame.encode()).await.is_ok()
    }
}

/// A gateway that calls now and then and never comes when it is its turn.
pub(crate) async fn sleep_through_turns(socket: std::path::PathBuf, mut dice: Dice) {
    let mut calls = 0;
    loop {
        let Ok(mut stream) = UnixStream::connect(&socket).await else { return };
        let Some(Frame::Hello(hello)) = next_frame(&mut stream).await else { continue };
        let join = millgate_contract::frame::Join {
            version: hello.protocol.max,
            role: Role::Calls,
            gateway: "sleeper".into(),
        };
        let _ = stream.write_all(&Frame::Join(join).encode()).await;
        loop {
            sleep(Duration::from_millis(dice.roll(60))).await;
            calls += 1;
            let call = millgate_contract::frame::Call {
                id: CallId(calls),
                remaining_ms: 1_000,
                request_id: millgate_contract::ids::RequestId::new("r"),
                traceparent: String::new(),
                busy_poll_us: 0,
            };
            let frame = Frame::Call(call, format!("\"sleeper-{calls}\"").into());
            if stream.write_all(&frame.encode()).await.is_err() {
                break;
            }
            let answer = loop {
                match next_frame(&mut stream).await {
                    Some(Frame::Grant | Frame::Accepted(_)) => {}
                    other => break other,
                }
            };
            if answer.is_none() {
                break;
            }
        }
    }
}
