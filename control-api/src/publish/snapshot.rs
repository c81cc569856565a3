//! Makes a route snapshot of what the store holds. Same store, same snapshot.

use std::borrow::Cow;

use millgate_contract::{
    ids::{BuildId, DeploymentId, ModelId, ProjectId, Username},
    route::{
        DeploymentRoute, ModelRoute, OnHangUp, ProjectCallers, ROUTE_FORMAT, RevokedKey, RouteSnapshot,
        Target, Verification, VerifyingKey,
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
        request_timeout_ms: app.config.request_timeout_ms_default,
        on_hang_up: OnHangUp::Finish,
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
