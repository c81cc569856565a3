//! The server roles, put together from the crates: configuration → telemetry → run → drain.
//!
//! `serve` is gateway and control API in one process. They speak the same protocol over the same socket as they do
//! apart, so that nothing works in one arrangement only.

pub(crate) mod bind;
mod fallback;
pub(crate) mod signals;
pub(crate) mod telemetry;

use std::{net::SocketAddr, path::PathBuf};

use millgate_contract::publication::PUBLICATION_SOCKET;
use millgate_control_api::{AtShutdown, ControlApi, ControlConfig};
use millgate_gateway::{CorsOrigins, Gateway, GatewayConfig};
use tokio::sync::{oneshot, watch};

use crate::{
    args::Role,
    failure::{Context, Failure},
    programs::Programs,
    settings::Settings,
};

/// A gateway's last good snapshot, in the data directory.
const SNAPSHOT_FILE: &str = "routes.sealed";

/// `millgate serve`.
pub(crate) fn serve(role: &Role) -> Result<(), Failure> {
    let settings = Settings::read(role)?;
    let programs = Programs::find()?;
    telemetry::start();
    bind::raise_descriptor_limit();
    runtime()?.block_on(async {
        let listener = bind::listen(settings.listen, "--listen").await?;
        let admin = bind::listen(settings.admin_listen, "--admin-listen").await?;
        let address = bind::address_of(&listener)?;
        let control = open_control(&settings, &programs, address).await?;
        let gateway = Gateway::new(gateway_config(&settings, "serve"));

        let stop = signals::watch()?;
        let (callers_are_answered, answered) = oneshot::channel::<()>();
        let running = tokio::spawn({
            let control = control.clone();
            let at_end = async move {
                let _ = answered.await;
                AtShutdown::StopReplicas
            };
            async move { control.run(at_end).await }
        });
        let following = tokio::spawn({
            let (gateway, socket) = (gateway.clone(), settings.data_dir.join(PUBLICATION_SOCKET));
            async move { gateway.follow(socket).await }
        });
        let administering = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve_admin(admin, std::future::pending()).await }
        });
        println!("millgate serves http://{address} (data in {})", settings.data_dir.display());
        let served = gateway.serve(listener, fallback::of(control.router()), stopped(stop)).await;

        // Only now may the replicas go.
        drop(callers_are_answered);
        let ran = running.await.context("the control API ended by itself")?;
        following.abort();
        administering.abort();
        served.context("the gateway ended")?;
        ran.context("the control API ended")
    })
}

/// `millgate gateway`.
pub(crate) fn gateway(role: &Role) -> Result<(), Failure> {
    let settings = Settings::read(role)?;
    telemetry::start();
    bind::raise_descriptor_limit();
    runtime()?.block_on(async {
        let listener = bind::listen(settings.listen, "--listen").await?;
        let admin = bind::listen(settings.admin_listen, "--admin-listen").await?;
        let address = bind::address_of(&listener)?;
        let gateway = Gateway::new(gateway_config(&settings, "gateway"));
        let stop = signals::watch()?;
        let following = tokio::spawn({
            let (gateway, socket) = (gateway.clone(), settings.data_dir.join(PUBLICATION_SOCKET));
            async move { gateway.follow(socket).await }
        });
        let administering = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve_admin(admin, std::future::pending()).await }
        });
        println!("millgate gateway serves http://{address}");
        let served = gateway.serve(listener, millgate_gateway::no_fallback(), stopped(stop)).await;
        following.abort();
        administering.abort();
        served.context("the gateway ended")
    })
}

/// `millgate control`.
pub(crate) fn control(role: &Role) -> Result<(), Failure> {
    let settings = Settings::read(role)?;
    let programs = Programs::find()?;
    telemetry::start();
    runtime()?.block_on(async {
        let listener = bind::listen(settings.listen, "--listen").await?;
        let address = bind::address_of(&listener)?;
        let control = open_control(&settings, &programs, address).await?;
        let stop = signals::watch()?;
        let running = tokio::spawn({
            let (control, stop) = (control.clone(), stop.clone());
            let at_end = async move {
                stopped(stop).await;
                AtShutdown::LeaveReplicas
            };
            async move { control.run(at_end).await }
        });
        println!("millgate control serves http://{address} (data in {})", settings.data_dir.display());
        axum::serve(listener, control.router())
            .with_graceful_shutdown(stopped(stop))
            .await
            .context("the control API ended")?;
        running.await.context("the control API ended by itself")?.context("the control API ended")
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")
}

async fn open_control(
    settings: &Settings,
    programs: &Programs,
    address: SocketAddr,
) -> Result<ControlApi, Failure> {
    let public = settings.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
    let (scheme, domain) = public.split_once("://").ok_or_else(|| {
        Failure::usage(format!("`public_url` is `{public}`"))
            .hint("give it as in `https://models.example.org`")
    })?;
    let config = ControlConfig {
        scheme: scheme.to_owned(),
        millgate_program: programs.millgate.clone(),
        runtime_program: programs.runtime.clone(),
        python: programs.python.clone(),
        request_timeout_ms_default: settings.request_timeout_ms,
        start_timeout_ms: settings.start_timeout_ms,
        replicas_ceiling: settings.replicas_ceiling,
        build_environment: ControlConfig::installer_variables(std::env::vars()),
        ..ControlConfig::new(&settings.data_dir, domain.trim_end_matches('/'))
    };
    ControlApi::open(config).await.map_err(|error| Failure::new(error.to_string()))
}

fn gateway_config(settings: &Settings, role: &str) -> GatewayConfig {
    let cors_origins = match &settings.cors_origins[..] {
        [] => CorsOrigins::Nowhere,
        [any] if any == "*" => CorsOrigins::Anywhere,
        listed => CorsOrigins::Listed(listed.to_vec()),
    };
    GatewayConfig {
        // New in each process, so that a replica can tell this one from the one before.
        name: format!("{role}-{}", uuid::Uuid::new_v4()),
        snapshot_file: Some(PathBuf::from(&settings.data_dir).join(SNAPSHOT_FILE)),
        cors_origins,
        ..GatewayConfig::default()
    }
}

/// Resolves when the program is asked to end.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error is the sender's end, which is the program's.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}
