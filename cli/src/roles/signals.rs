//! SIGINT and SIGTERM ask a server to end; a second one ends it at once. SIGUSR2 asks it to hand over, SIGHUP to read its
//! certificate again.

use std::io::{IsTerminal, stdin};

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
        either(&mut interrupt, &mut terminate).await;
        let _ = sender.send(true);
        eprintln!("millgate: ending: no new calls, running ones are answered (again to end at once)");
        either(&mut interrupt, &mut terminate).await;
        std::process::exit(130);
    });
    Ok(receiver)
}

/// Resolves when the end was asked for.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    // Whoever would say it is gone: nobody asks any more.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}

/// SIGUSR2.
pub(crate) fn upgrades() -> Result<Signal, Failure> {
    signal(SignalKind::user_defined2()).context("cannot listen for SIGUSR2")
}

/// SIGHUP. On a terminal it means that the terminal is gone, and ends the program as it always does.
pub(crate) fn reloads() -> Result<Option<Signal>, Failure> {
    if stdin().is_terminal() {
        return Ok(None);
    }
    signal(SignalKind::hangup()).map(Some).context("cannot listen for SIGHUP")
}

/// The next one of a signal that is perhaps not listened for.
pub(crate) async fn next(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
