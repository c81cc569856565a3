//! Hours of an ordinary day, in short: 70 % of capacity, each call with its own number.

use std::time::Duration;

use super::counted::{self, Runs};
use crate::{
    figures::{Figures, as_mb, ms},
    load::{Plan, load, load_apart},
    processes::{self, OwnCpu},
    server::Server,
};

const CALLERS: usize = 16;
const SHARE_OF_CAPACITY: f64 = 0.7;
/// What is compared: the first and the last minute, or the first and last quarter where there is less.
const SPAN: Duration = Duration::from_secs(60);
/// How much more than in the first minute the server may have in the last one before it is not called flat.
const GROWTH_MB_MAX: f64 = 8.0;
const GROWTH_DESCRIPTORS_MAX: f64 = 1.0;

/// Memory and descriptors of the server at one moment.
#[derive(Clone, Copy)]
struct Sample {
    rss_mb: f64,
    descriptors: f64,
}

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let model = server.deploy("echo", &counted::python(0.0), &["--replicas", "4"]);
    let runs = Runs::open(server.replica_pids(&model)[0]).expect("the function has made its file");
    let mut peak = load(&model, &Plan::numbered(CALLERS, Duration::from_secs(5).min(time))).await;
    let capacity = peak.rate();
    figures.show("capacity, calls/s", format!("{capacity:.0}"));

    let own = OwnCpu::measure();
    let loading = load_apart(&model, Plan::paced(CALLERS, time, capacity * SHARE_OF_CAPACITY));
    let samples = sample(&server, time).await;
    let outcome = loading.await.expect("the callers do not panic");
    let own = own.text();
    figures.show("calls", outcome.all());
    figures.show("calls/s", format!("{:.0}", outcome.rate()));
    figures.show("of capacity", format!("{:.0} %", outcome.rate() / capacity * 100.0));
    figures.show("share of one core that the callers took", own);
    let [p50, p99] = outcome.quantiles([0.5, 0.99]);
    figures.show("p50, p99", format!("{}, {}", ms(p50), ms(p99)));
    figures.must_be("without an answer (lost)", outcome.status(0), 0);
    figures.must_be("5xx", outcome.by_status.range(500..).map(|(_, n)| *n).sum::<u64>(), 0);
    figures.must_be("other than 200", outcome.all() - outcome.good(), 0);
    peak.add(outcome);
    runs.judge(&mut figures, &peak);
    show_flat(&mut figures, &samples);
    figures
}

async fn sample(server: &Server, time: Duration) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    // The first look comes when all callers have come.
    ticks.tick().await;
    for _ in 0..time.as_secs() {
        ticks.tick().await;
        samples.push(Sample {
            rss_mb: as_mb(processes::rss_bytes(server.pid())),
            descriptors: processes::descriptors(server.pid()) as f64,
        });
    }
    samples
}

fn show_flat(figures: &mut Figures, samples: &[Sample]) {
    let span = (SPAN.as_secs() as usize).min(samples.len() / 4).max(1).min(samples.len());
    let (first, last) = (&samples[..span], &samples[samples.len() - span..]);
    let mean = |of: &[Sample], what: fn(&Sample) -> f64| of.iter().map(what).sum::<f64>() / of.len() as f64;
    let memory = (mean(first, |s| s.rss_mb), mean(last, |s| s.rss_mb));
    let open = (mean(first, |s| s.descriptors), mean(last, |s| s.descriptors));
    let of = format!("the server's first and last {span} s");
    figures.show(format!("memory in {of}"), format!("{:.1}, {:.1} MB", memory.0, memory.1));
    figures.show(format!("descriptors in {of}"), format!("{:.1}, {:.1}", open.0, open.1));
    figures.at_most("memory grown, MB", (memory.1 - memory.0).round(), GROWTH_MB_MAX);
    figures.at_most("descriptors grown", (open.1 - open.0).round(), GROWTH_DESCRIPTORS_MAX);
}
