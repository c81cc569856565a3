//! `millgate profiles`: amounts by name.

use serde_json::{Value, json};

use super::lookup::text;
use crate::{
    args::{Global, ProfileAmounts, Profiles},
    client::{Client, percent_encode},
    failure::Failure,
    terminal,
};

const PATH: &str = "/api/v2/resource_profiles";

/// `millgate profiles …`.
pub(crate) fn profiles(global: &Global, command: Option<&Profiles>) -> Result<(), Failure> {
    let client = Client::open(global)?;
    match command {
        None | Some(Profiles::List) => list(global, &client),
        Some(Profiles::Add { name, amounts }) => {
            let mut body = fields(amounts);
            body["name"] = json!(name);
            tell(global, &client.post(PATH, &body)?, "is there");
            Ok(())
        }
        Some(Profiles::Edit { name, amounts }) => {
            let words = "is changed; deployments that were made with it stay as they are";
            tell(global, &client.patch(&path_of(name), &fields(amounts))?, words);
            Ok(())
        }
        Some(Profiles::Delete { name }) => {
            let answer = client.delete(&path_of(name))?;
            let words =
                format!("Profile `{name}` is deleted; deployments that were made with it stay as they are.");
            println!("{}", if global.json { answer.to_string() } else { words });
            Ok(())
        }
    }
}

fn path_of(name: &str) -> String {
    format!("{PATH}/{}", percent_encode(name))
}

/// What is not said is not sent.
fn fields(amounts: &ProfileAmounts) -> Value {
    json!({
        "cpu": amounts.cpu,
        "memory": amounts.memory,
        "nvidia_gpus": amounts.gpus,
        "description": amounts.description,
    })
}

fn tell(global: &Global, profile: &Value, what: &str) {
    if global.json {
        println!("{profile}");
    } else {
        println!("Profile `{}` {what}: {}.", text(&profile["name"]), words(profile));
    }
}

fn words(profile: &Value) -> String {
    let (cpu, memory, gpus) = (&profile["cpu"], &profile["memory"], &profile["nvidia_gpus"]);
    format!("{cpu} CPU, {memory} GB, {gpus} GPUs")
}

fn list(global: &Global, client: &Client) -> Result<(), Failure> {
    let profiles = client.list(PATH, "resource_profiles", None)?;
    if global.json {
        println!("{}", json!({ "resource_profiles": profiles }));
        return Ok(());
    }
    if profiles.is_empty() {
        println!(
            "No profiles yet. An administrator adds one: `millgate profiles add NAME --cpu N --memory GB`."
        );
        return Ok(());
    }
    let rows: Vec<Vec<String>> = profiles
        .iter()
        .map(|profile| {
            vec![
                text(&profile["name"]).to_owned(),
                profile["cpu"].to_string(),
                profile["memory"].to_string(),
                profile["nvidia_gpus"].to_string(),
                terminal::printable(text(&profile["description"])).into_owned(),
            ]
        })
        .collect();
    println!("{}", terminal::table(&["PROFILE", "CPU", "MEMORY GB", "GPUS", "WHAT FOR"], &rows));
    Ok(())
}
