//! Scenarios against a real server on this machine: each starts one, loads it or breaks it, and prints its figures.
//! Nothing here asserts by timing; a figure that must be zero and is not ends the scenario with exit code 1.
//!
//! `cargo run --release -p millgate-loadtests -- SCENARIO [--seconds N]`, after `cargo build --release --bins`.
#![forbid(unsafe_code)]

mod figures;
mod http;
mod load;
mod processes;
mod scenarios;
mod server;

use std::{process::ExitCode, time::Duration};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let Some(scenario) = scenarios::ALL.iter().find(|s| s.name == name) else {
        eprintln!("usage: millgate-loadtests SCENARIO [--seconds N]\n");
        for scenario in scenarios::ALL {
            eprintln!("  {:<10} {}", scenario.name, scenario.what);
        }
        return ExitCode::from(2);
    };
    let seconds = match (args.next().as_deref(), args.next().map(|n| n.parse())) {
        (None, _) => scenario.seconds,
        (Some("--seconds"), Some(Ok(seconds))) => seconds,
        _ => {
            eprintln!("error: expected `--seconds N`");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs a few descriptors");
    let figures = runtime.block_on((scenario.run)(Duration::from_secs(seconds)));
    print!("{}", figures.text(scenario.name));
    if figures.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
