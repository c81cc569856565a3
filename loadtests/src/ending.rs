//! The end that a signal asks for: what the scenarios have started ends before this program does.
//!
//! Scenarios are in the middle of anything then, and would go on with the next. So the end is a thread's of its own:
//! from its first step on no server is started any more, and its last step is the end of this program.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::processes;

/// How long servers may take to end before they are killed.
const END_TIME_MAX: Duration = Duration::from_secs(30);
/// The exit code after a signal, as a shell tells it of SIGINT.
const EXIT_CODE: i32 = 130;

struct State {
    is_ending: bool,
    /// Of each server: named in the command line of all that belongs to it.
    folders: Vec<PathBuf>,
}

static STATE: Mutex<State> = Mutex::new(State { is_ending: false, folders: Vec::new() });

/// Ends everything at SIGINT or SIGTERM.
pub(crate) fn watch() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime needs a few descriptors").block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be watched");
            let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be watched");
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        end()
    });
}

/// A server's folder, to be looked after from now on.
pub(crate) fn look_after(folder: &Path) {
    with_state(|state| state.folders.push(folder.to_owned()));
}

/// Starts a process, unless this program ends: then its thread goes no further.
pub(crate) fn unless_ending<T>(start: impl FnOnce() -> T) -> T {
    if let Some(started) = with_state(|state| (!state.is_ending).then(start)) {
        return started;
    }
    loop {
        std::thread::park();
    }
}

fn with_state<T>(act: impl FnOnce(&mut State) -> T) -> T {
    act(&mut STATE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn end() -> ! {
    eprintln!("ending: what was started ends first");
    let folders = with_state(|state| {
        state.is_ending = true;
        state.folders.clone()
    });
    let all = || folders.iter().flat_map(|folder| processes::naming(folder)).collect::<Vec<_>>();
    // Servers take their replicas along; a role alone leaves them to be killed.
    for pid in all().into_iter().filter(|pid| !is_supervisor(*pid)) {
        processes::signal(pid, Signal::SIGTERM);
    }
    processes::wait_until(END_TIME_MAX, || all().into_iter().all(|pid| is_supervisor(pid) || is_over(pid)));
    processes::wait_until(END_TIME_MAX, || {
        for pid in all() {
            processes::signal(pid, Signal::SIGKILL);
        }
        all().into_iter().all(is_over)
    });
    for folder in &folders {
        let _ = fs::remove_dir_all(folder);
    }
    std::process::exit(EXIT_CODE)
}

fn is_supervisor(pid: i32) -> bool {
    processes::command_line(pid).split(' ').nth(1) == Some("supervise")
}

fn is_over(pid: i32) -> bool {
    !processes::is_alive(pid)
}
