//! Counts what each stage of a call costs in instructions and in allocations: numbers that do not depend on what else
//! the machine does, so that a change of a few percent can be seen, and watched.
//!
//! Both come from callgrind, told to begin and to end a count at [`counted`]: one run of valgrind counts all stages, and
//! what is counted is a plain function call, so no runner program has to be installed and kept at the version of a
//! library. Allocations are the calls of `malloc` and its like; Python's small objects come from pools and are not among
//! them.
//!
//! `make bench-counts` compares with `bench/counts.txt`; `make bench-counts-keep` writes that file anew.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use millgate_bench::stages::{self, Stage};

/// The committed figures.
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.txt");
/// Runs before the count: caches of ours are filled, lazy parts made, buffers grown.
const WARM_RUNS: u32 = 200;
/// Runs that are counted, of which the figures are the mean.
const COUNTED_RUNS: u32 = 100;
/// A stage of a megabyte is counted by fewer.
const COUNTED_RUNS_LARGE: u32 = 3;
/// Up to this a difference is called none: addresses and hashes differ from run to run.
const NOISE: f64 = 0.01;
/// What allocates. One that calls another is not told apart; none of these does.
const ALLOCATING: [&str; 4] = ["malloc", "calloc", "realloc", "aligned_alloc"];
/// Tells the program that it runs below valgrind.
const BELOW: &str = "--below-valgrind";

/// What one run of a stage costs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    instructions: u64,
    allocations: u64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == BELOW) {
        run_all();
        return ExitCode::SUCCESS;
    }
    let found = match count() {
        Ok(found) => found,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let known = std::fs::read_to_string(REFERENCE).map_or_else(|_| BTreeMap::new(), |text| read(&text));
    print!("{}", compare(&found, &known));
    if args.iter().any(|arg| arg == "--keep")
        && let Err(error) = std::fs::write(REFERENCE, write(&found))
    {
        eprintln!("error: `{REFERENCE}` cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The program's part below valgrind: prints what valgrind does not know.
fn run_all() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs a few descriptors");
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    for mut stage in stages::all(&runtime, folder.path()) {
        let runs = runs_of(&stage);
        for _ in 0..WARM_RUNS.min(runs * 2) {
            (stage.run)();
        }
        counted(&mut stage, runs);
        counts_end(runs);
        println!("{}\t{runs}", stage.name);
    }
}

fn runs_of(stage: &Stage) -> u32 {
    if stage.name.contains("MB") { COUNTED_RUNS_LARGE } else { COUNTED_RUNS }
}

/// The name is what callgrind is told.
#[inline(never)]
fn counted(stage: &mut Stage, runs: u32) {
    for _ in 0..black_box(runs) {
        (stage.run)();
    }
}

/// Where callgrind writes down what it has counted: its own option for the end of a function does nothing here.
#[inline(never)]
fn counts_end(runs: u32) {
    black_box(runs);
}

/// Runs itself below valgrind.
fn count() -> Result<Vec<(String, Cost)>, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--zero-before=counts::counted*", "--dump-before=counts::counts_end*"])
        .arg(format!("--callgrind-out-file={}", folder.path().join("out").display()))
        .arg(program)
        .arg(BELOW)
        // The same hashes, and so the same walks through tables, in each run.
        .env("PYTHONHASHSEED", "0")
        .output()
        .map_err(|error| {
            format!("`valgrind` cannot be run ({error}): `deploy/setup.sh bench` installs it")
        })?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    told.lines().enumerate().map(|(at, line)| cost(at, line, folder.path())).collect()
}

/// Puts a line of the program together with the dump that callgrind made of the same stage.
fn cost(at: usize, line: &str, folder: &Path) -> Result<(String, Cost), String> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, runs] = fields[..] else { return Err(format!("not understood: {line}")) };
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let dump: PathBuf = folder.join(format!("out.{}", at + 1));
    let text = std::fs::read_to_string(&dump).map_err(|error| format!("{}: {error}", dump.display()))?;
    let total =
        text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let total = number(total.ok_or("callgrind gave no total")?.trim())?;
    let runs = number(runs)?;
    let cost = Cost { instructions: total / runs, allocations: allocations(&text) / runs };
    Ok((name.to_owned(), cost))
}

/// Calls of allocating functions in a dump. A function is `(number) name` where it is named first and `(number)` later.
fn allocations(dump: &str) -> u64 {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut is_allocating, mut calls) = (false, 0);
    for line in dump.lines() {
        if let Some(count) = line.strip_prefix("calls=") {
            let count = count.split(' ').next().and_then(|count| count.parse::<u64>().ok());
            calls += if is_allocating { count.unwrap_or(0) } else { 0 };
            continue;
        }
        let Some((kind, function)) = line.split_once('=') else { continue };
        if kind != "fn" && kind != "cfn" {
            continue;
        }
        let (id, name) = function.split_once(' ').unwrap_or((function, ""));
        if !name.is_empty() {
            names.insert(id, name);
        }
        let name = names.get(id).copied().unwrap_or_default();
        is_allocating = kind == "cfn" && ALLOCATING.contains(&name);
    }
    calls
}

/// The form of the reference: a stage a line.
fn write(found: &[(String, Cost)]) -> String {
    found.iter().fold(String::new(), |mut text, (name, cost)| {
        let _ = writeln!(text, "{name}\t{}\t{}", cost.instructions, cost.allocations);
        text
    })
}

fn read(text: &str) -> BTreeMap<String, Cost> {
    let stage = |line: &str| {
        let mut fields = line.split('\t');
        let name = fields.next()?.to_owned();
        let instructions = fields.next()?.parse().ok()?;
        Some((name, Cost { instructions, allocations: fields.next()?.parse().ok()? }))
    };
    text.lines().filter_map(stage).collect()
}

fn compare(found: &[(String, Cost)], known: &BTreeMap<String, Cost>) -> String {
    let mut text = format!("{:<28} {:>13} {:>9} {:>12}\n", "stage", "instructions", "", "allocations");
    for (name, cost) in found {
        let was = known.get(name);
        let change = was.map_or_else(|| "new".to_owned(), |was| change(was.instructions, cost.instructions));
        let allocations = match was {
            Some(was) if was.allocations != cost.allocations => {
                format!("{} (was {})", cost.allocations, was.allocations)
            }
            _ => cost.allocations.to_string(),
        };
        let _ = writeln!(text, "{name:<28} {:>13} {change:>9} {allocations:>12}", cost.instructions);
    }
    text
}

fn change(was: u64, is: u64) -> String {
    let ratio = is as f64 / was.max(1) as f64 - 1.0;
    if ratio.abs() <= NOISE { "=".to_owned() } else { format!("{:+.1} %", ratio * 100.0) }
}
