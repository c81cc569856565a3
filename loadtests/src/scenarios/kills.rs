//! Replicas die at random under load: half of the time all are busy and calls wait in line, half of the time some are
//! idle.
//!
//! Which kills hit a running call is not asked of the server. A victim is stopped first, and where its main thread then
//! is says whether it was waiting for a call: the system call that idle replicas are seen in before the load begins.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::counted::{self, Runs};
use crate::{
    figures::{Figures, ms},
    load::{Outcome, Plan, load_apart},
    processes,
    server::{Model, Server},
};

const REPLICAS: usize = 4;
const SLEEP_S: f64 = 0.005;
/// Busy: three for each replica. Roomy: so many calls per second that half of the replicas' time is left.
const CALLERS: usize = 3 * REPLICAS;
const ROOMY_PER_S: f64 = 0.5 * REPLICAS as f64 / SLEEP_S;
const BETWEEN_KILLS: Duration = Duration::from_secs(1);
/// How long a signal may take to stop a process, and a slot to be filled again.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Kills {
    all: u64,
    of_running: u64,
}

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let model = server.deploy("echo", &counted::python(SLEEP_S), &["--replicas", "4"]);
    let replicas = server.replica_pids(&model);
    let runs = Runs::open(replicas[0]).expect("the function has made its file");
    let idle_in: Vec<Option<u32>> = replicas.iter().map(|pid| stopped_in(*pid)).collect();
    for pid in &replicas {
        processes::signal(*pid, Signal::SIGCONT);
    }
    let alike = idle_in.iter().all(|call| call.is_some() && *call == idle_in[0]);
    figures.must_be("idle replicas are all seen in one system call", alike, true);

    let mut kills = Kills::default();
    let mut outcome = Outcome::default();
    for plan in [Plan::numbered(CALLERS, time / 2), Plan::paced(CALLERS, time / 2, ROOMY_PER_S)] {
        let loading = load_apart(&model, plan);
        kill_each_second(&server, &model, idle_in[0], time / 2, &mut kills).await;
        let half = loading.await.expect("the callers do not panic");
        outcome.took += half.took;
        outcome.add(half);
    }

    let failed = outcome.all() - outcome.good();
    figures.show("calls", outcome.all());
    figures.show("answers", outcome.statuses());
    figures.show("calls/s", format!("{:.0}", outcome.rate()));
    figures.show("kills", kills.all);
    figures.show("of them, while a call ran", kills.of_running);
    figures.at_most("failed (no more than kills of a running call)", failed, kills.of_running);
    figures.must_be("failed otherwise than by 502", failed - outcome.status(502), 0);
    let [p50, p99] = outcome.quantiles([0.5, 0.99]);
    figures.show("p50, p99, slowest", format!("{}, {}, {}", ms(p50), ms(p99), ms(outcome.slowest())));
    runs.judge(&mut figures, &outcome);
    let begun = Instant::now();
    while server.replica_pids(&model).len() < REPLICAS && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    figures.must_be("ready replicas after it", server.replica_pids(&model).len(), REPLICAS);
    figures
}

async fn kill_each_second(
    server: &Server,
    model: &Model,
    idle_in: Option<u32>,
    time: Duration,
    kills: &mut Kills,
) {
    let begun = Instant::now();
    while begun.elapsed() + BETWEEN_KILLS < time {
        tokio::time::sleep(BETWEEN_KILLS).await;
        let replicas = server.replica_pids(model);
        // What the clock's last digits are is as good as a die.
        let Some(victim) = replicas.get(begun.elapsed().subsec_nanos() as usize % replicas.len().max(1))
        else {
            continue;
        };
        let was_in = stopped_in(*victim);
        if processes::signal(*victim, Signal::SIGKILL) {
            kills.all += 1;
            kills.of_running += u64::from(was_in != idle_in);
        }
    }
}

/// Stops a process, and says which system call its main thread was in.
fn stopped_in(pid: i32) -> Option<u32> {
    processes::signal(pid, Signal::SIGSTOP);
    let begun = Instant::now();
    while !processes::is_stopped(pid) && begun.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    processes::system_call(pid)
}
