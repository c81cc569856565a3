//! The old interface, `POST /api/altus-ds-1/models/…`: the same objects under integer ids and camelCase names. Reads
//! them into what API v2 is made of; whatever is decided is decided there. A number of an object that the caller may not
//! see is a number that does not exist.

mod requests;
mod views;

use std::collections::HashMap;

use axum::extract::State;
use millgate_contract::ids::ModelId;
use serde_json::Value;

use self::{
    requests::{build_request, deployment_request},
    views::View,
};
use super::{
    answer::{Answer, Answered},
    caller::Caller,
    fields::Fields,
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    keys::access_key,
    rows::{Build, Defaults, Level, Model, Project, Visibility},
    store::{ModelPatch, NewModel, Paging},
};

/// An id: a whole number, as text too.
fn number(body: &mut Fields, name: &str) -> Outcome<i64> {
    body.integer(name, 1, i64::MAX)?
        .ok_or_else(|| Fault::Invalid(format!("field `{name}` is missing: it is a number")))
}

async fn project(app: &App, caller: &Caller, number: i64, needed: Level) -> Outcome<(Project, Level)> {
    let missing = || Fault::missing("project", &number.to_string());
    let project = app.store.project_by_number(number).await?.ok_or_else(missing)?;
    hidden(caller.project(app, project.id.as_str(), needed).await, missing)
}

async fn model(app: &App, caller: &Caller, number: i64, needed: Level) -> Outcome<(Project, Level, Model)> {
    let missing = || Fault::missing("model", &number.to_string());
    let model = app.store.model_by_number(number).await?.ok_or_else(missing)?;
    let (project, level) = hidden(caller.project(app, model.project_id.as_str(), needed).await, missing)?;
    Ok((project, level, model))
}

/// Names of what is hidden are not told: not found says the number that was asked for.
fn hidden<T>(found: Outcome<T>, missing: impl Fn() -> Fault) -> Outcome<T> {
    found.map_err(|fault| if matches!(fault, Fault::NotFound(_)) { missing() } else { fault })
}

/// Whether latest build and latest deployment are asked for.
fn wanted(body: &mut Fields) -> Outcome<(bool, bool)> {
    Ok((
        body.flag("latestModelBuild")?.unwrap_or(false),
        body.flag("latestModelDeployment")?.unwrap_or(false),
    ))
}

pub(super) async fn list(State(app): State<App>, caller: Caller, mut body: Fields) -> Answered {
    let owner = body.text("projectOwnerName")?.filter(|name| !name.is_empty());
    let wanted = wanted(&mut body)?;
    let of = match body.integer("projectId", 0, i64::MAX)?.filter(|n| *n > 0) {
        Some(number) => Some(project(&app, &caller, number, Level::Viewer).await?.0),
        None => None,
    };
    let paging = Paging { page_size: Some(crate::store::PAGE_SIZE_MAX), ..Paging::default() };
    let models = app.store.models(&caller.user, of.as_ref().map(|p| &p.id), &paging).await?.items;
    let ids: Vec<ModelId> = models.iter().map(|m| m.id.clone()).collect();
    let view = View::of(&app, &ids, wanted).await?;
    let mut seen = HashMap::new();
    let mut shown = Vec::with_capacity(models.len());
    for model in &models {
        if !seen.contains_key(&model.project_id) {
            let found = caller.project(&app, model.project_id.as_str(), Level::Viewer).await.ok();
            seen.insert(model.project_id.clone(), found);
        }
        // A project deleted between the two reads takes its models out of the list.
        let Some((project, level)) = &seen[&model.project_id] else { continue };
        if owner.as_ref().is_none_or(|name| project.owner.as_str() == name) {
            shown.push(view.model(model, project, *level));
        }
    }
    Ok(Answer::of(Value::Array(shown)).ignoring(body.unknown()))
}

pub(super) async fn show(State(app): State<App>, caller: Caller, mut body: Fields) -> Answered {
    let wanted = wanted(&mut body)?;
    let id = number(&mut body, "id")?;
    let (project, level, model) = model(&app, &caller, id, Level::Viewer).await?;
    let view = View::of(&app, std::slice::from_ref(&model.id), wanted).await?;
    Ok(Answer::of(view.model(&model, &project, level)).ignoring(body.unknown()))
}

/// A model with its first build and a deployment that waits for it.
pub(super) async fn create(State(app): State<App>, caller: Caller, mut body: Fields) -> Answered {
    let of = number(&mut body, "projectId")?;
    let (project, level) = project(&app, &caller, of, Level::Contributor).await?;
    let name = body.name("name")?;
    let description = body.text("description")?.unwrap_or_default();
    let words = "`public`, `organization`, `private`";
    let visibility = body.word("visibility", words, Visibility::parse)?.unwrap_or(Visibility::Private);
    let auth_enabled = match body.flag("enableAuth")? {
        Some(enabled) => enabled,
        None => body.flag("authEnabled")?.unwrap_or(true),
    };
    let deployment = deployment_request(&app, &caller, &mut body, &Defaults::default())?;
    let build = build_request(&caller, &mut body)?;
    let access_key = access_key::generate();
    let new = NewModel {
        project_id: project.id.clone(),
        name,
        description,
        creator: caller.user.username.clone(),
        visibility,
        auth_enabled,
        run_as: String::new(),
        accelerator_label_id: 0,
        access_key_digest: access_key::digest(&app.custody, &access_key),
        access_key_sealed: access_key::seal(&app.custody, &access_key),
        resources: deployment.amounts,
        policy: deployment.policy.clone(),
    };
    let model = app.store.insert_model(&new, Some((build, Some(deployment)))).await?;
    app.changed();
    let view = View::of(&app, std::slice::from_ref(&model.id), (true, true)).await?;
    let mut shown = view.model(&model, &project, level);
    shown["modelBuild"] = shown["latestModelBuild"].clone();
    shown["modelDeployment"] = shown["latestModelDeployment"].clone();
    Ok(Answer::of(shown).ignoring(body.unknown()))
}

/// A new build. Requests that say how many replicas it is to have want it deployed too.
pub(super) async fn build(State(app): State<App>, caller: Caller, mut body: Fields) -> Answered {
    let id = match body.integer("modelId", 1, i64::MAX)? {
        Some(id) => id,
        None => number(&mut body, "id")?,
    };
    let (project, _, model) = model(&app, &caller, id, Level::Contributor).await?;
    let deploys = body.has("replicationPolicy");
    let deployment = deployment_request(&app, &caller, &mut body, &model.defaults())?;
    let new = build_request(&caller, &mut body)?;
    body.ignore(&["projectId", "modelId", "id"]);
    let deployment = deploys.then_some(&deployment);
    let build = app.store.insert_build(&model.id, &new, deployment, app.config.builds_queued_max).await?;
    app.changed();
    let view = View::of(&app, &[], (false, false)).await?;
    Ok(Answer::of(view.build(&build, &model, &project)).ignoring(body.unknown()))
}

/// A deployment of one build, or of a model's newest.
pub(super) async fn deploy(State(app): State<App>, caller: Caller, mut body: Fields) -> Answered {
    let named = match body.integer("modelBuildId", 1, i64::MAX)? {
        Some(number) => Some(number),
        None => body.integer("buildId", 1, i64::MAX)?,
    };
    let (project, model, build) = match named {
        Some(number) => chosen_build(&app, &caller, number).await?,
        None => newest_build(&app, &caller, number(&mut body, "modelId")?).await?,
    };
    super::deployments::refuse_failed(&build)?;
    let new = deployment_request(&app, &caller, &mut body, &model.defaults())?;
    body.ignore(&["projectId", "modelId", "id"]);
    let deployment = app.store.insert_deployment(&build, &new).await?;
    app.changed();
    let view = View::of(&app, std::slice::from_ref(&model.id), (true, true)).await?;
    Ok(Answer::of(view.deployment(&deployment, &model, &project)).ignoring(body.unknown()))
}

async fn chosen_build(app: &App, caller: &Caller, number: i64) -> Outcome<(Project, Model, Build)> {
    let missing = || Fault::missing("build", &number.to_string());
    let build = app.store.build_by_number(number).await?.ok_or_else(missing)?;
    let model = app.store.model(&build.model_id).await?.ok_or_else(missing)?;
    let found = caller.project(app, model.project_id.as_str(), Level::Contributor).await;
    Ok((hidden(found, missing)?.0, model, build))
}

async fn newest_build(app: &App, caller: &Caller, number: i64) -> Outcome<(Project, Model, Build)> {
    let (project, _, model) = model(app, caller, number, Level::Contributor).await?;
    let newest = app.store.latest_builds(std::slice::from_ref(&model.id)).await?.pop();
    let build = newest.ok_or_else(|| Fault::Precondition(format!("model {number} has no build")))?;
    Ok((project, model, build))
}

pub(super) async fn delete(State(app): State<App>, caller: Caller, mut body: Fields) -> Answered {
    let id = number(&mut body, "id")?;
    let (_, _, model) = model(&app, &caller, id, Level::Contributor).await?;
    app.store.begin_model_deletion(&model.id).await?;
    app.changed();
    Ok(Answer::empty().ignoring(body.unknown()))
}

pub(super) async fn set_auth(State(app): State<App>, caller: Caller, mut body: Fields) -> Answered {
    let id = number(&mut body, "id")?;
    let enabled = match body.flag("enableAuth")? {
        Some(enabled) => Some(enabled),
        None => body.flag("authEnabled")?,
    };
    let enabled = enabled.ok_or_else(|| {
        Fault::Invalid("field `enableAuth` is missing: it must be true or false".to_owned())
    })?;
    let (_, _, model) = model(&app, &caller, id, Level::Contributor).await?;
    let patch = ModelPatch { auth_enabled: Some(enabled), ..ModelPatch::default() };
    app.store.update_model(&model, &patch).await?;
    app.changed();
    Ok(Answer::empty().ignoring(body.unknown()))
}
