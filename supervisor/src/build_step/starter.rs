//! What is said to whoever started the step, by the Unix socket that is our standard input: the listener of its way out,
//! and what holds its command in. A starter that gave the step by a file or a pipe is told nothing.

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, TcpListener},
    os::fd::{AsRawFd, RawFd},
};

use millgate_contract::{line, spec::FromBuildStep, supervision::Isolation};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

const STARTER: RawFd = 0;

/// Listens on the loopback of the network we are in, and gives the listener away: who accepts does so in this network,
/// whatever network it is in itself.
pub(super) fn give_outlet(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    say(&FromBuildStep::Outlet, &[listener.as_raw_fd()])
}

/// Says what holds the command in. There may be nobody who listens.
pub(super) fn say_held(isolation: Isolation) {
    let _ = say(&FromBuildStep::Held(isolation), &[]);
}

fn say(message: &FromBuildStep, descriptors: &[RawFd]) -> io::Result<()> {
    let text = line::encode(message);
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    // Its few hundred bytes fit into any socket's buffer.
    sendmsg::<UnixAddr>(STARTER, &[IoSlice::new(&text)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}
