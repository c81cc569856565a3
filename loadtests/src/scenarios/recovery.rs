//! From an exception to the next replica, one exception at a time.
//!
//! The model has one replica, so the caller of an exception who calls again at once is served by the replacement and by
//! nobody else: the time from one answer to the next is measured, a whole call included, and nothing is polled
//! meanwhile. The server's own figure, read once after each, is shown beside it.

use std::time::{Duration, Instant};

use super::{ADD, big};
use crate::{
    figures::{Figures, as_ms, ms, quantile},
    http::{Connection, request},
    server::{Model, Replica, Server},
};

const FAILING_ADD: &str = r#"{"a": 1, "b": "x"}"#;
const ADD_REQUEST: &str = super::ADD_REQUEST;
const RECOVERY_MS_MAX: f64 = 10.0;
/// Between two exceptions: in which the next spare is made ready.
const PAUSE: Duration = Duration::from_millis(250);
const TIMES_MAX: usize = 200;
const KNOWN_TIME_MAX: Duration = Duration::from_secs(2);
const KNOWN_PERIOD: Duration = Duration::from_millis(20);

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let spares: [(&str, &[&str]); 2] = [("", &[]), (", no spare", &["--spares", "0"])];
    // The second time the same models are deployed anew, so that nothing is installed twice.
    for (spare, options) in spares {
        let with_example = [options, &["--example", ADD_REQUEST]].concat();
        let add = server.deploy("add", ADD, &with_example);
        measure(&mut figures, &server, &add, (&format!("add{spare}"), ADD_REQUEST, FAILING_ADD), time / 4)
            .await;
        let big = big::deploy(&server, "big", options);
        let calls = (&*format!("300 MB of scikit-learn{spare}"), big::PING, big::FAILING);
        measure(&mut figures, &server, &big, calls, time / 4).await;
    }
    figures
}

async fn measure(
    figures: &mut Figures,
    server: &Server,
    model: &Model,
    (name, good, bad): (&str, &str, &str),
    time: Duration,
) {
    let bytes = |body| request(&model.host, "/model", &model.api_key, &model.body(body));
    let (good, bad) = (bytes(good), bytes(bad));
    let mut connection = Connection::open(&model.host).await.expect("the server listens");
    let (mut times, mut told, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < time && times.len() < TIMES_MAX {
        tokio::time::sleep(PAUSE).await;
        let before = server.replica_pids(model);
        let failed = connection.exchange(&bad).await.expect("an answer");
        let answered = Instant::now();
        let next = connection.exchange(&good).await.expect("an answer");
        times.push(answered.elapsed());
        let after = replaced(server, model, &before).await;
        told.extend(after.iter().map(|replica| replica.ready_after));
        if (failed.status, next.status) != (500, 200) {
            faults.push(format!("{} and {}", failed.status, next.status));
        }
        if after.iter().any(|replica| before.contains(&replica.pid)) {
            faults.push("the same process".to_owned());
        }
    }
    times.sort_unstable();
    told.sort_unstable();
    faults.truncate(3);
    figures.row(format!("{name}: exceptions, each met by another process"), times.len(), &faults);
    let of = |share| as_ms(quantile(&times, share));
    figures.aim_at_most(
        format!("{name}: exception to the next answer, median"),
        of(0.5),
        RECOVERY_MS_MAX,
        " ms",
    );
    figures.aim_at_most(
        format!("{name}: exception to the next answer, p99"),
        of(0.99),
        RECOVERY_MS_MAX,
        " ms",
    );
    figures.show(
        format!("{name}: end to ready by the supervisor's clock, median, p99"),
        format!("{}, {}", ms(quantile(&told, 0.5)), ms(quantile(&told, 0.99))),
    );
}

/// The replicas when the control API knows of the replacement, which may be a moment after callers do.
async fn replaced(server: &Server, model: &Model, before: &[i32]) -> Vec<Replica> {
    let begun = Instant::now();
    loop {
        let after = server.replicas(model);
        let is_known = after.iter().all(|replica| replica.is_ready && !before.contains(&replica.pid));
        if is_known || begun.elapsed() > KNOWN_TIME_MAX {
            return after;
        }
        tokio::time::sleep(KNOWN_PERIOD).await;
    }
}
