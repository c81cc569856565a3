//! A fresh fork for each call.

use std::time::Duration;

use super::ADD_REQUEST;
use crate::{
    figures::{Figures, ms},
    load::{Plan, load},
    server::Server,
};

/// Answers with how often this process has been called: always 1, if each call has a process of its own.
const COUNTING: &str = "\
calls = 0
def predict(args):
    global calls
    calls += 1
    return [args['a'] + args['b'], calls]
";

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    // No example, which would be each process's first call.
    let model = server.deploy("add", COUNTING, &["--replicas", "4", "--isolation", "call"]);
    for callers in [1, 4] {
        let plan =
            Plan { answer: Some("[8,1]".to_owned()), ..Plan::repeated(callers, time / 2, ADD_REQUEST) };
        let outcome = load(&model, &plan).await;
        let [p50, p99] = outcome.quantiles([0.5, 0.99]);
        figures.show(format!("{callers} callers: calls/s"), format!("{:.0}", outcome.rate()));
        figures.show(format!("{callers} callers: p50, p99"), format!("{}, {}", ms(p50), ms(p99)));
        figures.must_be(format!("{callers} callers: other than 200"), outcome.all() - outcome.good(), 0);
        figures.must_be(format!("{callers} callers: not the process's first call"), outcome.crossed, 0);
    }
    figures
}
