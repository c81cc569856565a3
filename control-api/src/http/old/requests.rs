//! Builds and deployments as the old interface asks for them.

use serde_json::Value;

use crate::{
    app::App,
    fault::{Fault, Outcome},
    http::{caller::Caller, fields::Fields},
    rows::{Amounts, Defaults},
    store::{NewBuild, NewDeployment},
};

/// More than any host has.
const MILLICORES_MAX: i64 = 4_096_000;
const MEMORY_MB_MAX: i64 = 65_536 * 1_024;

pub(super) fn build_request(caller: &Caller, body: &mut Fields) -> Outcome<NewBuild> {
    let file_path = body.path("targetFilePath")?;
    if file_path.is_empty() {
        return Err(Fault::Invalid(
            "field `targetFilePath` is missing: it names the function's file".to_owned(),
        ));
    }
    let (example_request, example_response) = example(body);
    let new = NewBuild {
        creator: caller.user.username.clone(),
        comment: body.text("comment")?.unwrap_or_default(),
        file_path,
        function_name: body.name("targetFunctionName")?,
        kernel: body.text("kernel")?.unwrap_or_default(),
        runtime_identifier: String::new(),
        runtime_addon_identifiers: "[]".to_owned(),
        model_root_dir: String::new(),
        build_script_path: String::new(),
        include: "[]".to_owned(),
        example_request,
        example_response,
    };
    // Engines and runtimes by number name nothing here: the build takes the kernel's Python.
    body.ignore(&["engineImageId", "runtimeId", "addons", "type"]);
    Ok(new)
}

/// The first example. An empty response is the placeholder that forms are filled with, not an expectation.
fn example(body: &mut Fields) -> (String, String) {
    let text = body.json("examples");
    let first =
        serde_json::from_str::<Value>(&text).ok().and_then(|list| list.get(0).cloned()).unwrap_or_default();
    let part = |name: &str| match first.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(value) => value.to_string(),
    };
    let response = Some(part("response")).filter(|text| text != "{}" && text != "\"\"");
    (part("request"), response.unwrap_or_default())
}

pub(super) fn deployment_request(
    app: &App,
    caller: &Caller,
    body: &mut Fields,
    defaults: &Defaults,
) -> Outcome<NewDeployment> {
    let policy = defaults.policy.clone();
    let defaults = defaults.amounts;
    let mut amount = |name: &str, max: i64, default: i64| -> Outcome<i64> {
        Ok(body.integer(name, 0, max)?.filter(|n| *n > 0).unwrap_or(default))
    };
    let cpu_millicores = amount("cpuMillicores", MILLICORES_MAX, defaults.cpu_millicores)?;
    let memory_mb = amount("memoryMb", MEMORY_MB_MAX, defaults.memory_mb)?;
    let nvidia_gpus = body.integer("nvidiaGPUs", 0, 1_024)?.unwrap_or(defaults.nvidia_gpus);
    let ceiling = i64::from(app.config.replicas_ceiling);
    let replicas = match body.object("replicationPolicy")? {
        Some(mut policy) => policy.integer("numReplicas", 0, ceiling)?.filter(|n| *n > 0),
        None => None,
    };
    let amounts = Amounts {
        cpu_millicores,
        memory_mb,
        nvidia_gpus,
        replicas: replicas.unwrap_or(defaults.replicas.min(ceiling)),
    };
    let environment = body.environment("environment")?.unwrap_or_else(|| "{}".to_owned());
    let resource_profile = String::new();
    Ok(NewDeployment {
        deployer: caller.user.username.clone(),
        amounts,
        resource_profile,
        policy,
        environment,
    })
}
