//! The gateway as one value: its route table, its tasks, and what its owner may ask of it.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use arc_swap::{ArcSwapOption, Guard};
use millgate_contract::{
    ids::{DeploymentId, KeyId},
    route::RouteSnapshot,
};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{Notify, Semaphore},
};

use crate::{
    authentication::{Doorkeeper, now_s},
    call_log::{CallLog, CallLogConfig},
    config::GatewayConfig,
    follow,
    http::{self, Fallback},
    keys::{KeyFacts, KeyInvalid, Look, PREFIX, Unverified},
    line::Budget,
    metrics::{Metrics, Phase},
    openid::OpenId,
    presence::Presence,
    rates::{self, KeyedLimiter, Policy},
    request_id::RequestIds,
    routes::{ApplyError, Builder, RouteTable},
    snapshot_file,
    spans::{SpansConfig, Tracer},
    tasks::Tasks,
};

/// The data plane. Cloning it is cheap and gives the same gateway.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

/// What became of a snapshot that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is routed by from now on.
    Routed,
    /// Its generation was already routed by.
    Unchanged,
}

pub(crate) struct Inner {
    pub(crate) config: GatewayConfig,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) request_ids: RequestIds,
    pub(crate) doorkeeper: Doorkeeper,
    /// One event for each call, where they are kept.
    pub(crate) call_log: Option<CallLog>,
    /// Spans of calls, where they are sent.
    pub(crate) tracer: Option<Tracer>,
    pub(crate) presence: Presence,
    /// Large bodies that may be split at once.
    pub(crate) splits: Arc<Semaphore>,
    pub(crate) key_rate: Option<KeyedLimiter<KeyId>>,
    openid: Option<OpenId>,
    /// The bodies in all lines.
    waiting_bytes: Arc<Budget>,
    /// Told when a slot's connection comes or goes.
    pub(crate) connected_changed: Arc<Notify>,
    is_draining: AtomicBool,
    is_succeeded: AtomicBool,
    runtime: Handle,
    table: ArcSwapOption<RouteTable>,
    /// One snapshot at a time.
    applying: Mutex<()>,
}

impl Gateway {
    /// A gateway that routes by its last good snapshot, if its file holds one; a bad file is logged and counted.
    ///
    /// # Panics
    /// Outside a tokio runtime: connections to replicas are tasks.
    pub fn new(config: GatewayConfig) -> Self {
        let runtime = Handle::current();
        let mut metrics = Metrics::new(config.key_series_max);
        if let Some(spool) = &config.spool {
            metrics.register_spool(spool.metrics());
        }
        if let Some(damaged) = &config.damaged_builds {
            metrics.register_damaged_builds(damaged.clone());
        }
        let inner = Arc::new(Inner {
            call_log: config.call_log.clone().and_then(|of| open_call_log(of, &metrics)),
            tracer: config.spans.as_ref().and_then(|of| start_tracer(of, &config.name, &metrics)),
            tasks: Arc::new(Tasks::new(runtime.clone())),
            request_ids: RequestIds::new(),
            doorkeeper: Doorkeeper::new(&config),
            presence: Presence::new(config.busy_poll_us),
            splits: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
            key_rate: config
                .key_rate
                .map(|rate| KeyedLimiter::new(Policy { name: rates::KEY, rate }, config.rate_keys_max)),
            openid: config
                .openid
                .clone()
                .map(|of| OpenId::new(of, config.verdicts_max, Arc::clone(&metrics.edges), &runtime)),
            metrics,
            waiting_bytes: Budget::new(config.waiting_bytes_max),
            connected_changed: Arc::new(Notify::new()),
            is_draining: AtomicBool::new(false),
            is_succeeded: AtomicBool::new(false),
            runtime,
            table: ArcSwapOption::empty(),
            applying: Mutex::new(()),
            config,
        });
        let gateway = Self { inner };
        gateway.restore();
        gateway
    }

    /// Routes by this snapshot from now on, if it is newer than the one in use. Models that did not change keep their
    /// connections and lines; one that moves to another deployment is served by the old one until the new one is
    /// connected.
    pub fn apply(&self, snapshot: RouteSnapshot) -> Result<Applied, ApplyError> {
        self.inner.apply(snapshot)
    }

    /// Accepts callers until `shutdown` resolves, then lets running calls end, for at most
    /// [`GatewayConfig::drain_ms_max`]. `other` answers every request that is not a model call.
    pub async fn serve(
        &self,
        listener: TcpListener,
        other: Fallback,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        http::accept::serve(Arc::clone(&self.inner), listener, other, shutdown).await
    }

    /// Answers `/live`, `/ready` and `/metrics` until `shutdown` resolves.
    pub async fn serve_admin(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        http::admin::serve(Arc::clone(&self.inner), listener, shutdown).await
    }

    /// Follows what the control API publishes at this socket, for ever; without it calls go on as they are.
    pub async fn follow(&self, publication_socket: PathBuf) {
        follow::follow(&self.inner, publication_socket).await;
    }

    /// Reads the TLS certificate again, though nobody has seen it change. A bad one is refused, and the old one stays.
    pub fn reload_certificate(&self) {
        if let Some(tls) = &self.inner.config.tls {
            tls.reload(&self.inner.metrics.edges);
        }
    }

    /// Another process accepts at this gateway's address now. Said before the `shutdown` of [`Gateway::serve`] resolves,
    /// it makes the drain lose nothing: connections that are kept alive are answered once more, and told that it was
    /// the last time, before they are closed.
    pub fn succeeded(&self) {
        self.inner.is_succeeded.store(true, Ordering::Relaxed);
    }

    /// True when calls would be routed now, each to a deployment of which a replica is connected.
    pub fn is_connected(&self) -> bool {
        self.inner.is_ready() && self.connected().values().all(|slots| *slots > 0)
    }

    /// The generation that is routed by; 0 without one.
    pub fn generation(&self) -> u64 {
        self.inner.generation()
    }

    /// How many slots of each deployment are connected.
    pub fn connected(&self) -> HashMap<DeploymentId, u16> {
        self.inner.connected()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    fn restore(&self) {
        let Some(file) = &self.inner.config.snapshot_file else { return };
        let restored = snapshot_file::load(file).map(|snapshot| snapshot.map(|s| self.apply(s)));
        match restored {
            Ok(None) => {}
            Ok(Some(Ok(_))) => {
                self.inner.metrics.routed(self.generation(), snapshot_file::kept_at(file));
                tracing::info!(generation = self.generation(), "routing by the last good snapshot");
            }
            Ok(Some(Err(error))) => self.inner.rejected(&error),
            Err(error) => self.inner.rejected(&error),
        }
    }
}

impl Inner {
    pub(crate) fn apply(&self, snapshot: RouteSnapshot) -> Result<Applied, ApplyError> {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table.load_full();
        if old.as_ref().is_some_and(|old| old.generation == snapshot.generation) {
            return Ok(Applied::Unchanged);
        }
        let builder = Builder {
            config: &self.config,
            metrics: &self.metrics,
            runtime: &self.runtime,
            connected_changed: &self.connected_changed,
            waiting_bytes: &self.waiting_bytes,
        };
        let new = Arc::new(builder.build(snapshot, old.as_deref())?);
        self.metrics.routed(new.generation, SystemTime::now());
        self.table.store(Some(Arc::clone(&new)));
        self.metrics.keys.forget(|key, _| new.revoked.contains(key));
        if let Some(old) = old {
            // Only now: nobody who looks at the table from here on finds what ends.
            builder.part(&old, &new);
        }
        self.connected_changed.notify_one();
        Ok(Applied::Routed)
    }

    /// The table of this moment.
    pub(crate) fn table(&self) -> Guard<Option<Arc<RouteTable>>> {
        self.table.load()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.table.load().as_ref().map_or(0, |table| table.generation)
    }

    pub(crate) fn connected(&self) -> HashMap<DeploymentId, u16> {
        let table = self.table.load();
        let deployments = table.iter().flat_map(|t| t.routes()).filter_map(|r| r.deployment.as_ref());
        deployments.map(|d| (d.shared().route().deployment.clone(), d.shared().slots_connected())).collect()
    }

    /// What is known of the key of a call. Keys of ours have their prefix, tokens of the issuer have not.
    pub(crate) fn look_at_key<'a>(&self, key: &'a str, now_s: u64) -> Look<'a> {
        match (&self.openid, &*self.table()) {
            (Some(openid), _) if !key.starts_with(PREFIX) => openid.look(key, now_s),
            (_, Some(table)) => table.keys.look(key, now_s, &table.revoked),
            (_, None) => Look::Bad,
        }
    }

    /// Waits for what the signature of a key is checked with, where it may yet come.
    pub(crate) async fn prepare_key(&self, key: &str) {
        if let Some(openid) = &self.openid
            && !key.starts_with(PREFIX)
        {
            openid.prepare(key).await;
        }
    }

    /// Checks the signature of a key that [`Inner::look_at_key`] did not know.
    pub(crate) fn verify_key(
        &self,
        key: &str,
        unverified: Unverified<'_>,
        now_s: u64,
    ) -> Result<Arc<KeyFacts>, KeyInvalid> {
        match (&self.openid, &*self.table()) {
            (Some(openid), _) if !key.starts_with(PREFIX) => openid.verify(unverified, now_s),
            (_, Some(table)) => table.keys.verify(unverified, now_s, &table.revoked),
            (_, None) => Err(KeyInvalid),
        }
    }

    /// Counts and logs a snapshot that is not routed by.
    pub(crate) fn rejected(&self, error: &(dyn std::error::Error + 'static)) {
        self.metrics.snapshots_rejected.inc();
        tracing::error!(error = %error, generation = self.generation(), "route snapshot refused, the old one stays");
    }

    /// From now on this gateway is not ready.
    pub(crate) fn begin_drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    pub(crate) fn is_succeeded(&self) -> bool {
        self.is_succeeded.load(Ordering::Relaxed)
    }

    /// A call would be routed now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_draining() && self.table.load().is_some()
    }

    fn phase(&self) -> Phase {
        match (self.is_succeeded(), self.is_draining(), self.table.load().is_some()) {
            (true, _, _) => Phase::HandedOver,
            (_, true, _) => Phase::Draining,
            (_, _, false) => Phase::Starting,
            (_, _, true) => Phase::Serving,
        }
    }

    /// The page of figures, with what is true just now. Reads files: not for a thread that serves calls.
    pub(crate) fn metrics_page(&self) -> String {
        for route in self.table.load().iter().flat_map(|t| t.routes()) {
            let start = route.start();
            route.metrics.add_usage(&route.take_usage());
            route.metrics.set_state(route.line.census(), route.slots_serving(), start.as_deref());
        }
        let now_s = now_s();
        self.metrics.keys.forget(|_, expires_at_s| expires_at_s <= now_s);
        self.metrics.page(self.phase())
    }
}

/// Calls are answered without it, too.
fn open_call_log(config: CallLogConfig, metrics: &Metrics) -> Option<CallLog> {
    CallLog::open(config, metrics.call_events_lost.clone())
        .inspect_err(|error| tracing::error!(%error, "events of calls are not kept"))
        .ok()
}

/// The same of spans.
fn start_tracer(config: &SpansConfig, instance: &str, metrics: &Metrics) -> Option<Tracer> {
    Tracer::start(config, instance, metrics.spans.clone())
        .inspect_err(|error| tracing::error!(%error, "spans of calls are not sent"))
        .ok()
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Idle links, lines and deployments know each other; retiring lets go of all of them.
        if let Some(table) = self.table.swap(None) {
            table.retire();
        }
    }
}
