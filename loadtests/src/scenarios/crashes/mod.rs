//! The crash table: a function does each thing that can go wrong while a second model serves. Each caller gets the
//! answer that the table says, the model is well again for the next caller, nothing is left running, and the second
//! model notices nothing.

mod bystander;
mod table;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use self::{
    bystander::Bystander,
    table::{CALLS, IMPORTS, Row},
};
use super::ECHO;
use crate::{
    figures::{Figures, ms},
    http::{Answer, Connection, request},
    server::{Model, Server},
};

/// Short, so that the table is over soon.
const CONFIGURATION: &str = "request_timeout_s = 2\nstart_timeout_s = 5\n";
const MODEL: &str = include_str!("model.py");
/// How long a model may take to be well again, and its processes to be gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that the answer to an exception may have, whatever its message.
const ERROR_BYTES_MAX: usize = 8_192;

pub(crate) async fn run(_: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Arc::new(Server::start_with(CONFIGURATION));
    let other = server.deploy("bystander", ECHO, &[]);
    let model = server.deploy("crashing", MODEL, &["--memory", "0.5"]);
    let well = server.processes_of_models();
    let bystander = Bystander::start(&other);
    let mut held = 0;
    for (number, row) in CALLS.iter().enumerate() {
        let found = try_row(&model, row, number).await;
        let left = wait_for(|| server.processes_of_models() == well)
            .await
            .err()
            .map(|()| format!("{} processes instead of {well}", server.processes_of_models()));
        let noticed = bystander.take().await;
        let faults: Vec<String> = found.faults.into_iter().chain(left).chain(noticed.faults()).collect();
        held += usize::from(faults.is_empty());
        let text = format!(
            "{}, well again after {}, the other: {}",
            found.text,
            ms(found.well_after),
            noticed.text()
        );
        figures.row(row.does, text, &faults);
    }
    for (name, python, said) in IMPORTS {
        let faults = try_import(&server, &model, name, python, said).await;
        let noticed = bystander.take().await;
        let faults: Vec<String> = faults.into_iter().chain(noticed.faults()).collect();
        held += usize::from(faults.is_empty());
        figures.row(name, format!("not deployed, the other: {}", noticed.text()), &faults);
    }
    bystander.stop().await;
    let all = CALLS.len() + IMPORTS.len();
    figures.must_be("rows as expected", format!("{held} of {all}"), format!("{all} of {all}"));
    figures
}

/// What one row came to.
struct Found {
    text: String,
    well_after: Duration,
    faults: Vec<String>,
}

async fn try_row(model: &Model, row: &Row, number: usize) -> Found {
    let mut faults = Vec::new();
    let answer = call(model, &format!(r#"{{"do":"{}","n":{number}}}"#, row.does)).await;
    let answered = Instant::now();
    let text = match &answer {
        Ok(answer) => {
            let (code, response) = parts(answer);
            if answer.status != row.status || code != row.code {
                faults.push(format!("must be {} {}", row.status, row.code));
            }
            if answer.status == 200 && response != Some(number as u64) {
                faults.push("another call's answer".to_owned());
            }
            if answer.body.len() > ERROR_BYTES_MAX {
                faults.push(format!("an answer of {} bytes", answer.body.len()));
            }
            format!("{} {code}", answer.status)
        }
        Err(error) => {
            faults.push("no answer".to_owned());
            error.to_string()
        }
    };
    // The very next call meets a good replica, with its own answer.
    let mine = 1_000 + number as u64;
    match call(model, &format!(r#"{{"n":{mine}}}"#)).await {
        Ok(next) if next.status == 200 && parts(&next).1 == Some(mine) => {}
        Ok(next) => faults.push(format!("the next call: {}", String::from_utf8_lossy(&next.body))),
        Err(error) => faults.push(format!("the next call: {error}")),
    }
    Found { text, well_after: answered.elapsed(), faults }
}

/// A new version that cannot start: it is refused with its reason, and the one before serves on.
async fn try_import(
    server: &Arc<Server>,
    model: &Model,
    name: &'static str,
    python: &'static str,
    said: &str,
) -> Vec<String> {
    let (deploying, of) = (Arc::clone(server), model.name.clone());
    let deployed = tokio::task::spawn_blocking(move || deploying.deploy_in_vain(&of, python)).await;
    let mut faults = match deployed.expect("a deployment does not panic") {
        Ok(text) if text.contains(said) => Vec::new(),
        Ok(text) => vec![format!("`{said}` is not in: {text}")],
        Err(text) => vec![format!("{name} was not refused: {text}")],
    };
    match call(model, r#"{"n":5}"#).await {
        Ok(answer) if answer.status == 200 => {}
        other => faults.push(format!("the version before: {other:?}")),
    }
    faults
}

async fn call(model: &Model, body: &str) -> std::io::Result<Answer> {
    let bytes = request(&model.host, "/model", &model.api_key, &model.body(body));
    Connection::open(&model.host).await?.exchange(&bytes).await
}

/// The code of a failure, and the number that was answered.
fn parts(answer: &Answer) -> (String, Option<u64>) {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (body["error"]["code"].as_str().unwrap_or_default().to_owned(), body["response"].as_u64())
}

async fn wait_for(holds: impl Fn() -> bool) -> Result<(), ()> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > PATIENCE {
            return Err(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
