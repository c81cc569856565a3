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
const EXCEPTIONS_ALONE: usize = 50;
const EXCEPTIONS_AT_ONCE: u32 = 200;

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

    // One at a time: the next when every slot is ready again and the spare has had time to be.
    let mut alone = Vec::new();
    let mut before = starts(&server);
    for _ in 0..EXCEPTIONS_ALONE {
        exchange(&mut connection, &bad, 500).await;
        let after = loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let after = starts(&server);
            if after.len() == REPLICAS && after.iter().zip(&before).any(|(new, old)| new.0 > old.0) {
                break after;
            }
        };
        alone.extend(after.iter().zip(&before).filter(|(new, old)| new.0 > old.0).map(|(new, _)| new.1));
        before = after;
    }
    show(&mut figures, "one at a time", alone);

    // As fast as they are answered: the forks of one template stand in line.
    let begun = Instant::now();
    let mut failures = 0_u32;
    while begun.elapsed() < time && failures < EXCEPTIONS_AT_ONCE {
        exchange(&mut connection, &bad, 500).await;
        exchange(&mut connection, &good, 200).await;
        failures += 1;
    }
    let took = begun.elapsed();
    figures.show(
        "without a pause, exceptions/s, each followed by a good call",
        format!("{:.0}", f64::from(failures) / took.as_secs_f64()),
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    let burst =
        starts(&server).into_iter().zip(before).filter(|(new, old)| new.0 > old.0).map(|(new, _)| new.1);
    show(&mut figures, "without a pause, each slot's last", burst.collect());
    figures
}

async fn exchange(connection: &mut Connection, call: &[u8], status: u16) {
    let answer = connection.exchange(call).await.expect("an answer");
    assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&answer.body));
}

/// By slot, of those that are ready: how often it was filled, and how long the last time took.
fn starts(server: &Server) -> Vec<(u64, Duration)> {
    let shown = server.show("held");
    let replicas = shown["replicas"].as_array().cloned().unwrap_or_default();
    let ready = replicas.iter().filter(|r| r["state"] == "ready");
    ready
        .filter_map(|r| Some((r["starts"].as_u64()?, Duration::from_millis(r["ready_after_ms"].as_u64()?))))
        .collect()
}

fn show(figures: &mut Figures, what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    figures.show(
        format!("from exception to ready, {what}"),
        format!("median {}, p99 {} ({} times)", ms(p50), ms(p99), times.len()),
    );
}
