//! The variables of all models of this server; a project's, and then a deployment's own, win over them.

use axum::extract::State;
use serde_json::json;

use super::{
    answer::{Answer, Answered},
    fields::Fields,
};
use crate::{app::App, fault::Fault};

pub(crate) async fn show(State(app): State<App>) -> Answered {
    Ok(Answer::of(json!({ "environment": app.store.environment().await? })))
}

/// In the place of those there are.
pub(crate) async fn replace(State(app): State<App>, mut body: Fields) -> Answered {
    let missing = || Fault::Invalid("field `environment` is missing: an object of variables".to_owned());
    let environment = body.environment("environment")?.ok_or_else(missing)?;
    app.store.set_environment(&environment).await?;
    Ok(Answer::of(json!({ "environment": environment })).ignoring(body.unknown()))
}
