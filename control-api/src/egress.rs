//! The way out of a build's network: a proxy on a listener inside that network, which `build-step` makes there and hands
//! us. What goes through is decided by [`rules`]: this server, its host, link-local and metadata addresses are out of
//! reach, whatever a name resolves to. It looks into nothing that is encrypted, keeps nothing, and ends with its build.

pub(crate) mod installer;
pub(crate) mod rules;
mod tunnel;
pub(crate) mod upstream;

use std::{collections::BTreeSet, net::TcpListener as StdListener, sync::Arc};

use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use rules::Rules;

/// Where it is in the build's network.
pub(crate) const PORT: u16 = 3128;
/// Connections of one build at a time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// Hosts of one build that are told apart in its log.
const HOSTS_TOLD_MAX: usize = 200;

/// What a connection comes to, told once for each host.
#[derive(Debug)]
pub(crate) enum Told {
    Reached(String),
    Refused(String),
}

/// Serves one build until dropped; tells each host it lets through or refuses, once.
pub(crate) async fn serve(
    listener: StdListener,
    rules: Arc<Rules>,
    tell: impl Fn(&str),
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut known = BTreeSet::new();
    let (telling, mut told) = tokio::sync::mpsc::channel(CONNECTIONS_MAX);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors, most likely: some connection has to end first.
                    connections.join_next().await;
                    continue;
                };
                let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
                let (rules, telling) = (rules.clone(), telling.clone());
                connections.spawn(async move {
                    tunnel::carry(stream, &rules, &telling).await;
                    drop(place);
                });
            }
            Some(one) = told.recv() => {
                let line = match one {
                    Told::Reached(host) => format!("reached {host}"),
                    Told::Refused(reason) => format!("refused: {reason}"),
                };
                if known.len() < HOSTS_TOLD_MAX && known.insert(line.clone()) {
                    tell(&line);
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
