//! The life of a replica: `Here`, wait for the supervisor's byte, `setup()`, `warmup()`, the example, `Ready`,
//! calls, `Leaving`, exit.
//!
//! A spare waits between its example and its listener, until a slot has lost its replica.
//!
//! Forked and spawned replicas differ in when Python starts: before the byte, in the template, or after it.
//! `teardown()` runs when the supervisor has asked the replica to leave or its policy says so, and not after an
//! exception or a cancelled call, when nothing that it would touch can be relied on. The process ends by `_exit` in any
//! case: functions registered with `atexit` at import belong to the template, and would run in each of its children.

use std::{os::fd::OwnedFd, sync::Arc};

use millgate_contract::{
    frame::{Frame, Hello, Outcome, PROTOCOL},
    ids::{ReplicaId, SlotIndex},
    line,
    nursery::{Failure, FromReplica, GO, PAGE_FD, SPAWN_CHANNEL_FD, SPAWN_LISTENER_FD, Step, ToSpare},
    spec::DeploymentSpec,
    supervision::StartMode,
};
use nix::errno::Errno;
use pyo3::prelude::*;

use crate::{
    birth::{self, BirthError},
    call::Runner,
    datagram,
    desk::{Desk, Ended},
    fds, interpreter, log, page,
    policy::Policy,
    program::Program,
    serve::{Leave, Server},
    watcher::{self, Watch},
};

/// Bytes of the message with the example's answer: a datagram must fit into a socket's buffer.
const READY_BYTES_MAX: usize = 128 * 1024;

/// Where a replica is born, and what it is given.
#[derive(Debug)]
pub(crate) struct Birth {
    /// Its name.
    pub(crate) replica: ReplicaId,
    /// Its slot and the slot's listener; a spare has none yet.
    pub(crate) place: Option<(SlotIndex, OwnedFd)>,
    /// Its channel to the supervisor.
    pub(crate) channel: Arc<OwnedFd>,
}

/// A child of the template, right after the fork.
pub(crate) fn run_forked(py: Python<'_>, spec: &DeploymentSpec, program: &Program, birth: Birth) -> ! {
    if !py.detach(|| await_go(&birth.channel)) {
        exit(0);
    }
    program.bootstrap.reseed(py);
    live(py, spec, program, birth, StartMode::Fork)
}

/// A replica started by itself; without a slot, a spare.
pub fn run_spawned(slot: Option<SlotIndex>, replica: ReplicaId) -> Result<(), BirthError> {
    let channel = birth::take(SPAWN_CHANNEL_FD, "channel")?;
    let listener = slot.map(|_| birth::take(SPAWN_LISTENER_FD, "listener")).transpose()?;
    // A supervisor that is older gives none.
    if let Ok(memory) = birth::take(PAGE_FD, "page") {
        page::install(&memory);
    }
    let spec = birth::read_spec()?;
    if !await_go(&channel) {
        return Ok(());
    }
    let failed =
        |channel: &OwnedFd, failure| Ok(datagram::send_message(channel, &FromReplica::Failed(failure))?);
    if let Err(failure) = interpreter::start(&spec.function) {
        return failed(&channel, failure);
    }
    Python::attach(|py| match Program::load(py, &spec.function) {
        Err(failure) => failed(&channel, failure),
        Ok(program) => live(
            py,
            &spec,
            &program,
            Birth { replica, place: slot.zip(listener), channel: Arc::new(channel) },
            StartMode::Spawn,
        ),
    })
}

/// Says `Here` and waits to be put in its place; false when the supervisor is gone.
fn await_go(channel: &OwnedFd) -> bool {
    // The kernel adds the credentials: the supervisor asks for them on its end.
    if datagram::send_message(channel, &FromReplica::Here).is_err() {
        return false;
    }
    matches!(datagram::receive(channel), Ok(Some(message)) if message.bytes == [GO])
}

fn live(py: Python<'_>, spec: &DeploymentSpec, program: &Program, birth: Birth, mode: StartMode) -> ! {
    let Birth { replica, place, channel } = birth;
    let policy = Policy::of(&spec.policy, mode);
    let mut runner = Runner::new(py, program, policy.replaces_after_exception());
    let example_response = match warm_up(py, spec, program, &mut runner) {
        Ok(example_response) => example_response,
        Err(failure) => {
            program.bootstrap.flush(py);
            // If the supervisor cannot be told, its end is the reason.
            let _ = datagram::send_message(&channel, &FromReplica::Failed(failure));
            exit(1);
        }
    };
    let wait = || py.detach(|| await_place(&channel, example_response.clone()));
    let Some((slot, listener)) = place.or_else(wait) else {
        // A spare that is not needed.
        tear_down(&mut runner, program);
        program.bootstrap.flush(py);
        exit(0);
    };
    let start = Start { slot, replica, listener, channel: Arc::clone(&channel) };
    let mut server = match start_serving(py, spec, runner, policy, start) {
        Ok(server) => server,
        Err(errno) => {
            let message = format!("the replica cannot listen: {errno}");
            let failure = Failure { step: Step::Python, message };
            let _ = datagram::send_message(&channel, &FromReplica::Failed(failure));
            exit(1);
        }
    };
    if datagram::send_message(&channel, &FromReplica::Ready { example_response }).is_err() {
        exit(1);
    }
    if mode == StartMode::Fork {
        let channel = Arc::clone(&channel);
        // If the supervisor cannot be told, the watcher ends this process.
        let tell = move || drop(datagram::send_message(&channel, &FromReplica::Answered));
        server.on_first_answer = Some(Box::new(tell));
    }
    let leave = server.run();
    let reason = match leave {
        Leave::Asked => "asked to leave",
        Leave::Spent(reason) | Leave::Recycled(reason) => reason,
    };
    let _ = datagram::send_message(&channel, &FromReplica::Leaving { reason: reason.to_owned() });
    if !matches!(leave, Leave::Spent(_)) {
        tear_down(&mut server.runner, program);
    }
    program.bootstrap.flush(py);
    exit(0)
}

/// Waits for the slot of a replica that has died; none when the supervisor does not need this one, or is gone.
fn await_place(channel: &OwnedFd, example_response: Option<String>) -> Option<(SlotIndex, OwnedFd)> {
    datagram::send_message(channel, &FromReplica::Warm { example_response }).ok()?;
    let mut message = datagram::receive(channel).ok()??;
    match line::decode(&message.bytes).ok()? {
        ToSpare::Serve { slot } => Some((slot, fds::out_of_the_way(message.descriptors.pop()?).ok()?)),
        ToSpare::Leave => None,
    }
}

/// What a replica begins to serve with.
struct Start {
    slot: SlotIndex,
    replica: ReplicaId,
    listener: OwnedFd,
    channel: Arc<OwnedFd>,
}

/// The watcher listens from here on.
fn start_serving<'a>(
    py: Python<'a>,
    spec: &DeploymentSpec,
    runner: Runner<'a>,
    policy: Policy,
    start: Start,
) -> Result<Server<'a>, Errno> {
    let desk = Arc::new(Desk::new(start.listener)?);
    let hello = Frame::Hello(Hello {
        protocol: PROTOCOL,
        deployment: spec.deployment.clone(),
        build: spec.build.clone(),
        slot: start.slot,
        replica: start.replica,
        nonce: nonce()?,
    });
    let server = Server::new(py, runner, Arc::clone(&desk), policy)?;
    let (hello, terminate) = (hello.encode(), fds::event()?);
    watcher::start(Watch { desk, hello, terminate, channel: start.channel })?;
    Ok(server)
}

/// `setup()`, `warmup()`, then the example by the same way as any call; its answer.
fn warm_up<'a>(
    py: Python<'a>,
    spec: &DeploymentSpec,
    program: &Program,
    runner: &mut Runner<'a>,
) -> Result<Option<String>, Failure> {
    for name in ["setup", "warmup"] {
        let failed = |error: PyErr| {
            program.bootstrap.show(py, &error);
            let text = program.bootstrap.describe(py, &error);
            let message = if name == "setup" { text } else { format!("`{name}()`: {text}") };
            Failure { step: Step::Setup, message }
        };
        if let Some(hook) = program.hook(py, name).map_err(failed)? {
            runner.run_hook(&hook).map_err(failed)?;
        }
    }
    let Some(request) = &spec.example_request else {
        return Ok(None);
    };
    let nobody = || Ended { is_cancelled: false, is_draining: false };
    let answer = runner.run(request.as_bytes(), nobody);
    let text = String::from_utf8_lossy(&answer.value).into_owned();
    if answer.outcome != Outcome::Ok {
        return Err(Failure { step: Step::Example, message: text });
    }
    program.bootstrap.flush(py);
    let ready = FromReplica::Ready { example_response: Some(text.clone()) };
    if line::encode(&ready).len() > READY_BYTES_MAX {
        log::say(&format!("the example's answer of {} bytes is too long to be shown", answer.value.len()));
        return Ok(None);
    }
    Ok(Some(text))
}

fn tear_down(runner: &mut Runner<'_>, program: &Program) {
    let result = program
        .hook(runner.py, "teardown")
        .and_then(|hook| hook.map_or(Ok(()), |hook| runner.run_hook(&hook)));
    if let Err(error) = result {
        program.bootstrap.show(runner.py, &error);
    }
}

fn nonce() -> Result<u64, Errno> {
    let mut bytes = [0_u8; 8];
    // SAFETY: `bytes` has room for its length; so few bytes always come whole.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    Errno::result(count)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn exit(status: i32) -> ! {
    // SAFETY: ends the process without running what others have registered to be run at its end.
    unsafe { libc::_exit(status) }
}
