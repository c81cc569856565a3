//! Deployments, their replicas and their logs.

use axum::{extract::State, response::Response};
use millgate_contract::ids::RequestId;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    caller::{BuildPath, Caller, DeploymentPath, Path},
    fields::Fields,
    follow,
    policies::{self, Reader},
    profiles,
    query::Params,
    views::{self, People},
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    launch::UnitName,
    milestone::{Milestone, reached},
    rows::{Amounts, Build, BuildStatus, Defaults, Deployment, DeploymentStatus, Level, Model},
    store::NewDeployment,
};

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<BuildPath>,
    params: Params,
) -> Answered {
    let (model, build) = caller.build(&app, &path, Level::Viewer).await?;
    let page = app.store.deployments(&build.id, &params.paging()?).await?;
    let people = People::of(&app, page.items.iter().map(|d| d.deployer.clone()).collect()).await?;
    let deployments: Vec<Value> =
        page.items.iter().map(|d| views::deployment(&app, d, &model, &people)).collect();
    Ok(Answer::of(json!({ "model_deployments": deployments, "next_page_token": page.next_page_token })))
}

pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<BuildPath>,
    mut body: Fields,
) -> Answered {
    let (model, build) = caller.build(&app, &path, Level::Contributor).await?;
    refuse_failed(&build)?;
    let new = read_deployment(&app, &caller, &mut body, &model.defaults()).await?;
    let deployment = app.store.insert_deployment(&build, &new).await?;
    app.changed();
    Ok(Answer::of(shown(&app, &deployment, &model).await?).ignoring(body.unknown()))
}

/// Nothing comes of deploying a build that failed.
pub(crate) fn refuse_failed(build: &Build) -> Outcome<()> {
    if build.status == BuildStatus::Failed {
        return Err(Fault::Precondition(format!(
            "build `{}` failed and cannot be deployed: {}",
            build.id, build.reason
        )));
    }
    Ok(())
}

/// The fields of a deployment.
pub(crate) async fn read_deployment(
    app: &App,
    caller: &Caller,
    body: &mut Fields,
    defaults: &Defaults,
) -> Outcome<NewDeployment> {
    let policy = Reader { defaults: &defaults.policy, spares_max: app.config.replicas_ceiling }.read(body)?;
    let (resource_profile, defaults) = profiles::named(app, body, defaults.amounts).await?;
    let ceiling = i64::from(app.config.replicas_ceiling);
    let amounts = Amounts {
        // 0 is what a client that says nothing sends.
        replicas: body
            .integer("replicas", 0, ceiling)?
            .filter(|n| *n > 0)
            .unwrap_or(defaults.replicas.min(ceiling)),
        ..profiles::read_amounts(body, defaults)?
    };
    policies::check(&policy, amounts)?;
    let environment = body.environment("environment")?.unwrap_or_else(|| "{}".to_owned());
    body.ignore(&["project_id", "model_id", "build_id"]);
    Ok(NewDeployment {
        deployer: caller.user.username.clone(),
        amounts,
        resource_profile,
        policy,
        environment,
    })
}

pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<DeploymentPath>,
) -> Answered {
    let (model, deployment) = caller.deployment(&app, &path, Level::Viewer).await?;
    Ok(Answer::of(shown(&app, &deployment, &model).await?))
}

pub(crate) async fn stop(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<DeploymentPath>,
    body: Fields,
) -> Answered {
    let (model, deployment) = caller.deployment(&app, &path, Level::Operator).await?;
    app.store.request_stop(&deployment.id).await?;
    acted(&app, &model, deployment, body).await
}

pub(crate) async fn restart(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<DeploymentPath>,
    body: Fields,
) -> Answered {
    let (model, deployment) = caller.deployment(&app, &path, Level::Operator).await?;
    begin_anew(&app, &deployment).await?;
    acted(&app, &model, deployment, body).await
}

async fn acted(app: &App, model: &Model, deployment: Deployment, mut body: Fields) -> Answered {
    app.changed();
    let missing = || Fault::missing("deployment", deployment.id.as_str());
    let deployment = app.store.deployment(&deployment.id).await?.ok_or_else(missing)?;
    body.ignore(&["project_id", "model_id", "build_id", "deployment_id"]);
    Ok(Answer::of(shown(app, &deployment, model).await?).ignoring(body.unknown()))
}

/// One that serves imports anew, its replicas replaced one after another; one that is over begins again.
async fn begin_anew(app: &App, deployment: &Deployment) -> Outcome<()> {
    match deployment.status {
        DeploymentStatus::Deployed if !deployment.is_stop_requested => {
            // Not there is on its way up, which is a restart as well.
            app.launcher.restart(&UnitName::deployment(deployment.number));
            reached(Milestone::RestartTold);
            Ok(())
        }
        DeploymentStatus::Pending | DeploymentStatus::Deploying => Ok(()),
        DeploymentStatus::Stopped | DeploymentStatus::Failed => {
            app.store.revive(deployment).await?;
            Ok(())
        }
        DeploymentStatus::Deployed | DeploymentStatus::Stopping => Err(Fault::Precondition(format!(
            "deployment `{}` is stopping; restart it when it is stopped",
            deployment.id
        ))),
    }
}

pub(crate) async fn replicas(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<DeploymentPath>,
) -> Answered {
    let (_, deployment) = caller.deployment(&app, &path, Level::Viewer).await?;
    let unit = UnitName::deployment(deployment.number);
    app.launcher.measure(&unit).await;
    let report = app.launcher.observe().remove(&unit);
    Ok(Answer::of(views::replicas(report.as_ref())))
}

/// What the function prints, as server-sent events; with `follow` until the deployment is over.
pub(crate) async fn log(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<DeploymentPath>,
    params: Params,
) -> Result<Response, Fault> {
    let (_, deployment) = caller.deployment(&app, &path, Level::Viewer).await?;
    let dir = app.launcher.run_dir(&UnitName::deployment(deployment.number));
    let only = params.text("request_id").map(RequestId::new);
    Ok(follow::replica_log(app, deployment.id, dir, params.flag("follow"), only))
}

async fn shown(app: &App, deployment: &Deployment, model: &Model) -> Outcome<Value> {
    let people = People::of(app, vec![deployment.deployer.clone()]).await?;
    Ok(views::deployment(app, deployment, model, &people))
}
