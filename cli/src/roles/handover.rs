//! One program takes over from another without a lost connection: an upgrade.
//!
//! The old program starts the new one with a Unix socket as its standard input, and they say:
//!
//! ```text
//! old ── the listening sockets (SCM_RIGHTS) ──▶ new
//! new ── ready: it is connected to replicas and accepts ──▶ old     which accepts no more, and drains
//! old ── released: the data directory is free ──▶ new              which opens the control API
//! ```
//!
//! Both accept at the same listening sockets, so that no connection in their queues is anybody's to lose. The end of the
//! socket stands for `released`: whoever is gone holds nothing. A new program that does not become ready is ended, and
//! the old one goes on as if nothing had been.

use std::{
    io::{self, IoSlice, IoSliceMut, Read},
    mem::MaybeUninit,
    net,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use crate::{
    env_vars,
    failure::{Context, Failure},
};

/// How long the new program may take to become ready.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How long the listening sockets may take to come.
const LISTENERS_WAIT: Duration = Duration::from_secs(10);
const LISTENERS: u8 = b'L';
const READY: u8 = b'R';
const RELEASED: u8 = b'F';

/// What is handed over, and to which program.
pub(crate) struct Estate {
    program: PathBuf,
    calls: OwnedFd,
    admin: Option<OwnedFd>,
}

impl Estate {
    /// Must be taken early: the program's file may be replaced by its next version while this one runs.
    pub(crate) fn of(calls: &TcpListener, admin: Option<&TcpListener>) -> Result<Self, Failure> {
        let copy = |listener: &TcpListener| listener.as_fd().try_clone_to_owned();
        Ok(Self {
            program: std::env::current_exe().context("cannot find this program's own file")?,
            calls: copy(calls).context("cannot copy a listening socket")?,
            admin: admin.map(copy).transpose().context("cannot copy a listening socket")?,
        })
    }
}

/// The program that takes over. Dropping it ends it, unless it was let go.
pub(crate) struct Successor {
    child: Option<Child>,
    channel: tokio::net::UnixStream,
}

impl Successor {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(estate: &Estate) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(&estate.program)
            .args(std::env::args_os().skip(1))
            .env(env_vars::HANDOVER, "stdin")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        send_listeners(&ours, estate)?;
        ours.set_nonblocking(true)?;
        let channel = tokio::net::UnixStream::from_std(ours)?;
        let mut successor = Self { child: Some(child), channel };
        let ready = timeout(READY_WAIT, successor.channel.read_u8()).await;
        match ready {
            Ok(Ok(READY)) => Ok(successor),
            Ok(Ok(said)) => Err(io::Error::other(format!("the new program said `{said}`"))),
            Ok(Err(_)) => Err(io::Error::other("the new program ended")),
            Err(_) => {
                Err(io::Error::other(format!("the new program was not ready in {} s", READY_WAIT.as_secs())))
            }
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Lets it have the data directory, and its own way.
    pub(crate) async fn release(mut self) {
        self.child = None;
        // When it is gone there is nobody to tell.
        let _ = self.channel.write_u8(RELEASED).await;
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn send_listeners(channel: &UnixStream, estate: &Estate) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let listeners: Vec<_> =
        [Some(&estate.calls), estate.admin.as_ref()].into_iter().flatten().map(AsFd::as_fd).collect();
    control.push(SendAncillaryMessage::ScmRights(&listeners));
    sendmsg(channel, &[IoSlice::new(&[LISTENERS])], &mut control, SendFlags::empty())?;
    Ok(())
}

/// The program that is taken over from.
pub(crate) struct Predecessor {
    channel: UnixStream,
}

/// The listening sockets that came from it.
pub(crate) struct Inherited {
    pub(crate) predecessor: Predecessor,
    pub(crate) calls: net::TcpListener,
    pub(crate) admin: Option<net::TcpListener>,
}

impl Predecessor {
    /// Meets it, if there is one.
    pub(crate) fn meet() -> Result<Option<Inherited>, Failure> {
        if std::env::var_os(env_vars::HANDOVER).is_none() {
            return Ok(None);
        }
        receive().map(Some).context("cannot take over from the program that started this one").map_err(
            |failure| failure.hint(format!("unset `{}`: only a server may set it", env_vars::HANDOVER)),
        )
    }

    /// Tells it that calls are accepted here.
    pub(crate) fn say_ready(&self) -> Result<(), Failure> {
        io::Write::write_all(&mut &self.channel, &[READY]).context("the program to take over from is gone")
    }

    /// Waits until it has released the data directory or has ended.
    pub(crate) async fn released(self) {
        let waiting = tokio::task::spawn_blocking(move || {
            // Whatever comes, its end included, means the same.
            let _ = (&self.channel).read(&mut [0]);
        });
        let _ = waiting.await;
    }
}

fn receive() -> io::Result<Inherited> {
    let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Programs that this one starts must not hold the channel open.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    channel.set_read_timeout(Some(LISTENERS_WAIT))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut said = [0];
    recvmsg(&channel, &mut [IoSliceMut::new(&mut said)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    channel.set_read_timeout(None)?;
    let mut listeners = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => vec![],
    });
    match (said[0], listeners.next(), listeners.next()) {
        (LISTENERS, Some(calls), admin) => {
            let (calls, admin) = (calls.into(), admin.map(Into::into));
            drop(listeners);
            Ok(Inherited { predecessor: Predecessor { channel }, calls, admin })
        }
        _ => Err(io::Error::other("no listening sockets came")),
    }
}
