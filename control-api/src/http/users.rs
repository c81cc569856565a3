//! Users, and the runtimes there are.

use axum::extract::State;
use serde_json::json;

use super::{
    answer::{Answer, Answered},
    caller::{Caller, Path},
    query::Params,
    views,
};
use crate::{app::App, fault::Fault};

pub(crate) async fn show(State(app): State<App>, caller: Caller, Path(username): Path<String>) -> Answered {
    let missing = || Fault::missing("user", &username);
    if caller.user.username.as_str() != username && !caller.is_administrator() {
        return Err(missing());
    }
    let user = app.store.user(&username).await?.ok_or_else(missing)?;
    Ok(Answer::of(views::user(&user)))
}

/// The one runtime of this host, if the filter lets it through.
pub(crate) async fn runtimes(State(app): State<App>, _caller: Caller, params: Params) -> Answered {
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
