//! What a signal to the load tests leaves behind: nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long anything may take that should happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "never came to be: {what}");
        std::thread::yield_now();
    }
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn command_line(pid: i32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

/// The folder of the server that `parent` has started.
fn folder_of_the_server(parent: i32) -> Option<PathBuf> {
    processes().find_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let is_child = stat.rsplit_once(") ")?.1.split(' ').nth(1) == Some(&parent.to_string());
        let line = command_line(pid);
        let data = line.split(' ').skip_while(|word| *word != "--data-dir").nth(1)?;
        is_child.then(|| Path::new(data).parent().unwrap().to_owned())
    })
}

fn naming(folder: &Path) -> Vec<i32> {
    let wanted = folder.to_str().unwrap();
    processes().filter(|pid| command_line(*pid).contains(wanted)).collect()
}

fn ends_with_nothing_left(scenario: &str, signal: Signal) {
    let program = Path::new(env!("CARGO_BIN_EXE_millgate-loadtests"));
    let server = program.with_file_name("millgate");
    assert!(server.exists(), "no `{}`; hint: `cargo build -p millgate`", server.display());
    let mut child = Command::new(program).arg(scenario).spawn().unwrap();
    let pid = child.id().cast_signed();
    let folder = until("a server", || folder_of_the_server(pid));
    // A supervisor, which is nobody's child, is what would be left.
    until("a supervisor", || {
        assert!(child.try_wait().unwrap().is_none(), "it is in the middle of a scenario");
        naming(&folder).into_iter().find(|pid| command_line(*pid).contains(" supervise "))
    });
    kill(Pid::from_raw(pid), signal).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(naming(&folder), Vec::<i32>::new());
    assert!(!folder.exists());
}

#[test]
fn an_interrupt_ends_the_server_and_its_replicas_first() {
    ends_with_nothing_left("fair", Signal::SIGINT);
}

#[test]
fn a_termination_ends_roles_that_leave_their_replicas_to_others() {
    ends_with_nothing_left("no_control", Signal::SIGTERM);
}
