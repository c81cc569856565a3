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
    line::{Lease, Standing, Ticket, Turned},
    routes::Route,
    slots::{deployment::Shared, link::Link},
};

/// The pause between two looks at a call whose time in line is over and that may have begun.
const SENT_LOOK: Duration = Duration::from_millis(5);

/// Where a call runs, or ran, or may have.
pub(crate) struct Ran {
    pub(crate) replica: ReplicaId,
    pub(crate) shared: Arc<Shared>,
    begun: Instant,
    ended: Option<Instant>,
}

impl Ran {
    fn on(link: &Link, begun: Instant) -> Self {
        Self { replica: link.hello.replica.clone(), shared: Arc::clone(&link.shared), begun, ended: None }
    }

    /// A call that was sent ahead may have run before anybody looked. Its replica's word is believed as far as it can be true.
    fn told(&mut self, done: &Done, lined_up: Instant) {
        let run = Duration::from_micros(done.timings.run_us.into());
        let begun = Instant::now().checked_sub(run).unwrap_or(self.begun);
        self.begun = self.begun.min(begun).max(lined_up);
    }

    /// From the first byte written to the last one read, or to now.
    pub(crate) fn took(&self) -> Duration {
        self.ended.unwrap_or_else(Instant::now) - self.begun
    }
}

/// How far a call has come. It is its owner's, and true at every moment: a caller that hangs up ends a call anywhere.
#[derive(Default)]
pub(crate) struct Progress {
    lined_up: Option<Instant>,
    /// When it stopped waiting: for its replica, or for good.
    called: Option<Instant>,
    ran: Option<Ran>,
}

impl Progress {
    /// How long it waited for replicas, or has until now; none before its place in line.
    pub(crate) fn waited(&self) -> Option<Duration> {
        self.lined_up.map(|since| self.called.unwrap_or_else(Instant::now) - since)
    }

    /// The replica that runs it, if one does, did or may have.
    pub(crate) fn ran(&self) -> Option<&Ran> {
        self.ran.as_ref()
    }
}

/// Runs a call at most once. Gives the replica's answer, or why there is none.
pub(crate) async fn dispatch(
    inner: &Inner,
    route: &Arc<Route>,
    order: &Order<'_>,
    progress: &mut Progress,
) -> Result<Done, Refusal> {
    let arrival = Instant::now();
    progress.lined_up = Some(arrival);
    let wait_until = arrival + Duration::from_millis(inner.config.wait_ms_max);
    let mut ticket = route.line.ticket();
    let mut route = Arc::clone(route);
    loop {
        let leased = lease(inner, &mut route, ticket, order, wait_until).await;
        let now = Instant::now();
        progress.called = Some(now);
        let link = leased?;
        let ran = progress.ran.insert(Ran::on(&link, now));
        let end = match call::run(link, order).await {
            Attempt::NotStarted => {
                inner.metrics.retries.inc();
                ticket = ticket.again();
                (progress.called, progress.ran) = (None, None);
                continue;
            }
            Attempt::Done(done) => {
                ran.told(&done, arrival);
                Ok(done)
            }
            Attempt::Crashed => Err(Refusal::ReplicaCrashed),
            Attempt::TimedOut => Err(Refusal::Timeout { limit_ms: order.terms.timeout_ms }),
        };
        ran.ended = Some(Instant::now());
        return end;
    }
}

/// A replica, at once or by the line.
async fn lease(
    inner: &Inner,
    route: &mut Arc<Route>,
    ticket: Ticket,
    order: &Order<'_>,
    wait_until: Instant,
) -> Result<Link, Refusal> {
    loop {
        if let Some(refusal) = route.unavailable() {
            return Err(refusal);
        }
        let cargo = || {
            let takes_ahead = route.deployment.as_ref().is_some_and(|d| d.shared().takes_ahead());
            if takes_ahead { order.cargo() } else { None }
        };
        let turned = match route.line.lease(ticket, order.body.len(), cargo) {
            Ok(Lease::Now(link)) => return Ok(link),
            Ok(Lease::Later(standing)) => match stand(standing, wait_until).await {
                Some(Ok(link)) => return Ok(link),
                Some(Err(turned)) => turned,
                None => return Err(Refusal::Busy),
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

/// Waits in line, as long as that lasts; none when the time is over.
async fn stand(mut standing: Standing<Link>, wait_until: Instant) -> Option<Result<Link, Turned>> {
    let mut until = wait_until;
    loop {
        match timeout_at(until, &mut standing).await {
            Ok(end) => return Some(end),
            // Whether it runs is soon known: it is begun, or given back.
            Err(_) if standing.is_sent() => until = Instant::now() + SENT_LOOK,
            Err(_) => return None,
        }
    }
}
