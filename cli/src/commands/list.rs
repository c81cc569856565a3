//! `millgate list`.

use serde_json::json;

use super::lookup::text;
use crate::{args::Global, client::Client, failure::Failure, terminal};

/// Prints every model one may see.
pub(crate) fn list(global: &Global) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let models = client.list("/api/v2/models?include_latest=true", "models", None)?;
    if global.json {
        println!("{}", json!({ "models": models }));
        return Ok(());
    }
    if models.is_empty() {
        println!("No models yet. `millgate deploy FILE:FUNCTION` makes one.");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = models
        .iter()
        .map(|model| {
            let deployment = &model["latest_deployment"];
            let (status, replicas) = match deployment["status"].as_str() {
                Some(status) => (status.to_owned(), deployment["replicas"].to_string()),
                None => ("-".to_owned(), "-".to_owned()),
            };
            let project = text(&model["project"]["name"]).to_owned();
            vec![
                text(&model["name"]).to_owned(),
                project,
                status,
                replicas,
                text(&model["updated_at"]).to_owned(),
            ]
        })
        .collect();
    println!("{}", terminal::table(&["NAME", "PROJECT", "STATUS", "REPLICAS", "UPDATED"], &rows));
    Ok(())
}
