//! `millgate stop`.

use serde_json::{Value, json};

use super::lookup::{self, text};
use crate::{args::Global, client::Client, failure::Failure};

/// Stops every deployment that serves or is about to, and waits until they have stopped.
pub(crate) fn stop(global: &Global, name: &str) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, name)?;
    let (newest, _) = found.deployment(&client)?;
    let all = found.deployments(&client)?;
    let paths: Vec<String> = all.iter().filter(|d| !is_over(d)).map(|d| found.path_of(d)).collect();
    for path in &paths {
        client.post(&format!("{path}:stop"), &json!({}))?;
    }
    let mut pauses = super::Pauses::new();
    for path in &paths {
        while !is_over(&client.get(path)?) {
            pauses.wait();
        }
    }
    let deployment = client.get(&found.path_of(&newest))?;
    if global.json {
        println!("{deployment}");
    } else {
        println!("Model `{name}` is stopped; `millgate deploy` brings it back.");
    }
    Ok(())
}

fn is_over(deployment: &Value) -> bool {
    matches!(text(&deployment["status"]), "stopped" | "failed")
}
