//! What copies of a function that holds 100 MB cost, and how soon a replica is back after an exception.

use std::time::{Duration, Instant};

use crate::{
    figures::{Figures, mb, ms, quantile},
    http::{Connection, request},
    processes,
    server::Server,
};

const PYTHON: &str = "
import os
held = bytearray(os.urandom(1 << 20) * 100)
def predict(args):
    if args.get('fail'):
        raise ValueError('asked to')
    return sum(held[:1000])
";
const REPLICAS: usize = 9;

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let model = server.deploy("held", PYTHON, &["--replicas", "9", "--example", "{}"]);
    let run_dir = server.data_dir().join("run");
    let supervisor = processes::naming(&run_dir);
    let mut family: Vec<i32> = supervisor.iter().flat_map(|pid| processes::tree(*pid)).collect();
    family.sort_unstable();
    family.dedup();
    let python: Vec<i32> = family.iter().copied().filter(|pid| !supervisor.contains(pid)).collect();
    figures.must_be("replicas, template and spare", python.len(), REPLICAS + 2);
    let total: u64 = python.iter().map(|pid| processes::pss_bytes(*pid)).sum();
    let largest = python.iter().map(|pid| processes::rss_bytes(*pid)).max().unwrap_or(1);
    figures.show("proportional memory of all", mb(total));
    figures.show("resident memory of one", mb(largest));
    figures.show("all ÷ one", format!("{:.2}", total as f64 / largest as f64));
    figures.show("supervisor", mb(supervisor.iter().map(|pid| processes::pss_bytes(*pid)).sum()));

    let good = request(&model.host, "/model", &model.api_key, &model.body("{}"));
    let bad = request(&model.host, "/model", &model.api_key, &model.body(r#"{"fail":true}"#));
    let mut connection = Connection::open(&model.host).await.expect("the server listens");
    let begun = Instant::now();
    let mut failures = 0_u32;
    while begun.elapsed() < time && failures < 200 {
        let answer = connection.exchange(&bad).await.expect("an answer");
        assert_eq!(answer.status, 500, "{}", String::from_utf8_lossy(&answer.body));
        failures += 1;
        let answer = connection.exchange(&good).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        if failures.is_multiple_of(9) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    figures.show("exceptions", failures);
    let shown = server.show("held");
    let mut ready: Vec<Duration> = shown["replicas"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|r| r["starts"].as_u64() > Some(1))
        .filter_map(|r| r["ready_after_ms"].as_u64())
        .map(Duration::from_millis)
        .collect();
    ready.sort_unstable();
    figures.show("slots refilled", ready.len());
    figures.show("from exception to ready, median", ms(quantile(&ready, 0.5)));
    figures.show("from exception to ready, worst", ms(quantile(&ready, 1.0)));
    figures
}
