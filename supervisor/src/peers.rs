//! `control.sock`: gateways and the control API. Each is told everything, in order; one that does not read is dropped
//! and may connect again. Only processes of our own user, and root, are heard.

use std::{collections::BTreeMap, io, os::fd::AsFd, sync::Arc};

use millgate_contract::{
    limits::MESSAGE_BYTES_MAX,
    line,
    supervision::{FromSupervisor, Peer, ToSupervisor},
};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    conductor::Happening,
    limits::{PEER_LINES_MAX, PEERS_MAX},
    process::Task,
};

/// Which connection; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PeerId(u64);

/// Every connected peer.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    next: u64,
    connected: BTreeMap<PeerId, Connected>,
    writers: JoinSet<()>,
}

#[derive(Debug)]
struct Connected {
    lines: mpsc::Sender<Arc<[u8]>>,
    _reader: Task,
}

impl Peers {
    pub(crate) fn is_empty(&self) -> bool {
        self.connected.is_empty()
    }

    /// Takes a connection, and tells it what every peer is told first.
    pub(crate) fn add(
        &mut self,
        stream: UnixStream,
        first: impl Iterator<Item = FromSupervisor>,
        happenings: &mpsc::Sender<Happening>,
    ) {
        if self.connected.len() >= PEERS_MAX {
            tracing::warn!(limit = PEERS_MAX, "too many peers; one is turned away");
            return;
        }
        let id = PeerId(self.next);
        self.next += 1;
        let (lines, queue) = mpsc::channel(PEER_LINES_MAX);
        for message in first {
            if lines.try_send(line::encode(&message).into()).is_err() {
                return;
            }
        }
        let (from, to) = stream.into_split();
        self.writers.spawn(write(to, queue));
        let reader = Task::spawn(read(id, from, happenings.clone()));
        self.connected.insert(id, Connected { lines, _reader: reader });
    }

    pub(crate) fn remove(&mut self, id: PeerId) {
        self.connected.remove(&id);
        while self.writers.try_join_next().is_some() {}
    }

    /// Tells all of them.
    pub(crate) fn tell(&mut self, message: &FromSupervisor) {
        let bytes: Arc<[u8]> = line::encode(message).into();
        self.connected.retain(|id, peer| {
            let is_reading = peer.lines.try_send(Arc::clone(&bytes)).is_ok();
            if !is_reading {
                tracing::warn!(?id, "a peer does not read and is dropped");
            }
            is_reading
        });
    }

    /// Tells one of them, if it is still there.
    pub(crate) fn tell_one(&self, id: PeerId, message: &FromSupervisor) {
        if let Some(peer) = self.connected.get(&id) {
            // One that does not read has asked for nothing.
            let _ = peer.lines.try_send(line::encode(message).into());
        }
    }

    /// Lets what was said reach the peers, and hangs up.
    pub(crate) async fn finish(mut self) {
        self.connected.clear();
        while self.writers.join_next().await.is_some() {}
    }
}

/// Accepts peers for as long as the supervisor lives.
pub(crate) async fn accept(listener: UnixListener, happenings: mpsc::Sender<Happening>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_ours(&stream) => {
                let _ = happenings.send(Happening::PeerCame { stream }).await;
            }
            Ok(_) => tracing::warn!("a peer of another user is turned away"),
            Err(error) => {
                // Out of descriptors, most likely: there will be some when something else ends.
                tracing::warn!(%error, "a peer cannot be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

fn is_ours(stream: &UnixStream) -> bool {
    getsockopt(&stream.as_fd(), PeerCredentials)
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw())
}

async fn write(mut to: OwnedWriteHalf, mut queue: mpsc::Receiver<Arc<[u8]>>) {
    while let Some(bytes) = queue.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read(id: PeerId, from: OwnedReadHalf, happenings: mpsc::Sender<Happening>) {
    if let Err(error) = read_messages(id, from, &happenings).await {
        tracing::warn!(?id, %error, "a peer is dropped");
    }
    let _ = happenings.send(Happening::PeerGone { peer: id }).await;
}

async fn read_messages(
    id: PeerId,
    from: OwnedReadHalf,
    happenings: &mpsc::Sender<Happening>,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    let mut kind: Option<Peer> = None;
    loop {
        bytes.clear();
        let count = (&mut from).take(MESSAGE_BYTES_MAX as u64).read_until(b'\n', &mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        if bytes.last() != Some(&b'\n') {
            return Err(io::Error::other("a line is cut short or too long"));
        }
        match (line::decode::<ToSupervisor>(&bytes), kind) {
            (Ok(ToSupervisor::Hello { protocol, peer, name }), None) => {
                tracing::info!(?id, ?peer, name, protocol, "a peer says hello");
                kind = Some(peer);
            }
            (_, None) => return Err(io::Error::other("it did not begin with `hello`")),
            (Ok(message), Some(_)) => {
                let _ = happenings.send(Happening::PeerSaid { peer: id, message }).await;
            }
            // A newer peer may say what we do not know yet.
            (Err(error), Some(_)) => tracing::warn!(?id, %error, "a message is skipped"),
        }
    }
}
