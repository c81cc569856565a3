//! `millgate show`.

use serde_json::{Value, json};

use super::lookup::{self, text};
use crate::{args::Global, client::Client, failure::Failure, terminal};

/// Prints one model with its newest build, deployment and replicas.
pub(crate) fn show(global: &Global, name: &str) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, name)?;
    let build = found.builds(&client)?.pop().unwrap_or(Value::Null);
    let (latest, serving) = found.latest_and_serving(&client)?;
    // What serves is what is looked at; what is tried beside it is said in a line of its own.
    let deployment = if serving.is_null() { latest.clone() } else { serving.clone() };
    let processes = if deployment.is_null() {
        Value::Null
    } else {
        client.get(&format!("{}/replicas", found.path_of(&deployment)))?
    };
    let replicas = processes["replicas"].as_array().cloned().unwrap_or_default();
    if global.json {
        let mut model = found.model;
        model["latest_build"] = build;
        model["latest_deployment"] = latest;
        model["serving_deployment"] = serving;
        model["replicas"] = json!(replicas);
        model["start_mode"] = processes["start_mode"].clone();
        model["start_mode_reason"] = processes["start_mode_reason"].clone();
        model["isolation"] = processes["isolation"].clone();
        println!("{model}");
        return Ok(());
    }
    let model = &found.model;
    let authentication = if model["auth_enabled"] == true { "an API key" } else { "no API key" };
    println!("{} in project {}", found.name(), text(&model["project"]["name"]));
    println!("  access key   {} (calls need {authentication})", text(&model["access_key"]));
    if !build.is_null() {
        println!(
            "  build        {}: {} ({}:{})",
            build["build_number"],
            text(&build["status"]),
            text(&build["file_path"]),
            text(&build["function_name"])
        );
    }
    if !serving.is_null() && serving["id"] != latest["id"] {
        println!("  serves       {}", told(&serving));
    }
    if !latest.is_null() {
        println!("  deployment   {}", told(&latest));
    }
    if let Some(policy) = deployment["serving_policy"].as_object() {
        println!("  served       {}", in_words(policy));
        println!("  memory       up to {} GB, spares and template counted", deployment["memory_total"]);
    }
    if !text(&processes["start_mode"]).is_empty() {
        println!(
            "  replicas     by {} {}",
            text(&processes["start_mode"]),
            text(&processes["start_mode_reason"])
        );
    }
    let held = held_in(&processes["isolation"]);
    if !held.is_empty() {
        println!("  held in by   {}", held.join(", "));
    }
    for missing in processes["isolation"]["missing"].as_array().into_iter().flatten() {
        println!("  not had      {}", text(missing));
    }
    if !replicas.is_empty() {
        let rows: Vec<Vec<String>> = replicas
            .iter()
            .map(|r| {
                vec![
                    r["slot"].to_string(),
                    text(&r["state"]).to_owned(),
                    r["pid"].to_string(),
                    text(&r["replica_id"]).to_owned(),
                    r["starts"].to_string(),
                    r["calls"].as_u64().map_or_else(|| "-".to_owned(), |calls| calls.to_string()),
                    seconds(&r["busy_seconds"]),
                    seconds(&r["interpreter_wait_seconds"]),
                    seconds(&r["idle_seconds"]),
                ]
            })
            .collect();
        let headings =
            ["SLOT", "STATE", "PID", "REPLICA", "STARTS", "CALLS", "BUSY S", "GIL WAIT S", "IDLE S"];
        println!("\n{}", terminal::table(&headings, &rows));
    }
    Ok(())
}

/// `7: pending, waits for memory …`.
fn told(deployment: &Value) -> String {
    let (number, status) = (&deployment["deployment_number"], text(&deployment["status"]));
    match text(&deployment["status_reason"]) {
        "" => format!("{number}: {status}"),
        reason => format!("{number}: {status}, {reason}"),
    }
}

/// Each part of isolation that was asserted, by name.
fn held_in(isolation: &Value) -> Vec<String> {
    let mut parts: Vec<String> =
        isolation["uid"].as_u64().map(|uid| format!("uid {uid}")).into_iter().collect();
    let named = [
        ("user_namespace", "user namespace"),
        ("mount_namespace", "root of its own"),
        ("pid_namespace", "PID namespace"),
        ("ipc_namespace", "IPC namespace"),
        ("network_namespace", "no network"),
        ("no_new_privileges", "no new privileges"),
        ("landlock", "Landlock"),
        ("seccomp", "seccomp"),
    ];
    parts.extend(
        named.iter().filter(|(field, _)| isolation[*field] == true).map(|(_, name)| (*name).to_owned()),
    );
    parts.extend(
        isolation["cgroup_version"].as_u64().filter(|v| *v > 0).map(|version| format!("cgroup v{version}")),
    );
    parts
}

/// `1.250`, or a dash for what is not known.
fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}"))
}

/// `start auto, spares 1, …`, bounds that there are not left out.
fn in_words(policy: &serde_json::Map<String, Value>) -> String {
    let settings: Vec<String> = policy
        .iter()
        .filter(|(name, value)| *name == "spares" || (**value != 0 && **value != false))
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{} {value}", name.replace('_', " "))
        })
        .collect();
    settings.join(", ")
}
