//! `millgate stop`.

use serde_json::json;

use super::lookup::{self, text};
use crate::{args::Global, client::Client, failure::Failure};

/// Stops the newest deployment and waits until it has stopped.
pub(crate) fn stop(global: &Global, name: &str) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, name)?;
    let (_, path) = found.deployment(&client)?;
    client.post(&format!("{path}:stop"), &json!({}))?;
    let deployment = loop {
        let deployment = client.get(&path)?;
        match text(&deployment["status"]) {
            "stopped" | "failed" => break deployment,
            _ => super::pause(),
        }
    };
    if global.json {
        println!("{deployment}");
    } else {
        println!("Model `{name}` is stopped; `millgate deploy` brings it back.");
    }
    Ok(())
}
