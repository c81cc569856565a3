//! Hours of an ordinary day, in short: 70 % of capacity, each call with its own number.

use std::time::Duration;

use super::ECHO;
use crate::{
    figures::{Figures, mb, ms, quantile},
    load::{Plan, load},
    processes,
    server::Server,
};

const CALLERS: usize = 16;

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let model = server.deploy("echo", ECHO, &["--replicas", "4"]);
    let peak = load(&model, &Plan::numbered(CALLERS, Duration::from_secs(5))).await;
    figures.show("capacity, calls/s", format!("{:.0}", peak.rate()));
    let interval = Duration::from_secs_f64(CALLERS as f64 / (peak.rate() * 0.7));

    let before = (processes::rss_bytes(server.pid()), processes::descriptors(server.pid()));
    let plan = Plan { interval: Some(interval), ..Plan::numbered(CALLERS, time) };
    let outcome = load(&model, &plan).await;
    let after = (processes::rss_bytes(server.pid()), processes::descriptors(server.pid()));
    let times = outcome.sorted();
    let all: u64 = outcome.by_status.values().sum();
    figures.show("calls", all);
    figures.show("calls/s", format!("{:.0}", outcome.rate()));
    figures.must_be("lost", outcome.status(0), 0);
    figures.must_be("other than 200", all - outcome.good(), 0);
    figures.must_be("crossed", outcome.crossed, 0);
    figures.show("p50, p99", format!("{}, {}", ms(quantile(&times, 0.5)), ms(quantile(&times, 0.99))));
    figures.show("memory of the server before, after", format!("{}, {}", mb(before.0), mb(after.0)));
    figures.show("descriptors of the server before, after", format!("{}, {}", before.1, after.1));
    figures
}
