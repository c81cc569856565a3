//! The server dies by kill -9 at each step of each operation on a model, one step further each time, and is started again:
//! what was asked for is done or is not, and nothing is stuck, doubled or left behind.
//!
//! A server that was built with debug assertions kills itself at the nth step that it passes. One without knows no such
//! thing, and is killed from outside, a little later each time.

mod estate;

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use self::estate::Estate;
use crate::{figures::Figures, processes::wait_until, server::Server};

const NAME: &str = "echo";
const KILLS: usize = 200;
/// Later by so much each time, where the server does not kill itself.
const DELAY_STEP: Duration = Duration::from_millis(25);
/// No operation takes more steps.
const STEPS_MAX: u32 = 100;
/// How long anything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(90);
const OPTIONS: [&str; 4] = ["--replicas", "2", "--memory", "0.25"];
const BROKEN: &str = "import no_such_module\ndef predict(args):\n    return 0\n";

/// What is done to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Redeploy,
    Rollback,
    Scale,
    Restart,
    Stop,
    Revive,
    FailingBuild,
    Delete,
}

impl Operation {
    const ALL: [Self; 8] = [
        Self::Redeploy,
        Self::Rollback,
        Self::Scale,
        Self::Restart,
        Self::Stop,
        Self::Revive,
        Self::FailingBuild,
        Self::Delete,
    ];

    /// Brings the model to where it can be asked for.
    fn prepare(self, server: &Server, estate: &Estate) {
        let builds = estate.of(server).map_or(0, |found| found.models.first().map_or(0, |m| m.built));
        for _ in builds..2 {
            server.deploy(NAME, super::ECHO, &OPTIONS);
        }
        let is_serving = !server.show(NAME)["serving_deployment"].is_null();
        match (self, is_serving) {
            (Self::Revive, true) => drop(server.millgate(&["stop", NAME])),
            (Self::Revive, false) | (_, true) => {}
            (_, false) => drop(server.deploy(NAME, super::ECHO, &OPTIONS)),
        }
    }

    /// Asks for it; the server may die meanwhile.
    fn ask(self, server: &Server, nth: u32) {
        let deploy = |python: &str| {
            let target = server.write(NAME, &[("model.py", python)]);
            drop(server.try_millgate(&[&["deploy", &target, "--name", NAME][..], &OPTIONS].concat()));
        };
        match self {
            Self::Redeploy => deploy(super::ECHO),
            Self::FailingBuild => deploy(BROKEN),
            Self::Rollback => drop(server.try_millgate(&["rollback", NAME])),
            Self::Scale => {
                let replicas = if nth.is_multiple_of(2) { "1" } else { "3" };
                drop(server.try_millgate(&["scale", NAME, replicas]));
            }
            Self::Restart | Self::Revive => drop(server.try_millgate(&["restart", NAME])),
            Self::Stop => drop(server.try_millgate(&["stop", NAME])),
            Self::Delete => drop(server.try_millgate(&["delete", NAME])),
        }
    }
}

#[derive(Default)]
struct Deaths {
    /// What belongs to nobody is noticed.
    is_watchful: bool,
    of: BTreeMap<Operation, usize>,
    stuck: Vec<String>,
    doubled: Vec<String>,
}

impl Deaths {
    fn count(&self) -> usize {
        self.of.values().sum()
    }
}

pub(crate) async fn run(time: Duration) -> Figures {
    let deaths = tokio::task::spawn_blocking(move || die_again_and_again(time)).await;
    let deaths = deaths.expect("dying does not panic");
    let mut figures = Figures::default();
    let how = if cfg!(debug_assertions) { "at each step it passes" } else { "a little later each time" };
    figures.show("killed", how);
    figures.aim_at_least("kills", deaths.count() as f64, KILLS as f64, "");
    figures.must_be("what belongs to nobody is noticed", deaths.is_watchful, true);
    for (operation, count) in &deaths.of {
        figures.show(format!("of them during {operation:?}"), count);
    }
    figures.row("stuck, lost or left behind", deaths.stuck.len(), &deaths.stuck);
    figures.must_be("stuck", deaths.stuck.len(), 0);
    figures.row("doubled", deaths.doubled.len(), &deaths.doubled);
    figures.must_be("doubled, in all", deaths.doubled.len(), 0);
    figures
}

fn die_again_and_again(time: Duration) -> Deaths {
    let begun = Instant::now();
    let mut server = Server::start();
    let model = server.deploy(NAME, super::ECHO, &OPTIONS);
    let estate = Estate::new(NAME, &server, model);
    let mut deaths = Deaths { is_watchful: is_watchful(&server, &estate), ..Deaths::default() };
    let mut was_any = true;
    while was_any {
        was_any = false;
        for operation in Operation::ALL {
            for nth in 1..=STEPS_MAX {
                if deaths.count() >= KILLS || begun.elapsed() >= time {
                    return deaths;
                }
                if !die_once(&mut server, &estate, (operation, nth), &mut deaths) {
                    break;
                }
                was_any = true;
            }
        }
    }
    deaths
}

/// Whether a folder and a process that belong to nobody are told.
fn is_watchful(server: &Server, estate: &Estate) -> bool {
    let folder = server.data_dir().join("run/999");
    let was_good = wait_until(PATIENCE, || estate.faults(server).is_empty());
    std::fs::create_dir_all(&folder).expect("the folder is ours");
    let mut sleeper = Command::new("sh")
        .args(["-c", "read line", &folder.display().to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let told = estate.faults(server).join(", ");
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    std::fs::remove_dir(&folder).expect("the folder is ours");
    was_good && told.contains("run/999 is nobody's") && told.contains("supervisors")
}

/// One operation and one death; false when it was over before its step came.
fn die_once(
    server: &mut Server,
    estate: &Estate,
    (operation, nth): (Operation, u32),
    deaths: &mut Deaths,
) -> bool {
    operation.prepare(server, estate);
    let Some(before) = at_rest(server, estate) else {
        deaths.stuck.push(format!("before {operation:?}: {}", estate.faults(server).join(", ")));
        return false;
    };
    let has_died = if cfg!(debug_assertions) {
        server.kill_and_start_to_die(format!("any:{nth}"));
        operation.ask(server, nth);
        // What is done after the answer belongs to it.
        wait_until(PATIENCE, || server.has_died() || estate.faults(server).is_empty());
        server.has_died()
    } else {
        die_by_the_clock(server, operation, nth)
    };
    server.kill_and_start();
    *deaths.of.entry(operation).or_default() += usize::from(has_died);
    let Some(after) = at_rest(server, estate) else {
        deaths.stuck.push(format!("{operation:?} {nth}: {}", estate.faults(server).join(", ")));
        return has_died;
    };
    // It may have been done or not, and not twice.
    if after.newest_build > before.newest_build + 1 || after.newest_deployment > before.newest_deployment + 1
    {
        deaths.doubled.push(format!("{operation:?} {nth}: {before:?} became {after:?}"));
    }
    deaths.doubled.extend(after.doubled.iter().map(|what| format!("{operation:?} {nth}: {what}")));
    has_died
}

/// Kills it some time after an operation was asked for; false when that was over before.
fn die_by_the_clock(server: &mut Server, operation: Operation, nth: u32) -> bool {
    let pid = server.pid();
    std::thread::scope(|scope| {
        let server = &*server;
        let asking = scope.spawn(move || operation.ask(server, nth));
        let is_over = wait_until(DELAY_STEP * nth, || asking.is_finished());
        crate::processes::signal(pid, nix::sys::signal::Signal::SIGKILL);
        !is_over
    })
}

/// What there is when nothing moves any more; nothing when it never comes to rest.
fn at_rest(server: &Server, estate: &Estate) -> Option<estate::Found> {
    let is_at_rest = wait_until(PATIENCE, || estate.faults(server).is_empty());
    is_at_rest.then(|| estate.of(server)).flatten()
}
