//! What tracking metrics costs: the same sum with `track_metric` and without, in turns. After each turn the server comes
//! to rest, so that what it does later for the metrics of one is not a part of the next; the processor time of a call is
//! counted until then, and unlike calls/s it hardly depends on what else the machine does.

use std::time::{Duration, Instant};

use super::{ADD, ADD_REQUEST};
use crate::{
    figures::{Figures, ms, quantile},
    load::{Outcome, Plan, load},
    processes::cpu_time,
    server::Server,
};

const TRACKING: &str = "\
import cml.models_v1 as models
from cml.metrics_v1 import track_metric
@models.cml_model(metrics=True)
def predict(args):
    track_metric('a', args['a'])
    return args['a'] + args['b']
";
const CALLERS: usize = 4;
const ROUND: Duration = Duration::from_secs(3);
const SHARE_MIN: f64 = 90.0;
/// A server at rest uses less than a thirtieth of a processor.
const REST: Duration = Duration::from_secs(1);
const REST_CPU_MAX: Duration = Duration::from_millis(30);
const REST_TIME_MAX: Duration = Duration::from_secs(60);

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let plain = server.deploy("plain", ADD, &["--replicas", "2"]);
    let tracking = server.deploy("tracking", TRACKING, &["--replicas", "2"]);
    let mut models = [
        ("without", plain, Vec::new(), Outcome::default(), Cost::default()),
        ("with", tracking, Vec::new(), Outcome::default(), Cost::default()),
    ];
    let rounds = (time.as_millis() / (2 * ROUND.as_millis())).max(2);
    let plan = Plan::repeated(CALLERS, ROUND.min(time / 4), ADD_REQUEST);
    for _ in 0..rounds {
        for (_, model, rates, all, cost) in &mut models {
            let before = cpu_time(server.pid());
            let outcome = load(model, &plan).await;
            rates.push(outcome.rate());
            cost.rests.push(rest(server.pid()).await);
            cost.cpu += cpu_time(server.pid()).saturating_sub(before);
            all.add(outcome);
        }
    }
    let mut medians = Vec::new();
    for (name, _, mut rates, outcome, mut cost) in models {
        rates.sort_by(f64::total_cmp);
        medians.push(quantile(&rates, 0.5));
        let [p50, p99] = outcome.quantiles([0.5, 0.99]);
        figures.show(
            format!("{name} track_metric: calls/s, median of {} rounds", rates.len()),
            format!(
                "{:.0} ({:.0} to {:.0})",
                quantile(&rates, 0.5),
                quantile(&rates, 0.0),
                quantile(&rates, 1.0)
            ),
        );
        figures.show(format!("{name} track_metric: p50, p99"), format!("{}, {}", ms(p50), ms(p99)));
        let cpu_us = cost.cpu.as_micros() as f64 / outcome.good().max(1) as f64;
        figures.show(
            format!("{name} track_metric: processor time of the server, each of {} calls", outcome.good()),
            format!("{cpu_us:.1} µs"),
        );
        cost.rests.sort_unstable();
        figures.show(format!("{name} track_metric: at rest after, median"), ms(quantile(&cost.rests, 0.5)));
        figures.must_be(format!("{name} track_metric: other than 200"), outcome.all() - outcome.good(), 0);
    }
    figures.aim_at_least("with ÷ without", medians[1] / medians[0] * 100.0, SHARE_MIN, " %");
    figures
}

#[derive(Default)]
struct Cost {
    cpu: Duration,
    rests: Vec<Duration>,
}

/// How long the server goes on with what it was given.
async fn rest(pid: i32) -> Duration {
    let begun = Instant::now();
    loop {
        let before = (begun.elapsed(), cpu_time(pid));
        tokio::time::sleep(REST).await;
        if cpu_time(pid).saturating_sub(before.1) < REST_CPU_MAX || before.0 > REST_TIME_MAX {
            return before.0;
        }
    }
}
