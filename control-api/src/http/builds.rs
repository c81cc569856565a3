//! Builds and their logs.

use axum::{extract::State, response::Response};
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    caller::{BuildPath, Caller, ModelPath, Path},
    deployments::read_deployment,
    fields::Fields,
    follow,
    query::Params,
    views::{self, People},
};
use crate::{
    app::App,
    builder::{LOG_FILE, blocking, dependencies::Dependencies, include::Include},
    fault::{Fault, Outcome},
    rows::{Build, BuildStatus, Defaults, Level},
    store::{NewBuild, NewDeployment},
};

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<ModelPath>,
    params: Params,
) -> Answered {
    let (_, _, model) = caller.model(&app, &path, Level::Viewer).await?;
    let page = app.store.builds(&model.id, &params.paging()?).await?;
    let people = People::of(&app, page.items.iter().map(|b| b.creator.clone()).collect()).await?;
    let builds: Vec<Value> = page.items.iter().map(|build| views::build(&app, build, &people)).collect();
    Ok(Answer::of(json!({ "model_builds": builds, "next_page_token": page.next_page_token })))
}

pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<ModelPath>,
    mut body: Fields,
) -> Answered {
    let (_, _, model) = caller.model(&app, &path, Level::Contributor).await?;
    let (new, deployment) = read_build(&app, &caller, &mut body, &model.defaults()).await?;
    let build =
        app.store.insert_build(&model.id, &new, deployment.as_ref(), app.config.builds_queued_max).await?;
    app.changed();
    let people = People::of(&app, vec![build.creator.clone()]).await?;
    Ok(Answer::of(views::build(&app, &build, &people)).ignoring(body.unknown()))
}

/// The fields of a build, and those of the deployment it asks for.
pub(crate) async fn read_build(
    app: &App,
    caller: &Caller,
    body: &mut Fields,
    defaults: &Defaults,
) -> Outcome<(NewBuild, Option<NewDeployment>)> {
    if body.text("registered_model_version_id")?.is_some_and(|text| !text.is_empty()) {
        return Err(Fault::Invalid(
            "field `registered_model_version_id` is given: this server has no registry".to_owned(),
        ));
    }
    let file_path = body.path("file_path")?;
    if file_path.is_empty() {
        return Err(Fault::Invalid("field `file_path` is missing: it names the function's file".to_owned()));
    }
    let new = NewBuild {
        creator: caller.user.username.clone(),
        comment: body.text("comment")?.unwrap_or_default(),
        file_path,
        function_name: body.name("function_name")?,
        kernel: body.text("kernel")?.unwrap_or_default(),
        runtime_identifier: body.text("runtime_identifier")?.unwrap_or_default(),
        runtime_addon_identifiers: json!(body.texts("runtime_addon_identifiers")?).to_string(),
        model_root_dir: body.path("model_root_dir")?,
        build_script_path: body.path("build_script_path")?,
        include: read_include(body)?,
        example_request: body.json("example_request"),
        example_response: body.json("example_response"),
    };
    let deploys = body.flag("auto_deploy_model")?.unwrap_or(false);
    let deployment = match body.object("auto_deployment_config")? {
        Some(mut fields) => {
            let read = read_deployment(app, caller, &mut fields, defaults).await?;
            body.note(fields.unknown());
            deploys.then_some(read)
        }
        None if deploys => Some(NewDeployment {
            deployer: caller.user.username.clone(),
            amounts: defaults.amounts,
            resource_profile: String::new(),
            policy: defaults.policy.clone(),
            environment: "{}".to_owned(),
        }),
        None => None,
    };
    body.ignore(&["project_id", "model_id"]);
    Ok((new, deployment))
}

/// Answers the JSON list that is kept.
fn read_include(body: &mut Fields) -> Outcome<String> {
    let patterns = body.texts("include")?;
    Include::parse(&patterns).map_err(|e| Fault::Invalid(format!("field `include`: {e}")))?;
    Ok(json!(patterns).to_string())
}

pub(crate) async fn show(State(app): State<App>, caller: Caller, Path(path): Path<BuildPath>) -> Answered {
    let (_, build) = caller.build(&app, &path, Level::Viewer).await?;
    Ok(Answer::of(shown(&app, &build).await?))
}

/// A build with what is installed in it.
async fn shown(app: &App, build: &Build) -> Outcome<Value> {
    let people = People::of(app, vec![build.creator.clone()]).await?;
    let folder = app.dir.build(build.id.as_str());
    let dependencies = blocking(move || Dependencies::read(&folder)).await??;
    let mut shown = views::build(app, build, &people);
    shown["dependencies"] = json!(dependencies.packages);
    Ok(shown)
}

/// Makes a build of the source that is kept of another, with the packages that it had.
pub(crate) async fn rebuild(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<BuildPath>,
    mut body: Fields,
) -> Answered {
    let (_, from) = caller.build(&app, &path, Level::Contributor).await?;
    let number = from.build_number;
    if from.status != BuildStatus::Built {
        let status = from.status.as_str();
        return Err(Fault::Precondition(format!(
            "build {number} is `{status}`: only one that is `built` is made again"
        )));
    }
    if !app.sources.has(&from.source_hash) {
        return Err(Fault::Precondition(format!(
            "the source of build {number} is not kept on this server; build from the project's files as they are now"
        )));
    }
    let comment = body.text("comment")?.unwrap_or_else(|| format!("build {number} made again"));
    let who = (&caller.user.username, comment);
    let build = app.store.insert_rebuild(&from, who, app.config.builds_queued_max).await?;
    app.changed();
    body.ignore(&["project_id", "model_id", "build_id"]);
    Ok(Answer::of(shown(&app, &build).await?).ignoring(body.unknown()))
}

/// Keeps a build whatever its age, or no more.
pub(crate) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<BuildPath>,
    mut body: Fields,
) -> Answered {
    let (_, build) = caller.build(&app, &path, Level::Contributor).await?;
    let missing = || Fault::Invalid("field `is_pinned` is missing: it must be true or false".to_owned());
    let is_pinned = body.flag("is_pinned")?.ok_or_else(missing)?;
    app.store.pin_build(&build, is_pinned).await?;
    app.wake_collector.notify_one();
    body.ignore(&["project_id", "model_id", "build_id"]);
    let build = Build { is_pinned, ..build };
    Ok(Answer::of(shown(&app, &build).await?).ignoring(body.unknown()))
}

pub(crate) async fn delete(State(app): State<App>, caller: Caller, Path(path): Path<BuildPath>) -> Answered {
    let (_, build) = caller.build(&app, &path, Level::Contributor).await?;
    app.store.begin_build_deletion(&build.id).await?;
    app.changed();
    app.wake_collector.notify_one();
    Ok(Answer::empty())
}

/// The build's log as server-sent events; with `follow` until the build is over.
pub(crate) async fn log(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<BuildPath>,
    params: Params,
) -> Result<Response, Fault> {
    let (_, build) = caller.build(&app, &path, Level::Viewer).await?;
    let file = app.dir.build(build.id.as_str()).join(LOG_FILE);
    Ok(follow::build_log(app, build.id, file, params.flag("follow")))
}
