//! One shared line: throughput near the ideal, and nobody waits much longer than another.

use std::time::Duration;

use super::TEN_MS;
use crate::{
    figures::{Figures, ms},
    load::{Plan, load},
    server::Server,
};

const IDEAL_PER_S: f64 = 400.0;
/// What `time.sleep` and two processors shared with the callers take off the ideal at most.
const SHARE_OF_IDEAL_MIN: f64 = 0.95;

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let model = server.deploy("slow", TEN_MS, &["--replicas", "4"]);
    load(&model, &Plan::numbered(16, Duration::from_secs(1))).await;
    let outcome = load(&model, &Plan::numbered(16, time)).await;
    let [p50, p99] = outcome.quantiles([0.5, 0.99]);
    figures.aim_at_least("calls/s (ideal 400)", outcome.rate(), IDEAL_PER_S * SHARE_OF_IDEAL_MIN, "");
    figures.show("of the ideal", format!("{:.1} %", outcome.rate() / IDEAL_PER_S * 100.0));
    figures.show("p50, p99", format!("{}, {}", ms(p50), ms(p99)));
    figures.show("p99 ÷ p50", format!("{:.3}", p99.as_secs_f64() / p50.as_secs_f64()));
    figures.must_be("other than 200", outcome.all() - outcome.good(), 0);
    figures.must_be("crossed", outcome.crossed, 0);
    figures
}
