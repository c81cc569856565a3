//! The server is replaced by a new program, again and again, while callers call: some on connections that they keep,
//! some on a new one each time.

use std::time::{Duration, Instant};

use super::counted::{self, Runs};
use crate::{
    figures::{Figures, ms, quantile},
    load::{Outcome, Plan, load_apart},
    server::Server,
};

const HAND_OVERS: usize = 100;
const CALLERS_OF_EACH_KIND: usize = 4;
/// Calls per second of each kind: enough that each hand-over meets many, and time is left for two programs at once.
const CALLS_PER_S: f64 = 300.0;
/// One more round of load begins when the last is over.
const ROUND: Duration = Duration::from_secs(2);

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let mut server = Server::start();
    let model = server.deploy("echo", &counted::python(0.0), &["--replicas", "2"]);
    let replicas = server.replica_pids(&model);
    let runs = Runs::open(replicas[0]).expect("the function has made its file");
    let first = server.pid();

    let hand_over = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let (mut took, mut failed) = (Vec::new(), 0);
        while took.len() < HAND_OVERS && failed == 0 && begun.elapsed() < time {
            let asked = Instant::now();
            if server.hand_over() {
                took.push(asked.elapsed());
            } else {
                failed += 1;
            }
        }
        (server, took, failed)
    });
    let (mut kept, mut new) = (Outcome::default(), Outcome::default());
    while !hand_over.is_finished() {
        let plan = Plan::paced(CALLERS_OF_EACH_KIND, ROUND, CALLS_PER_S);
        let on_new = load_apart(&model, Plan { keeps: false, ..plan.clone() });
        kept.add(load_apart(&model, plan).await.expect("the callers do not panic"));
        new.add(on_new.await.expect("the callers do not panic"));
    }
    let (server, mut took, failed) = hand_over.await.expect("handing over does not panic");

    took.sort_unstable();
    figures.aim_at_least("hand-overs", took.len() as f64, HAND_OVERS as f64, "");
    figures.must_be("hand-overs that came to nothing", failed, 0);
    figures.must_be("another program serves than at first", server.pid() != first, true);
    figures.show(
        "from the signal to the predecessor's end, median, worst",
        format!("{}, {}", ms(quantile(&took, 0.5)), ms(quantile(&took, 1.0))),
    );
    for (name, outcome) in [("kept", &kept), ("new", &new)] {
        figures.show(format!("answers on {name} connections"), outcome.statuses());
        figures.must_be(format!("dropped, {name} connections"), outcome.status(0), 0);
        figures.must_be(format!("other than 200, {name} connections"), outcome.all() - outcome.good(), 0);
    }
    figures.must_be("replicas that are the same processes", server.replica_pids(&model) == replicas, true);
    kept.add(new);
    runs.judge(&mut figures, &kept);
    figures
}
