//! Events of a model's calls: who called, when, and how it ended.

use axum::extract::State;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    caller::{Caller, ModelPath, Path},
    query::Params,
};
use crate::{app::App, call_events::CallEventsError, fault::Fault, rows::Level};

/// The newest last: `?code=`, `since=`, `limit=`. Callers' names and addresses are for those who answer for the model.
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<ModelPath>,
    params: Params,
) -> Answered {
    let model = caller.model(&app, &path, Level::Contributor).await?.2;
    let Some(events) = app.config.call_events.clone() else {
        return Err(Fault::NotFound("this server keeps no events of calls".to_owned()));
    };
    let read = move || events.of_model(&model.id, &params.into_pairs());
    let lines =
        tokio::task::spawn_blocking(read).await.map_err(Fault::internal)?.map_err(|error| match error {
            CallEventsError::Parameter(what) => Fault::Invalid(what),
            CallEventsError::Io(_) => Fault::internal(error),
        })?;
    let calls: Vec<Value> = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok(Answer::of(json!({ "calls": calls })))
}
