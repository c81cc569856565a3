//! What a service manager is told (`sd_notify(3)`): ready, reloading, stopping, and which process is the main one now.
//! One datagram each, to the socket it named; without one nobody is told. A message that is lost changes nothing here.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use nix::time::{ClockId, clock_gettime};

use crate::env_vars;

/// It serves.
pub(crate) fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}"));
}

/// It was asked to hand over, and until it is ready again nobody knows how that ends.
pub(crate) fn reloading() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000);
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=handing over to a new process"));
}

/// Another process serves in its place. Said by this one: of a process that it does not know, it believes nothing.
pub(crate) fn succeeded_by(pid: u32) {
    tell(&format!("MAINPID={pid}\nREADY=1\nSTATUS=handed over"));
}

/// It takes no more calls, and answers those that run.
pub(crate) fn stopping() {
    tell("STOPPING=1\nSTATUS=answering what runs");
}

fn tell(message: &str) {
    let Some(socket) = env::var_os(env_vars::NOTIFY_SOCKET) else { return };
    if let Err(error) = send(socket.as_bytes(), message) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// An address that begins with `@` is an abstract one.
fn send(socket: &[u8], message: &str) -> io::Result<()> {
    let address = match socket.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(socket))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}
