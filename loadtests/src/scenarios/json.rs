//! JSON in and out beside `json` and `orjson`: a program of the runtime's, in one process, run from here so that all
//! figures come from one command. Needs a package index for `orjson`.

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use crate::figures::Figures;

const PROGRAM: &str = "examples/json_side_by_side";
const BUILT_BY: &str = "cargo build --release -p millgate-replica-runtime --example json_side_by_side";
/// Lines with figures: three payloads, in and out.
const LINES: usize = 6;

pub(crate) async fn run(_: Duration) -> Figures {
    tokio::task::spawn_blocking(compare).await.expect("comparing does not panic")
}

fn compare() -> Figures {
    let mut figures = Figures::default();
    let this = std::env::current_exe().expect("this program has a file");
    let program = this.with_file_name("").join(PROGRAM);
    let packages = tempfile::tempdir().expect("there is room for a package");
    let installed = install_orjson(packages.path());
    let output = Command::new(&program).env("PYTHONPATH", packages.path()).output();
    let (text, fault) = match (output, installed) {
        (Err(error), _) => {
            (String::new(), Some(format!("{}: {error}; it is built by `{BUILT_BY}`", program.display())))
        }
        (Ok(output), Err(error)) => (said(&output), Some(format!("orjson was not installed: {error}"))),
        (Ok(output), Ok(())) if !output.status.success() => {
            (said(&output), Some(String::from_utf8_lossy(&output.stderr).into_owned()))
        }
        (Ok(output), Ok(())) => (said(&output), None),
    };
    let mut payload = "";
    let mut measured = 0;
    for line in text.lines() {
        match line.trim().split_once(' ') {
            Some((direction @ ("in" | "out"), cells)) => {
                figures.show(format!("{payload}, {direction}"), cells.trim_start());
                measured += usize::from(!cells.contains('–'));
            }
            _ if line.starts_with(' ') => figures.show("", line.trim()),
            _ => payload = line,
        }
    }
    figures.row("compared with both", format!("{measured} of {LINES}"), fault.as_slice());
    figures.must_be("payloads in and out", measured, LINES);
    figures
}

fn install_orjson(folder: &Path) -> Result<(), String> {
    let python = std::env::var("MILLGATE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(python)
        .args([
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
            "--target",
        ])
        .arg(folder)
        .arg("orjson")
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
