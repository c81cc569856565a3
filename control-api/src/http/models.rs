//! Models. A create request may ask for a build and a deployment too; then all of it exists when it is answered.

use std::collections::{HashMap, hash_map::Entry};

use axum::extract::State;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    builds::read_build,
    caller::{Caller, ModelPath, Path},
    deployments::read_deployment,
    fields::Fields,
    latest,
    policies::Reader,
    query::Params,
    users,
    views::{self, People},
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    keys::access_key,
    policy::ServingPolicy,
    rows::{Defaults, Level, Model, Project, Visibility},
    store::{ModelPatch, NewBuild, NewDeployment, NewModel},
};

const VISIBILITIES: &str = "`public`, `organization`, `private`";

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params,
) -> Answered {
    let (project, level) = caller.project(&app, &id, Level::Viewer).await?;
    let page = app.store.models(&caller.user, Some(&project.id), &params.paging()?).await?;
    let people = People::of(&app, page.items.iter().map(|m| m.creator.clone()).collect()).await?;
    let mut models: Vec<Value> =
        page.items.iter().map(|model| views::model(&app, model, &project, level, &people)).collect();
    latest::add(&app, &params, &page.items, &mut models).await?;
    Ok(Answer::of(json!({ "models": models, "next_page_token": page.next_page_token })))
}

pub(crate) async fn list_all(State(app): State<App>, caller: Caller, params: Params) -> Answered {
    let page = app.store.models(&caller.user, None, &params.paging()?).await?;
    let people = People::of(&app, page.items.iter().map(|m| m.creator.clone()).collect()).await?;
    let mut models = Vec::with_capacity(page.items.len());
    let mut shown = Vec::with_capacity(page.items.len());
    let mut projects = HashMap::new();
    for model in page.items {
        let project = match projects.entry(model.project_id.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let found = caller.project(&app, model.project_id.as_str(), Level::Viewer).await;
                new.insert(match found {
                    Err(Fault::NotFound(_)) => None,
                    found => Some(found?),
                })
            }
        };
        // A project deleted between the two reads takes its models out of the list.
        if let Some((project, level)) = project {
            shown.push(views::model(&app, &model, project, *level, &people));
            models.push(model);
        }
    }
    latest::add(&app, &params, &models, &mut shown).await?;
    Ok(Answer::of(json!({ "models": shown, "next_page_token": page.next_page_token })))
}

pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    mut body: Fields,
) -> Answered {
    let (project, level) = caller.project(&app, &id, Level::Contributor).await?;
    if body.text("registered_model_id")?.is_some_and(|text| !text.is_empty()) {
        return Err(Fault::Invalid(
            "field `registered_model_id` is given: this server has no registry".to_owned(),
        ));
    }
    let name = body.name("name")?;
    let description = body.text("description")?.unwrap_or_default();
    let visibility = body.word("visibility", VISIBILITIES, Visibility::parse)?.unwrap_or(Visibility::Private);
    let auth_enabled = !body.flag("disable_authentication")?.unwrap_or(false);
    let run_as = run_as(&app, &caller, &mut body).await?;
    let accelerator_label_id = body.integer("accelerator_label_id", 0, i64::MAX)?.unwrap_or(0);
    body.ignore(&["project_id"]);
    let spares_max = app.config.replicas_ceiling;
    let policy = Reader { defaults: &ServingPolicy::default(), spares_max }.read(&mut body)?;
    let defaults = Defaults { policy, ..Defaults::default() };
    let first = first_build(&app, &caller, &mut body, &defaults).await?;
    let resources = first.as_ref().and_then(|(_, d)| d.as_ref()).map(|d| d.amounts).unwrap_or_default();
    let access_key = access_key::generate();
    let new = NewModel {
        project_id: project.id.clone(),
        name,
        description,
        creator: caller.user.username.clone(),
        visibility,
        auth_enabled,
        run_as,
        accelerator_label_id,
        access_key_digest: access_key::digest(&app.custody, &access_key),
        access_key_sealed: access_key::seal(&app.custody, &access_key),
        resources,
        policy: defaults.policy,
    };
    let model = app.store.insert_model(&new, first).await?;
    app.changed();
    Ok(Answer::of(shown(&app, &model, &project, level).await?).ignoring(body.unknown()))
}

/// Whose permissions the model runs with: its creator's, or by an administrator another's.
async fn run_as(app: &App, caller: &Caller, body: &mut Fields) -> Outcome<String> {
    let run_as = body.text("run_as")?.unwrap_or_default();
    if run_as.is_empty() || run_as == caller.user.username.as_str() {
        return Ok(run_as);
    }
    if !caller.is_administrator() {
        return Err(Fault::Denied(format!(
            "field `run_as` is {run_as:?}: only an administrator names another user"
        )));
    }
    if users::found(app, &run_as).await.is_err() {
        return Err(Fault::Invalid(format!("field `run_as` is {run_as:?}: there is no such user")));
    }
    Ok(run_as)
}

/// The build and deployment that a create request asks for. Where both levels say how to deploy, the build's wins.
async fn first_build(
    app: &App,
    caller: &Caller,
    body: &mut Fields,
    defaults: &Defaults,
) -> Outcome<Option<(NewBuild, Option<NewDeployment>)>> {
    let builds = body.flag("auto_build_model")?.unwrap_or(false);
    let deploys = body.flag("auto_deploy_model")?.unwrap_or(false);
    let config = body.object("auto_build_config")?;
    let outer = body.object("auto_deployment_config")?;
    let Some(mut config) = config else {
        return if builds {
            Err(Fault::Invalid(
                "field `auto_build_config` is missing: `auto_build_model` needs it".to_owned(),
            ))
        } else {
            Ok(None)
        };
    };
    let (build, inner) = read_build(app, caller, &mut config, defaults).await?;
    body.note(config.unknown());
    let outer = match outer {
        Some(mut fields) => {
            let deployment = read_deployment(app, caller, &mut fields, defaults).await?;
            body.note(fields.unknown());
            Some(deployment)
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
    if !builds {
        return Ok(None);
    }
    Ok(Some((build, inner.or(outer.filter(|_| deploys)))))
}

pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<ModelPath>,
    params: Params,
) -> Answered {
    let (project, level, model) = caller.model(&app, &path, Level::Viewer).await?;
    let mut shown = [shown(&app, &model, &project, level).await?];
    latest::add(&app, &params, std::slice::from_ref(&model), &mut shown).await?;
    let [shown] = shown;
    Ok(Answer::of(shown))
}

/// The key there was is no model's from the next snapshot on.
pub(crate) async fn regenerate_access_key(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<ModelPath>,
    body: Fields,
) -> Answered {
    let (project, level, model) = caller.model(&app, &path, Level::Contributor).await?;
    let access_key = access_key::generate();
    let (digest, sealed) =
        (access_key::digest(&app.custody, &access_key), access_key::seal(&app.custody, &access_key));
    app.store.set_access_key(&model.id, &digest, &sealed).await?;
    app.changed();
    let model = Model { access_key_sealed: sealed, ..model };
    Ok(Answer::of(shown(&app, &model, &project, level).await?).ignoring(body.unknown()))
}

/// Every deployment there was of any build of a model.
pub(crate) async fn deployments(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<ModelPath>,
    params: Params,
) -> Answered {
    let (_, _, model) = caller.model(&app, &path, Level::Viewer).await?;
    let page = app.store.deployments_of_model(&model.id, &params.paging()?).await?;
    let people = People::of(&app, page.items.iter().map(|d| d.deployer.clone()).collect()).await?;
    let deployments: Vec<Value> =
        page.items.iter().map(|d| views::deployment(&app, d, &model, &people)).collect();
    Ok(Answer::of(json!({ "model_deployments": deployments, "next_page_token": page.next_page_token })))
}

pub(crate) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<ModelPath>,
    mut body: Fields,
) -> Answered {
    let (_, _, model) = caller.model(&app, &path, Level::Contributor).await?;
    let disable = body.flag("disable_authentication")?;
    let patch = ModelPatch {
        name: body.name_or("name")?,
        description: body.text("description")?,
        visibility: body.word("visibility", VISIBILITIES, Visibility::parse)?,
        auth_enabled: body.flag("auth_enabled")?.or(disable.map(|disabled| !disabled)),
        policy: Some(
            Reader { defaults: &model.policy, spares_max: app.config.replicas_ceiling }.read(&mut body)?,
        ),
    };
    app.store.update_model(&model, &patch).await?;
    app.changed();
    // Clients send back the whole object they read.
    body.ignore(&[
        "id",
        "creator",
        "access_key",
        "deletion_status",
        "created_at",
        "updated_at",
        "crn",
        "project",
    ]);
    body.ignore(&["registered_model_id", "default_resources", "default_replication_policy", "run_as"]);
    body.ignore(&["accelerator_label_id", "project_id"]);
    let (project, level, model) = caller.model(&app, &path, Level::Viewer).await?;
    Ok(Answer::of(shown(&app, &model, &project, level).await?).ignoring(body.unknown()))
}

pub(crate) async fn delete(State(app): State<App>, caller: Caller, Path(path): Path<ModelPath>) -> Answered {
    let (_, _, model) = caller.model(&app, &path, Level::Contributor).await?;
    app.store.begin_model_deletion(&model.id).await?;
    app.changed();
    Ok(Answer::empty())
}

async fn shown(app: &App, model: &Model, project: &Project, level: Level) -> Outcome<Value> {
    let people = People::of(app, vec![model.creator.clone()]).await?;
    Ok(views::model(app, model, project, level, &people))
}
