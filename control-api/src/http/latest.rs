//! `include_latest=true`: each model with `latest_build`, `latest_deployment` and `serving_deployment` (where its calls go:
//! an older one while the latest waits, starts or has failed), `null` where there is none, so that a page of models is
//! shown by one request instead of one for each build of each.

use std::collections::HashMap;

use millgate_contract::ids::ModelId;
use serde_json::Value;

use super::{
    query::Params,
    views::{self, People},
};
use crate::{
    app::App,
    fault::Outcome,
    rows::{Deployment, Model},
};

/// Adds them to `shown`, the views of `models` in the same order, when `params` asks for it.
pub(super) async fn add(app: &App, params: &Params, models: &[Model], shown: &mut [Value]) -> Outcome<()> {
    if !params.flag("include_latest") {
        return Ok(());
    }
    let ids: Vec<ModelId> = models.iter().map(|model| model.id.clone()).collect();
    let builds = app.store.latest_builds(&ids).await?;
    let deployments = app.store.latest_deployments(&ids).await?;
    let serving = app.store.routed_deployments(&ids).await?;
    let deployers = deployments.iter().chain(&serving).map(|d| d.deployer.clone());
    let names = builds.iter().map(|b| b.creator.clone()).chain(deployers);
    let people = People::of(app, names.collect()).await?;
    let builds: HashMap<&ModelId, _> = builds.iter().map(|build| (&build.model_id, build)).collect();
    let deployments: HashMap<&ModelId, _> = deployments.iter().map(|d| (&d.model_id, d)).collect();
    let serving: HashMap<&ModelId, _> = serving.iter().map(|d| (&d.model_id, d)).collect();
    for (model, shown) in models.iter().zip(shown) {
        let view =
            |d: Option<&&Deployment>| d.map_or(Value::Null, |d| views::deployment(app, d, model, &people));
        shown["latest_build"] = builds.get(&model.id).map_or(Value::Null, |b| views::build(app, b, &people));
        shown["latest_deployment"] = view(deployments.get(&model.id));
        shown["serving_deployment"] = view(serving.get(&model.id));
    }
    Ok(())
}
