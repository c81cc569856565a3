//! Drives any program that claims to be a runtime, as a supervisor and a gateway would, and says of each rule whether it
//! keeps it. What a runtime has to do is in `contract/RUNTIMES.md`.
//!
//! `cargo run -p millgate-supervisor --example conformance -- [--patience-s N] [--only RULE] [--python PATH]
//! --file FILE --function NAME -- COMMAND [ARGUMENT…]`
//!
//! `FILE` holds, in the runtime's language, a function of one argument that is an object with one field:
//! `{"echo": v}` returns `v`, `{"raise": text}` fails with that text, `{"sleep": s}` returns nothing after `s` seconds,
//! `{"print": text}` prints a line and returns nothing. Exit status: 0 when every rule is kept, 1 when one is not, 2 on
//! a usage error.

#![allow(unsafe_code, reason = "descriptors are put in their places between fork and exec")]

mod calls;
mod peer;
mod rules;
mod runtime;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use runtime::Candidate;

/// How long a runtime may take for anything, where nothing else is said.
const PATIENCE_S_DEFAULT: u64 = 20;

const USAGE: &str = "usage: conformance [--patience-s N] [--only RULE] [--python PATH] --file FILE --function NAME -- COMMAND [ARGUMENT…]";

fn main() -> ExitCode {
    let Some((candidate, only)) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut broken = 0;
    let mut tried = 0;
    for rule in rules::ALL.iter().filter(|rule| only.as_deref().is_none_or(|only| only == rule.name)) {
        tried += 1;
        match (rule.check)(&candidate) {
            Ok(()) => println!("ok    {:<28} {}", rule.name, rule.says),
            Err(error) => {
                broken += 1;
                println!("FAIL  {:<28} {}\n      {error}", rule.name, rule.says);
            }
        }
    }
    println!("{} of {tried} rules are kept", tried - broken);
    if tried > 0 && broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<(Candidate, Option<String>)> {
    let (mut patience_s, mut only, mut python) = (PATIENCE_S_DEFAULT, None, PathBuf::from("python3"));
    let (mut file, mut function) = (None, None);
    loop {
        match arguments.next()?.as_str() {
            "--patience-s" => patience_s = arguments.next()?.parse().ok()?,
            "--only" => only = Some(arguments.next()?),
            "--python" => python = arguments.next()?.into(),
            "--file" => file = Some(PathBuf::from(arguments.next()?)),
            "--function" => function = Some(arguments.next()?),
            "--" => break,
            _ => return None,
        }
    }
    let mut command = arguments.collect::<Vec<_>>().into_iter();
    let program = PathBuf::from(command.next()?);
    // It is started in the model's root.
    let is_path = program.components().count() > 1;
    let candidate = Candidate {
        program: if is_path { std::fs::canonicalize(&program).unwrap_or(program) } else { program },
        arguments: command.collect(),
        file: std::fs::canonicalize(file?).ok()?,
        function: function?,
        python,
        patience: Duration::from_secs(patience_s),
    };
    Some((candidate, only))
}
