//! The gateway's side of the publication socket: snapshots in, acknowledgements and connected slots out.
//!
//! Whatever happens here, calls go on by the table in use. A snapshot that is too large, damaged or not usable is
//! refused, counted and named to the publisher. The publisher must run under our own uid or root's.

use std::{collections::HashMap, io, path::PathBuf, time::Duration};

use millgate_contract::{
    ids::DeploymentId,
    limits::{MESSAGE_BYTES_MAX, ROUTE_SNAPSHOT_BYTES_MAX},
    line,
    publication::{FromGateway, PUBLICATION_PROTOCOL, ToGateway},
    route::{RouteSnapshot, SnapshotError},
};
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{
    gateway::Inner,
    lines::{Lines, LinesError},
    routes::ApplyError,
    slots::link::connect,
    snapshot_file,
};

/// The first pause after a connection that failed.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest: how late a gateway may notice that the control API is there again.
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("not connected: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Lines(#[from] LinesError),
    #[error(transparent)]
    Message(#[from] line::MessageError),
    #[error("the publisher runs under uid {0}, which is neither ours nor root's")]
    Stranger(u32),
    #[error("the publisher speaks version {0}, this gateway {PUBLICATION_PROTOCOL}")]
    Protocol(u16),
    #[error("the publisher has closed the connection")]
    Closed,
    #[error("a snapshot of {0} bytes is over the limit")]
    TooLarge(usize),
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Follows for ever.
pub(crate) async fn follow(inner: &Inner, socket: PathBuf) {
    let mut pause = PAUSE_MIN;
    loop {
        let error = match Publication::open(inner, &socket).await {
            Ok(mut publication) => {
                tracing::info!(socket = %socket.display(), "following the control API");
                pause = PAUSE_MIN;
                inner.metrics.control_connected.set(1);
                let error = publication.run().await;
                inner.metrics.control_connected.set(0);
                error
            }
            Err(error) => error,
        };
        tracing::debug!(socket = %socket.display(), %error, "not following the control API");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

struct Publication<'a> {
    inner: &'a Inner,
    lines: Lines<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// What the publisher has been told of connected slots.
    told: HashMap<DeploymentId, u16>,
}

impl<'a> Publication<'a> {
    async fn open(inner: &'a Inner, socket: &std::path::Path) -> Result<Self, FollowError> {
        let stream = connect(socket).await?;
        let publisher = stream.peer_cred()?.uid();
        if publisher != own_uid()? && publisher != 0 {
            return Err(FollowError::Stranger(publisher));
        }
        let (reader, writer) = stream.into_split();
        let lines = Lines::new(reader, MESSAGE_BYTES_MAX);
        let mut publication = Self { inner, lines, writer, told: HashMap::new() };
        publication
            .say(&FromGateway::Hello {
                protocol: PUBLICATION_PROTOCOL,
                gateway: inner.config.name.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                generation: inner.generation(),
            })
            .await?;
        Ok(publication)
    }

    async fn run(&mut self) -> FollowError {
        loop {
            if let Err(error) = self.tell_connected().await {
                return error;
            }
            let step = tokio::select! {
                biased;
                message = self.lines.next() => match message {
                    Ok(Some(message)) => self.heard(&message).await,
                    Ok(None) => Err(FollowError::Closed),
                    Err(error) => Err(error.into()),
                },
                () = self.inner.connected_changed.notified() => Ok(()),
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    async fn heard(&mut self, message: &[u8]) -> Result<(), FollowError> {
        match line::decode(message)? {
            ToGateway::Hello { protocol: PUBLICATION_PROTOCOL, .. } => Ok(()),
            ToGateway::Hello { protocol, .. } => Err(FollowError::Protocol(protocol)),
            ToGateway::Snapshot { generation, bytes } if bytes > ROUTE_SNAPSHOT_BYTES_MAX => {
                let error = FollowError::TooLarge(bytes);
                self.inner.rejected(&error);
                let reason = error.to_string();
                self.say(&FromGateway::Rejected { generation: Some(generation), reason }).await?;
                Err(error)
            }
            ToGateway::Snapshot { generation, bytes } => {
                let sealed = self.lines.bytes(bytes).await?.ok_or(FollowError::Closed)?;
                let answer = match self.route_by(&sealed) {
                    Ok(generation) => {
                        self.keep(sealed).await;
                        FromGateway::Acknowledged { generation }
                    }
                    Err(error) => {
                        self.inner.rejected(&error);
                        FromGateway::Rejected { generation: Some(generation), reason: error.to_string() }
                    }
                };
                self.say(&answer).await
            }
        }
    }

    fn route_by(&self, sealed: &[u8]) -> Result<u64, Refused> {
        let snapshot = RouteSnapshot::open(sealed)?;
        let generation = snapshot.generation;
        self.inner.apply(snapshot)?;
        Ok(generation)
    }

    /// Keeps the snapshot for the next start. A disk that fails takes nothing from the calls of now.
    async fn keep(&self, sealed: bytes::Bytes) {
        let Some(file) = self.inner.config.snapshot_file.clone() else { return };
        let path = file.display().to_string();
        let saved = tokio::task::spawn_blocking(move || snapshot_file::save(&file, &sealed)).await;
        if let Err(error) = saved.map_err(io::Error::other).flatten() {
            tracing::error!(%error, file = path, "the route snapshot could not be saved");
        }
    }

    async fn tell_connected(&mut self) -> Result<(), FollowError> {
        let connected = self.inner.connected();
        for (deployment, slots) in &connected {
            if self.told.get(deployment).copied().unwrap_or(0) != *slots {
                self.say(&FromGateway::Connected { deployment: deployment.clone(), slots: *slots }).await?;
            }
        }
        self.told = connected;
        Ok(())
    }

    async fn say(&mut self, message: &FromGateway) -> Result<(), FollowError> {
        Ok(self.writer.write_all(&line::encode(message)).await?)
    }
}

/// Our effective uid, as the kernel tells it to a peer.
fn own_uid() -> io::Result<u32> {
    Ok(UnixStream::pair()?.0.peer_cred()?.uid())
}
