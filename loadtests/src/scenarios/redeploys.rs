//! A model is deployed anew, rolled back, restarted, scaled, and built in vain, again and again, while callers call: some
//! on connections that they keep, some on a new one each time. Every call is answered, by its own run and by one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::counted::{self, Runs};
use crate::{
    figures::{Figures, ms, quantile},
    load::{Outcome, Plan, load_apart},
    server::Server,
};

const NAME: &str = "echo";
const TIMES: usize = 20;
const SLEEP_S: f64 = 0.005;
const CALLERS_OF_EACH_KIND: usize = 4;
/// Calls per second of each kind: enough that each moment of a change meets some, and time is left for the change.
const CALLS_PER_S: f64 = 100.0;
/// One more round of load begins when the last is over.
const ROUND: Duration = Duration::from_secs(2);
/// Of a rollback, for which everything but a template is there.
const ROLLBACK_MS_MAX: f64 = 1_000.0;

/// What is done to the model.
#[derive(Clone, Copy, PartialEq)]
enum Operation {
    Redeploy,
    Rollback,
    Restart,
    ScaleUp,
    ScaleDown,
    FailingBuild,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Redeploy => "redeploy",
            Self::Rollback => "rollback",
            Self::Restart => "restart",
            Self::ScaleUp => "scale 2 to 9",
            Self::ScaleDown => "scale 9 to 2",
            Self::FailingBuild => "failing build",
        }
    }

    /// Does it for the nth time; what is wrong with what came of it.
    fn take(self, server: &Server, nth: usize) -> Result<(), String> {
        let before = number(server);
        match self {
            Self::Redeploy => drop(server.deploy(NAME, &python(nth), &OPTIONS)),
            Self::Rollback => drop(server.millgate(&["rollback", NAME])),
            Self::Restart => drop(server.millgate(&["restart", NAME])),
            Self::ScaleUp => drop(server.millgate(&["scale", NAME, "9"])),
            Self::ScaleDown => drop(server.millgate(&["scale", NAME, "2"])),
            Self::FailingBuild => {
                server.deploy_in_vain(NAME, "import no_such_module\ndef predict(args):\n    return 0\n")?;
            }
        }
        let after = number(server);
        let is_same = matches!(self, Self::Restart | Self::FailingBuild);
        let is_right = if is_same { after == before } else { after > before };
        if is_right { Ok(()) } else { Err(format!("deployment {after} serves after {before}")) }
    }
}

const OPTIONS: [&str; 4] = ["--replicas", "2", "--memory", "0.25"];

/// Code that is another one each time.
fn python(nth: usize) -> String {
    format!("{}VERSION = {nth}\n", counted::python(SLEEP_S))
}

/// The number of the deployment that serves; 0 is none.
fn number(server: &Server) -> u64 {
    server.show(NAME)["serving_deployment"]["deployment_number"].as_u64().unwrap_or(0)
}

/// What one kind of operation came to.
struct Came {
    times: Vec<Duration>,
    faults: Vec<String>,
    runs: Vec<Runs>,
}

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Arc::new(Server::start());
    let model = server.deploy(NAME, &python(0), &OPTIONS);
    let mut runs = vec![runs_of(&server).expect("the function has made its file")];
    let mut all = Outcome::default();
    let groups: [&'static [Operation]; 5] = [
        &[Operation::Redeploy],
        &[Operation::Rollback],
        &[Operation::Restart],
        &[Operation::ScaleUp, Operation::ScaleDown],
        &[Operation::FailingBuild],
    ];
    for operations in groups {
        let changing = tokio::task::spawn_blocking({
            let server = server.clone();
            let time = time / u32::try_from(groups.len()).expect("they are few");
            move || change(&server, operations, time)
        });
        let (mut kept, mut new) = (Outcome::default(), Outcome::default());
        while !changing.is_finished() {
            let plan = Plan::paced(CALLERS_OF_EACH_KIND, ROUND, CALLS_PER_S);
            let on_new = load_apart(&model, Plan { keeps: false, ..plan.clone() });
            kept.add(load_apart(&model, plan).await.expect("the callers do not panic"));
            new.add(on_new.await.expect("the callers do not panic"));
        }
        for (operation, mut came) in operations.iter().zip(changing.await.expect("changing does not panic")) {
            show(&mut figures, *operation, &mut came);
            runs.append(&mut came.runs);
        }
        kept.add(new);
        let names: Vec<&str> = operations.iter().map(|operation| operation.name()).collect();
        let names = names.join(", ");
        figures.show(format!("answers during {names}"), kept.statuses());
        figures.must_be(format!("calls lost during {names}"), kept.all() - kept.good(), 0);
        figures.show(format!("slowest during {names}"), ms(kept.slowest()));
        all.add(kept);
    }
    figures.must_be("supervisors in the end", server.supervisors().len(), 1);
    Runs::judge_all(runs, &mut figures, &all);
    figures
}

/// Takes the operations in turn, each so many times or until the time is over.
fn change(server: &Server, operations: &[Operation], time: Duration) -> Vec<Came> {
    let begun = Instant::now();
    let new = || Came { times: Vec::new(), faults: Vec::new(), runs: Vec::new() };
    let mut came: Vec<Came> = operations.iter().map(|_| new()).collect();
    for nth in 1..=TIMES {
        for (operation, came) in operations.iter().zip(&mut came) {
            if begun.elapsed() >= time {
                break;
            }
            let asked = Instant::now();
            came.faults.extend(operation.take(server, nth).err());
            came.times.push(asked.elapsed());
            // Held open, its counts outlive the deployment.
            came.runs.extend(runs_of(server));
        }
    }
    came
}

/// The counts of the deployment that serves.
fn runs_of(server: &Server) -> Option<Runs> {
    let replicas = server.replica_pids(&server.model(NAME));
    replicas.first().and_then(|replica| Runs::open(*replica).ok())
}

fn show(figures: &mut Figures, operation: Operation, came: &mut Came) {
    came.times.sort_unstable();
    let name = operation.name();
    figures.row(name, format!("{} times", came.times.len()), &came.faults);
    figures.aim_at_least(format!("{name}, times"), came.times.len() as f64, TIMES as f64, "");
    let [median, worst] = [0.5, 1.0].map(|share| quantile(&came.times, share));
    if operation == Operation::Rollback {
        let median_ms = crate::figures::as_ms(median);
        figures.aim_at_most("rollback, the command's time, median", median_ms, ROLLBACK_MS_MAX, " ms");
    }
    figures
        .show(format!("{name}, the command's time, median, worst"), format!("{}, {}", ms(median), ms(worst)));
}
