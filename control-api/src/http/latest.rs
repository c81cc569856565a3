//! `include_latest=true`: each model with `latest_build` and `latest_deployment`, `null` where there is none, so that a
//! page of models is shown by one request instead of one for each build of each.

use std::collections::HashMap;

use millgate_contract::ids::ModelId;
use serde_json::Value;

use super::{
    query::Params,
    views::{self, People},
};
use crate::{app::App, fault::Outcome, rows::Model};

/// Adds them to `shown`, the views of `models` in the same order, when `params` asks for it.
pub(super) async fn add(app: &App, params: &Params, models: &[Model], shown: &mut [Value]) -> Outcome<()> {
    if !params.flag("include_latest") {
        return Ok(());
    }
    let ids: Vec<ModelId> = models.iter().map(|model| model.id.clone()).collect();
    let builds = app.store.latest_builds(&ids).await?;
    let deployments = app.store.latest_deployments(&ids).await?;
    let names =
        builds.iter().map(|b| b.creator.clone()).chain(deployments.iter().map(|d| d.deployer.clone()));
    let people = People::of(app, names.collect()).await?;
    let builds: HashMap<&ModelId, _> = builds.iter().map(|build| (&build.model_id, build)).collect();
    let deployments: HashMap<&ModelId, _> = deployments.iter().map(|d| (&d.model_id, d)).collect();
    for (model, shown) in models.iter().zip(shown) {
        shown["latest_build"] = builds.get(&model.id).map_or(Value::Null, |b| views::build(app, b, &people));
        shown["latest_deployment"] =
            deployments.get(&model.id).map_or(Value::Null, |d| views::deployment(app, d, model, &people));
    }
    Ok(())
}
