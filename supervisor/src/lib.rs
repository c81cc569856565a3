//! The supervisor of one deployment: the trusted process that owns its template and replicas. It holds no Python,
//! outlives the server that started it, and is the init of the deployment's PID namespace where there is one.
//!
//! | module | job |
//! | --- | --- |
//! | [`launch`] | from `millgate supervise` to a daemon in its namespaces, with its starter told how it went |
//! | [`plan`], [`slot`] | what to do when something happens: pure, no I/O, no clock |
//! | [`conductor`] | the event loop: carries out what the plan says, and tells it what happened |
//! | [`nursery`], [`template`], [`replica`] | the processes and the sockets they are born by |
//! | [`inspection`] | whether a template may be forked |
//! | [`process`], [`burial`] | telling processes apart, signalling them, and what the dead leave behind |
//! | [`peers`] | `control.sock`: gateways and the control API |
//! | [`sandbox`] | what user code may see and do, made before its first instruction |
//! | [`cgroup`] | what it may use, and how a tree of processes is killed |
//! | [`logs`] | what it prints, bounded |
//! | [`page`] | what replicas say of their time and of the call that runs |
//! | `build_step` | one step of a build, in the same sandbox |
//!
//! Everything but [`supervise`] and [`build_step()`] is private. Both must be called before the program has started
//! threads: they fork.
#![allow(unsafe_code)]

use std::{path::Path, process::ExitCode};

mod build_step;
mod burial;
mod cgroup;
mod conductor;
mod inspection;
mod launch;
mod limits;
mod logs;
mod names;
mod namespaces;
mod nursery;
mod page;
mod peers;
mod plan;
mod process;
mod procfs;
mod replica;
mod sandbox;
mod seqpacket;
mod slot;
mod sys;
mod template;

/// Supervises the deployment in `run_dir` (`millgate supervise RUN_DIR`).
///
/// Returns in the process that called it once the supervisor, by then a process of its own, has bound its sockets:
/// success, or failure after one line on standard error. Also returns, with the supervisor's exit code, in the
/// supervisor itself when its work is done: the caller only hands the code on.
pub fn supervise(run_dir: &Path) -> ExitCode {
    launch::launch(run_dir).unwrap_or_else(|error| {
        eprintln!("millgate: {error}");
        ExitCode::FAILURE
    })
}

/// Runs the build step described by the [`millgate_contract::spec::BuildStepSpec`] on standard input
/// (`millgate build-step`); its output goes to our own. The exit code is the command's, 124 after a time-out, 125
/// when the step could not be started.
pub fn build_step() -> ExitCode {
    build_step::run()
}
