//! The life of a replica: `Here`, wait for the supervisor's byte, `setup()`, `warmup()`, the example, `Ready`,
//! calls, `Leaving`, exit.
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
    nursery::{Failure, FromReplica, GO, SPAWN_CHANNEL_FD, SPAWN_LISTENER_FD, Step},
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
    fds, interpreter, log,
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
    /// Its slot.
    pub(crate) slot: SlotIndex,
    /// Its name.
    pub(crate) replica: ReplicaId,
    /// The slot's listener.
    pub(crate) listener: OwnedFd,
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

/// A replica started by itself.
pub fn run_spawned(slot: SlotIndex, replica: ReplicaId) -> Result<(), BirthError> {
    let channel = birth::take(SPAWN_CHANNEL_FD, "channel")?;
    let listener = birth::take(SPAWN_LISTENER_FD, "listener")?;
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
            Birth { slot, replica, listener, channel: Arc::new(channel) },
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
    let channel = Arc::clone(&birth.channel);
    let policy = Policy::of(&spec.policy, mode);
    let mut runner = Runner::new(py, program, policy.replaces_after_exception());
    let ready = match warm_up(py, spec, program, &mut runner) {
        Ok(ready) => ready,
        Err(failure) => {
            program.bootstrap.flush(py);
            // If the supervisor cannot be told, its end is the reason.
            let _ = datagram::send_message(&channel, &FromReplica::Failed(failure));
            exit(1);
        }
    };
    let started = start_serving(py, spec, runner, policy, birth);
    let mut server = match started {
        Ok(server) => server,
        Err(errno) => {
            let message = format!("the replica cannot listen: {errno}");
            let failure = Failure { step: Step::Python, message };
            let _ = datagram::send_message(&channel, &FromReplica::Failed(failure));
            exit(1);
        }
    };
    if datagram::send_message(&channel, &ready).is_err() {
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

/// The watcher listens from here on.
fn start_serving<'a>(
    py: Python<'a>,
    spec: &DeploymentSpec,
    runner: Runner<'a>,
    policy: Policy,
    birth: Birth,
) -> Result<Server<'a>, Errno> {
    let desk = Arc::new(Desk::new(birth.listener)?);
    let hello = Frame::Hello(Hello {
        protocol: PROTOCOL,
        deployment: spec.deployment.clone(),
        build: spec.build.clone(),
        slot: birth.slot,
        replica: birth.replica,
        nonce: nonce()?,
    });
    let server = Server::new(py, runner, Arc::clone(&desk), policy)?;
    let (hello, terminate) = (hello.encode(), fds::event()?);
    watcher::start(Watch { desk, hello, terminate, channel: birth.channel })?;
    Ok(server)
}

/// `setup()`, `warmup()`, then the example by the same way as any call.
fn warm_up<'a>(
    py: Python<'a>,
    spec: &DeploymentSpec,
    program: &Program,
    runner: &mut Runner<'a>,
) -> Result<FromReplica, Failure> {
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
        return Ok(FromReplica::Ready { example_response: None });
    };
    let nobody = || Ended { is_cancelled: false, is_draining: false };
    let answer = runner.run(request.as_bytes(), nobody);
    let text = String::from_utf8_lossy(&answer.value).into_owned();
    if answer.outcome != Outcome::Ok {
        return Err(Failure { step: Step::Example, message: text });
    }
    program.bootstrap.flush(py);
    let ready = FromReplica::Ready { example_response: Some(text) };
    if line::encode(&ready).len() > READY_BYTES_MAX {
        log::say(&format!("the example's answer of {} bytes is too long to be shown", answer.value.len()));
        return Ok(FromReplica::Ready { example_response: None });
    }
    Ok(ready)
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
