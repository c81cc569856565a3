//! `millgate logs`.

use std::io::Write;

use serde_json::Value;

use super::lookup::{self, text};
use crate::{args::Global, args::Logs, client::Client, failure::Failure};

/// Prints what the replicas of the newest deployment printed, and goes on with `-f`.
pub(crate) fn logs(global: &Global, args: &Logs) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, &args.model)?;
    let (_, path) = found.deployment(&client)?;
    let mut out = std::io::stdout().lock();
    client.events(&format!("{path}/log?follow={}", args.follow), |data| {
        let printed = if global.json {
            writeln!(out, "{data}")
        } else {
            let line: Value = serde_json::from_str(data).unwrap_or(Value::Null);
            let replica = text(&line["replica"]).rsplit('-').next().unwrap_or_default();
            writeln!(out, "{:>10} {replica:<5} {}", text(&line["source"]), text(&line["text"]))
        };
        // The reader has closed the pipe: it has seen enough.
        printed.is_ok()
    })
}
