//! Teams: they own projects, and their members have levels in all of these.

use axum::extract::State;
use millgate_contract::ids::Username;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    caller::{Caller, Path},
    fields::Fields,
    query::Params,
    users, views,
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    rows::{Level, User, UserKind, UserRole},
    store::NewUser,
};

/// The team of a path.
pub(super) async fn found(app: &App, name: &str) -> Outcome<User> {
    let team = app.store.user(name).await?.filter(|user| user.kind == UserKind::Team);
    team.ok_or_else(|| Fault::missing("team", name))
}

async fn shown(app: &App, team: &User) -> Outcome<Value> {
    let members = app.store.team_members(team.username.as_str()).await?;
    let members: Vec<Value> = members
        .iter()
        .map(|(user, permission)| json!({ "user": views::short(user), "permission": permission }))
        .collect();
    Ok(json!({
        "name": team.username,
        "description": team.name,
        "members": members,
        "created_at": crate::moment::rfc3339(team.created_us),
    }))
}

pub(crate) async fn list(State(app): State<App>, caller: Caller, params: Params) -> Answered {
    let member = (!caller.is_administrator()).then_some(caller.user.username.as_str());
    let page = app.store.teams(member, &params.paging()?).await?;
    let mut teams = Vec::with_capacity(page.items.len());
    for team in &page.items {
        teams.push(shown(&app, team).await?);
    }
    Ok(Answer::of(json!({ "teams": teams, "next_page_token": page.next_page_token })))
}

pub(crate) async fn create(State(app): State<App>, mut body: Fields) -> Answered {
    let new = NewUser {
        username: Username::new(body.username("name")?),
        name: body.text("description")?.unwrap_or_default(),
        email: String::new(),
        role: UserRole::User,
        kind: UserKind::Team,
        password_hash: String::new(),
    };
    let team = app.store.insert_user(&new).await?;
    app.changed();
    Ok(Answer::of(shown(&app, &team).await?).ignoring(body.unknown()))
}

pub(crate) async fn show(State(app): State<App>, Path(name): Path<String>) -> Answered {
    let team = found(&app, &name).await?;
    Ok(Answer::of(shown(&app, &team).await?))
}

pub(crate) async fn delete(State(app): State<App>, Path(name): Path<String>) -> Answered {
    let team = found(&app, &name).await?;
    app.store.refuse_owner(&name).await?;
    app.store.delete_user(&team.username).await?;
    app.changed();
    Ok(Answer::empty())
}

pub(crate) async fn add_member(
    State(app): State<App>,
    Path((name, username)): Path<(String, String)>,
    mut body: Fields,
) -> Answered {
    let team = found(&app, &name).await?;
    let level = body
        .word("permission", "`viewer`, `operator`, `contributor`, `admin`", Level::parse)?
        .ok_or_else(|| Fault::Invalid("field `permission` is missing".to_owned()))?;
    let user = users::found(&app, &username).await?;
    app.store.set_team_member(team.username.as_str(), user.username.as_str(), Some(level)).await?;
    app.changed();
    Ok(Answer::empty().ignoring(body.unknown()))
}

pub(crate) async fn remove_member(
    State(app): State<App>,
    Path((name, username)): Path<(String, String)>,
) -> Answered {
    let team = found(&app, &name).await?;
    app.store.set_team_member(team.username.as_str(), &username, None).await?;
    app.changed();
    Ok(Answer::empty())
}
