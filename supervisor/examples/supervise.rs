//! A bare supervisor, without the rest of `millgate`: what the tests start, and handy under a debugger.
//!
//! `supervise RUN_DIR` is `millgate supervise RUN_DIR`; `supervise build-step` is `millgate build-step`.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(word) if word == "build-step" => millgate_supervisor::build_step(),
        Some(run_dir) => millgate_supervisor::supervise(Path::new(&run_dir)),
        None => {
            eprintln!("usage: supervise RUN_DIR | build-step");
            ExitCode::from(2)
        }
    }
}
