//! One shared line: throughput near the ideal, and nobody waits much longer than another.

use std::time::Duration;

use super::TEN_MS;
use crate::{
    figures::{Figures, ms, quantile},
    load::{Plan, load},
    server::Server,
};

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let model = server.deploy("slow", TEN_MS, &["--replicas", "4"]);
    load(&model, &Plan::numbered(16, Duration::from_secs(1))).await;
    let outcome = load(&model, &Plan::numbered(16, time)).await;
    let times = outcome.sorted();
    let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    let all: u64 = outcome.by_status.values().sum();
    figures.show("calls/s (ideal 400)", format!("{:.1}", outcome.rate()));
    figures.show("of the ideal", format!("{:.1} %", outcome.rate() / 4.0));
    figures.show("p50, p99", format!("{}, {}", ms(p50), ms(p99)));
    figures.show("p99 ÷ p50", format!("{:.3}", p99.as_secs_f64() / p50.as_secs_f64()));
    figures.must_be("other than 200", all - outcome.good(), 0);
    figures.must_be("crossed", outcome.crossed, 0);
    figures
}
