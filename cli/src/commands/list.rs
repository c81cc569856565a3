//! `millgate list`.

use serde_json::json;

use super::lookup::{self, text};
use crate::{args::Global, client::Client, failure::Failure, terminal};

/// Prints every model one may see.
pub(crate) fn list(global: &Global) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let models = client.list("/api/v2/models", "models", None)?;
    if global.json {
        println!("{}", json!({ "models": models }));
        return Ok(());
    }
    if models.is_empty() {
        println!("No models yet. `millgate deploy FILE:FUNCTION` makes one.");
        return Ok(());
    }
    let mut rows = Vec::with_capacity(models.len());
    for model in models {
        let project = text(&model["project"]["name"]).to_owned();
        let name = text(&model["name"]).to_owned();
        let found = lookup::model(&client, &format!("{project}/{name}"))?;
        let (status, replicas) = match found.newest_deployment(&client)? {
            Some((d, _)) => (text(&d["status"]).to_owned(), d["replicas"].to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        rows.push(vec![name, project, status, replicas, text(&model["updated_at"]).to_owned()]);
    }
    println!("{}", terminal::table(&["NAME", "PROJECT", "STATUS", "REPLICAS", "UPDATED"], &rows));
    Ok(())
}
