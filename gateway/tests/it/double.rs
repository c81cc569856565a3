//! A deployment that does as it is told: the sockets of its slots and of its supervisor, and for each call an [`Act`].

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use millgate_contract::{
    frame::{
        Call, Done, Frame, HEADER_BYTES, Header, Hello, Outcome, PROTOCOL, RefusalReason, Role, TURNS_SINCE,
        Timings,
    },
    ids::{BuildId, CallId, DeploymentId, ReplicaId, SlotIndex},
    line,
    route::DeploymentRoute,
    supervision::{
        DeploymentReport, FromSupervisor, Isolation, Phase, SUPERVISION_PROTOCOL, SlotReport, SlotState,
        StartMode, ToSupervisor,
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{broadcast, watch},
    task::JoinSet,
};

pub(crate) use crate::act::Act;

/// A deployment.
pub(crate) struct Double {
    pub(crate) run_dir: PathBuf,
    pub(crate) name: String,
    slots: u16,
    state: Arc<State>,
    tasks: JoinSet<()>,
}

struct State {
    name: String,
    acts: Mutex<VecDeque<Act>>,
    /// Requests in the order in which replicas read them.
    read: Mutex<Vec<String>>,
    /// Requests that were accepted: user code may have run for them.
    accepted: Mutex<Vec<String>>,
    calls: Mutex<Vec<Call>>,
    /// Replicas that have begun to read a call and will not go on.
    half_read: Mutex<Vec<ReplicaId>>,
    cancelled: Mutex<Vec<CallId>>,
    /// Calls behind which others are wanted back, and the last of those. They are not given back.
    recalled: Mutex<Vec<(CallId, CallId)>>,
    /// Replicas whose turn was declined.
    declined: Mutex<Vec<ReplicaId>>,
    told: Mutex<Vec<ToSupervisor>>,
    /// Told at each change of the lists above.
    changed: watch::Sender<u64>,
    /// Who has read the latest call in each slot.
    readers: Mutex<HashMap<u16, ReplicaId>>,
    words: broadcast::Sender<FromSupervisor>,
    greeting: Mutex<GreetAs>,
    processes: AtomicU64,
}

/// Who a replica says it is.
#[derive(Clone, Default)]
pub(crate) struct GreetAs {
    pub(crate) build: Option<String>,
    pub(crate) protocol_min: Option<u16>,
    /// Greets, and then reads no more than the first byte of a call.
    pub(crate) is_deaf: bool,
    /// Ends the connection after that byte.
    pub(crate) hangs_up: bool,
}

impl Double {
    /// Binds everything; `acts` are for the first calls, later ones are echoed.
    pub(crate) fn start(root: &Path, name: &str, slots: u16, acts: Vec<Act>) -> Self {
        let mut double = Self::supervisor(root, name, slots);
        *double.state.acts.lock().unwrap() = acts.into();
        for slot in 0..slots {
            let listener = bind(&double.run_dir, &format!("s{slot}.sock"));
            double.tasks.spawn(serve_slot(Arc::clone(&double.state), SlotIndex(slot), listener));
        }
        double
    }

    /// Binds the supervisor's socket alone: the slots are somebody else's.
    pub(crate) fn supervisor(root: &Path, name: &str, slots: u16) -> Self {
        let run_dir = root.join(name);
        std::fs::create_dir_all(&run_dir).unwrap();
        let state = Arc::new(State {
            name: name.to_owned(),
            acts: Mutex::default(),
            read: Mutex::default(),
            accepted: Mutex::default(),
            calls: Mutex::default(),
            half_read: Mutex::default(),
            cancelled: Mutex::default(),
            recalled: Mutex::default(),
            declined: Mutex::default(),
            told: Mutex::default(),
            changed: watch::Sender::new(0),
            readers: Mutex::default(),
            words: broadcast::Sender::new(64),
            greeting: Mutex::default(),
            processes: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(Arc::clone(&state), slots, bind(&run_dir, "control.sock")));
        Self { run_dir, name: name.to_owned(), slots, state, tasks }
    }

    pub(crate) fn route(&self) -> DeploymentRoute {
        DeploymentRoute {
            deployment: DeploymentId::new(&self.name),
            crn: format!("crn:cdp:ml:::workspace:w/{}", self.name),
            build: BuildId::new("b"),
            run_dir: self.run_dir.clone(),
            slots: self.slots,
        }
    }

    /// What replicas do with the next call that has no act yet.
    pub(crate) fn will(&self, act: Act) {
        self.state.acts.lock().unwrap().push_back(act);
    }

    pub(crate) fn greet_as(&self, greeting: GreetAs) {
        *self.state.greeting.lock().unwrap() = greeting;
    }

    /// What the supervisor says next.
    pub(crate) fn say(&self, word: FromSupervisor) {
        let _ = self.state.words.send(word);
    }

    pub(crate) fn say_dead(&self, slot: u16, replica: &str) {
        self.say(report(SlotIndex(slot), SlotState::Dead, Some(ReplicaId::new(replica))));
    }

    pub(crate) fn say_ready(&self, slot: u16, replica: &str) {
        self.say(report(SlotIndex(slot), SlotState::Ready, Some(ReplicaId::new(replica))));
    }

    /// The supervisor has begun to end a replica, which is not dead yet.
    pub(crate) fn say_ending(&self, slot: u16, replica: &str) {
        self.say(report(SlotIndex(slot), SlotState::Starting, Some(ReplicaId::new(replica))));
    }

    pub(crate) fn say_failed(&self, reason: &str) {
        self.say(FromSupervisor::Deployment(DeploymentReport {
            phase: Phase::Failed,
            reason: reason.to_owned(),
            start_mode: StartMode::Fork,
            start_mode_reason: String::new(),
            example_response: None,
        }));
    }

    /// How its replicas are started.
    pub(crate) fn say_start(&self, start_mode: StartMode, reason: &str) {
        self.say(FromSupervisor::Deployment(DeploymentReport {
            phase: Phase::Serving,
            reason: String::new(),
            start_mode,
            start_mode_reason: reason.to_owned(),
            example_response: None,
        }));
    }

    /// Requests read so far.
    pub(crate) fn read(&self) -> Vec<String> {
        self.state.read.lock().unwrap().clone()
    }

    /// Requests accepted so far.
    pub(crate) fn accepted(&self) -> Vec<String> {
        self.state.accepted.lock().unwrap().clone()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    pub(crate) fn half_read(&self) -> Vec<ReplicaId> {
        self.state.half_read.lock().unwrap().clone()
    }

    /// Replicas whose turn was declined so far.
    pub(crate) fn declined(&self) -> Vec<ReplicaId> {
        self.state.declined.lock().unwrap().clone()
    }

    pub(crate) fn told(&self) -> Vec<ToSupervisor> {
        self.state.told.lock().unwrap().clone()
    }

    /// Waits until `this` is true.
    pub(crate) async fn until(&self, this: impl Fn(&Self) -> bool) {
        let mut changed = self.state.changed.subscribe();
        while !this(self) {
            changed.changed().await.unwrap();
        }
    }

    pub(crate) async fn until_read(&self, calls: usize) {
        self.until(|double| double.read().len() >= calls).await;
    }

    /// The process that has read the latest call in a slot.
    pub(crate) fn replica(&self, slot: u16) -> String {
        self.state.readers.lock().unwrap()[&slot].as_str().to_owned()
    }

    pub(crate) fn recalled(&self) -> Vec<(CallId, CallId)> {
        self.state.recalled.lock().unwrap().clone()
    }

    pub(crate) fn cancelled(&self) -> Vec<CallId> {
        self.state.cancelled.lock().unwrap().clone()
    }
}

pub(crate) fn bind(run_dir: &Path, name: &str) -> UnixListener {
    // Through the descriptor, so that a test may choose a folder with a long path.
    let folder = std::fs::File::open(run_dir).unwrap();
    let short = format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&folder));
    UnixListener::bind(short).unwrap()
}

fn report(slot: SlotIndex, state: SlotState, replica: Option<ReplicaId>) -> FromSupervisor {
    FromSupervisor::Slot(SlotReport {
        slot,
        state,
        replica,
        pid: None,
        reason: String::new(),
        starts: 1,
        ready_after_ms: 0,
    })
}

impl State {
    fn note<T>(&self, list: &Mutex<Vec<T>>, item: T) {
        list.lock().unwrap().push(item);
        self.changed.send_modify(|n| *n += 1);
    }
}

async fn supervise(state: Arc<State>, slots: u16, listener: UnixListener) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(supervise_one(Arc::clone(&state), slots, stream));
    }
}

async fn supervise_one(state: Arc<State>, slots: u16, stream: UnixStream) {
    let mut words = state.words.subscribe();
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let hello = FromSupervisor::Hello {
        protocol: SUPERVISION_PROTOCOL,
        deployment: DeploymentId::new(&state.name),
        build: BuildId::new("b"),
        slots,
        pid: 1,
        isolation: Isolation::default(),
    };
    writer.write_all(&line::encode(&hello)).await.unwrap();
    loop {
        tokio::select! {
            word = words.recv() => writer.write_all(&line::encode(&word.unwrap())).await.unwrap(),
            told = lines.next_line() => match told.unwrap() {
                Some(told) => match line::decode(told.as_bytes()).unwrap() {
                    // Comes by the clock; the test says what has been measured.
                    ToSupervisor::Measure => {}
                    told => state.note(&state.told, told),
                },
                None => return,
            },
        }
    }
}

async fn serve_slot(state: Arc<State>, slot: SlotIndex, listener: UnixListener) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve_connection(Arc::clone(&state), slot, stream));
    }
}

async fn serve_connection(state: Arc<State>, slot: SlotIndex, mut stream: UnixStream) {
    let process = state.processes.fetch_add(1, Ordering::SeqCst);
    let greeting = state.greeting.lock().unwrap().clone();
    let hello = Hello {
        protocol: millgate_contract::frame::ProtocolRange {
            min: greeting.protocol_min.unwrap_or(PROTOCOL.min),
            max: greeting.protocol_min.unwrap_or(PROTOCOL.max),
        },
        deployment: DeploymentId::new(&state.name),
        build: BuildId::new(greeting.build.unwrap_or_else(|| "b".into())),
        slot,
        replica: ReplicaId::new(format!("{}-r{process}", state.name)),
        // One process serves all connections of a slot as far as `Cancel` is concerned.
        nonce: slot.0.into(),
    };
    if stream.write_all(&Frame::Hello(hello.clone()).encode()).await.is_err() {
        return;
    }
    if greeting.is_deaf {
        next_frame(&mut stream).await;
        if stream.read_u8().await.is_ok() {
            state.note(&state.half_read, hello.replica.clone());
        }
        if greeting.hangs_up {
            return;
        }
        pending::<()>().await;
    }
    let mut role = Role::Calls;
    let mut connection = Connection { state: &state, hello, stream, version: 0 };
    while let Some(frame) = next_frame(&mut connection.stream).await {
        match frame {
            Frame::Join(join) => {
                role = join.role;
                connection.version = join.version;
            }
            Frame::Decline => state.note(&state.declined, connection.hello.replica.clone()),
            Frame::Cancel(id) => {
                assert_eq!(role, Role::Control);
                state.note(&state.cancelled, id);
            }
            Frame::Recall(id, last) => {
                assert_eq!(role, Role::Aside);
                state.note(&state.recalled, (id, last));
            }
            Frame::Call(call, body) => {
                let id = call.id;
                state.readers.lock().unwrap().insert(slot.0, connection.hello.replica.clone());
                state.note(&state.calls, call);
                let act = state.acts.lock().unwrap().pop_front().unwrap_or(Act::Echo);
                state.note(&state.read, text(&body));
                if connection.perform(id, body, act).await.is_none() {
                    return;
                }
            }
            _ => panic!("a gateway does not say this"),
        }
    }
}

/// One connection of one replica.
struct Connection<'a> {
    state: &'a State,
    hello: Hello,
    stream: UnixStream,
    version: u16,
}

impl Connection<'_> {
    /// `None` ends the connection.
    async fn perform(&mut self, id: CallId, body: Bytes, act: Act) -> Option<()> {
        let echo = done(id, Outcome::Ok, body.clone());
        match act {
            Act::Refuse(RefusalReason::Busy) => {
                self.say(Frame::Refused(id, RefusalReason::Busy)).await?;
                return self.grant().await;
            }
            Act::Refuse(reason) => return self.say(Frame::Refused(id, reason)).await,
            Act::RefuseUntil(go) => {
                self.say(Frame::Refused(id, RefusalReason::Busy)).await?;
                go.notified().await;
                return self.grant().await;
            }
            Act::RefuseForGood => return self.say(Frame::Refused(id, RefusalReason::Busy)).await,
            Act::RefuseAndEnd => {
                self.say(Frame::Refused(id, RefusalReason::Busy)).await?;
                return None;
            }
            Act::RefuseAndDie => {
                self.say(Frame::Refused(id, RefusalReason::Busy)).await?;
                self.die().await;
            }
            Act::EchoAmongGrants => self.grant().await?,
            Act::RefuseOther => {
                self.say(Frame::Refused(CallId(id.0 + 1), RefusalReason::Draining)).await?;
                return pending().await;
            }
            Act::Late(ref go) => go.notified().await,
            Act::DropUnaccepted => return None,
            Act::Silent => pending().await,
            Act::DieUnaccepted => self.die().await,
            Act::Unaccepted => return self.say(Frame::Done(echo)).await,
            _ => {}
        }
        self.state.note(&self.state.accepted, text(&body));
        self.say(Frame::Accepted(id)).await?;
        match act {
            Act::End(outcome, text) => self.say(Frame::Done(done(id, outcome, text.into()))).await,
            Act::Predict { value, metrics } => {
                let value = done(id, Outcome::Ok, value.into());
                self.say(Frame::Done(Done { collects_metrics: true, metrics: metrics.into(), ..value })).await
            }
            Act::Took(run_us) => {
                let timings = Timings { run_us, ..Timings::default() };
                self.say(Frame::Done(Done { timings, ..echo })).await
            }
            Act::Hold(go) => {
                go.notified().await;
                self.say(Frame::Done(echo)).await
            }
            Act::RefuseAccepted => self.say(Frame::Refused(id, RefusalReason::Busy)).await,
            Act::AcceptAndDie => self.die().await,
            Act::EchoQueued(go) => {
                self.say(Frame::Done(Done { is_queued: true, ..echo })).await?;
                go.notified().await;
                self.grant().await
            }
            Act::EchoAmongGrants => {
                self.say(Frame::Done(echo)).await?;
                self.grant().await
            }
            Act::DropAccepted => None,
            Act::DropLater(go) => {
                go.notified().await;
                None
            }
            Act::SilentAccepted => pending().await,
            Act::WrongId => {
                self.say(Frame::Done(Done { id: CallId(id.0 + 1), ..echo })).await?;
                pending().await
            }
            Act::TooLarge => self.stream.write_all(&[0xff; HEADER_BYTES]).await.ok(),
            Act::Leave => {
                self.say(Frame::Done(Done { is_leaving: true, ..echo })).await;
                None
            }
            Act::Twice => {
                self.say(Frame::Done(echo.clone())).await?;
                self.say(Frame::Done(echo)).await
            }
            Act::AnswerAndDie => {
                self.say(Frame::Done(echo)).await;
                self.die().await
            }
            _ => self.say(Frame::Done(echo)).await,
        }
    }

    /// What version 1 does not know is not said to it.
    async fn grant(&mut self) -> Option<()> {
        if self.version >= TURNS_SINCE { self.say(Frame::Grant).await } else { Some(()) }
    }

    async fn say(&mut self, frame: Frame) -> Option<()> {
        self.stream.write_all(&frame.encode()).await.ok()
    }

    /// The supervisor says that the process is dead; its socket stays open, as a grandchild could keep it.
    async fn die(&mut self) -> ! {
        let dead = report(self.hello.slot, SlotState::Dead, Some(self.hello.replica.clone()));
        let _ = self.state.words.send(dead);
        loop {
            pending::<()>().await;
        }
    }
}

pub(crate) fn text(body: &[u8]) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

pub(crate) fn done(id: CallId, outcome: Outcome, value: Bytes) -> Done {
    Done {
        id,
        outcome,
        collects_metrics: false,
        is_leaving: false,
        is_queued: false,
        timings: Timings { cpu_user_us: 400_000, cpu_system_us: 100_000, ..Timings::default() },
        value,
        metrics: Bytes::new(),
    }
}

pub(crate) async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.ok()?;
    let header = Header::decode(&header).unwrap();
    let mut payload = BytesMut::zeroed(header.payload_bytes);
    stream.read_exact(&mut payload).await.ok()?;
    header.decode_payload(payload.freeze()).unwrap()
}
