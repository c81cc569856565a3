//! `POST /api/v2/auth/login`: a person's password gives an API key that lives for half a day. A name that there is not, a
//! wrong password, and a user who may not come in look and take the same.

use axum::extract::State;
use serde_json::Value;

use super::{
    address::CallerAddress,
    answer::{Answer, Answered},
    fields::Fields,
    views,
};
use crate::{app::App, fault::Fault, moment::now_s, operations};

/// Seconds that a key of a login lives.
const SESSION_S: i64 = 12 * 3_600;

pub(crate) async fn login(
    State(app): State<App>,
    CallerAddress(from): CallerAddress,
    mut body: Fields,
) -> Answered {
    let username = body.text("username")?.unwrap_or_default();
    let password = body.text("password")?.unwrap_or_default();
    let user = app.store.user(&username).await?.filter(|user| !user.is_disabled);
    let kept = user.as_ref().map(|user| user.password_hash.clone()).unwrap_or_default();
    let is_right = app.passwords.is_right((&username, from), kept, password).await?;
    let Some(user) = user.filter(|_| is_right) else {
        return Err(Fault::Unauthenticated("wrong username or password".to_owned()));
    };
    let expires_s = now_s() + SESSION_S.min(app.config.key_lifetime_s_max.cast_signed());
    let (audiences, comments) = (vec!["API".to_owned()], "login".to_owned());
    let (key, text) = operations::make_key(&app, &user.username, audiences, comments, expires_s).await?;
    let mut shown = views::key(&key);
    shown["api_key"] = Value::String(text);
    Ok(Answer::of(shown).ignoring(body.unknown()))
}
