//! Users: people and service accounts.

use axum::extract::State;
use millgate_contract::ids::Username;
use serde_json::{Value, json};

use super::{
    address::CallerAddress,
    answer::{Answer, Answered},
    caller::{Caller, Path},
    fields::Fields,
    query::Params,
    views,
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    rows::{User, UserKind, UserRole},
    store::{NewUser, UserPatch},
};

const ROLES: &str = "`user`, `administrator`";

pub(crate) async fn list(State(app): State<App>, params: Params) -> Answered {
    let page = app.store.users(&params.paging()?).await?;
    let users: Vec<Value> = page.items.iter().map(views::user).collect();
    Ok(Answer::of(json!({ "users": users, "next_page_token": page.next_page_token })))
}

pub(crate) async fn create(State(app): State<App>, mut body: Fields) -> Answered {
    let username = Username::new(body.username("username")?);
    let kind = |word: &str| UserKind::parse(word).filter(|kind| *kind != UserKind::Team);
    let kind = body.word("kind", "`person`, `service`", kind)?.unwrap_or(UserKind::Person);
    let role = body.word("role", ROLES, UserRole::parse)?.unwrap_or(UserRole::User);
    let password = body.text("password")?.filter(|text| !text.is_empty());
    let password_hash = match password {
        None => String::new(),
        Some(_) if kind == UserKind::Service => {
            return Err(Fault::Invalid(
                "field `password` is given: a service account has API keys, no password".to_owned(),
            ));
        }
        Some(password) => app.passwords.hash("password", password).await?,
    };
    let new = NewUser {
        name: body.name_or("name")?.unwrap_or_else(|| username.to_string()),
        email: body.text("email")?.unwrap_or_default(),
        username,
        role,
        kind,
        password_hash,
    };
    let user = app.store.insert_user(&new).await?;
    app.changed();
    Ok(Answer::of(views::user(&user)).ignoring(body.unknown()))
}

/// The user of a path; a team is none.
pub(super) async fn found(app: &App, username: &str) -> Outcome<User> {
    let user = app.store.user(username).await?.filter(|user| user.kind != UserKind::Team);
    user.ok_or_else(|| Fault::missing("user", username))
}

pub(crate) async fn show(State(app): State<App>, Path(username): Path<String>) -> Answered {
    Ok(Answer::of(views::user(&found(&app, &username).await?)))
}

/// Name and email are one's own to change, role and whether one may come in at all an administrator's.
pub(crate) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(username): Path<String>,
    mut body: Fields,
) -> Answered {
    let user = found(&app, &username).await?;
    let patch = UserPatch {
        name: body.name_or("name")?,
        email: body.text("email")?,
        role: body.word("role", ROLES, UserRole::parse)?,
        is_disabled: body.flag("is_disabled")?,
        password_hash: None,
    };
    let governs = patch.role.is_some_and(|role| role != user.role)
        || patch.is_disabled.is_some_and(|is_disabled| is_disabled != user.is_disabled);
    if governs && !caller.is_administrator() {
        return Err(Fault::Denied("only an administrator changes `role` and `is_disabled`".to_owned()));
    }
    app.store.update_user(&user, &patch).await?;
    app.changed();
    body.ignore(&["username", "kind", "has_password", "created_at"]);
    Ok(Answer::of(views::user(&found(&app, &username).await?)).ignoring(body.unknown()))
}

pub(crate) async fn delete(State(app): State<App>, Path(username): Path<String>) -> Answered {
    let user = found(&app, &username).await?;
    app.store.delete_user(&user.username).await?;
    app.changed();
    Ok(Answer::empty())
}

/// One's own password is changed by who knows it; another's, or a first one, by an administrator.
pub(crate) async fn set_password(
    State(app): State<App>,
    caller: Caller,
    CallerAddress(from): CallerAddress,
    Path(username): Path<String>,
    mut body: Fields,
) -> Answered {
    let user = found(&app, &username).await?;
    if user.kind == UserKind::Service {
        return Err(Fault::Invalid(format!(
            "`{username}` is a service account: it has API keys, no password"
        )));
    }
    let current = body.text("current_password")?.unwrap_or_default();
    let password = body.text("password")?.unwrap_or_default();
    let is_own = caller.user.username == user.username;
    let must_know = !user.password_hash.is_empty() && (is_own || !caller.is_administrator());
    if must_know && !app.passwords.is_right((&username, from), user.password_hash.clone(), current).await? {
        return Err(Fault::Denied("field `current_password` is not the password there is".to_owned()));
    }
    let password_hash = app.passwords.hash("password", password).await?;
    let patch = UserPatch { password_hash: Some(password_hash), ..UserPatch::default() };
    app.store.update_user(&user, &patch).await?;
    Ok(Answer::empty().ignoring(body.unknown()))
}
