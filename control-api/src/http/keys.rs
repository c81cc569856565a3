//! API keys of users: made, listed, deleted, by oneself or an administrator.

use axum::{
    extract::State,
    http::{HeaderMap, header},
};
use millgate_contract::ids::Username;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    caller::{Path, authenticate},
    fields::Fields,
    guard::bearer,
    users, views,
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    moment::{now_s, parse_s},
    operations,
    rows::User,
};

const AUDIENCES: [&str; 2] = ["API", "Application"];

/// The user of the path.
async fn subject(app: &App, username: &str) -> Outcome<User> {
    users::found(app, username).await
}

pub(crate) async fn list(State(app): State<App>, Path(username): Path<String>) -> Answered {
    let user = subject(&app, &username).await?;
    let keys: Vec<Value> = app.store.keys(user.username.as_str()).await?.iter().map(views::key).collect();
    Ok(Answer::of(json!({ "keys": keys })))
}

pub(crate) async fn create(
    State(app): State<App>,
    Path(username): Path<String>,
    mut body: Fields,
) -> Answered {
    let user = subject(&app, &username).await?;
    let comments = body.text("comments")?.unwrap_or_default();
    if comments.chars().count() > 1_000 {
        return Err(Fault::Invalid("field `comments` is over 1000 characters".to_owned()));
    }
    let mut audiences = body.texts("audiences")?;
    if let Some(other) = audiences.iter().find(|a| !AUDIENCES.contains(&a.as_str())) {
        return Err(Fault::Invalid(format!(
            "field `audiences` holds {other:?}: it must be `API` or `Application`"
        )));
    }
    if audiences.is_empty() {
        audiences.push("API".to_owned());
    }
    let ceiling_s = now_s() + app.config.key_lifetime_s_max.cast_signed();
    let expires_s = match body.text("expiry_date")?.filter(|text| !text.is_empty()) {
        None => ceiling_s,
        Some(text) => expiry(&text, ceiling_s)?,
    };
    body.ignore(&["username"]);
    let (key, text) = operations::make_key(&app, &user.username, audiences, comments, expires_s).await?;
    let mut shown = views::key(&key);
    shown["api_key"] = Value::String(text);
    Ok(Answer::of(shown).ignoring(body.unknown()))
}

fn expiry(text: &str, ceiling_s: i64) -> Outcome<i64> {
    let wrong = |rule: &str| Fault::Invalid(format!("field `expiry_date` is {text:?}: {rule}"));
    let expires_s = parse_s(text).ok_or_else(|| wrong("it must be a date such as 2030-01-31T00:00:00Z"))?;
    if expires_s <= now_s() {
        return Err(wrong("it must be in the future"));
    }
    if expires_s > ceiling_s {
        return Err(wrong("it is later than keys may live on this server"));
    }
    Ok(expires_s)
}

pub(crate) async fn delete(
    State(app): State<App>,
    Path((username, key_id)): Path<(String, String)>,
) -> Answered {
    let user = subject(&app, &username).await?;
    app.store.delete_key(user.username.as_str(), &key_id).await?;
    app.changed();
    Ok(Answer::empty())
}

pub(crate) async fn delete_all(State(app): State<App>, Path(username): Path<String>) -> Answered {
    let user = subject(&app, &username).await?;
    app.store.delete_keys(user.username.as_str()).await?;
    app.changed();
    Ok(Answer::empty())
}

/// Says whether the key that came with the request is good, and whose it is.
pub(crate) async fn validate(State(app): State<App>, headers: HeaderMap, mut body: Fields) -> Answered {
    let audience = body.text("audience")?.filter(|text| !text.is_empty()).unwrap_or_else(|| "API".to_owned());
    let key = headers.get(header::AUTHORIZATION).and_then(bearer);
    let Some(key) = key else {
        return Err(Fault::Unauthenticated("no API key: send `Authorization: Bearer <key>`".to_owned()));
    };
    let (valid, username, message) = match authenticate(&app, &key, &audience).await? {
        Ok(user) => (true, user.username, ""),
        Err(why) => (false, Username::new(""), why),
    };
    let answer = json!({ "valid": valid, "username": username, "message": message });
    Ok(Answer::of(answer).ignoring(body.unknown()))
}
