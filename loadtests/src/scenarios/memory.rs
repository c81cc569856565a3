//! What nine replicas of a 300 MB function cost.

use std::time::Duration;

use super::big;
use crate::{
    figures::{Figures, mb},
    http::{Connection, request},
    processes,
    server::Server,
};

const REPLICAS: usize = 9;
/// So many calls for each, that memory which calls touch is counted too.
const CALLS: usize = 20 * REPLICAS;
const COPIES_MAX: f64 = 2.0;

pub(crate) async fn run(_: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let model = big::deploy(&server, "big", &["--replicas", "9"]);
    let call = request(&model.host, "/model", &model.api_key, &model.body(big::REQUEST));
    let mut good = 0;
    let mut connections = Vec::new();
    for _ in 0..REPLICAS {
        connections.push(Connection::open(&model.host).await.expect("the server listens"));
    }
    for round in 0..CALLS / REPLICAS {
        for connection in &mut connections {
            connection.send(&call).await.expect("the server reads");
        }
        for connection in &mut connections {
            let answer = connection.answer().await;
            assert!(answer.is_ok(), "no answer in round {round}");
            good += usize::from(answer.is_ok_and(|answer| answer.status == 200));
        }
    }
    figures.must_be("good calls, nine at once", good, CALLS);

    let supervisors = server.supervisors();
    let mut family: Vec<i32> = supervisors.iter().flat_map(|pid| processes::tree(*pid)).collect();
    family.sort_unstable();
    family.dedup();
    let python: Vec<i32> = family.iter().copied().filter(|pid| !supervisors.contains(pid)).collect();
    let replicas = server.replica_pids(&model);
    let pss = |pids: &[i32]| pids.iter().map(|pid| processes::pss_bytes(*pid)).sum::<u64>();
    // What one alone would have: with nobody to share with, its proportional memory is its resident memory.
    let one = python.iter().map(|pid| processes::rss_bytes(*pid)).max().unwrap_or(1);
    let all = pss(&python);
    figures.must_be("replicas, template and spare", python.len(), REPLICAS + 2);
    figures.show("start mode", server.show("big")["start_mode"].as_str().unwrap_or_default());
    figures.show("one alone", mb(one));
    figures.show("nine replicas", mb(pss(&replicas)));
    figures.show("nine replicas, template and spare", mb(all));
    figures.show("supervisor", mb(pss(&supervisors)));
    figures.aim_at_most("all ÷ one", all as f64 / one as f64, COPIES_MAX, "");
    figures
}
