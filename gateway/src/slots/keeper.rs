//! One task for each slot: it connects, offers the link to the line, and connects anew when the link has ended.
//!
//! A connection to a slot without a replica waits in the listener's queue until the next one greets: a replacement
//! needs nobody's word. Pauses are only between attempts that led to nothing.
//!
//! A link comes back when its replica is other gateways' for now. It stays here until its turn, and is then offered like a
//! new one; the line gives it to a call or declines the turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use millgate_contract::{frame::Role, ids::SlotIndex};

use super::{deployment::Shared, link::Link};

/// The first pause after an attempt that led to nothing.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// The longest pause.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a link rests whose replica was busy for another gateway and cannot tell when that is over.
const REST: Duration = Duration::from_millis(5);
/// How long one waits for its turn at most. A sound replica needs no asking; one that forgets whom it has queued would
/// else be lost to this gateway.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Pauses that double.
pub(super) struct BackOff(Duration);

impl BackOff {
    pub(super) fn new() -> Self {
        Self(PAUSE_MIN)
    }

    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}

/// Keeps one slot connected until the task is aborted.
pub(super) async fn keep(shared: Arc<Shared>, slot: SlotIndex) {
    let mut back_off = BackOff::new();
    loop {
        let has_served = Arc::new(AtomicBool::new(false));
        match Link::join(&shared, slot, Role::Calls, Arc::clone(&has_served)).await {
            Ok(link) => serve(&shared, link).await,
            Err(error) => {
                tracing::debug!(deployment = %shared.route().deployment, %slot, %error, "slot not joined");
            }
        }
        if has_served.load(Ordering::Relaxed) {
            back_off = BackOff::new();
        } else {
            back_off.pause().await;
        }
    }
}

/// Offers the link until it has ended.
async fn serve(shared: &Arc<Shared>, mut link: Link) {
    let _connected = shared.connected();
    shared.set_failure(None);
    tracing::debug!(deployment = %shared.route().deployment, replica = %link.hello.replica, "replica connected");
    loop {
        let (free, homecoming) = link.let_go();
        shared.line().offer(free);
        shared.take_over();
        match homecoming.await {
            Ok(returned) => match rest(returned).await {
                Some(rested) => link = rested,
                None => return,
            },
            Err(_) => return,
        }
    }
}

/// Waits until a link whose replica is busy for other gateways is worth another try. `None` when it has ended.
async fn rest(mut link: Link) -> Option<Link> {
    if !link.knows_turns() {
        tokio::time::sleep(REST).await;
        return Some(link);
    }
    let has_ended = matches!(tokio::time::timeout(TURN_WAIT_MAX, link.turn()).await, Ok(false));
    (!has_ended).then_some(link)
}
