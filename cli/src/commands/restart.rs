//! `millgate restart`: every replica anew; a stopped model serves again.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    lookup::{self, text},
    rollout::wait_for,
};
use crate::{args::Global, client::Client, failure::Failure, terminal::Steps};

/// Restarts the deployment that serves, or else the newest, and waits until all its replicas are new ones.
pub(crate) fn restart(global: &Global, name: &str) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, name)?;
    let (before, path) = found.serving(&client)?;
    let replicas = format!("{path}/replicas");
    let before_report = client.get(&replicas)?;
    let old = starts(&before_report);
    let mut last_reason = text(&before_report["reason"]).to_owned();
    client.post(&format!("{path}:restart"), &json!({}))?;
    if text(&before["status"]) == "deployed" {
        let mut pauses = super::Pauses::new();
        loop {
            let report = client.get(&replicas)?;
            if are_new(&report, &old) {
                break;
            }
            // A reason that was there before is an earlier restart's until it has been taken back.
            let called_off = Some(text(&report["reason"])).filter(|reason| *reason != last_reason);
            if let Some(reason) = called_off.filter(|reason| !reason.is_empty()) {
                return Err(Failure::new(format!(
                    "`{}` goes on with the replicas it has, since a new one does not start: {reason}",
                    found.name()
                ))
                .hint(format!("`millgate logs {}` shows what it printed", found.name())));
            }
            text(&report["reason"]).clone_into(&mut last_reason);
            if let Some(reason) = failing(&report) {
                return Err(Failure::new(format!(
                    "a replica of `{}` does not start: {reason}",
                    found.name()
                ))
                .hint(format!("`millgate logs {}` shows what it printed", found.name())));
            }
            pauses.wait();
        }
    }
    let deployment = wait_for(&client, &path, &mut Steps::new())?;
    if global.json {
        println!("{deployment}");
    } else {
        println!("Model `{}` is restarted: {} replicas.", found.name(), deployment["replicas"]);
    }
    Ok(())
}

/// How often each slot has been filled.
fn starts(report: &Value) -> HashMap<u64, u64> {
    let slots = report["replicas"].as_array().into_iter().flatten();
    slots.filter_map(|r| Some((r["slot"].as_u64()?, r["starts"].as_u64()?))).collect()
}

/// Every slot has been filled again and is ready; with no slot at all the processes are gone.
fn are_new(report: &Value, old: &HashMap<u64, u64>) -> bool {
    let slots = report["replicas"].as_array().into_iter().flatten();
    slots
        .filter(|r| {
            text(&r["state"]) != "ready"
                || r["starts"].as_u64() <= r["slot"].as_u64().and_then(|s| old.get(&s).copied())
        })
        .count()
        == 0
}

/// Why a slot stays empty, if one does.
fn failing(report: &Value) -> Option<&str> {
    let mut slots = report["replicas"].as_array()?.iter();
    slots.find(|r| text(&r["state"]) == "failing").map(|r| text(&r["reason"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_new_when_each_slot_was_filled_again_and_is_ready() {
        let report = |starts: [u64; 2], state: &str| {
            json!({"replicas": [
                {"slot": 0, "starts": starts[0], "state": "ready"},
                {"slot": 1, "starts": starts[1], "state": state},
            ]})
        };
        let old = starts(&report([1, 4], "ready"));
        assert!(!are_new(&report([1, 4], "ready"), &old));
        assert!(!are_new(&report([2, 4], "ready"), &old));
        assert!(!are_new(&report([2, 5], "starting"), &old));
        assert!(are_new(&report([2, 5], "ready"), &old));
    }
}
