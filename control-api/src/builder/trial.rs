//! The trial of a build: imported once, its example called, in the very runtime that will serve it. A build that does
//! not pass is never routed to.
//!
//! Where a deployment waits for the build, its start is the trial: what was imported goes on serving, and nobody waits for
//! a second import. A start that goes wrong says nothing yet of the build, since a deployment brings variables and amounts
//! of its own and may be stopped at any time: then the build is tried alone, as one that nobody deploys is.
//!
//! What is tried is what was sealed: a deployment's start checks that, as each does; the builder has sealed it a moment ago, or
//! checks what it sealed before the server ended.

use std::{fs, time::Duration};

use millgate_contract::{
    spec::{LogLine, LogSource, REPLICA_LOG},
    supervision::Phase,
};
use tokio::time::Instant;

use super::{BuildFailure, Job, PERIOD, failed, log::Step};
use crate::{
    fault::Outcome,
    launch::{UnitName, spec},
    rows::{Deployment, DeploymentStatus},
};

/// On top of what the supervisor itself gives the start.
const SLACK: Duration = Duration::from_secs(15);

/// Tries it; answers the response of the example call, if there is an example. The caller stops what was only for that.
pub(super) async fn run(job: &Job) -> Result<Option<String>, BuildFailure> {
    job.log.line(Step::Import, &format!("importing {} for {}", job.build.file_path, job.build.function_name));
    let response = match by_deployment(job).await? {
        Some(Passed { response }) => response,
        None => alone(job).await?,
    };
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

/// A deployment of it has started.
struct Passed {
    response: Option<String>,
}

/// Waits for a deployment that starts; none when none does.
async fn by_deployment(job: &Job) -> Outcome<Option<Passed>> {
    let launcher = &job.app.launcher;
    let (mut changes, mut news) = (launcher.changes(), job.app.news.subscribe());
    job.app.changed();
    let end = Instant::now() + time_max(job);
    while Instant::now() < end {
        let units = launcher.observe();
        let mut is_any_underway = false;
        for deployment in job.app.store.wanted_deployments(&job.build.id).await? {
            let unit = UnitName::deployment(deployment.number);
            match units.get(&unit) {
                Some(report) if report.phase() == Phase::Serving => {
                    job.log.line(Step::Import, &format!("deployment {} has started", deployment.number));
                    copy_log(job, &unit);
                    let response = report.whole.as_ref().and_then(|whole| whole.example_response.clone());
                    return Ok(Some(Passed { response }));
                }
                _ => is_any_underway |= is_underway(&deployment),
            }
        }
        if !is_any_underway {
            break;
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = news.changed() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    Ok(None)
}

/// It starts, or will at once: one that waits for memory says so.
fn is_underway(deployment: &Deployment) -> bool {
    deployment.status == DeploymentStatus::Deploying || deployment.reason.is_empty()
}

/// Tries it in a unit of its own, with the variables of a deployment that waits for it, if there is one.
async fn alone(job: &Job) -> Result<Option<String>, BuildFailure> {
    let waiting = job.app.store.wanted_deployments(&job.build.id).await?;
    let variables = waiting.last().map_or("{}", |deployment| &deployment.environment);
    let unit = UnitName::build(job.build.number);
    job.app
        .launcher
        .launch(unit.clone(), spec::trial(&job.ingredients(), variables))
        .await
        .map_err(|e| failed(Step::Import, e.to_string()))?;
    let time = time_max(job);
    let ended = tokio::time::timeout(time, wait(job, &unit)).await;
    copy_log(job, &unit);
    ended
        .map_err(|_| failed(Step::Import, format!("not ready within {} s", time.as_secs())))?
        .map_err(|reason| failed(Step::Import, reason))
}

fn time_max(job: &Job) -> Duration {
    Duration::from_millis(job.app.config.start_timeout_ms) + SLACK
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
