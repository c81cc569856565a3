//! `millgate builds`.

use serde_json::json;

use super::lookup::{self, text};
use crate::{args::Global, client::Client, failure::Failure, terminal};

/// Prints every build of a model, the newest last, and which of them is deployed.
pub(crate) fn builds(global: &Global, name: &str) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, name)?;
    let builds = found.builds(&client)?;
    if global.json {
        println!("{}", json!({ "model_builds": builds }));
        return Ok(());
    }
    if builds.is_empty() {
        println!("No builds yet. `millgate deploy FILE:FUNCTION` makes one.");
        return Ok(());
    }
    let (latest, serving) = found.latest_and_serving(&client)?;
    let rows: Vec<Vec<String>> = builds
        .iter()
        .map(|build| {
            let deployment = [&serving, &latest].into_iter().find(|d| d["build_id"] == build["id"]);
            vec![
                build["build_number"].to_string(),
                text(&build["status"]).to_owned(),
                deployment.map_or("-", |d| text(&d["status"])).to_owned(),
                format!("{}:{}", text(&build["file_path"]), text(&build["function_name"])),
                text(&build["created_at"]).to_owned(),
                text(&build["comment"]).to_owned(),
            ]
        })
        .collect();
    println!(
        "{}",
        terminal::table(&["BUILD", "STATUS", "DEPLOYMENT", "FUNCTION", "CREATED", "COMMENT"], &rows)
    );
    Ok(())
}
