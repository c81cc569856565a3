//! Makes a route snapshot of what the store holds. Same store, same snapshot.

use std::borrow::Cow;

use millgate_contract::{
    ids::{BuildId, DeploymentId, ModelId, ProjectId, Username},
    route::{
        DeploymentRoute, ModelRoute, ProjectCallers, ROUTE_FORMAT, RevokedKey, RouteSnapshot, Target,
        Verification, VerifyingKey,
    },
};

use crate::{
    app::App,
    fault::Outcome,
    keys::api_key::ISSUER,
    launch::UnitName,
    names::{crn, hex},
    store::RouteRow,
};

/// Reads it; the generation is left 0.
pub(crate) async fn read(app: &App) -> Outcome<RouteSnapshot> {
    let administrators = app.store.administrators().await?;
    let projects = app.store.callers().await?;
    let models = app.store.routes().await?;
    let revoked = app.store.revoked_keys().await?;
    Ok(RouteSnapshot {
        format: ROUTE_FORMAT,
        generation: 0,
        verification: Verification {
            issuer: ISSUER.to_owned(),
            api_keys: vec![VerifyingKey {
                kid: app.custody.kid.clone(),
                ed25519: hex(&app.custody.verifying),
            }],
            access_key_digest_key: hex(&app.custody.digest_key),
        },
        administrators: administrators.into_iter().map(Username::new).collect(),
        projects: projects
            .into_iter()
            .map(|row| ProjectCallers {
                project: ProjectId::new(row.project),
                callers: row.callers.into_iter().map(Username::new).collect(),
            })
            .collect(),
        models: models.iter().map(|row| route(app, row)).collect(),
        revoked: revoked
            .into_iter()
            .map(|key| RevokedKey { key: key.key_id, expires_at_s: key.expires_s.unsigned_abs() })
            .collect(),
    })
}

fn route(app: &App, row: &RouteRow) -> ModelRoute {
    let target = if row.deployment.is_empty() {
        Target::Unavailable(why_unavailable(&row.latest_status).into_owned())
    } else {
        Target::Deployment(DeploymentRoute {
            deployment: DeploymentId::new(&row.deployment),
            crn: crn(&app.workspace, &row.deployment),
            build: BuildId::new(&row.build),
            run_dir: app.launcher.run_dir(&UnitName::deployment(row.deployment_number)),
            slots: u16::try_from(row.slots).unwrap_or(1),
        })
    };
    ModelRoute {
        model: ModelId::new(&row.model),
        name: row.name.clone(),
        project: ProjectId::new(&row.project),
        access_key_digest: row.access_key_digest.clone(),
        requires_api_key: row.auth_enabled,
        request_timeout_ms: row.policy.request_timeout_ms.unwrap_or(app.config.request_timeout_ms_default),
        on_hang_up: row.policy.on_hang_up,
        rate: None,
        target,
    }
}

fn why_unavailable(latest_status: &str) -> Cow<'static, str> {
    match latest_status {
        "" => "the model has no deployment".into(),
        "stopped" | "stopping" => "the model is stopped".into(),
        "failed" => "the model's replicas cannot start".into(),
        "pending" | "deploying" | "deployed" => "the model is being deployed".into(),
        other => format!("the model's deployment is {other}").into(),
    }
}

#[cfg(test)]
mod tests {
    use millgate_contract::{
        route::OnHangUp,
        spec::{CallIsolation, Confinement, Network, StartPolicy},
        supervision::Phase,
    };
    use serde_json::json;

    use super::*;
    use crate::{reconcile::Reconciler, testing::Rig};

    /// Deploys, and passes until that one serves.
    async fn deploy(rig: &Rig, model: &str, policy: serde_json::Value) -> ModelRoute {
        deploy_with(rig, model, json!({ "serving_policy": policy })).await
    }

    /// The same, whatever its configuration says.
    async fn deploy_with(rig: &Rig, model: &str, config: serde_json::Value) -> ModelRoute {
        let body = json!({
            "file_path": "f.py", "function_name": "f", "auto_deploy_model": true, "auto_deployment_config": config,
        });
        let build = rig.call("POST", &format!("{model}/builds"), body).await.ok();
        let build = format!("{model}/builds/{}", build["id"].as_str().unwrap());
        rig.pretend_built(&build).await;
        let mut reconciler = Reconciler::new(rig.app.clone());
        while rig.deployment(&build).await["status"] != "deployed" {
            reconciler.pass().await.unwrap();
            tokio::task::yield_now().await;
        }
        read(&rig.app).await.unwrap().models.remove(0)
    }

    #[tokio::test]
    async fn isolation_is_required_by_the_server_or_by_the_deployment() {
        let mut rig = Rig::new().await;
        rig.launcher.units_become(Some(Phase::Serving), "");
        let project = rig.project("p").await;
        let model = rig.model(&project, "m").await;
        let confinement = |rig: &Rig, unit: usize| match rig.launcher.launched()[unit].confinement {
            Confinement::Available { network, is_required, .. } => (network, is_required),
            Confinement::Open => unreachable!("a server confines"),
        };
        deploy(&rig, &model, json!(null)).await;
        assert_eq!(confinement(&rig, 0), (Network::Kept, false));
        deploy(&rig, &model, json!({"require_isolation": true, "network": "none"})).await;
        assert_eq!(confinement(&rig, 1), (Network::None, true));
        rig.restart_with(|config| config.require_isolation = true).await;
        deploy(&rig, &model, json!(null)).await;
        assert_eq!(confinement(&rig, 2), (Network::Kept, true));
    }

    #[tokio::test]
    async fn every_numeric_library_is_told_its_threads_unless_somebody_says_otherwise() {
        let rig = Rig::new().await;
        rig.launcher.units_become(Some(Phase::Serving), "");
        let project = rig.project("p").await;
        let model = rig.model(&project, "m").await;
        deploy_with(&rig, &model, json!({"cpu": 0.5, "environment": {"MKL_NUM_THREADS": "7"}})).await;
        let environment = rig.launcher.launched()[0].environment.clone();
        for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"] {
            assert_eq!(environment[name], "1", "{name}");
        }
        assert_eq!(environment["MKL_NUM_THREADS"], "7");
    }

    #[tokio::test]
    async fn the_policy_of_what_serves_reaches_gateways_and_supervisors() {
        let rig = Rig::new().await;
        rig.launcher.units_become(Some(Phase::Serving), "");
        let project = rig.project("p").await;
        let model = json!({
            "name": "m", "serving_policy": {"request_timeout_seconds": "7", "start": "spawn", "colour": 1},
        });
        let reply = rig.call("POST", &format!("{project}/models"), model).await;
        let warning = reply.headers["warning"].to_str().unwrap().to_owned();
        assert_eq!(warning, "299 millgate \"unknown fields are ignored: serving_policy.colour\"");
        let model = format!("{project}/models/{}", reply.ok()["id"].as_str().unwrap());

        let route = deploy(&rig, &model, json!({"on_hang_up": "cancel", "isolation": "call"})).await;
        assert_eq!((route.request_timeout_ms, route.on_hang_up), (7_000, OnHangUp::Cancel));
        let policy = rig.launcher.launched()[0].policy.clone();
        assert_eq!((policy.start, policy.isolation), (StartPolicy::Spawn, CallIsolation::Call));

        // What the model says is for deployments to come.
        let changed = json!({"serving_policy": {"request_timeout_seconds": 0, "start": "fork"}});
        let shown = rig.call("PATCH", &model, changed).await.ok();
        assert_eq!(shown["serving_policy"]["start"], "fork");
        let route = read(&rig.app).await.unwrap().models.remove(0);
        assert_eq!((route.request_timeout_ms, route.on_hang_up), (7_000, OnHangUp::Cancel));
        // A client that changes something else sends back the whole object it has read.
        let reply = rig.call("PATCH", &model, shown).await;
        assert!(reply.headers.get("warning").is_none(), "{reply:?}");

        let route = deploy(&rig, &model, json!(null)).await;
        assert_eq!((route.request_timeout_ms, route.on_hang_up), (30_000, OnHangUp::Finish));
        let policy = rig.launcher.launched()[1].policy.clone();
        assert_eq!((policy.start, policy.isolation), (StartPolicy::Fork, CallIsolation::Replica));
    }
}
