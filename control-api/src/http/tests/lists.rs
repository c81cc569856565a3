//! Paging, filters, order.

use serde_json::{Value, json};

use crate::testing::Rig;

fn names(list: &Value) -> Vec<&str> {
    list["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_lead_through_the_whole_list_in_order_of_creation() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let made: Vec<String> = (0..23).map(|n| format!("model-{}", (n * 7) % 23)).collect();
    for name in &made {
        rig.model(&project, name).await;
    }
    let first = rig.call("GET", &format!("{project}/models"), Value::Null).await.ok();
    assert_eq!(names(&first), made[..10], "ten where nothing is said");
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("{project}/models?page_size=9&page_token={token}");
        let page = rig.call("GET", &path, Value::Null).await.ok();
        seen.extend(names(&page).iter().map(ToString::to_string));
        page["next_page_token"].as_str().unwrap().clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, made);
    assert_eq!(rig.call("GET", "/api/v2/models?page_token=zzz", Value::Null).await.error().0, 400);
}

#[tokio::test]
async fn filters_match_parts_and_sorts_are_followed() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    for name in ["Beta", "alpha 50%", "alphabet"] {
        rig.model(&project, name).await;
    }
    for (query, expected) in [
        ("search_filter=%7B%22name%22%3A%22ALPHA%22%7D", vec!["alpha 50%", "alphabet"]),
        ("search_filter=%7B%22name%22%3A%220%25%22%7D", vec!["alpha 50%"]),
        ("search_filter=%7B%22nothing%22%3A%22x%22%7D", vec!["Beta", "alpha 50%", "alphabet"]),
        ("sort=-name", vec!["alphabet", "alpha 50%", "Beta"]),
        ("sort=+name", vec!["Beta", "alpha 50%", "alphabet"]),
        ("sort=-created_at", vec!["alphabet", "alpha 50%", "Beta"]),
        ("sort=nothing", vec!["Beta", "alpha 50%", "alphabet"]),
    ] {
        let list = rig.call("GET", &format!("/api/v2/models?{query}"), Value::Null).await.ok();
        assert_eq!(names(&list), expected, "{query}");
    }
    let (status, _) = rig.call("GET", "/api/v2/models?search_filter=alpha", Value::Null).await.error();
    assert_eq!(status, 400);
}

#[tokio::test]
async fn every_list_is_named_after_what_it_holds_and_empty_ones_are_lists() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig
        .call("POST", &format!("{model}/builds"), json!({"file_path": "a", "function_name": "f"}))
        .await
        .ok();
    let build = format!("{model}/builds/{}", build["id"].as_str().unwrap());
    for (path, field) in [
        ("/api/v2/projects".to_owned(), "projects"),
        ("/api/v2/projectnames".to_owned(), "project_names"),
        ("/api/v2/models".to_owned(), "models"),
        (format!("{project}/models"), "models"),
        (format!("{project}/collaborators"), "collaborators"),
        (format!("{project}/files"), "files"),
        (format!("{project}/files/"), "files"),
        (format!("{model}/builds"), "model_builds"),
        (format!("{build}/deployments"), "model_deployments"),
        ("/api/v2/users/admin/v2_keys".to_owned(), "keys"),
        ("/api/v2/runtimes".to_owned(), "runtimes"),
    ] {
        let list = rig.call("GET", &path, Value::Null).await.ok();
        assert!(list[field].is_array(), "{path}: {list}");
    }
}

#[tokio::test]
async fn models_come_with_their_latest_build_and_deployment_when_asked() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let bare = rig.model(&project, "bare").await;
    let model = rig.model(&project, "m").await;
    let first = rig.build(&model, 1).await;
    let second = rig.build(&model, 2).await;
    let older = rig.deployment(&first).await;
    let newer = rig.deployment(&second).await;
    for path in ["/api/v2/models", &format!("{project}/models")] {
        let list = rig.call("GET", &format!("{path}?include_latest=true"), Value::Null).await.ok();
        assert_eq!(list["models"][0]["latest_build"], Value::Null);
        assert_eq!(list["models"][0]["latest_deployment"], Value::Null);
        assert_eq!(list["models"][1]["latest_build"]["build_number"], 2);
        assert_eq!(list["models"][1]["latest_deployment"], newer);
    }
    // One that is begun anew is the latest again.
    let path = format!("{first}/deployments/{}", older["id"].as_str().unwrap());
    rig.call("POST", &format!("{path}:stop"), json!({})).await.ok();
    let id = millgate_contract::ids::DeploymentId::new(older["id"].as_str().unwrap());
    let (from, to) = (crate::rows::DeploymentStatus::Pending, crate::rows::DeploymentStatus::Stopped);
    assert!(rig.app.store.move_deployment(&id, from, to, "").await.unwrap());
    rig.call("POST", &format!("{path}:restart"), json!({})).await.ok();
    let shown = rig.call("GET", &format!("{model}?include_latest=true"), Value::Null).await.ok();
    assert_eq!(shown["latest_deployment"]["id"], older["id"]);
    assert_eq!(shown["latest_build"]["build_number"], 2);
    assert!(rig.call("GET", &bare, Value::Null).await.ok().get("latest_build").is_none());
    let all =
        rig.call("GET", &format!("{model}/deployments?sort=-deployment_number"), Value::Null).await.ok();
    assert_eq!(all["model_deployments"][0]["id"], newer["id"]);
    assert_eq!(all["model_deployments"][1]["id"], older["id"]);
}
