//! `millgate serve`: gateway and control API in one process, and their order at the beginning and at the end. `millgate
//! control` is the same without calls.
//!
//! A stop: calls are answered, then the control API ends and the replicas with it. A hand-over: the successor's gateway
//! serves first; then the control API ends here, with the data directory's lock, and opens there; meanwhile calls go on,
//! because a gateway does not need it. This gateway follows the successor's control API until its last call is answered.

use std::{net::SocketAddr, time::Duration};

use millgate_control_api::{AtShutdown, ControlApi, ControlConfig};
use millgate_gateway::{Gateway, GatewayConfig};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::sleep};

use super::{
    Asked, Ending, GatewayTasks, SNAPSHOT_FILE, announce,
    bind::{self, Listens, Sockets},
    control_config, control_runtime, edge_config, gateway_config, gateway_runtime,
    handover::{Estate, Predecessor},
    office::Office,
    open_control, succeed, telemetry,
};
use crate::{
    args::Role,
    failure::{Context, Failure},
    programs::Programs,
    settings::Settings,
};

/// The pause before the data directory is tried again that a predecessor should have released.
const OPEN_PAUSE: Duration = Duration::from_secs(1);

/// What a program serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    /// Calls and the control API.
    All,
    /// The control API, to which the gateway here gives all it gets: framing, clocks and TLS are the same for it.
    ControlApi,
}

/// `millgate serve`.
pub(crate) fn serve(role: &Role) -> Result<(), Failure> {
    run(role, Serves::All)
}

/// `millgate control`.
pub(crate) fn control(role: &Role) -> Result<(), Failure> {
    run(role, Serves::ControlApi)
}

fn run(role: &Role, serves: Serves) -> Result<(), Failure> {
    let settings = Settings::read(role)?;
    let programs = Programs::find()?;
    telemetry::start();
    bind::raise_descriptor_limit();
    let office_runtime = control_runtime()?;
    let office = Office::new(office_runtime.handle().clone());
    gateway_runtime()?.block_on(async {
        let Sockets { calls, admin, predecessor } = bind::sockets(&settings, serves.listens()).await?;
        let address = bind::address_of(&calls)?;
        let estate = Estate::of(&calls, admin.as_ref())?;
        let config = control_config(&settings, &programs, address)?;
        // Whoever takes nothing over learns now what is wrong with the data directory.
        let opened = match predecessor {
            None => open(&office, config.clone()).await?,
            Some(_) => None,
        };
        let gateway = Gateway::new(GatewayConfig {
            damaged_builds: Some(config.damaged_builds.clone()),
            ..serves.gateway_config(&settings)?
        });
        let asked = Asked::watch()?;
        let tasks = serves.become_ready(&gateway, &settings, admin, predecessor.as_ref()).await?;

        let control = Control::start(&office, Opening { opened, predecessor, config });
        announce(&serves.announcement(&settings, address));
        let (say_ending, ending) = oneshot::channel();
        let (calls_are_answered, answered) = oneshot::channel::<()>();
        let closing = tokio::spawn({
            let office = office.clone();
            async move { control.close(serves, &office, ending, answered).await }
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

/// Opens the control API where it will run: its database belongs to those threads. Nothing while its database is away and
/// calls can be served by the last snapshot, which comes first.
async fn open(office: &Office, config: ControlConfig) -> Result<Option<ControlApi>, Failure> {
    let has_snapshot = config.data_dir.join(SNAPSHOT_FILE).exists();
    let opening = office.runtime().spawn(open_control(config));
    match opening.await.context("the control API ended by itself")? {
        Ok(control) => Ok(Some(control)),
        Err(error) if has_snapshot && error.is_outage() => {
            tracing::error!(%error, "the control API cannot open yet; calls are served by the last snapshot");
            Ok(None)
        }
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

impl Serves {
    fn listens(self) -> Listens {
        match self {
            Self::All => Listens::CallsAndAdmin,
            Self::ControlApi => Listens::CallsOnly,
        }
    }

    fn gateway_config(self, settings: &Settings) -> Result<GatewayConfig, Failure> {
        match self {
            Self::All => gateway_config(settings, "serve"),
            Self::ControlApi => Ok(GatewayConfig { serves_calls: false, ..edge_config(settings, "control") }),
        }
    }

    /// Starts what runs beside the gateway, and says to a predecessor that it may end.
    async fn become_ready(
        self,
        gateway: &Gateway,
        settings: &Settings,
        admin: Option<TcpListener>,
        predecessor: Option<&Predecessor>,
    ) -> Result<Option<GatewayTasks>, Failure> {
        match self {
            Self::All => {
                let tasks = GatewayTasks::start(gateway, settings, admin);
                succeed(gateway, predecessor).await?;
                Ok(Some(tasks))
            }
            // Requests wait here until the data directory is free.
            Self::ControlApi => predecessor.map_or(Ok(None), |old| old.say_ready().map(|()| None)),
        }
    }

    fn announcement(self, settings: &Settings, address: SocketAddr) -> String {
        let name = match self {
            Self::All => "millgate",
            Self::ControlApi => "millgate control",
        };
        let scheme = settings.edges.scheme();
        format!("{name} serves {scheme}://{address} (data in {})", settings.data_dir.display())
    }
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
        let (say_end, mut end) = oneshot::channel();
        let running = office.runtime().spawn({
            let office = office.clone();
            async move {
                let control = tokio::select! {
                    control = opening.finish() => control,
                    // It was never open; what serves goes on.
                    _ = &mut end => return Ok(()),
                };
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
        serves: Serves,
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
                self.end(match serves {
                    Serves::All => AtShutdown::StopReplicas,
                    // Gateways elsewhere go on with them.
                    Serves::ControlApi => AtShutdown::LeaveReplicas,
                })
                .await
            }
        }
    }

    async fn end(self, at_shutdown: AtShutdown) -> Result<(), Failure> {
        let _ = self.say_end.send(at_shutdown);
        self.running.await.context("the control API ended by itself")?
    }
}
