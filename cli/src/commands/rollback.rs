//! `millgate rollback`: an earlier build serves again, with as many replicas as serve now.

use serde_json::Value;

use super::{
    lookup::{self, Found, text},
    rollout::{Plan, roll_out},
};
use crate::{
    args::{Global, Rollback},
    client::Client,
    failure::Failure,
};

/// Deploys a build that was deployed before, or the one that is named, without a gap.
pub(crate) fn rollback(global: &Global, args: &Rollback) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, &args.model)?;
    let (current, _) = found.serving(&client)?;
    let builds = found.builds(&client)?;
    let history = found.deployments(&client)?;
    let build = match args.build {
        Some(number) => numbered(&found, &builds, number)?,
        None => previous(&found, &builds, &history, &current)?,
    };
    // With the variables and the policy it was deployed with last: they belong to what it did.
    let behaviour = history.iter().rev().find(|d| d["build_id"] == build["id"]).unwrap_or(&current);
    let plan = Plan {
        build: text(&build["id"]),
        amounts: &current,
        behaviour,
        replicas: current["replicas"].as_u64().unwrap_or(1),
    };
    let deployment = roll_out(&client, &found, &plan)?;
    if global.json {
        println!("{deployment}");
    } else {
        println!(
            "Model `{}` serves build {} again, as deployment {}.",
            found.name(),
            build["build_number"],
            deployment["deployment_number"]
        );
    }
    Ok(())
}

fn numbered<'a>(found: &Found, builds: &'a [Value], number: u64) -> Result<&'a Value, Failure> {
    let build = found.numbered(builds, number)?;
    if build["is_collected"] == true {
        return Err(Failure::new(format!("build {number} of `{}` was collected", found.name())).hint(
            format!(
                "`millgate builds {} --rebuild {number}` makes it again, as a new build to roll back to",
                found.name()
            ),
        ));
    }
    match text(&build["status"]) {
        "built" => Ok(build),
        status => Err(Failure::new(format!("build {number} of `{}` is `{status}`", found.name()))
            .hint("only a build that is `built` can serve")),
    }
}

fn can_serve(build: &Value) -> bool {
    text(&build["status"]) == "built" && build["is_collected"] != true
}

/// The build that was deployed last before the one that is deployed now.
fn previous<'a>(
    found: &Found,
    builds: &'a [Value],
    history: &[Value],
    current: &Value,
) -> Result<&'a Value, Failure> {
    let began = current["deployment_number"].as_u64();
    history
        .iter()
        .rev()
        .filter(|d| d["deployment_number"].as_u64() < began && text(&d["status"]) != "failed")
        .filter(|d| d["build_id"] != current["build_id"])
        .find_map(|d| builds.iter().find(|b| b["id"] == d["build_id"] && can_serve(b)))
        .ok_or_else(|| {
            Failure::new(format!("no other build of `{}` was deployed before this one", found.name())).hint(
                format!("`millgate builds {0}` shows those there are; name one by `--build N`", found.name()),
            )
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_previous_build_is_the_last_good_one_before_the_one_that_is_deployed() {
        let found = Found::new(json!({"name": "m"}));
        let builds: Vec<Value> =
            (1..=4).map(|n| json!({"id": format!("b{n}"), "build_number": n, "status": "built"})).collect();
        let deployment = |number: u64, build: &str, status: &str| json!({"deployment_number": number, "build_id": build, "status": status});
        let history = [
            deployment(1, "b1", "stopped"),
            deployment(2, "b2", "stopped"),
            deployment(3, "b3", "failed"),
            deployment(4, "b4", "stopped"),
            deployment(5, "b4", "deployed"),
        ];
        let build = previous(&found, &builds, &history, &history[4]).unwrap();
        assert_eq!(build["build_number"], 2);
        assert!(previous(&found, &builds, &history, &history[0]).is_err());
    }
}
