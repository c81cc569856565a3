//! `millgate runtimes`.

use std::path::Path;

use serde_json::{Value, json};

use super::lookup::text;
use crate::{
    args::{Global, Runtimes},
    client::{Client, percent_encode},
    failure::{Context, Failure},
    terminal,
};

const PATH: &str = "/api/v2/runtimes";

/// `millgate runtimes …`.
pub(crate) fn runtimes(global: &Global, command: Option<&Runtimes>) -> Result<(), Failure> {
    let client = Client::open(global)?;
    match command {
        None => list(global, &client),
        Some(Runtimes::Add { python }) => add(global, &client, python),
        Some(Runtimes::Remove { version }) => {
            let answer = client.delete(&format!("{PATH}/{}", percent_encode(version)))?;
            let words =
                format!("Python {version} is a runtime no more; what was built for it must be built anew.");
            println!("{}", if global.json { answer.to_string() } else { words });
            Ok(())
        }
    }
}

fn list(global: &Global, client: &Client) -> Result<(), Failure> {
    let runtimes = client.list(PATH, "runtimes", None)?;
    if global.json {
        println!("{}", json!({ "runtimes": runtimes }));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = runtimes
        .iter()
        .map(|runtime| {
            let fields = ["full_version", "status", "image_identifier", "description"];
            fields.map(|field| terminal::printable(text(&runtime[field])).into_owned()).to_vec()
        })
        .collect();
    println!("{}", terminal::table(&["PYTHON", "STATUS", "NAME", "WHICH"], &rows));
    Ok(())
}

fn add(global: &Global, client: &Client, python: &Path) -> Result<(), Failure> {
    let path = std::path::absolute(python).context(format_args!("`{}`", python.display()))?;
    let runtime = client.post(PATH, &json!({ "python": path }))?;
    if global.json {
        println!("{runtime}");
    } else {
        println!(
            "Python {} is a runtime now: `millgate deploy --python {} …` builds for it.",
            text(&runtime["full_version"]),
            minor(&runtime)
        );
    }
    Ok(())
}

/// The runtime of this version or name. One that is not there is refused before anything is sent: the API would take the
/// default in its place, as existing programs want it.
pub(super) fn find(client: &Client, asked: &str) -> Result<Value, Failure> {
    let runtimes = client.list(PATH, "runtimes", None)?;
    let is_it = |runtime: &Value| {
        let fields = ["full_version", "image_identifier", "kernel"].map(|field| text(&runtime[field]));
        fields.contains(&asked) || minor(runtime) == asked
    };
    let there: Vec<&str> = runtimes.iter().map(minor).collect();
    match runtimes.iter().find(|runtime| is_it(runtime)) {
        Some(runtime) if text(&runtime["status"]) == "ENABLED" => Ok(runtime.clone()),
        Some(runtime) => {
            Err(Failure::new(format!("`{asked}` is disabled: {}", text(&runtime["description"])))
                .hint("add it anew by `millgate runtimes add PATH`"))
        }
        None => Err(Failure::new(format!("the server has no Python `{asked}`, it has {}", there.join(", ")))
            .hint("add it by `millgate runtimes add PATH`")),
    }
}

/// `3.12` of `Python 3.12`.
fn minor(runtime: &Value) -> &str {
    text(&runtime["kernel"]).trim_start_matches("Python ")
}
