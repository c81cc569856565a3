//! `millgate list`.

use serde_json::{Value, json};

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
            let (latest, serving) = (&model["latest_deployment"], &model["serving_deployment"]);
            let replicas = if serving.is_null() { &latest["replicas"] } else { &serving["replicas"] };
            let replicas = replicas.as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
            let status = status(latest, serving);
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

/// What serves, and what has become of a newer one that does not.
fn status(latest: &Value, serving: &Value) -> String {
    match (latest["status"].as_str(), serving["status"].as_str()) {
        (None, _) => "-".to_owned(),
        (Some(status), None) => status.to_owned(),
        (Some(_), Some(status)) if latest["id"] == serving["id"] => status.to_owned(),
        (Some(newer), Some(status)) => {
            format!("{status} ({} is {newer})", latest["deployment_number"])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_is_told_beside_what_does_not_yet_or_any_more() {
        let deployment = |n: u64, status: &str| json!({"id": n, "deployment_number": n, "status": status});
        let nothing = Value::Null;
        assert_eq!(status(&nothing, &nothing), "-");
        assert_eq!(status(&deployment(1, "failed"), &nothing), "failed");
        assert_eq!(status(&deployment(1, "deployed"), &deployment(1, "deployed")), "deployed");
        assert_eq!(status(&deployment(2, "pending"), &deployment(1, "deployed")), "deployed (2 is pending)");
        assert_eq!(status(&deployment(2, "failed"), &deployment(1, "deployed")), "deployed (2 is failed)");
    }
}
