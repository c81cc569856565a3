//! Users, and the runtimes there are.

use axum::extract::State;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    caller::Path,
    query::Params,
    views,
};
use crate::{app::App, fault::Fault};

pub(crate) async fn list(State(app): State<App>, params: Params) -> Answered {
    let page = app.store.users(&params.paging()?).await?;
    let users: Vec<Value> = page.items.iter().map(views::user).collect();
    Ok(Answer::of(json!({ "users": users, "next_page_token": page.next_page_token })))
}

pub(crate) async fn show(State(app): State<App>, Path(username): Path<String>) -> Answered {
    let user = app.store.user(&username).await?.ok_or_else(|| Fault::missing("user", &username))?;
    Ok(Answer::of(views::user(&user)))
}

/// The one runtime of this host, if the filter lets it through.
pub(crate) async fn runtimes(State(app): State<App>, params: Params) -> Answered {
    let paging = params.paging()?;
    let python = &app.python;
    let runtime = json!({
        "image_identifier": python.runtime_identifier(),
        "editor": "Workbench",
        "kernel": python.kernel(),
        "edition": "Standard",
        "description": format!("Python {} of this host", python.version),
        "full_version": python.version,
        "status": "ENABLED",
        "register_user_id": 0,
    });
    let is_shown = paging.search.iter().all(|(key, text)| {
        runtime.get(key).is_none_or(|value| {
            value.as_str().unwrap_or_default().to_lowercase().contains(&text.to_lowercase())
        })
    });
    let runtimes = if is_shown && paging.page_token.is_empty() { vec![runtime] } else { vec![] };
    Ok(Answer::of(json!({ "runtimes": runtimes, "next_page_token": "" })))
}
