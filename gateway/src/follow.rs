//! The gateway's side of the publication socket: snapshots in, acknowledgements, connected slots and tracked metrics out.
//!
//! What is said is written by a task of its own: two sides that both waited until the other one reads would wait for
//! ever.
//!
//! Whatever happens here, calls go on by the table in use. A snapshot that is too large, damaged or not usable is
//! refused, counted and named to the publisher. The publisher must run under our own uid or root's.

use std::{collections::HashMap, io, path::PathBuf, time::Duration};

use bytes::Bytes;
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
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    gateway::Inner,
    lines::{Lines, LinesError},
    routes::ApplyError,
    slots::link::connect,
    snapshot_file::Saver,
    spool::Courier,
};

/// The first pause after a connection that failed.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest: how late a gateway may notice that the control API is there again.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Messages that wait until the publisher reads. One that lets more come together is given up.
const MESSAGES_MAX: usize = 1_024;
/// How long the last messages may take to be written.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

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
    #[error("the publisher does not read")]
    Deaf,
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
    let mut courier = inner.config.spool.as_ref().map(Courier::new);
    let config = &inner.config;
    let mut saver = Saver::new(config.snapshot_file.clone(), inner.metrics.snapshot_unsaved.clone());
    loop {
        saver.again().await;
        if let Some(courier) = &mut courier {
            courier.connect();
        }
        let error = match Publication::open(inner, &socket, courier.as_mut(), &mut saver).await {
            Ok(mut publication) => {
                tracing::info!(socket = %socket.display(), "following the control API");
                pause = PAUSE_MIN;
                inner.metrics.control_connected.set(1);
                let error = publication.run().await;
                inner.metrics.control_connected.set(0);
                publication.close().await;
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
    outbox: mpsc::Sender<Bytes>,
    /// Writes what is in the outbox; ends with this value.
    writing: JoinSet<io::Result<()>>,
    courier: Option<&'a mut Courier>,
    saver: &'a mut Saver,
    /// What the publisher has been told of connected slots.
    told: HashMap<DeploymentId, u16>,
}

impl<'a> Publication<'a> {
    async fn open(
        inner: &'a Inner,
        socket: &std::path::Path,
        courier: Option<&'a mut Courier>,
        saver: &'a mut Saver,
    ) -> Result<Self, FollowError> {
        let stream = connect(socket).await?;
        let publisher = stream.peer_cred()?.uid();
        if publisher != own_uid()? && publisher != 0 {
            return Err(FollowError::Stranger(publisher));
        }
        let (reader, writer) = stream.into_split();
        let lines = Lines::new(reader, MESSAGE_BYTES_MAX);
        let (outbox, messages) = mpsc::channel(MESSAGES_MAX);
        let mut writing = JoinSet::new();
        writing.spawn(write(writer, messages));
        let publication = Self { inner, lines, outbox, writing, courier, saver, told: HashMap::new() };
        publication.say(&FromGateway::Hello {
            protocol: PUBLICATION_PROTOCOL,
            gateway: inner.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: inner.generation(),
            ships_metrics: publication.courier.is_some(),
        })?;
        Ok(publication)
    }

    async fn run(&mut self) -> FollowError {
        loop {
            if let Err(error) = self.tell_connected() {
                return error;
            }
            let step = tokio::select! {
                biased;
                message = self.lines.next() => match message {
                    Ok(Some(message)) => self.heard(&message).await,
                    Ok(None) => Err(FollowError::Closed),
                    Err(error) => Err(error.into()),
                },
                Some(written) = self.writing.join_next() => {
                    Err(written.map_err(io::Error::other).flatten().err().map_or(FollowError::Closed, Into::into))
                }
                () = self.inner.connected_changed.notified() => Ok(()),
                () = self.saver.due() => {
                    self.saver.again().await;
                    Ok(())
                }
                () = due(self.courier.as_deref_mut()) => self.ship().await,
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    /// Lets what was said last be written.
    async fn close(mut self) {
        drop(self.outbox);
        let _ = tokio::time::timeout(CLOSE_WAIT, self.writing.join_next()).await;
    }

    async fn heard(&mut self, message: &[u8]) -> Result<(), FollowError> {
        match line::decode(message)? {
            ToGateway::Hello { protocol: PUBLICATION_PROTOCOL, takes_metrics, .. } => {
                if let Some(courier) = &mut self.courier {
                    courier.greeted(takes_metrics);
                }
                Ok(())
            }
            ToGateway::Hello { protocol, .. } => Err(FollowError::Protocol(protocol)),
            ToGateway::Snapshot { generation, bytes } if bytes > ROUTE_SNAPSHOT_BYTES_MAX => {
                let error = FollowError::TooLarge(bytes);
                self.inner.rejected(&error);
                let reason = error.to_string();
                self.say(&FromGateway::Rejected { generation: Some(generation), reason })?;
                Err(error)
            }
            ToGateway::Snapshot { generation, bytes } => {
                let sealed = self.lines.bytes(bytes).await?.ok_or(FollowError::Closed)?;
                let answer = match self.route_by(&sealed) {
                    Ok(generation) => {
                        self.saver.save(sealed).await;
                        FromGateway::Acknowledged { generation }
                    }
                    Err(error) => {
                        self.inner.rejected(&error);
                        FromGateway::Rejected { generation: Some(generation), reason: error.to_string() }
                    }
                };
                self.say(&answer)
            }
            ToGateway::Kept { batch } => {
                if let Some(courier) = &mut self.courier {
                    courier.kept(batch);
                }
                Ok(())
            }
            ToGateway::Flush { flush } => {
                if let Some(courier) = &mut self.courier {
                    courier.flush(flush);
                }
                Ok(())
            }
            ToGateway::Unknown => Ok(()),
        }
    }

    async fn ship(&mut self) -> Result<(), FollowError> {
        let Some(courier) = &mut self.courier else { return Ok(()) };
        let said = courier.step().await;
        said.into_iter().try_for_each(|message| self.send(message))
    }

    fn route_by(&self, sealed: &[u8]) -> Result<u64, Refused> {
        let snapshot = RouteSnapshot::open(sealed)?;
        let generation = snapshot.generation;
        self.inner.apply(snapshot)?;
        Ok(generation)
    }

    fn tell_connected(&mut self) -> Result<(), FollowError> {
        let connected = self.inner.connected();
        for (deployment, slots) in &connected {
            if self.told.get(deployment).copied().unwrap_or(0) != *slots {
                self.say(&FromGateway::Connected { deployment: deployment.clone(), slots: *slots })?;
            }
        }
        self.told = connected;
        Ok(())
    }

    fn say(&self, message: &FromGateway) -> Result<(), FollowError> {
        self.send(line::encode(message).into())
    }

    fn send(&self, message: Bytes) -> Result<(), FollowError> {
        self.outbox.try_send(message).map_err(|_| FollowError::Deaf)
    }
}

async fn write(mut writer: OwnedWriteHalf, mut messages: mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(message) = messages.recv().await {
        writer.write_all(&message).await?;
    }
    Ok(())
}

/// Resolves when there may be something to ship.
async fn due(courier: Option<&mut Courier>) {
    match courier {
        Some(courier) => courier.due().await,
        None => std::future::pending().await,
    }
}

/// Our effective uid, as the kernel tells it to a peer.
fn own_uid() -> io::Result<u32> {
    Ok(UnixStream::pair()?.0.peer_cred()?.uid())
}
