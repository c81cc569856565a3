//! `millgate deploy`: source → project → model → build → deployment, following each as it goes, then the command
//! that calls it. A second run is a new build, live when its replicas are ready.

use serde_json::{Value, json};

use super::{
    lookup::{self, Found, text},
    rollout::wait_for,
    runtimes,
};
use crate::{
    args::{Deploy, Global, Policy},
    client::Client,
    failure::Failure,
    source::Source,
    terminal::{self, Steps},
};

/// The last step in a build's log.
const END: &str = "done";

/// Runs it.
pub(crate) fn deploy(global: &Global, args: &Deploy) -> Result<(), Failure> {
    let example = args.example.as_deref().map(parse_example).transpose()?;
    let source = Source::find(&args.target, args.project.as_deref())?;
    let client = Client::open(global)?;
    let runtime = args.python.as_deref().map(|asked| runtimes::find(&client, asked)).transpose()?;
    let mut steps = Steps::new();

    let archive = source.pack(&args.include)?;
    for warning in &archive.warnings {
        steps.line("warning", warning);
    }
    let project = ensure_project(&client, &source.project_name())?;
    let files = if archive.files == 1 { "file" } else { "files" };
    let summary = format!("{} {files}, {}", archive.files, terminal::bytes(archive.bytes));
    client.put_source(&format!("/api/v2/projects/{project}/source"), archive.tar)?;
    steps.done("source", &summary);

    let name = args.name.clone().unwrap_or_else(|| default_name(&source.file));
    let found = match lookup::model_in(&client, &project, &name)? {
        Some(found) => found,
        None => create_model(&client, &project, &name)?,
    };
    let mut request = build_request(args, &source, example.as_ref());
    if let Some(runtime) = runtime {
        request["kernel"] = runtime["kernel"].clone();
        request["runtime_identifier"] = runtime["image_identifier"].clone();
    }
    let build = client.post(&format!("{}/builds", found.path), &request)?;
    let build_path = format!("{}/builds/{}", found.path, text(&build["id"]));
    follow_build(&client, &build_path, &mut steps)?;
    let deployment = follow_deployment(&client, &build_path, &mut steps)?;
    if global.json {
        println!(
            "{}",
            json!({"model": found.model, "build": build, "deployment": deployment, "warnings": archive.warnings})
        );
        return Ok(());
    }
    println!(
        "Model `{}` is live: build {}, deployment {}. Call it:\n\n{}\n",
        found.name(),
        build["build_number"],
        deployment["deployment_number"],
        call_command(&client, &found, example)?,
    );
    Ok(())
}

fn parse_example(json: &str) -> Result<Value, Failure> {
    serde_json::from_str(json).map_err(|cause| {
        Failure::usage(format!("`--example` is not JSON: {cause}"))
            .hint(r#"quote it, as in --example '{"a": 3}'"#)
    })
}

fn default_name(file: &str) -> String {
    let stem = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".py");
    stem.replace('_', "-")
}

fn ensure_project(client: &Client, name: &str) -> Result<String, Failure> {
    let all = client.list("/api/v2/projects", "projects", Some(&json!({"name": name})))?;
    if let Some(project) = all.iter().find(|p| text(&p["name"]) == name) {
        return Ok(text(&project["id"]).to_owned());
    }
    let project = client
        .post("/api/v2/projects", &json!({"name": name, "template": "local", "visibility": "private"}))?;
    Ok(text(&project["id"]).to_owned())
}

fn create_model(client: &Client, project: &str, name: &str) -> Result<Found, Failure> {
    let body = json!({"project_id": project, "name": name, "description": ""});
    client.post(&format!("/api/v2/projects/{project}/models"), &body)?;
    lookup::model_in(client, project, name)?
        .ok_or_else(|| Failure::new(format!("model `{name}` was created and is gone again")))
}

fn build_request(args: &Deploy, source: &Source, example: Option<&Value>) -> Value {
    let environment: serde_json::Map<String, Value> =
        args.env.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
    // What is not said is the profile's.
    let by_default = |amount: f64| args.profile.is_none().then_some(amount);
    let mut request = json!({
        "file_path": source.file,
        "function_name": args.target.function,
        "kernel": "Python 3",
        "include": args.include,
        "auto_deploy_model": true,
        "auto_deployment_config": {
            "cpu": args.cpu.or(by_default(1.0)),
            "memory": args.memory.or(by_default(2.0)),
            "resource_profile": args.profile,
            "replicas": args.replicas,
            "environment": environment,
            "serving_policy": serving_policy(&args.policy),
        },
    });
    if let Some(example) = example {
        request["example_request"] = example.clone();
    }
    request
}

/// What is not said is the model's; `null` says nothing.
fn serving_policy(policy: &Policy) -> Value {
    json!({
        "start": policy.start,
        "on_exception": policy.on_exception,
        "isolation": policy.isolation,
        "calls_max": policy.calls_max,
        "age_seconds_max": policy.age_max,
        "memory_mb_max": policy.memory_max,
        "spares": policy.spares,
        "request_timeout_seconds": policy.request_timeout,
        "on_hang_up": policy.on_hang_up,
        "network": policy.no_network.then_some("none"),
        "require_isolation": policy.require_isolation.then_some(true),
    })
}

/// Prints the build's log as it grows; fails as the build fails.
pub(super) fn follow_build(client: &Client, build_path: &str, steps: &mut Steps) -> Result<(), Failure> {
    let mut step = String::new();
    let mut last = String::new();
    client.events(&format!("{build_path}/log?follow=true"), |data| {
        let event: Value = serde_json::from_str(data).unwrap_or(Value::Null);
        let (now, line) = (text(&event["step"]), text(&event["text"]));
        if now == END {
            // Its outcome is told by the build itself.
            return true;
        }
        if now != step && !step.is_empty() {
            steps.done(&step, &last);
            last.clear();
        } else if !last.is_empty() {
            steps.line(&step, &last);
        }
        now.clone_into(&mut step);
        last = terminal::printable(line).into_owned();
        true
    })?;
    let mut pauses = super::Pauses::new();
    let build = loop {
        let build = client.get(build_path)?;
        match text(&build["status"]) {
            "built" | "build failed" => break build,
            _ => pauses.wait(),
        }
    };
    if text(&build["status"]) == "built" {
        steps.done(&step, &last);
        return Ok(());
    }
    steps.line(&step, &last);
    let reason = text(&build["failure_reason"]);
    let reason = if reason.is_empty() { last.as_str() } else { reason };
    Err(Failure::new(format!("the build failed: {reason}"))
        .hint("mend it and deploy again; what was deployed before goes on serving"))
}

fn follow_deployment(client: &Client, build_path: &str, steps: &mut Steps) -> Result<Value, Failure> {
    let path = format!("{build_path}/deployments");
    let deployment = client.list(&path, "model_deployments", None)?.pop();
    let deployment = deployment.ok_or_else(|| Failure::new("the build is done but was not deployed"))?;
    wait_for(client, &format!("{path}/{}", text(&deployment["id"])), steps)
}

/// A `curl` to paste, with the key read from where this program reads it.
fn call_command(client: &Client, found: &Found, example: Option<Value>) -> Result<String, Failure> {
    let body = json!({"accessKey": found.access_key()?, "request": example.unwrap_or_else(|| json!({}))});
    Ok(format!(
        "  curl {}/model \\\n    -H 'Content-Type: application/json' \\\n    -H \"Authorization: Bearer {}\" \\\n    -d '{}'",
        client.server(),
        client.key_in_shell(),
        body.to_string().replace('\'', r"'\''"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_after_its_file() {
        assert_eq!(default_name("src/add_numbers.py"), "add-numbers");
    }

    #[test]
    fn an_example_that_is_not_json_is_a_usage_error_with_a_hint() {
        let failure = parse_example("{a: 1}").unwrap_err();
        assert_eq!(failure.code, crate::failure::ExitCode::Usage);
        assert!(failure.to_string().contains("hint:"));
    }
}
