//! One deployment as a gateway knows it: its slots' keepers, the connection to its supervisor, and whether calls may
//! still be given to it.
//!
//! A deployment that follows another one takes over with its first link: until then the old one goes on serving, so a
//! change of route is never a gap. Retiring ends keepers and idle links; a running call finishes on its own link, which
//! keeps the supervisor's word coming until it is done.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use millgate_contract::{
    ids::{CallId, ReplicaId, SlotIndex},
    route::DeploymentRoute,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    task::AbortHandle,
};

use super::{ahead::Pace, deaths::Deaths, keeper, link::Link, usage::Usage, watch};
use crate::{line::Line, metrics::Start};

/// Words to a supervisor that wait for it to listen: one for each slot is all that can be of use.
const EXPIRIES_MAX: usize = 256;

/// A call that ran past its deadline.
#[derive(Debug)]
pub(crate) struct Expiry {
    pub(crate) slot: SlotIndex,
    pub(crate) replica: ReplicaId,
    pub(crate) call: CallId,
}

/// A deployment that is routed to. Dropping it retires it.
pub(crate) struct Deployment {
    shared: Arc<Shared>,
    keepers: Vec<AbortHandle>,
}

/// What a deployment's keepers, links and calls know of it.
pub(crate) struct Shared {
    route: DeploymentRoute,
    gateway: String,
    line: Arc<Line<Link>>,
    deaths: Deaths,
    usage: Usage,
    pace: Pace,
    is_retired: AtomicBool,
    /// Why it cannot start, by its supervisor's word.
    failure: ArcSwapOption<String>,
    /// How its replicas are started, by its supervisor's word.
    start: ArcSwapOption<Start>,
    slots_connected: AtomicU16,
    /// Told at each change of [`Shared::slots_connected`], on behalf of the whole gateway.
    connected_changed: Arc<Notify>,
    expiries: mpsc::Sender<Expiry>,
    /// The deployment that serves until this one has its first link.
    predecessor: Mutex<Option<Arc<Deployment>>>,
}

/// What a new deployment is made with.
pub(crate) struct Founding {
    pub(crate) route: DeploymentRoute,
    pub(crate) gateway: String,
    pub(crate) line: Arc<Line<Link>>,
    pub(crate) connected_changed: Arc<Notify>,
    pub(crate) predecessor: Option<Arc<Deployment>>,
}

impl Deployment {
    /// Begins to connect to every slot and to the supervisor.
    pub(crate) fn found(founding: Founding, runtime: &Handle) -> Arc<Self> {
        let (expiries, expired) = mpsc::channel(EXPIRIES_MAX);
        let slots = founding.route.slots;
        let shared = Arc::new(Shared {
            route: founding.route,
            gateway: founding.gateway,
            line: founding.line,
            deaths: Deaths::default(),
            usage: Usage::default(),
            pace: Pace::default(),
            is_retired: AtomicBool::new(false),
            failure: ArcSwapOption::empty(),
            start: ArcSwapOption::empty(),
            slots_connected: AtomicU16::new(0),
            connected_changed: founding.connected_changed,
            expiries,
            predecessor: Mutex::new(founding.predecessor),
        });
        let keepers = (0..slots)
            .map(|slot| runtime.spawn(keeper::keep(Arc::clone(&shared), SlotIndex(slot))).abort_handle())
            .collect();
        // Ends by itself with the last one who knows the deployment.
        runtime.spawn(watch::watch(Arc::downgrade(&shared), watch::Address::of(&shared), expired));
        Arc::new(Self { shared, keepers })
    }

    /// What links know of it.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// No new call from now on.
    pub(crate) fn retire(&self) {
        self.shared.is_retired.store(true, Ordering::SeqCst);
        for keeper in &self.keepers {
            keeper.abort();
        }
        drop(self.shared.line.take_idle(|link| link.shared.is_retired()));
        self.shared.take_over();
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.retire();
    }
}

impl Shared {
    pub(crate) fn route(&self) -> &DeploymentRoute {
        &self.route
    }

    pub(crate) fn run_dir(&self) -> &Path {
        &self.route.run_dir
    }

    pub(crate) fn gateway(&self) -> &str {
        &self.gateway
    }

    pub(crate) fn line(&self) -> &Arc<Line<Link>> {
        &self.line
    }

    pub(crate) fn deaths(&self) -> &Deaths {
        &self.deaths
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// What its calls cost.
    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// A call that must wait may be sent to its replicas ahead.
    pub(crate) fn takes_ahead(&self) -> bool {
        self.pace.calls() > 0 || self.pace.near_end().is_some()
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }

    /// Why it cannot start, if its supervisor says so and nothing is connected.
    pub(crate) fn failure(&self) -> Option<Arc<String>> {
        if self.slots_connected() > 0 || self.is_preceded() { None } else { self.failure.load_full() }
    }

    /// The supervisor's word on whether it can start. Who waits is sent away with it when it cannot.
    pub(crate) fn set_failure(&self, reason: Option<String>) {
        let is_failure = reason.is_some();
        self.failure.store(reason.map(Arc::new));
        if is_failure && self.failure().is_some() && !self.is_retired() {
            self.line.dismiss();
        }
    }

    /// How its replicas are started, once its supervisor has said so.
    pub(crate) fn start(&self) -> Option<Arc<Start>> {
        self.start.load_full()
    }

    /// The supervisor's word on it.
    pub(crate) fn set_start(&self, start: Start) {
        self.start.store(Some(Arc::new(start)));
    }

    /// Slots whose replica has greeted and has not gone.
    pub(crate) fn slots_connected(&self) -> u16 {
        self.slots_connected.load(Ordering::Relaxed)
    }

    /// Slots that serve this deployment's calls: its own, and those of the one before it while that still serves.
    pub(crate) fn slots_serving(&self) -> u16 {
        let predecessor = self.predecessor.lock().unwrap_or_else(PoisonError::into_inner);
        let before = predecessor.as_ref().map_or(0, |p| p.shared.slots_serving());
        self.slots_connected() + before
    }

    /// A replica has greeted: the old deployment's time is over.
    pub(crate) fn connected(self: &Arc<Self>) -> Connected {
        self.slots_connected.fetch_add(1, Ordering::Relaxed);
        self.connected_changed.notify_one();
        Connected(Arc::clone(self))
    }

    /// Ends the deployment that served until now.
    pub(crate) fn take_over(&self) {
        let predecessor = self.predecessor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(predecessor) = predecessor {
            predecessor.retire();
        }
    }

    /// Tells the supervisor, as soon as it listens, that a call ran past its deadline.
    pub(crate) fn expire(&self, expiry: Expiry) {
        if let Err(unsent) = self.expiries.try_send(expiry) {
            tracing::warn!(deployment = %self.route.deployment, expiry = ?unsent.into_inner(), "the supervisor does not listen");
        }
    }

    /// The deployment before it still has replicas that serve.
    fn is_preceded(&self) -> bool {
        let predecessor = self.predecessor.lock().unwrap_or_else(PoisonError::into_inner);
        predecessor.as_ref().is_some_and(|p| p.shared.slots_connected() > 0 || p.shared.is_preceded())
    }
}

/// Counts a slot as connected while it lives.
pub(crate) struct Connected(Arc<Shared>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.slots_connected.fetch_sub(1, Ordering::Relaxed);
        self.0.connected_changed.notify_one();
    }
}
