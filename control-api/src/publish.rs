//! Publishes route snapshots to gateways, and takes the metrics they ship. A snapshot is made from the store whenever it may have changed and gets a
//! new generation only when it has; each connected gateway says which one it routes by, so that we know when no
//! gateway sends calls to a deployment any more. Refuses peers of another user.

mod outbox;
mod snapshot;

use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use millgate_contract::{
    ids::{DeploymentId, ModelId},
    limits, line,
    publication::{FromGateway, PUBLICATION_PROTOCOL, ToGateway},
    route::{RouteSnapshot, Target},
};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::{Mutex as AsyncMutex, mpsc, watch},
    task::JoinSet,
};

use crate::{
    app::App,
    fault::{Fault, Outcome},
    lines::{Lines, Overlong},
    metrics,
    reconcile::decide::Reach,
};
use outbox::Outbox;

/// A gateway that does not take a snapshot in this time is disconnected; it comes back and takes the newest.
const WRITE_WAIT: Duration = Duration::from_secs(10);
/// A gateway that does not send in this time the batch it has announced is disconnected.
const READ_WAIT: Duration = Duration::from_secs(10);
/// A gateway that routes by a snapshot and has not said in this time that it is connected to a deployment is
/// believed to be: it may have said so to the control API before this one.
const CONNECTED_WAIT: Duration = Duration::from_secs(10);

/// One edition, ready to be sent.
#[derive(Debug, Clone, Default)]
struct Edition {
    generation: u64,
    sealed: Bytes,
}

/// See the module.
pub(crate) struct Publisher {
    latest: watch::Sender<Edition>,
    /// The content of the latest, generation 0; also keeps two refreshes from crossing.
    content: AsyncMutex<Option<RouteSnapshot>>,
    known: Mutex<Known>,
    began: Instant,
    gateway_wait: Duration,
    /// Told when a gateway has said who it is.
    gateways_changed: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    /// Where each model's calls go ('' is nowhere), and since which generation.
    routes: HashMap<ModelId, RouteSince>,
    gateways: HashMap<u64, Gateway>,
    next_connection: u64,
    has_met_one: bool,
}

struct RouteSince {
    deployment: String,
    generation: u64,
    at: Instant,
}

#[derive(Default)]
struct Gateway {
    name: String,
    outbox: Outbox,
    acknowledged: u64,
    connected: HashSet<DeploymentId>,
}

impl Publisher {
    /// `gateway_wait`: how long after the start nothing is decided while no gateway has been heard of, since gateways of
    /// processes of their own may still route by an older edition.
    pub(crate) fn new(gateway_wait: Duration) -> Self {
        Self {
            latest: watch::Sender::new(Edition::default()),
            content: AsyncMutex::new(None),
            known: Mutex::default(),
            began: Instant::now(),
            gateway_wait,
            gateways_changed: watch::Sender::new(()),
        }
    }

    /// Publishes what the store says, if it differs from what was published.
    pub(crate) async fn refresh(&self, app: &App) -> Outcome<()> {
        let mut content = self.content.lock().await;
        let fresh = snapshot::read(app).await?;
        if content.as_ref() == Some(&fresh) {
            return Ok(());
        }
        let generation = app.store.next_generation().await?;
        let numbered = RouteSnapshot { generation, ..fresh.clone() };
        let sealed = Bytes::from(numbered.seal());
        if sealed.len() > limits::ROUTE_SNAPSHOT_BYTES_MAX {
            return Err(Fault::internal(format!(
                "a route snapshot of {} bytes is over the limit",
                sealed.len()
            )));
        }
        self.note_routes(&fresh, generation);
        self.latest.send_replace(Edition { generation, sealed });
        *content = Some(fresh);
        Ok(())
    }

    fn note_routes(&self, snapshot: &RouteSnapshot, generation: u64) {
        let mut known = self.known();
        let mut gone: HashSet<ModelId> = known.routes.keys().cloned().collect();
        for model in &snapshot.models {
            gone.remove(&model.model);
            let deployment = match &model.target {
                Target::Deployment(route) => route.deployment.as_str(),
                Target::Unavailable(_) => "",
            };
            known.change_route(&model.model, deployment, generation);
        }
        for model in gone {
            known.change_route(&model, "", generation);
        }
    }

    /// Which gateways send calls of `model` to `deployment`.
    pub(crate) fn reach(&self, model: &ModelId, deployment: &DeploymentId) -> Reach {
        let known = self.known();
        if !known.has_met_one && self.began.elapsed() < self.gateway_wait {
            return Reach::Underway;
        }
        // A model never published is not in any gateway's table of this server's life; older tables are
        // covered by the wait above.
        let Some(route) = known.routes.get(model) else { return Reach::Nowhere };
        if known.gateways.values().any(|g| g.acknowledged < route.generation) {
            return Reach::Underway;
        }
        if route.deployment != deployment.as_str() {
            return Reach::Nowhere;
        }
        let is_connected = known.gateways.values().all(|g| g.connected.contains(deployment))
            || route.at.elapsed() >= CONNECTED_WAIT;
        if is_connected { Reach::Everywhere } else { Reach::Underway }
    }

    /// Serves gateways until dropped.
    pub(crate) async fn serve(self: &Arc<Self>, listener: UnixListener, app: &App) {
        let mut gateways = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (this, app) = (self.clone(), app.clone());
                        gateways.spawn(async move { this.gateway(stream, &app).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot take a gateway's connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = gateways.join_next() => {}
            }
        }
    }

    async fn gateway(&self, stream: UnixStream, app: &App) {
        let own = nix::unistd::geteuid().as_raw();
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == own || peer.uid() == 0 => {}
            other => {
                tracing::warn!(?other, "refused a gateway of another user");
                return;
            }
        }
        let connection = {
            let mut known = self.known();
            known.next_connection += 1;
            known.next_connection
        };
        let result = self.converse(stream, connection, app).await;
        self.known().gateways.remove(&connection);
        app.wake.notify_one();
        if let Err(error) = result {
            tracing::info!(connection, %error, "a gateway's connection ended");
        }
    }

    async fn converse(&self, stream: UnixStream, connection: u64, app: &App) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = Lines::new(read, limits::MESSAGE_BYTES_MAX, Overlong::Refuse);
        let hello = ToGateway::Hello {
            protocol: PUBLICATION_PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            takes_metrics: true,
        };
        write.write_all(&line::encode(&hello)).await?;
        let mut latest = self.latest.subscribe();
        latest.mark_changed();
        let (words, mut wanted) = mpsc::channel(outbox::WORDS_MAX);
        // One batch at a time; dropped with the connection, and then shipped again.
        let mut keeping = JoinSet::new();
        loop {
            tokio::select! {
                said = lines.next() => {
                    let Some(said) = said? else { return Ok(()) };
                    let message = line::decode(&said).map_err(invalid)?;
                    if let FromGateway::Metrics { batch, bytes } = message {
                        if bytes > limits::METRICS_BATCH_BYTES_MAX || !keeping.is_empty() {
                            return Err(invalid("a batch over its bound, or before the last one was kept"));
                        }
                        let records = tokio::time::timeout(READ_WAIT, lines.bytes(bytes)).await??;
                        let app = app.clone();
                        keeping.spawn(async move {
                            metrics::keep(&app, records.into()).await;
                            batch
                        });
                        continue;
                    }
                    self.heard(connection, message, &words);
                    app.wake.notify_one();
                }
                Some(kept) = keeping.join_next() => {
                    // A panic's words are in the log; the gateway ships the batch to the next connection.
                    let kept = ToGateway::Kept { batch: kept.map_err(std::io::Error::other)? };
                    say(&mut write, &kept).await?;
                }
                Some(word) = wanted.recv() => say(&mut write, &word).await?,
                changed = latest.changed(), if self.has_said_hello(connection) => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let edition = latest.borrow_and_update().clone();
                    if edition.generation > 0 {
                        tokio::time::timeout(WRITE_WAIT, send(&mut write, &edition)).await??;
                    }
                }
            }
        }
    }

    fn has_said_hello(&self, connection: u64) -> bool {
        self.known().gateways.contains_key(&connection)
    }

    fn heard(&self, connection: u64, message: FromGateway, words: &mpsc::Sender<ToGateway>) {
        let mut known = self.known();
        match message {
            FromGateway::Hello { gateway, version, generation, ships_metrics, .. } => {
                tracing::info!(connection, gateway, version, generation, "a gateway has connected");
                known.has_met_one = true;
                let outbox = Outbox::open(ships_metrics.then(|| words.clone()));
                let gateway =
                    Gateway { name: gateway, outbox, acknowledged: generation, connected: HashSet::new() };
                known.gateways.insert(connection, gateway);
                self.gateways_changed.send_replace(());
            }
            FromGateway::Acknowledged { generation } => {
                if let Some(gateway) = known.gateways.get_mut(&connection) {
                    gateway.acknowledged = gateway.acknowledged.max(generation);
                }
            }
            FromGateway::Rejected { generation, reason } => {
                tracing::error!(connection, ?generation, reason, "a gateway refused a route snapshot");
            }
            FromGateway::Connected { deployment, slots } => {
                if let Some(gateway) = known.gateways.get_mut(&connection) {
                    if slots > 0 {
                        gateway.connected.insert(deployment);
                    } else {
                        gateway.connected.remove(&deployment);
                    }
                }
            }
            FromGateway::Flushed { flush } => {
                if let Some(gateway) = known.gateways.get_mut(&connection) {
                    gateway.outbox.flushed(flush);
                }
            }
            // A batch is read where its bytes are.
            FromGateway::Metrics { .. } | FromGateway::Unknown => {}
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn change_route(&mut self, model: &ModelId, deployment: &str, generation: u64) {
        let is_same = self.routes.get(model).is_some_and(|route| route.deployment == deployment);
        if !is_same {
            let route = RouteSince { deployment: deployment.to_owned(), generation, at: Instant::now() };
            self.routes.insert(model.clone(), route);
        }
    }
}

/// Binds the socket gateways connect to; one left by a server that was killed is replaced.
pub(crate) fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why)
}

async fn say(write: &mut (impl AsyncWriteExt + Unpin), message: &ToGateway) -> std::io::Result<()> {
    tokio::time::timeout(WRITE_WAIT, write.write_all(&line::encode(message))).await?
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), edition: &Edition) -> std::io::Result<()> {
    let head = ToGateway::Snapshot { generation: edition.generation, bytes: edition.sealed.len() };
    write.write_all(&line::encode(&head)).await?;
    write.write_all(&edition.sealed).await
}
