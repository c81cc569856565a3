//! The trial of a build: imported once, its example called, in the very runtime that will serve it. A build that does
//! not pass is never deployed.

use std::{fs, time::Duration};

use millgate_contract::{
    spec::{LogLine, LogSource, REPLICA_LOG},
    supervision::Phase,
};

use super::{BuildFailure, Job, failed, log::Step};
use crate::launch::{UnitName, spec};

/// On top of what the supervisor itself gives the start.
const SLACK: Duration = Duration::from_secs(15);

/// Runs it; answers the response of the example call, if there is an example. The caller stops the unit.
pub(super) async fn run(job: &Job) -> Result<Option<String>, BuildFailure> {
    job.log.line(Step::Import, &format!("importing {} for {}", job.build.file_path, job.build.function_name));
    let unit = UnitName::build(job.build.number);
    let launcher = &job.app.launcher;
    launcher
        .launch(unit.clone(), spec::trial(&job.ingredients()))
        .await
        .map_err(|e| failed(Step::Import, e.to_string()))?;
    let time = Duration::from_millis(job.app.config.start_timeout_ms) + SLACK;
    let ended = tokio::time::timeout(time, wait(job, &unit)).await;
    copy_log(job, &unit);
    let response = ended
        .map_err(|_| failed(Step::Import, format!("not ready within {} s", time.as_secs())))?
        .map_err(|reason| failed(Step::Import, reason))?;
    match (&response, job.build.example_response.as_str()) {
        (Some(response), "") => {
            job.log.line(Step::Import, &format!("the example answered {}", shorten(response)));
        }
        (Some(response), expected) if !is_same_json(response, expected) => job.log.line(
            Step::Import,
            &format!("note: the example answered {} and not {}", shorten(response), shorten(expected)),
        ),
        (Some(_), _) => job.log.line(Step::Import, "the example answered as expected"),
        (None, _) => job.log.line(Step::Import, "imported"),
    }
    Ok(response)
}

async fn wait(job: &Job, unit: &UnitName) -> Result<Option<String>, String> {
    let mut changes = job.app.launcher.changes();
    loop {
        let Some(report) = job.app.launcher.observe().remove(unit) else {
            return Err("the supervisor ended before the function was ready".to_owned());
        };
        match report.phase() {
            Phase::Serving => return Ok(report.whole.and_then(|whole| whole.example_response)),
            Phase::Failed => return Err(report.reason().to_owned()),
            Phase::Stopping => return Err("it was stopped".to_owned()),
            Phase::Importing | Phase::Filling => {}
        }
        if changes.changed().await.is_err() {
            return Err("the server is ending".to_owned());
        }
    }
}

/// What the file printed while it was imported belongs to the build's log.
fn copy_log(job: &Job, unit: &UnitName) {
    let path = job.app.launcher.run_dir(unit).join(REPLICA_LOG);
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        if let Ok(line) = serde_json::from_str::<LogLine>(line)
            && line.source != LogSource::Supervisor
        {
            job.log.line(Step::Import, &line.text);
        }
    }
}

fn is_same_json(a: &str, b: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    parse(a) == parse(b)
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(200).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
