//! How objects look in the old interface. Latest build and deployment are `null` where there is none or nobody asked.

use std::collections::{BTreeMap, HashMap};

use millgate_contract::{
    ids::{BuildId, ModelId, slug},
    supervision::SlotState,
};
use serde_json::{Value, json};

use crate::{
    app::App,
    fault::Outcome,
    keys::access_key,
    launch::{Report, UnitName},
    moment::rfc3339,
    names::crn,
    rights::Right,
    rows::{Amounts, Build, Deployment, Level, Model, Project},
};

/// What the objects of one answer are shown with.
pub(super) struct View<'a> {
    app: &'a App,
    builds: HashMap<ModelId, Build>,
    deployments: HashMap<ModelId, Deployment>,
    /// Of the builds that are deployed.
    build_numbers: HashMap<BuildId, i64>,
    reports: BTreeMap<UnitName, Report>,
}

impl<'a> View<'a> {
    /// Reads the latest builds and deployments of `models`, each if wanted, in one query each.
    pub(super) async fn of(app: &'a App, models: &[ModelId], wanted: (bool, bool)) -> Outcome<Self> {
        let builds = if wanted.0 { app.store.latest_builds(models).await? } else { Vec::new() };
        let deployments = if wanted.1 { app.store.latest_deployments(models).await? } else { Vec::new() };
        let mut build_numbers: HashMap<BuildId, i64> =
            builds.iter().map(|build| (build.id.clone(), build.number)).collect();
        for id in deployments.iter().map(|deployment| &deployment.build_id) {
            if !build_numbers.contains_key(id)
                && let Some(build) = app.store.build(id).await?
            {
                build_numbers.insert(id.clone(), build.number);
            }
        }
        Ok(Self {
            app,
            build_numbers,
            builds: builds.into_iter().map(|b| (b.model_id.clone(), b)).collect(),
            deployments: deployments.into_iter().map(|d| (d.model_id.clone(), d)).collect(),
            reports: app.launcher.observe(),
        })
    }

    pub(super) fn model(&self, model: &Model, project: &Project, level: Level) -> Value {
        let app = self.app;
        let access_key = if level.may(Right::SeeSecrets) {
            access_key::unseal(&app.custody, &model.access_key_sealed).unwrap_or_default()
        } else {
            String::new()
        };
        let Amounts { cpu_millicores, memory_mb, nvidia_gpus, replicas } = model.resources;
        let build = self.builds.get(&model.id).map(|build| self.build(build, model, project));
        let deployment = self.deployments.get(&model.id).map(|d| self.deployment(d, model, project));
        json!({
            "id": model.number,
            "crn": crn(&app.workspace, model.id.as_str()),
            "name": model.name,
            "description": model.description,
            "visibility": model.visibility.as_str(),
            "accessKey": access_key,
            "authEnabled": model.auth_enabled,
            "htmlUrl": self.page(model, project),
            "creator": { "username": model.creator },
            "createdAt": rfc3339(model.created_us),
            "updatedAt": rfc3339(model.updated_us),
            "project": shown_project(project),
            "defaultResources": {
                "cpuMillicores": cpu_millicores, "memoryMb": memory_mb, "nvidiaGPUs": nvidia_gpus,
            },
            "defaultReplicationPolicy": { "type": "fixed", "numReplicas": replicas },
            "latestModelBuild": build,
            "latestModelDeployment": deployment,
        })
    }

    fn page(&self, model: &Model, project: &Project) -> String {
        let app = self.app;
        let (scheme, domain) = (&app.config.scheme, &app.config.domain);
        format!("{scheme}://{domain}/{}/{}/models/{}", project.owner, slug(&project.name), model.number)
    }

    pub(super) fn build(&self, build: &Build, model: &Model, project: &Project) -> Value {
        let example = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!({}));
        let examples = if build.example_request.is_empty() {
            json!([])
        } else {
            json!([{ "request": example(&build.example_request), "response": example(&build.example_response) }])
        };
        json!({
            "id": build.number,
            "crn": crn(&self.app.workspace, build.id.as_str()),
            "modelId": model.number,
            "projectId": project.number,
            "model": { "id": model.number, "name": model.name },
            "status": build.status.as_str(),
            "comment": build.comment,
            "targetFilePath": build.file_path,
            "targetFunctionName": build.function_name,
            "kernel": build.kernel,
            "engineImageId": 0,
            "examples": examples,
            "creator": { "username": build.creator },
            "createdAt": rfc3339(build.created_us),
            "builtAt": rfc3339(build.built_us),
        })
    }

    pub(super) fn deployment(&self, deployment: &Deployment, model: &Model, project: &Project) -> Value {
        let Amounts { cpu_millicores, memory_mb, nvidia_gpus, replicas } = deployment.amounts;
        let environment: Value = serde_json::from_str(&deployment.environment).unwrap_or_else(|_| json!({}));
        let report = self.reports.get(&UnitName::deployment(deployment.number));
        let ready = report
            .map_or(0, |report| report.slots.values().filter(|slot| slot.state == SlotState::Ready).count());
        json!({
            "id": deployment.number,
            "crn": crn(&self.app.workspace, deployment.id.as_str()),
            "modelId": model.number,
            "projectId": project.number,
            "modelBuildId": self.build_numbers.get(&deployment.build_id),
            "model": { "id": model.number, "name": model.name },
            "status": deployment.status.as_str(),
            "cpuMillicores": cpu_millicores,
            "memoryMb": memory_mb,
            "nvidiaGPUs": nvidia_gpus,
            "environment": environment,
            "replicationPolicy": { "type": "fixed", "numReplicas": replicas },
            "replicationStatus": { "numReplicasAvailable": ready },
            "deployer": { "username": deployment.deployer },
            "createdAt": rfc3339(deployment.created_us),
            "stoppedAt": rfc3339(deployment.stopped_us),
        })
    }
}

fn shown_project(project: &Project) -> Value {
    json!({
        "id": project.number,
        "publicIdentifier": project.id,
        "name": project.name,
        "slug": format!("{}/{}", project.owner, slug(&project.name)),
        "owner": { "username": project.owner },
    })
}
