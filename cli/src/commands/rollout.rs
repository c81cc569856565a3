//! A new deployment beside the one that serves, followed until it serves: what `deploy`, `rollback`, `scale` and
//! `restart` share. The old one answers until the new one is ready, and goes on doing so when that fails.

use serde_json::{Value, json};

use super::lookup::{Found, text};
use crate::{
    client::Client,
    failure::{Context, Failure},
    terminal::Steps,
};

/// What is taken over from one deployment to the next.
pub(super) struct Plan<'a> {
    /// The build that is deployed.
    pub(super) build: &'a str,
    /// Whose amounts it gets.
    pub(super) amounts: &'a Value,
    /// Whose variables and policy it gets: a deployment inherits none of an earlier one's by itself.
    pub(super) behaviour: &'a Value,
    pub(super) replicas: u64,
}

/// Asks for it and waits until it serves.
pub(super) fn roll_out(client: &Client, found: &Found, plan: &Plan) -> Result<Value, Failure> {
    let environment: Value = serde_json::from_str(text(&plan.behaviour["environment"]))
        .context("the variables of the earlier deployment are not JSON")?;
    let body = json!({
        "cpu": plan.amounts["cpu"],
        "memory": plan.amounts["memory"],
        "nvidia_gpus": plan.amounts["nvidia_gpu"],
        "replicas": plan.replicas,
        "environment": environment,
        "serving_policy": plan.behaviour["serving_policy"],
    });
    let path = format!("{}/builds/{}/deployments", found.path, plan.build);
    let deployment = client.post(&path, &body)?;
    wait_for(client, &format!("{path}/{}", text(&deployment["id"])), &mut Steps::new())
}

/// Waits until a deployment serves; fails when it will not.
pub(super) fn wait_for(client: &Client, path: &str, steps: &mut Steps) -> Result<Value, Failure> {
    let mut said = String::new();
    let mut pauses = super::Pauses::new();
    loop {
        let deployment = client.get(path)?;
        let reason = text(&deployment["status_reason"]);
        if text(&deployment["status"]) == "pending" && !reason.is_empty() && reason != said {
            steps.line("pending", reason);
            reason.clone_into(&mut said);
        }
        match text(&deployment["status"]) {
            "deployed" => {
                let replicas = &deployment["replicas"];
                steps.done("replicas", &format!("{replicas} of {replicas} ready"));
                return Ok(deployment);
            }
            "failed" | "stopped" | "stopping" => {
                return Err(Failure::new(format!(
                    "the deployment is {}: {}",
                    text(&deployment["status"]),
                    text(&deployment["failure_reason"])
                ))
                .hint("`millgate logs` shows what it printed; what was deployed before goes on serving"));
            }
            _ => pauses.wait(),
        }
    }
}
