//! The server roles, put together from the crates: configuration → telemetry → run → drain.
//!
//! `serve` is gateway and control API in one process. They speak the same protocol over the same socket as they do
//! apart, so that nothing works in one arrangement only.

pub(crate) mod bind;
mod calls;
mod handover;
mod notify;
mod office;
mod serve;
pub(crate) mod signals;
pub(crate) mod telemetry;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use millgate_contract::publication::PUBLICATION_SOCKET;
use millgate_control_api::{ControlApi, ControlConfig, OpenError};
use millgate_gateway::{CorsOrigins, Gateway, GatewayConfig, Spool};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::Signal,
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    args::Role,
    failure::{Context, Failure},
    programs::Programs,
    settings::Settings,
};
use bind::{Listens, Sockets};
use calls::CallsFolder;
use handover::{Estate, Predecessor, Successor};
pub(crate) use serve::{control, serve};

/// A gateway's last good snapshot, in the data directory.
const SNAPSHOT_FILE: &str = "routes.sealed";
/// How long a successor waits for a route snapshot.
const ROUTES_WAIT: Duration = Duration::from_secs(30);
/// How long it then waits for replicas of every deployment: some may have none to connect to.
const REPLICAS_WAIT: Duration = Duration::from_secs(3);
/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// `millgate gateway`.
pub(crate) fn gateway(role: &Role) -> Result<(), Failure> {
    let settings = Settings::read(role)?;
    telemetry::start();
    bind::raise_descriptor_limit();
    gateway_runtime()?.block_on(async {
        let Sockets { calls, admin, predecessor } = bind::sockets(&settings, Listens::CallsAndAdmin).await?;
        let address = bind::address_of(&calls)?;
        let estate = Estate::of(&calls, admin.as_ref())?;
        let gateway = Gateway::new(gateway_config(&settings, "gateway")?);
        let asked = Asked::watch()?;
        let tasks = GatewayTasks::start(&gateway, &settings, admin);
        succeed(&gateway, predecessor.as_ref()).await?;
        announce(&format!("millgate gateway serves {}://{address}", settings.edges.scheme()));
        let ending = asked.ending(&gateway, estate);
        let shutdown = async {
            // There is nothing else here that a successor waits for.
            if let Ending::Succeeded(successor) = ending.await {
                successor.release().await;
            }
        };
        let served = gateway.serve(calls, millgate_gateway::no_fallback(), shutdown).await;
        drop(tasks);
        served.context("the gateway ended")
    })
}

/// What runs beside a gateway. Dropping ends it.
struct GatewayTasks(Vec<JoinHandle<()>>);

impl GatewayTasks {
    fn start(gateway: &Gateway, settings: &Settings, admin: Option<TcpListener>) -> Self {
        let following = tokio::spawn({
            let (gateway, socket) = (gateway.clone(), settings.data_dir.join(PUBLICATION_SOCKET));
            async move { gateway.follow(socket).await }
        });
        let administering = admin.map(|admin| {
            let gateway = gateway.clone();
            tokio::spawn(async move {
                if let Err(error) = gateway.serve_admin(admin, std::future::pending()).await {
                    tracing::error!(%error, "the admin listener ended");
                }
            })
        });
        Self([following].into_iter().chain(administering).collect())
    }
}

impl Drop for GatewayTasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// What a server may be asked for.
struct Asked {
    stop: watch::Receiver<bool>,
    upgrades: Signal,
    reloads: Option<Signal>,
}

/// How a server's serving ends.
enum Ending {
    /// It was asked to end.
    Stopped,
    /// Another process serves in its place.
    Succeeded(Successor),
}

impl Asked {
    fn watch() -> Result<Self, Failure> {
        Ok(Self { stop: signals::watch()?, upgrades: signals::upgrades()?, reloads: signals::reloads()? })
    }

    /// Resolves when this gateway is to accept no more.
    async fn ending(mut self, gateway: &Gateway, estate: Estate) -> Ending {
        loop {
            tokio::select! {
                () = stopped(self.stop.clone()) => {
                    notify::stopping();
                    return Ending::Stopped;
                }
                () = signals::next(self.reloads.as_mut()) => {
                    gateway.reload_certificate();
                    continue;
                }
                _ = self.upgrades.recv() => {}
            }
            tracing::info!("handing over to a new process");
            notify::reloading();
            let started = tokio::select! {
                () = stopped(self.stop.clone()) => {
                    notify::stopping();
                    return Ending::Stopped;
                }
                started = Successor::start(&estate) => started,
            };
            match started {
                Ok(successor) => {
                    tracing::info!(pid = successor.pid(), "the new process serves");
                    gateway.succeeded();
                    notify::succeeded_by(successor.pid());
                    return Ending::Succeeded(successor);
                }
                Err(error) => {
                    tracing::error!(%error, "not handed over; this process goes on");
                    notify::ready(&format!("not handed over: {error}"));
                }
            }
        }
    }
}

/// Becomes ready to take over, and says so. Without a predecessor there is nobody to wait for.
async fn succeed(gateway: &Gateway, predecessor: Option<&Predecessor>) -> Result<(), Failure> {
    let Some(predecessor) = predecessor else { return Ok(()) };
    let routed = async {
        while gateway.generation() == 0 {
            sleep(LOOK_INTERVAL).await;
        }
    };
    timeout(ROUTES_WAIT, routed)
        .await
        .map_err(|_| Failure::new("no route snapshot came to take over with"))?;
    let connected = async {
        while !gateway.is_connected() {
            sleep(LOOK_INTERVAL).await;
        }
    };
    let _ = timeout(REPLICAS_WAIT, connected).await;
    predecessor.say_ready()
}

/// The one line that says where it serves. A successor's may find nobody who reads.
fn announce(line: &str) {
    notify::ready(line);
    let _ = writeln!(io::stdout(), "{line}");
}

/// The threads of a gateway: half of the processors, for the other half runs the functions. A call that goes from one
/// thread to another costs a wake-up each way: with as many threads as processors (two) a call cost 1 to 1.8 `futex` and
/// 1.7 to 2.4 `epoll_wait`, with half as many none and 0.5 to 2 (`make bench-profile`).
fn gateway_runtime() -> Result<Runtime, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .worker_threads(processors.div_ceil(2))
        .enable_all()
        .build()
        .context("cannot start threads")
}

/// The thread of a control API: of its own also beside a gateway, so that no call waits for what it computes.
fn control_runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().context("cannot start threads")
}

async fn open_control(config: ControlConfig) -> Result<ControlApi, OpenError> {
    ControlApi::open(config).await
}

fn control_config(
    settings: &Settings,
    programs: &Programs,
    address: SocketAddr,
) -> Result<ControlConfig, Failure> {
    #[cfg(debug_assertions)]
    if let Ok(text) = std::env::var(crate::env_vars::DIE_AT) {
        millgate_control_api::die_at(&text).map_err(|error| Failure::usage(error.to_string()))?;
    }
    let public =
        settings.public_url.clone().unwrap_or_else(|| format!("{}://{address}", settings.edges.scheme()));
    let (scheme, domain) = public.split_once("://").ok_or_else(|| {
        Failure::usage(format!("`public_url` is `{public}`"))
            .hint("give it as in `https://models.example.org`")
    })?;
    Ok(settings.builds.apply(ControlConfig {
        scheme: scheme.to_owned(),
        database_url: settings.database_url.clone(),
        millgate_program: programs.millgate.clone(),
        runtime_program: programs.runtime.clone(),
        python: programs.python.clone(),
        request_timeout_ms_default: settings.request_timeout_ms,
        start_timeout_ms: settings.start_timeout_ms,
        replicas_ceiling: settings.replicas_ceiling,
        memory_mb_max: settings.memory_mb_max,
        counts_template_and_spares: settings.counts_template_and_spares,
        require_isolation: settings.require_isolation,
        call_events: settings.observation.calls_folder(&settings.data_dir).map(CallsFolder::share),
        metrics_retention_days: settings.metrics.retention_days,
        token_reader: settings.admission.token_reader(),
        log_retention_days: settings.observation.log_retention_days,
        build_environment: ControlConfig::installer_variables(std::env::vars()),
        ..ControlConfig::new(&settings.data_dir, domain.trim_end_matches('/'))
    }))
}

/// Of a gateway that answers calls: with all that it keeps in the data directory.
fn gateway_config(settings: &Settings, role: &str) -> Result<GatewayConfig, Failure> {
    let spool = settings.metrics.spool(&settings.data_dir);
    let folder = spool.folder.clone();
    let spool = Spool::open(spool)
        .context(format_args!("cannot open the spool of tracked metrics `{}`", folder.display()))?;
    let config = GatewayConfig {
        snapshot_file: Some(PathBuf::from(&settings.data_dir).join(SNAPSHOT_FILE)),
        spool: Some(spool),
        ..edge_config(settings, role)
    };
    Ok(settings.observation.apply(&settings.data_dir, config))
}

/// Of any gateway: how callers reach it, and what they are held to.
fn edge_config(settings: &Settings, role: &str) -> GatewayConfig {
    let cors_origins = match &settings.cors_origins[..] {
        [] => CorsOrigins::Nowhere,
        [any] if any == "*" => CorsOrigins::Anywhere,
        listed => CorsOrigins::Listed(listed.to_vec()),
    };
    let config = GatewayConfig {
        // New in each process, so that a replica can tell this one from the one before.
        name: format!("{role}-{}", uuid::Uuid::new_v4()),
        cors_origins,
        ..GatewayConfig::default()
    };
    settings.edges.apply(settings.limits.apply(settings.admission.apply(config)))
}

/// Resolves when the program is asked to end.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error is the sender's end, which is the program's.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}
