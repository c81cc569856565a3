//! A call in search of a replica: its place in line, the clock of its waiting, and a new try whenever the last one is
//! proven not to have started it.
//!
//! Two clocks: waiting ends at a fixed moment after arrival, tries that came to nothing included; running has the
//! model's time anew at each try.

use std::{sync::Arc, time::Duration};

use millgate_contract::{frame::Done, ids::ReplicaId, refusal::Refusal};
use tokio::time::{Instant, timeout_at};

use crate::{
    call::{self, Attempt, Order},
    gateway::Inner,
    line::{Lease, Ticket, Turned},
    routes::Route,
    slots::{deployment::Shared, link::Link},
};

/// Where a call ran.
pub(crate) struct Ran {
    pub(crate) replica: ReplicaId,
    pub(crate) shared: Arc<Shared>,
    /// From the first byte written to the last one read.
    pub(crate) took: Duration,
}

/// How a search ended.
pub(crate) struct Found {
    /// The replica's answer, or why there is none.
    pub(crate) end: Result<Done, Refusal>,
    /// The replica that ran it, if one did or may have.
    pub(crate) ran: Option<Ran>,
    /// How long it waited for replicas.
    pub(crate) waited: Duration,
}

/// Runs a call at most once.
pub(crate) async fn dispatch(inner: &Inner, route: &Arc<Route>, order: &Order<'_>) -> Found {
    let arrival = Instant::now();
    let wait_until = arrival + Duration::from_millis(inner.config.wait_ms_max);
    let mut ticket = route.line.ticket();
    let mut route = Arc::clone(route);
    loop {
        let leased = lease(inner, &mut route, ticket, order.body.len(), wait_until).await;
        let begun = Instant::now();
        let waited = begun - arrival;
        let link = match leased {
            Ok(link) => link,
            Err(refusal) => return Found { end: Err(refusal), ran: None, waited },
        };
        let (replica, shared) = (link.hello.replica.clone(), Arc::clone(&link.shared));
        let end = match call::run(link, order).await {
            Attempt::NotStarted => {
                inner.metrics.retries.inc();
                ticket = ticket.again();
                continue;
            }
            Attempt::Done(done) => Ok(done),
            Attempt::Crashed => Err(Refusal::ReplicaCrashed),
            Attempt::TimedOut => Err(Refusal::Timeout { limit_ms: order.timeout_ms }),
        };
        return Found { end, ran: Some(Ran { replica, shared, took: begun.elapsed() }), waited };
    }
}

/// A replica, at once or by the line.
async fn lease(
    inner: &Inner,
    route: &mut Arc<Route>,
    ticket: Ticket,
    body_bytes: usize,
    wait_until: Instant,
) -> Result<Link, Refusal> {
    loop {
        if let Some(refusal) = route.unavailable() {
            return Err(refusal);
        }
        let turned = match route.line.lease(ticket, body_bytes) {
            Ok(Lease::Now(link)) => return Ok(link),
            Ok(Lease::Later(standing)) => match timeout_at(wait_until, standing).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(turned)) => turned,
                Err(_) => return Err(Refusal::Busy),
            },
            Err(turned) => turned,
        };
        if turned == Turned::Full {
            return Err(Refusal::Busy);
        }
        // Sent away: what is routed by now says why, or serves.
        let now = inner.table().as_ref().and_then(|table| table.by_model(&route.spec.model).cloned());
        match now {
            Some(now) => *route = now,
            None => return Err(Refusal::Unavailable("the model has been deleted".into())),
        }
        if Instant::now() >= wait_until {
            return Err(Refusal::Busy);
        }
    }
}
