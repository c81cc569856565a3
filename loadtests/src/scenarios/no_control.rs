//! Gateway and control API as two processes: the control API is killed again and again, and then it is gone. Callers
//! must not notice. Before that, keys are deleted while they are used.

use std::time::{Duration, Instant};

use super::{ECHO, deleted_key::last_accepted_after};
use crate::{
    figures::{Figures, as_ms, ms},
    load::{Plan, load_apart},
    server::{Model, Server},
};

const CALLS_PER_S: f64 = 300.0;
const BETWEEN_KILLS: Duration = Duration::from_secs(5);
/// For how long it is not there after each kill.
const GONE: Duration = Duration::from_secs(2);
/// For how long it is not there in the end.
const ABSENT_MAX: Duration = Duration::from_secs(60);
const DELETIONS: usize = 10;
const DELETED_MS_MAX: f64 = 1_000.0;

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let mut server = Server::start_split();
    let model = server.deploy("echo", ECHO, &["--replicas", "2"]);
    let replicas = server.replica_pids(&model);
    delete_keys(&mut figures, &server, &model).await;

    let absent = ABSENT_MAX.min(time / 3);
    let plan = Plan::paced(4, time + absent, CALLS_PER_S);
    let on_new = load_apart(&model, Plan { keeps: false, ..plan.clone() });
    let on_kept = load_apart(&model, plan);
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < time {
        let killed = Instant::now();
        server.kill_control();
        kills += 1;
        tokio::time::sleep(GONE).await;
        server.start_control();
        tokio::time::sleep(BETWEEN_KILLS.saturating_sub(killed.elapsed())).await;
    }
    server.kill_control();
    kills += 1;
    let mut outcome = on_kept.await.expect("the callers do not panic");
    outcome.add(on_new.await.expect("the callers do not panic"));
    server.start_control();

    figures.show("kills", kills);
    figures.show("absent in the end", format!("{} s", absent.as_secs()));
    figures.show("answers", outcome.statuses());
    figures.must_be("without an answer", outcome.status(0), 0);
    figures.must_be("other than 200 (errors)", outcome.all() - outcome.good(), 0);
    figures.must_be("crossed", outcome.crossed, 0);
    let [p50, p99] = outcome.quantiles([0.5, 0.99]);
    figures.show("p50, p99, slowest", format!("{}, {}, {}", ms(p50), ms(p99), ms(outcome.slowest())));
    figures.must_be("replicas that are the same processes", known(&server, &model).await == replicas, true);
    figures
}

async fn delete_keys(figures: &mut Figures, server: &Server, model: &Model) {
    let (mut last, mut faults) = (Vec::new(), Vec::new());
    for _ in 0..DELETIONS {
        match last_accepted_after(server, model).await {
            Ok(after) => last.push(as_ms(after)),
            Err(fault) => faults.push(fault),
        }
    }
    let worst = last.iter().copied().fold(0.0, f64::max);
    figures.row("keys deleted while used", format!("{DELETIONS} keys"), &faults);
    figures.aim_at_most("a deleted key's last accepted call, worst", worst, DELETED_MS_MAX, " ms");
}

/// The replicas as the control API knows them, which finds them again after its start.
async fn known(server: &Server, model: &Model) -> Vec<i32> {
    let begun = Instant::now();
    loop {
        let found = server.replica_pids(model);
        if !found.is_empty() || begun.elapsed() > BETWEEN_KILLS {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
