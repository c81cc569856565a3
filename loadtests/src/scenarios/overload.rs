//! Ten times too many callers.

use std::time::Duration;

use super::TEN_MS;
use crate::{
    figures::{Figures, ms, quantile},
    load::{Plan, load},
    server::Server,
};

const REPLICAS: usize = 4;
/// More than the line holds beside the replicas.
const CALLERS: usize = 2_000;

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let model = server.deploy("slow", TEN_MS, &["--replicas", "4"]);
    let peak = load(&model, &Plan::numbered(REPLICAS * 2, Duration::from_secs(5))).await;
    let crowd = load(&model, &Plan::numbered(CALLERS, time)).await;
    let after = load(&model, &Plan::numbered(REPLICAS * 2, Duration::from_secs(2))).await;
    figures.show("peak, good answers/s", format!("{:.0}", peak.rate()));
    figures.show("overloaded, good answers/s", format!("{:.0}", crowd.rate()));
    figures.show("share of the peak", format!("{:.1} %", crowd.rate() / peak.rate() * 100.0));
    figures.show("429", crowd.status(429));
    let other: u64 = crowd.by_status.iter().filter(|(s, _)| **s != 200 && **s != 429).map(|(_, n)| *n).sum();
    figures.must_be("neither 200 nor 429", other, 0);
    figures.must_be("crossed", crowd.crossed, 0);
    figures.show("p50 while overloaded", ms(quantile(&crowd.sorted(), 0.5)));
    figures.show("after it, good answers/s", format!("{:.0}", after.rate()));
    figures
}
