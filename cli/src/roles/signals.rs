//! SIGINT and SIGTERM ask a server to end; a second one ends it at once. SIGUSR2 asks it to hand over.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::failure::{Context, Failure};

/// Becomes true at the first signal.
pub(crate) fn watch() -> Result<watch::Receiver<bool>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        next(&mut interrupt, &mut terminate).await;
        let _ = sender.send(true);
        eprintln!("millgate: ending: no new calls, running ones are answered (again to end at once)");
        next(&mut interrupt, &mut terminate).await;
        std::process::exit(130);
    });
    Ok(receiver)
}

/// SIGUSR2.
pub(crate) fn upgrades() -> Result<Signal, Failure> {
    signal(SignalKind::user_defined2()).context("cannot listen for SIGUSR2")
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
