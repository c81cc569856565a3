//! `millgate serve`: gateway and control API in one process, and their order at the beginning and at the end.
//!
//! A stop: calls are answered, then the control API ends and the replicas with it. A hand-over: the successor's gateway
//! serves first; then the control API ends here, with the data directory's lock, and opens there; meanwhile calls go on,
//! because a gateway does not need it. This gateway follows the successor's control API until its last call is answered.

use std::time::Duration;

use millgate_control_api::{AtShutdown, ControlApi, ControlConfig};
use millgate_gateway::Gateway;
use tokio::{sync::oneshot, task::JoinHandle, time::sleep};

use super::{
    Asked, Ending, GatewayTasks, announce,
    bind::{self, Sockets},
    control_config, control_runtime, gateway_config, gateway_runtime,
    handover::{Estate, Predecessor},
    office::Office,
    open_control, signals, succeed, telemetry,
};
use crate::{
    args::Role,
    failure::{Context, Failure},
    programs::Programs,
    settings::Settings,
};

/// The pause before the data directory is tried again that a predecessor should have released.
const OPEN_PAUSE: Duration = Duration::from_secs(1);

/// `millgate serve`.
pub(crate) fn serve(role: &Role) -> Result<(), Failure> {
    let settings = Settings::read(role)?;
    let programs = Programs::find()?;
    telemetry::start();
    bind::raise_descriptor_limit();
    let office_runtime = control_runtime()?;
    let office = Office::new(office_runtime.handle().clone());
    gateway_runtime()?.block_on(async {
        let Sockets { calls, admin, predecessor } = bind::sockets(&settings).await?;
        let address = bind::address_of(&calls)?;
        let estate = Estate::of(&calls, &admin)?;
        let config = control_config(&settings, &programs, address)?;
        // Whoever takes nothing over learns now what is wrong with the data directory.
        let opened = match predecessor {
            None => Some(open(&office, config.clone()).await?),
            Some(_) => None,
        };
        let gateway = Gateway::new(gateway_config(&settings, "serve")?);
        let asked = Asked { stop: signals::watch()?, upgrades: signals::upgrades()? };
        let tasks = GatewayTasks::start(&gateway, &settings, admin);
        succeed(&gateway, predecessor.as_ref()).await?;

        let control = Control::start(&office, Opening { opened, predecessor, config });
        announce(&format!("millgate serves http://{address} (data in {})", settings.data_dir.display()));
        let (say_ending, ending) = oneshot::channel();
        let (calls_are_answered, answered) = oneshot::channel::<()>();
        let closing = tokio::spawn({
            let office = office.clone();
            async move { control.close(&office, ending, answered).await }
        });
        let shutdown = async {
            let _ = say_ending.send(asked.ending(&gateway, estate).await);
        };
        let served = gateway.serve(calls, office.fallback(), shutdown).await;
        drop(calls_are_answered);
        let closed = closing.await.context("the control API ended by itself")?;
        drop(tasks);
        served.context("the gateway ended")?;
        closed
    })
}

/// Opens the control API where it will run: its database belongs to those threads.
async fn open(office: &Office, config: ControlConfig) -> Result<ControlApi, Failure> {
    office.runtime().spawn(open_control(config)).await.context("the control API ended by itself")?
}

/// How the control API comes to be open.
struct Opening {
    opened: Option<ControlApi>,
    predecessor: Option<Predecessor>,
    config: ControlConfig,
}

impl Opening {
    /// Opens it when it may be. Calls are served already, so a failure is repeated, not passed on.
    async fn finish(self) -> ControlApi {
        if let Some(predecessor) = self.predecessor {
            predecessor.released().await;
        }
        let mut opened = self.opened;
        loop {
            match opened {
                Some(control) => return control,
                None => match open_control(self.config.clone()).await {
                    Ok(control) => opened = Some(control),
                    Err(error) => {
                        tracing::error!(%error, "the control API cannot open; trying again");
                        sleep(OPEN_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// The control API of this process, opening or running.
struct Control {
    running: JoinHandle<Result<(), Failure>>,
    say_end: oneshot::Sender<AtShutdown>,
}

impl Control {
    fn start(office: &Office, opening: Opening) -> Self {
        let (say_end, end) = oneshot::channel();
        let running = office.runtime().spawn({
            let office = office.clone();
            async move {
                let control = opening.finish().await;
                office.open(control.router());
                // Nobody to say how it ends: nobody who may end replicas.
                let at_end = async { end.await.unwrap_or(AtShutdown::LeaveReplicas) };
                control.run(at_end).await.context("the control API ended")
            }
        });
        Self { running, say_end }
    }

    /// Ends it as the serving ends.
    async fn close(
        self,
        office: &Office,
        ending: oneshot::Receiver<Ending>,
        answered: oneshot::Receiver<()>,
    ) -> Result<(), Failure> {
        match ending.await {
            Ok(Ending::Succeeded(successor)) => {
                office.close().await;
                let ended = self.end(AtShutdown::LeaveReplicas).await;
                successor.release().await;
                ended
            }
            // Only when no call needs them any more may the replicas go.
            Ok(Ending::Stopped) | Err(_) => {
                let _ = answered.await;
                self.end(AtShutdown::StopReplicas).await
            }
        }
    }

    async fn end(self, at_shutdown: AtShutdown) -> Result<(), Failure> {
        let _ = self.say_end.send(at_shutdown);
        self.running.await.context("the control API ended by itself")?
    }
}
