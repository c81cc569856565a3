//! `millgate logs`: what replicas print, or a model's calls.

use std::io::Write;

use serde_json::Value;

use super::lookup::{self, Found, text};
use crate::{
    args::{Global, Logs},
    client::{Client, percent_encode},
    failure::Failure,
    terminal,
};

/// Prints what the replicas of the newest deployment printed, and goes on with `-f`.
pub(crate) fn logs(global: &Global, args: &Logs) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, &args.model)?;
    if args.calls {
        return calls(global, &client, &found, args);
    }
    let (_, path) = found.deployment(&client)?;
    let mut out = std::io::stdout().lock();
    let only = args.request.as_deref().map(percent_encode);
    let only = only.map(|id| format!("&request_id={id}")).unwrap_or_default();
    client.events(&format!("{path}/log?follow={}{only}", args.follow), |data| {
        let printed = if global.json {
            writeln!(out, "{data}")
        } else {
            let line: Value = serde_json::from_str(data).unwrap_or(Value::Null);
            if line["source"].is_null() {
                // The end, which is no line.
                return true;
            }
            let replica = text(&line["replica"]).rsplit('-').next().unwrap_or_default();
            let printed = terminal::printable(text(&line["text"]));
            let request = match text(&line["request_id"]) {
                "" => "-",
                id => id,
            };
            writeln!(out, "{:>10} {replica:<5} {request} {printed}", text(&line["source"]))
        };
        // The reader has closed the pipe: it has seen enough.
        printed.is_ok()
    })
}

/// Prints the events of a model's calls, the newest last.
fn calls(global: &Global, client: &Client, found: &Found, args: &Logs) -> Result<(), Failure> {
    let limit = args.limit.map(|limit| limit.to_string());
    let asked = [("code", &args.code), ("since", &args.since), ("limit", &limit)];
    let query: Vec<String> = asked
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", percent_encode(value.as_deref()?))))
        .collect();
    let answer = client.get(&format!("{}/calls?{}", found.path, query.join("&")))?;
    if global.json {
        println!("{answer}");
        return Ok(());
    }
    let calls = answer["calls"].as_array().map(Vec::as_slice).unwrap_or_default();
    if calls.is_empty() {
        println!("No calls. `millgate call {} JSON` makes one.", found.name());
        return Ok(());
    }
    let rows: Vec<Vec<String>> = calls.iter().map(row).collect();
    let headings =
        ["TIME", "STATUS", "CODE", "WAIT MS", "RUN MS", "TOTAL MS", "REPLICA", "USER", "ADDRESS", "REQUEST"];
    println!("{}", terminal::table(&headings, &rows));
    Ok(())
}

fn row(call: &Value) -> Vec<String> {
    let or_dash = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let replica = text(&call["replica"]).rsplit('-').next().filter(|name| !name.is_empty()).unwrap_or("-");
    ["time", "status", "code", "wait_ms", "run_ms", "total_ms", "replica", "user", "address", "request_id"]
        .iter()
        .map(|field| if *field == "replica" { replica.to_owned() } else { or_dash(&call[*field]) })
        .collect()
}
