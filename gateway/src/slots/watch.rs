//! The connection to a deployment's supervisor: deaths come by it, expired calls go by it, and it is asked from time to
//! time what the replicas do with their time.
//!
//! Without it calls go on; only a death is then learnt by a socket's end, and an expired call waits to be told. The task
//! holds the deployment weakly and ends with it.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use millgate_contract::{
    limits::MESSAGE_BYTES_MAX,
    line,
    route::DeploymentRoute,
    spec::CONTROL_SOCKET,
    supervision::{FromSupervisor, Peer, Phase, SUPERVISION_PROTOCOL, SlotReport, SlotState, ToSupervisor},
};
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    deployment::{Expiry, Shared},
    keeper::BackOff,
    link::connect,
};
use crate::{
    lines::{Lines, LinesError},
    metrics::Start,
};

/// How old what the page of figures says of replicas' time may be. What one that dies has spent since is not counted.
const MEASURE_PERIOD: Duration = Duration::from_secs(5);

/// Where the supervisor is and who it must be.
pub(crate) struct Address {
    socket: PathBuf,
    route: DeploymentRoute,
    gateway: String,
}

impl Address {
    pub(crate) fn of(shared: &Shared) -> Self {
        let route = shared.route().clone();
        Self { socket: route.run_dir.join(CONTROL_SOCKET), route, gateway: shared.gateway().to_owned() }
    }
}

#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("not connected: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Lines(#[from] LinesError),
    #[error(transparent)]
    Message(#[from] line::MessageError),
    #[error("it is the supervisor of another deployment or version")]
    Stranger,
    #[error("it has closed the connection")]
    Closed,
}

/// Keeps the connection until nobody knows the deployment any more.
pub(crate) async fn watch(shared: Weak<Shared>, address: Address, mut expired: mpsc::Receiver<Expiry>) {
    let mut back_off = BackOff::new();
    let mut unsent = None;
    loop {
        match UnixConversation::open(&address).await {
            Ok(mut conversation) => {
                back_off = BackOff::new();
                match conversation.run(&shared, &mut expired, &mut unsent).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::debug!(deployment = %address.route.deployment, %error, "supervisor lost");
                    }
                }
                if let Some(shared) = shared.upgrade() {
                    shared.drop_ended_links();
                }
            }
            Err(error) => {
                tracing::debug!(deployment = %address.route.deployment, %error, "supervisor not reached");
            }
        }
        if shared.strong_count() == 0 {
            return;
        }
        back_off.pause().await;
    }
}

struct UnixConversation {
    lines: Lines<tokio::net::unix::OwnedReadHalf>,
    writer: tokio::net::unix::OwnedWriteHalf,
    slot_states: Vec<SlotState>,
    failed_phase: Option<String>,
    measuring: Interval,
}

impl UnixConversation {
    async fn open(address: &Address) -> Result<Self, WatchError> {
        let stream: UnixStream = connect(&address.socket).await?;
        let (reader, mut writer) = stream.into_split();
        let hello = ToSupervisor::Hello {
            protocol: SUPERVISION_PROTOCOL,
            peer: Peer::Gateway,
            name: address.gateway.clone(),
        };
        writer.write_all(&line::encode(&hello)).await?;
        let mut lines = Lines::new(reader, MESSAGE_BYTES_MAX);
        let first = lines.next().await?.ok_or(WatchError::Closed)?;
        match line::decode(&first)? {
            FromSupervisor::Hello { protocol: SUPERVISION_PROTOCOL, deployment, build, slots, .. }
                if deployment == address.route.deployment && build == address.route.build =>
            {
                let slot_states = vec![SlotState::Starting; usize::from(slots)];
                let mut measuring = interval(MEASURE_PERIOD);
                measuring.set_missed_tick_behavior(MissedTickBehavior::Delay);
                Ok(Self { lines, writer, slot_states, failed_phase: None, measuring })
            }
            _ => Err(WatchError::Stranger),
        }
    }

    /// Ends with `Ok` when nobody knows the deployment any more.
    async fn run(
        &mut self,
        shared: &Weak<Shared>,
        expired: &mut mpsc::Receiver<Expiry>,
        unsent: &mut Option<Expiry>,
    ) -> Result<(), WatchError> {
        loop {
            if let Some(expiry) = unsent {
                let word = ToSupervisor::Expired {
                    slot: expiry.slot,
                    replica: expiry.replica.clone(),
                    call: expiry.call,
                };
                self.writer.write_all(&line::encode(&word)).await?;
                *unsent = None;
            }
            tokio::select! {
                biased;
                message = self.lines.next() => {
                    let message = line::decode(&message?.ok_or(WatchError::Closed)?)?;
                    let Some(shared) = shared.upgrade() else { return Ok(()) };
                    self.heard(&shared, message);
                }
                // The sender lives as long as somebody knows the deployment.
                expiry = expired.recv() => match expiry {
                    Some(expiry) => *unsent = Some(expiry),
                    None => return Ok(()),
                },
                _ = self.measuring.tick() => {
                    self.writer.write_all(&line::encode(&ToSupervisor::Measure)).await?;
                }
            }
        }
    }

    fn heard(&mut self, shared: &Arc<Shared>, message: FromSupervisor) {
        match message {
            FromSupervisor::Hello { .. } => {}
            FromSupervisor::Usage { replicas } => shared.usage().told(&replicas),
            FromSupervisor::Slot(report) => {
                if let Some(replica) =
                    report.replica.as_ref().filter(|_| report.slot.0 < shared.route().slots)
                {
                    shared.usage().placed(report.slot, replica);
                }
                shared.heard_of(&report);
                if let Some(state) = self.slot_states.get_mut(usize::from(report.slot.0)) {
                    *state = report.state;
                }
                self.judge(shared, &report.reason);
            }
            FromSupervisor::Deployment(report) => {
                shared.set_start(Start::of(&report));
                self.failed_phase = (report.phase == Phase::Failed).then_some(report.reason);
                self.judge(shared, "");
            }
        }
    }

    fn judge(&self, shared: &Shared, slot_reason: &str) {
        let all_fail =
            !self.slot_states.is_empty() && self.slot_states.iter().all(|s| *s == SlotState::Failing);
        let reason = self.failed_phase.clone().or_else(|| all_fail.then(|| slot_reason.to_owned()));
        shared.set_failure(reason);
    }
}

impl Shared {
    fn heard_of(&self, report: &SlotReport) {
        let (SlotState::Dead, Some(replica)) = (report.state, &report.replica) else { return };
        self.deaths().say(replica);
        // Idle links of the dead end here; a busy one belongs to its call, which waits for the same word.
        drop(self.line().take_idle(|link| link.death.is_said()));
    }

    fn drop_ended_links(&self) {
        drop(self.line().take_idle(|link| !link.is_quiet()));
    }
}
