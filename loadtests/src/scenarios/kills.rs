//! Replicas die at random under load.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::ECHO;
use crate::{
    figures::{Figures, ms, quantile},
    load::{Plan, load},
    processes,
    server::Server,
};

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Arc::new(Server::start());
    let model = server.deploy("echo", ECHO, &["--replicas", "4"]);
    let plan = Plan::numbered(8, time);
    let (outcome, kills) =
        tokio::join!(load(&model, &plan), kill_each_second(Arc::clone(&server), &model.name, time));
    let times = outcome.sorted();
    let failed: u64 = outcome.by_status.iter().filter(|(s, _)| **s != 200).map(|(_, n)| *n).sum();
    figures.show("calls", outcome.by_status.values().sum::<u64>());
    figures.show("calls/s", format!("{:.0}", outcome.rate()));
    figures.show("kills", kills);
    figures.at_most("failed", failed, kills);
    figures.must_be("failed otherwise than by 502", failed - outcome.status(502), 0);
    figures.must_be("crossed", outcome.crossed, 0);
    figures.show("p50, p99", format!("{}, {}", ms(quantile(&times, 0.5)), ms(quantile(&times, 0.99))));
    figures
}

/// Looks on a thread of its own, so that the callers are not held up.
async fn kill_each_second(server: Arc<Server>, name: &str, time: Duration) -> u64 {
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() + Duration::from_secs(1) < time {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (server, name) = (Arc::clone(&server), name.to_owned());
        let replicas = tokio::task::spawn_blocking(move || server.replicas(&name)).await.unwrap_or_default();
        if let Some(pid) = replicas.get(kills as usize % replicas.len().max(1))
            && processes::signal(*pid, Signal::SIGKILL)
        {
            kills += 1;
        }
    }
    kills
}
