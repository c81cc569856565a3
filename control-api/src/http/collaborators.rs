//! Who works in a project, and with which level.

use axum::extract::State;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    caller::{Caller, Path},
    fields::Fields,
    query::Params,
    users, views,
};
use crate::{app::App, fault::Fault, rows::Level};

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params,
) -> Answered {
    let (project, _) = caller.project(&app, &id, Level::Viewer).await?;
    let page = app.store.collaborators(&project.id, &params.paging()?).await?;
    let collaborators: Vec<Value> = page
        .items
        .iter()
        .map(|(user, permission)| json!({ "user": views::short(user), "permission": permission }))
        .collect();
    Ok(Answer::of(json!({ "collaborators": collaborators, "next_page_token": page.next_page_token })))
}

pub(crate) async fn add(
    State(app): State<App>,
    caller: Caller,
    Path((id, username)): Path<(String, String)>,
    mut body: Fields,
) -> Answered {
    let (project, _) = caller.project(&app, &id, Level::Admin).await?;
    let level = body
        .word("permission", "`viewer`, `operator`, `contributor`, `admin`", Level::parse)?
        .ok_or_else(|| Fault::Invalid("field `permission` is missing".to_owned()))?;
    users::found(&app, &username).await?;
    if project.owner.as_str() == username {
        return Err(Fault::Invalid(format!("`{username}` owns project `{id}` and may do everything")));
    }
    app.store.set_collaborator(&project.id, &username, Some(level)).await?;
    app.changed();
    body.ignore(&["username", "project_id"]);
    Ok(Answer::empty().ignoring(body.unknown()))
}

pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path((id, username)): Path<(String, String)>,
) -> Answered {
    let (project, _) = caller.project(&app, &id, Level::Admin).await?;
    app.store.set_collaborator(&project.id, &username, None).await?;
    app.changed();
    Ok(Answer::empty())
}
