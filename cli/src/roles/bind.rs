//! Listening addresses, with an error a person can act on.

use std::{io, net::SocketAddr, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{net::TcpListener, time::Instant};

use crate::failure::{Context, Failure};

/// How long a killed server may hold its port while it dies: one started at once after it must not fail on that.
const PORT_HELD_MAX: Duration = Duration::from_secs(2);
const PORT_PERIOD: Duration = Duration::from_millis(20);

/// Listens at `address`, which `flag` names.
pub(crate) async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let begun = Instant::now();
    let bound = loop {
        match TcpListener::bind(address).await {
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
