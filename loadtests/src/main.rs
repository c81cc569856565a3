//! Scenarios against a real server on this machine: each starts one, loads it or breaks it, and prints its figures.
//!
//! `target/release/millgate-loadtests SCENARIO|SUITE [--duration 15s]`, after `cargo build --release --bins`. A suite runs
//! its scenarios one after another and ends with one table: figure, found, aim, met or by how much missed. Exit code 1
//! when a promise is broken, as `figures` tells promises from aims; 2 for wrong usage.
#![forbid(unsafe_code)]

mod ending;
mod figures;
mod http;
mod load;
mod postgres;
mod processes;
mod role;
mod scenarios;
mod server;
mod suites;

use std::{process::ExitCode, time::Duration};

use scenarios::{ALL, Scenario};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (name, time) = match args[..] {
        [name] => (name, None),
        [name, "--duration", text] => {
            let Some(time) = parse_duration(text) else {
                eprintln!("error: `{text}` is no duration\nhint: as in `15s` or `10m`");
                return ExitCode::from(2);
            };
            (name, Some(time))
        }
        _ => ("", None),
    };
    let scenarios: Vec<&Scenario> = match suites::of(name) {
        Some(names) => ALL.iter().filter(|s| names.contains(&s.name)).collect(),
        None => ALL.iter().filter(|s| s.name == name).collect(),
    };
    if scenarios.is_empty() {
        eprint!("{}", usage());
        return ExitCode::from(2);
    }
    ending::watch();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs a few descriptors");
    let holds = runtime.block_on(suites::run(&scenarios, time));
    // A scenario whose server has ended under it comes here, and the signal has the last word.
    ending::unless_ending(|| if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn usage() -> String {
    use std::fmt::Write;
    let mut text = "usage: millgate-loadtests SCENARIO|SUITE [--duration 15s]\n\nscenarios:\n".to_owned();
    for Scenario { name, what, .. } in ALL {
        let _ = writeln!(text, "  {name:<18} {what}");
    }
    text.push_str("\nsuites:\n");
    for (name, scenarios) in suites::SUITES {
        let _ = writeln!(text, "  {name:<18} {}", scenarios.join(", "));
    }
    text
}

/// A number of seconds, or with `s` or `m` behind it.
fn parse_duration(text: &str) -> Option<Duration> {
    let (number, seconds) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number = number.parse::<u32>().ok().filter(|number| *number > 0);
    number.map(|number| Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        assert_eq!(parse_duration("15s"), Some(Duration::from_secs(15)));
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_duration("0s"), None);
        assert_eq!(parse_duration("-1s"), None);
        assert_eq!(parse_duration("soon"), None);
    }
}
