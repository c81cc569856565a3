//! How objects look in API v2: every field, zero values too. Whole numbers of resources are texts, as 64-bit integers
//! are in the original; an absent time is `null`, since clients parse every text they find there as a date.

use std::collections::HashMap;

use millgate_contract::{
    ids::{Username, slug},
    supervision::ReplicaUsage,
};
use serde_json::{Value, json};

use super::policies;
use crate::{
    app::App,
    fault::Outcome,
    keys::access_key,
    launch::Report,
    moment::rfc3339,
    names::crn,
    rights::Right,
    rows::{Amounts, Build, Deployment, DeploymentStatus, Key, Level, Model, Project, User},
};

/// Users by name, for the objects of one answer.
pub(crate) struct People(HashMap<Username, User>);

impl People {
    /// Reads the users that are named.
    pub(crate) async fn of(app: &App, names: Vec<Username>) -> Outcome<Self> {
        let mut people = HashMap::new();
        for name in names {
            if !people.contains_key(&name)
                && let Some(user) = app.store.user(name.as_str()).await?
            {
                people.insert(name, user);
            }
        }
        Ok(Self(people))
    }

    fn short(&self, name: &Username) -> Value {
        match self.0.get(name) {
            Some(user) => short(user),
            None => json!({ "username": name, "name": "", "email": "" }),
        }
    }
}

/// A user as part of another object.
pub(crate) fn short(user: &User) -> Value {
    json!({ "username": user.username, "name": user.name, "email": user.email })
}

/// A user.
pub(crate) fn user(user: &User) -> Value {
    json!({
        "username": user.username,
        "name": user.name,
        "email": user.email,
        "role": user.role.as_str(),
        "kind": user.kind.as_str(),
        "is_disabled": user.is_disabled,
        "has_password": !user.password_hash.is_empty(),
        "created_at": rfc3339(user.created_us),
    })
}

/// A project, as somebody of `level` sees it.
pub(crate) fn project(project: &Project, level: Level, people: &People) -> Value {
    json!({
        "id": project.id,
        "name": project.name,
        "owner": people.short(&project.owner),
        "creator": people.short(&project.creator),
        "description": project.description,
        "visibility": project.visibility.as_str(),
        "default_engine_type": project.default_engine_type,
        "created_at": rfc3339(project.created_us),
        "updated_at": rfc3339(project.updated_us),
        "creation_status": "success",
        "permissions": {
            "read": true,
            "write": level.may(Right::Change),
            "admin": level.may(Right::Govern),
            "business_user": false,
            "operator": level.may(Right::Operate),
            "inherit": false,
        },
        "shared_memory_limit": project.shared_memory_limit,
        "environment": if level.may(Right::SeeSecrets) { project.environment.as_str() } else { "{}" },
        "ephemeral_storage_request": 0,
        "ephemeral_storage_limit": 0,
    })
}

/// A model, as somebody of `level` on its project sees it: the access key is for contributors and above.
pub(crate) fn model(app: &App, model: &Model, project: &Project, level: Level, people: &People) -> Value {
    let access_key = if level.may(Right::SeeSecrets) {
        access_key::unseal(&app.custody, &model.access_key_sealed).unwrap_or_default()
    } else {
        String::new()
    };
    json!({
        "id": model.id,
        "name": model.name,
        "description": model.description,
        "creator": people.short(&model.creator),
        "access_key": access_key,
        "deletion_status": "",
        "created_at": rfc3339(model.created_us),
        "updated_at": rfc3339(model.updated_us),
        "crn": crn(&app.workspace, model.id.as_str()),
        "auth_enabled": model.auth_enabled,
        "project": {
            "public_identifier": project.id,
            "name": project.name,
            "default_project_engine": project.default_engine_type,
            "slug": format!("{}/{}", project.owner, slug(&project.name)),
        },
        "registered_model_id": model.registered_model_id,
        "visibility": model.visibility.as_str(),
        "default_resources": {
            "cpu_millicores": model.resources.cpu_millicores.to_string(),
            "memory_mb": model.resources.memory_mb.to_string(),
            "nvidia_gpus": model.resources.nvidia_gpus.to_string(),
        },
        "default_replication_policy": {
            "num_replicas": model.resources.replicas.to_string(),
            "type": "fixed",
        },
        "serving_policy": policies::shown(&model.policy),
        "run_as": model.run_as,
        "accelerator_label_id": model.accelerator_label_id,
    })
}

/// A build.
pub(crate) fn build(app: &App, build: &Build, people: &People) -> Value {
    let list = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!([]));
    json!({
        "id": build.id,
        "model_id": build.model_id,
        "creator": people.short(&build.creator),
        "comment": build.comment,
        "file_path": build.file_path,
        "function_name": build.function_name,
        "engine_image": "",
        "kernel": build.kernel,
        "created_at": rfc3339(build.created_us),
        "updated_at": rfc3339(build.updated_us),
        "built_at": rfc3339(build.built_us),
        "status": build.status.as_str(),
        "deletion_status": "",
        "crn": crn(&app.workspace, build.id.as_str()),
        "runtime_identifier": build.runtime_identifier,
        "runtime_addon_identifiers": list(&build.runtime_addon_identifiers),
        "registered_model_version_id": "",
        "model_root_dir": build.model_root_dir,
        "build_script_path": build.build_script_path,
        "include": list(&build.include),
        "build_number": build.build_number,
        "warnings": list(&build.warnings),
        "failure_reason": build.reason,
        "source_hash": build.source_hash,
        "build_hash": build.build_hash,
        "is_pinned": build.is_pinned,
        "is_collected": build.collected_us > 0,
        "collected_at": rfc3339(build.collected_us),
        "rebuilt_from": build.rebuilt_from,
        "example_request": build.example_request,
        "example_response": build.example_response,
    })
}

/// A deployment.
pub(crate) fn deployment(app: &App, deployment: &Deployment, model: &Model, people: &People) -> Value {
    let Amounts { cpu_millicores, memory_mb, nvidia_gpus, replicas } = deployment.amounts;
    let failure = if deployment.status == DeploymentStatus::Failed { deployment.reason.as_str() } else { "" };
    json!({
        "project_id": model.project_id,
        "model_id": deployment.model_id,
        "build_id": deployment.build_id,
        "id": deployment.id,
        "cpu": decimal(cpu_millicores, 1_000),
        "memory": decimal(memory_mb, 1_024),
        "memory_total": decimal(deployment.policy.memory_total_mb(deployment.amounts), 1_024),
        "nvidia_gpu": nvidia_gpus,
        "resource_profile": deployment.resource_profile,
        "environment": deployment.environment,
        "created_at": rfc3339(deployment.created_us),
        "updated_at": rfc3339(deployment.updated_us),
        "stopped_at": rfc3339(deployment.stopped_us),
        "crn": crn(&app.workspace, deployment.id.as_str()),
        "deployer": people.short(&deployment.deployer),
        "status": deployment.status.as_str(),
        "replicas": replicas,
        "serving_policy": policies::shown(&deployment.policy),
        "deployment_number": deployment.number,
        "status_reason": deployment.reason,
        "failure_reason": failure,
    })
}

/// Whole where it is whole: `2`, not `2.0`.
pub(super) fn decimal(parts: i64, whole: i64) -> Value {
    if parts % whole == 0 { json!(parts / whole) } else { json!(parts as f64 / whole as f64) }
}

/// A key without its text.
pub(crate) fn key(key: &Key) -> Value {
    let audiences: Value = serde_json::from_str(&key.audiences).unwrap_or_else(|_| json!([]));
    json!({
        "key_id": key.key_id,
        "username": key.username,
        "comments": key.comments,
        "audiences": audiences,
        "created_at": rfc3339(key.created_us),
        "expiry_date": rfc3339(key.expires_s * 1_000_000),
    })
}

/// A deployment's replicas, and what holds them in.
pub(crate) fn replicas(report: Option<&Report>) -> Value {
    let Some(report) = report else {
        return json!({
            "replicas": [], "supervisor_pid": 0, "phase": "", "reason": "", "start_mode": "",
            "start_mode_reason": "", "isolation": {},
        });
    };
    let replicas: Vec<Value> = report
        .slots
        .values()
        .map(|slot| {
            let usage = report.usage.iter().find(|usage| Some(&usage.replica) == slot.replica.as_ref());
            let seconds = |us: fn(&ReplicaUsage) -> u64| usage.map(|usage| us(usage) as f64 / 1e6);
            json!({
                "slot": slot.slot,
                "replica_id": slot.replica.as_ref().map_or("", |r| r.as_str()),
                "state": slot.state,
                "pid": slot.pid.unwrap_or_default(),
                "reason": slot.reason,
                "starts": slot.starts,
                "ready_after_ms": slot.ready_after_ms,
                "calls": usage.map(|usage| usage.calls),
                "busy_seconds": seconds(|usage| usage.busy_us),
                "interpreter_wait_seconds": seconds(|usage| usage.interpreter_wait_us),
                "idle_seconds": seconds(|usage| usage.idle_us),
            })
        })
        .collect();
    json!({
        "replicas": replicas,
        "supervisor_pid": report.pid,
        "phase": report.phase(),
        "reason": report.reason(),
        "start_mode": report.whole.as_ref().map_or(json!(""), |w| json!(w.start_mode)),
        "start_mode_reason": report.whole.as_ref().map_or("", |w| &w.start_mode_reason),
        "isolation": report.isolation,
    })
}
