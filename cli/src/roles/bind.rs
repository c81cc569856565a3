//! Listening sockets: a predecessor's, a service manager's, or bound here, with an error a person can act on.

use std::{io, net, net::SocketAddr, time::Duration};

use listenfd::ListenFd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::Instant,
};

use super::handover::{Inherited, Predecessor};
use crate::{
    failure::{Context, Failure},
    settings::Settings,
};

/// What a role listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listens {
    CallsAndAdmin,
    /// The control API alone has no figures of calls to show.
    CallsOnly,
}

/// What a role listens at.
pub(crate) struct Sockets {
    pub(crate) calls: TcpListener,
    pub(crate) admin: Option<TcpListener>,
    /// The program that is taken over from, if they are its.
    pub(crate) predecessor: Option<Predecessor>,
}

/// The sockets of a role: a predecessor's; else those that a service manager opened (`LISTEN_FDS`: first calls, then
/// admin); else bound as the settings say.
pub(crate) async fn sockets(settings: &Settings, listens: Listens) -> Result<Sockets, Failure> {
    if let Some(Inherited { predecessor, calls, admin }) = Predecessor::meet()? {
        let predecessor = Some(predecessor);
        return Ok(Sockets { calls: adopt(calls)?, admin: admin.map(adopt).transpose()?, predecessor });
    }
    let mut activated = ListenFd::from_env();
    let mut next = |at| activated.take_tcp_listener(at).ok().flatten();
    let calls = match next(0) {
        Some(listener) => adopt(listener)?,
        None => listen(settings.listen, "--listen").await?,
    };
    let admin = match (listens, next(1)) {
        (Listens::CallsOnly, _) => None,
        (Listens::CallsAndAdmin, Some(listener)) => Some(adopt(listener)?),
        (Listens::CallsAndAdmin, None) => Some(listen(settings.admin_listen, "--admin-listen").await?),
    };
    Ok(Sockets { calls, admin, predecessor: None })
}

fn adopt(listener: net::TcpListener) -> Result<TcpListener, Failure> {
    let adopted = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    adopted.context("cannot use the listening socket that was handed over")
}

/// How long a killed server may hold its port while it dies: one started at once after it must not fail on that.
const PORT_HELD_MAX: Duration = Duration::from_secs(2);
const PORT_PERIOD: Duration = Duration::from_millis(20);
/// Connections that wait to be accepted; the system may allow fewer. With the usual 128, callers that come by hundreds
/// at once have theirs dropped and try again after a second.
const UNACCEPTED_MAX: u32 = 4_096;

/// Listens at `address`, which `flag` names.
pub(crate) async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let begun = Instant::now();
    let bound = loop {
        match bind(address) {
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PORT_HELD_MAX => {
                tokio::time::sleep(PORT_PERIOD).await;
            }
            bound => break bound,
        }
    };
    bound.map_err(|cause| {
        let failure = Failure::new(format!("cannot listen on {address}: {cause}"));
        match cause.kind() {
            io::ErrorKind::AddrInUse => failure.hint(format!(
                "another program (or another millgate) uses this port: end it, or choose another with `{flag} ADDR`"
            )),
            io::ErrorKind::PermissionDenied => {
                failure.hint(format!("ports below 1024 need root: choose another with `{flag} ADDR`"))
            }
            _ => failure.hint(format!("choose an address of this host with `{flag} ADDR`")),
        }
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of a predecessor that linger do not hold the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(UNACCEPTED_MAX)
}

/// Where it listens, the port that was chosen for port 0 included.
pub(crate) fn address_of(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().context("cannot read the listening address")
}

/// As many descriptors as the system lets this process have: each caller is one.
pub(crate) fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "the limit of descriptors stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn callers_that_come_by_hundreds_at_once_are_not_dropped() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let callers = allowed.trim().parse::<u32>().unwrap().min(UNACCEPTED_MAX).min(500);
        let listener = listen(([127, 0, 0, 1], 0).into(), "--listen").await.unwrap();
        let address = address_of(&listener).unwrap();
        // Nobody accepts. One that is dropped is tried again by the system later and later, and not connected in time.
        let connect = || net::TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        let waiting: Vec<net::TcpStream> = (0..callers).map(|_| connect()).collect();
        assert_eq!(waiting.len(), callers as usize);
    }
}
