//! A function that hangs inside a C call, with children and grandchildren that do not listen to SIGTERM, half of them
//! in sessions of their own: when its caller is told, and when the last of them is gone.

use std::time::{Duration, Instant};

use crate::{
    figures::{Figures, as_ms},
    http::{Connection, request},
    processes,
    server::{Model, Server},
};

const DEADLINE: Duration = Duration::from_secs(2);
const CONFIGURATION: &str = "request_timeout_s = 2\n";
const LATE_MS_MAX: f64 = 100.0;
const GONE_MS_MAX: f64 = 1_500.0;
/// Children and grandchildren, all there when the deadline comes.
const FORKED: usize = 8;
/// Before the deadline: when they are counted.
const COUNTED: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);
const PYTHON: &str = "\
import ctypes, os, signal, time
def stay():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)
def predict(args):
    for number in range(4 if args.get('hang') else 0):
        if os.fork() == 0:
            if number % 2:
                os.setsid()
            os.fork()
            stay()
    if args.get('hang'):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ctypes.PyDLL(None).sleep(3600)
    return args['n']
";

struct Hang {
    late: Duration,
    gone: Duration,
    faults: Vec<String>,
}

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start_with(CONFIGURATION);
    let model = server.deploy("hangs", PYTHON, &[]);
    let (mut late, mut gone, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    let begun = Instant::now();
    while late.is_empty() || begun.elapsed() < time {
        let hang = hang_once(&server, &model).await;
        late.push(as_ms(hang.late));
        gone.push(as_ms(hang.gone));
        faults.extend(hang.faults);
    }
    faults.truncate(5);
    figures.row(
        "hangs, each answered with 504, all processes gone, the next call answered",
        late.len(),
        &faults,
    );
    let worst = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
    let median = |of: &mut Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    figures.show("504 after the deadline, median", format!("{:.1} ms", median(&mut late)));
    figures.aim_at_most("504 after the deadline, worst", worst(&late), LATE_MS_MAX, " ms");
    figures.show("tree gone after the 504, median", format!("{:.1} ms", median(&mut gone)));
    figures.aim_at_most("tree gone after the 504, worst", worst(&gone), GONE_MS_MAX, " ms");
    figures
}

async fn hang_once(server: &Server, model: &Model) -> Hang {
    let mut faults = Vec::new();
    let replica = server.replica_pids(model);
    let others = tree(server);
    let bytes = |body| request(&model.host, "/model", &model.api_key, &model.body(body));
    let mut connection = Connection::open(&model.host).await.expect("the server listens");
    let sent = Instant::now();
    connection.send(&bytes(r#"{"hang": true, "n": 0}"#)).await.expect("the server reads");
    tokio::time::sleep(DEADLINE.saturating_sub(COUNTED)).await;
    let mut doomed: Vec<i32> = tree(server).into_iter().filter(|pid| !others.contains(pid)).collect();
    if doomed.len() != FORKED {
        faults.push(format!("{} children instead of {FORKED}", doomed.len()));
    }
    doomed.extend(replica);
    let answer = connection.answer().await;
    let answered = Instant::now();
    if !answer.as_ref().is_ok_and(|answer| answer.status == 504) {
        faults.push(format!("answered with {:?}", answer.map(|answer| answer.status)));
    }
    while doomed.iter().any(|pid| processes::is_alive(*pid)) && answered.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let gone = answered.elapsed();
    if gone >= PATIENCE {
        faults.push(format!("{} left", doomed.iter().filter(|pid| processes::is_alive(**pid)).count()));
    }
    if !connection.exchange(&bytes(r#"{"n": 7}"#)).await.is_ok_and(|answer| answer.status == 200) {
        faults.push("the next call was not answered".to_owned());
    }
    let late = answered.saturating_duration_since(sent + DEADLINE);
    Hang { late, gone, faults }
}

fn tree(server: &Server) -> Vec<i32> {
    server.supervisors().iter().flat_map(|pid| processes::tree(*pid)).collect()
}
