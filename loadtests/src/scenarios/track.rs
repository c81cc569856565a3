//! What tracking metrics costs: the same sum with `track_metric` and without, in turns. After each turn the server comes
//! to rest, so that what it does later for the metrics of one is not a part of the next; the processor time of a call is
//! counted until then, that of the replicas included, and unlike calls/s it hardly depends on what else the machine does.
//! That the rate can go on is seen by how long the store takes, at the end of a turn, to have what it has not yet.

use std::time::{Duration, Instant};

use super::{ADD, ADD_REQUEST, tracked};
use crate::{
    figures::{Figures, ms, quantile},
    load::{Outcome, Plan, load},
    processes::cpu_time,
    server::{Model, Server},
};

const TRACKING: &str = "\
import cml.models_v1 as models
from cml.metrics_v1 import track_metric
@models.cml_model(metrics=True)
def predict(args):
    track_metric('a', args['a'])
    return args['a'] + args['b']
";
const TRACKS: &str = "with";
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
        (TRACKS, tracking, Vec::new(), Outcome::default(), Cost::default()),
    ];
    let rounds = (time.as_millis() / (2 * ROUND.as_millis())).max(2);
    let plan = Plan::repeated(CALLERS, ROUND.min(time / 4), ADD_REQUEST);
    for _ in 0..rounds {
        for (_, model, rates, all, cost) in &mut models {
            let before = Cpu::now(&server, model);
            let outcome = load(model, &plan).await;
            rates.push(outcome.rate());
            cost.shipped_after.push(tracked::ship(&server, model));
            cost.rests.push(rest(server.pid()).await);
            cost.add(before, Cpu::now(&server, model));
            all.add(outcome);
        }
    }
    let rows = tracked::read(&server, &models[1].1).len() as u64;
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
        let each_us = |time: Duration| time.as_micros() as f64 / outcome.good().max(1) as f64;
        let (server_us, replicas_us) = (each_us(cost.server), each_us(cost.replicas));
        figures.show(
            format!("{name} track_metric: processor time, each of {} calls", outcome.good()),
            format!("{server_us:.1} µs of the server, {replicas_us:.1} µs of replicas"),
        );
        cost.rests.sort_unstable();
        figures.show(format!("{name} track_metric: at rest after, median"), ms(quantile(&cost.rests, 0.5)));
        figures.must_be(format!("{name} track_metric: other than 200"), outcome.all() - outcome.good(), 0);
        if name == TRACKS {
            cost.shipped_after.sort_unstable();
            let last = ms(quantile(&cost.shipped_after, 1.0));
            figures.show("with track_metric: in the store after the last answer of a round, at most", last);
            figures.must_be("with track_metric: rows, one for each answer", rows, outcome.good());
        }
    }
    figures.aim_at_least("with ÷ without", medians[1] / medians[0] * 100.0, SHARE_MIN, " %");
    figures
}

#[derive(Default)]
struct Cost {
    server: Duration,
    replicas: Duration,
    rests: Vec<Duration>,
    shipped_after: Vec<Duration>,
}

impl Cost {
    fn add(&mut self, before: Cpu, after: Cpu) {
        self.server += after.server.saturating_sub(before.server);
        self.replicas += after.replicas.saturating_sub(before.replicas);
    }
}

/// Processor time until now.
struct Cpu {
    server: Duration,
    replicas: Duration,
}

impl Cpu {
    fn now(server: &Server, model: &Model) -> Self {
        let replicas = server.replica_pids(model).into_iter().map(cpu_time).sum();
        Self { server: cpu_time(server.pid()), replicas }
    }
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
