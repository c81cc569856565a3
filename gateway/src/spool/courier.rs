//! When a batch is shipped, and when a flush is done. One batch is on its way at a time. While nobody reads, batches go
//! in an interval, so that many records share one; a flush goes at once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millgate_contract::{line, publication::FromGateway};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Shared, Spool, segment::Mark, shipment::Shipment};

/// How long a record waits for others while nobody reads.
const SHIP_INTERVAL: Duration = Duration::from_millis(200);
/// Ticks of it between two looks for folders that other gateways have left.
const LOOK_TICKS: u32 = 10;
/// A batch from this size on is followed by the next at once.
const FULL_BYTES: usize = 256 * 1024;
/// Flushes that wait at one time; the oldest is not answered beyond that.
const FLUSHES_MAX: usize = 64;

/// See the module.
pub(crate) struct Courier {
    shared: Arc<Shared>,
    /// Elsewhere while it waits for the disk.
    shipment: Option<Shipment>,
    /// The control API of this connection takes metrics.
    is_taken: bool,
    batches: u64,
    in_flight: Option<(u64, usize)>,
    flushes: Vec<Flush>,
    is_urgent: bool,
    ticks: Interval,
    ticks_to_look: u32,
}

/// Somebody waits for what was written before.
struct Flush {
    number: u64,
    target: Mark,
    /// No folder that was left behind has anything in it.
    is_alone: bool,
}

impl Courier {
    pub(crate) fn new(spool: &Spool) -> Self {
        let mut ticks = interval(SHIP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            shared: Arc::clone(&spool.shared),
            shipment: Some(Shipment::new(Arc::clone(&spool.shared))),
            is_taken: false,
            batches: 0,
            in_flight: None,
            flushes: Vec::new(),
            is_urgent: false,
            ticks,
            ticks_to_look: 0,
        }
    }

    /// A new connection: what was on its way is shipped again.
    pub(crate) fn connect(&mut self) {
        self.is_taken = false;
        self.in_flight = None;
        self.flushes.clear();
        if let Some(shipment) = &mut self.shipment {
            shipment.forget_flight();
        }
    }

    /// The control API has said whether it takes metrics.
    pub(crate) fn greeted(&mut self, takes_metrics: bool) {
        self.is_taken = takes_metrics;
        self.is_urgent = takes_metrics;
    }

    /// A batch is kept.
    pub(crate) fn kept(&mut self, batch: u64) {
        let Some((_, bytes)) = self.in_flight.take_if(|(in_flight, _)| *in_flight == batch) else { return };
        if let Some(shipment) = &mut self.shipment {
            shipment.kept();
        }
        self.shared.metrics.shipped_bytes.inc_by(bytes as u64);
        self.is_urgent = bytes >= FULL_BYTES || !self.flushes.is_empty();
    }

    /// All that is written now is asked for.
    pub(crate) fn flush(&mut self, number: u64) {
        if self.flushes.len() == FLUSHES_MAX {
            self.flushes.remove(0);
        }
        self.flushes.push(Flush { number, target: self.shared.queue.written(), is_alone: false });
        self.is_urgent = true;
    }

    /// Resolves when [`Courier::step`] may have something to say. May be dropped and called again.
    pub(crate) async fn due(&mut self) {
        if !self.is_taken || self.in_flight.is_some() {
            return std::future::pending().await;
        }
        while !self.is_urgent {
            self.ticks.tick().await;
            self.ticks_to_look = self.ticks_to_look.saturating_sub(1);
            let own_at = self.shipment.as_ref().map(Shipment::own_at);
            if self.ticks_to_look == 0 || own_at != Some(self.shared.queue.written()) {
                return;
            }
        }
    }

    /// What is to be said now: the next batch, or that flushes are done.
    pub(crate) async fn step(&mut self) -> Vec<Bytes> {
        self.is_urgent = false;
        let looks_around = self.ticks_to_look == 0 || !self.flushes.is_empty();
        if looks_around {
            self.ticks_to_look = LOOK_TICKS;
        }
        let mut shipment = self.shipment.take().unwrap_or_else(|| Shipment::new(Arc::clone(&self.shared)));
        let stepped = tokio::task::spawn_blocking(move || {
            let next = shipment.next(looks_around);
            (shipment, next)
        })
        .await;
        // A panic's words are in the log; the next step begins anew.
        let Ok((shipment, next)) = stepped else { return Vec::new() };
        let batch = match next {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(%error, "the spool cannot be read; trying again");
                self.shipment = Some(shipment);
                return Vec::new();
            }
        };
        let mut said = self.done_flushes(&shipment, looks_around, batch.is_none());
        if let Some(batch) = batch {
            self.batches += 1;
            self.in_flight = Some((self.batches, batch.len()));
            let line = line::encode(&FromGateway::Metrics { batch: self.batches, bytes: batch.len() });
            said.extend([line.into(), batch]);
        }
        self.shipment = Some(shipment);
        said
    }

    fn done_flushes(&mut self, shipment: &Shipment, looked: bool, is_empty: bool) -> Vec<Bytes> {
        let is_alone = looked && !shipment.has_left();
        let own_at = shipment.own_at();
        let mut done = Vec::new();
        self.flushes.retain_mut(|flush| {
            flush.is_alone |= is_alone;
            let is_done = flush.is_alone && (is_empty || own_at >= flush.target);
            if is_done {
                done.push(line::encode(&FromGateway::Flushed { flush: flush.number }).into());
            }
            !is_done
        });
        done
    }
}
