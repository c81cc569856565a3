//! Who calls, and what they may do. A project that a caller may not see looks like one that does not exist.

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use millgate_contract::ids::{BuildId, DeploymentId, ModelId, ProjectId};

use crate::{
    app::App,
    fault::{Fault, Outcome},
    keys::api_key,
    rows::{Build, Deployment, Level, Model, Project, User, UserRole},
};

/// What a path names; one that cannot be read names nothing.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: serde::de::DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Outcome<Self> {
        match axum::extract::Path::from_request_parts(parts, app).await {
            Ok(axum::extract::Path(names)) => Ok(Self(names)),
            Err(_) => Err(Fault::NotFound("there is no such path".to_owned())),
        }
    }
}

/// An authenticated user.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user: User,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Outcome<Self> {
        let key = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, key)| key.trim())
            .ok_or_else(|| {
                Fault::Unauthenticated("no API key: send `Authorization: Bearer <key>`".to_owned())
            })?;
        match authenticate(app, key, "API").await? {
            Ok(user) => Ok(Self { user }),
            Err(_) => Err(Fault::Unauthenticated("the API key is wrong, expired or deleted".to_owned())),
        }
    }
}

/// The user of a key that is good for `audience`; else why not, for the key's holder.
pub(crate) async fn authenticate(
    app: &App,
    key: &str,
    audience: &str,
) -> Outcome<Result<User, &'static str>> {
    let Some(claims) = api_key::verify(&app.custody, key) else {
        return Ok(Err("the key is wrong or expired"));
    };
    let Some(kept) = app.store.key(claims.jti.as_str()).await?.filter(|kept| kept.deleted_us == 0) else {
        return Ok(Err("the key was deleted"));
    };
    if kept.username != claims.sub || !claims.aud.iter().any(|a| a == audience) {
        return Ok(Err("the key is for another audience"));
    }
    let user = app.store.user(claims.sub.as_str()).await?;
    Ok(user.ok_or("the key's user is gone"))
}

impl Caller {
    pub(crate) fn is_administrator(&self) -> bool {
        self.user.role == UserRole::Administrator
    }

    /// The project, if the caller has `needed` on it.
    pub(crate) async fn project(&self, app: &App, id: &str, needed: Level) -> Outcome<(Project, Level)> {
        let missing = || Fault::missing("project", id);
        let project = app.store.project(&ProjectId::new(id)).await?.ok_or_else(missing)?;
        let level = app.store.level(&self.user, &project).await?.ok_or_else(missing)?;
        if level < needed {
            return Err(Fault::Denied(format!(
                "`{}` is {} of project `{id}`; this needs {}",
                self.user.username,
                level.as_str(),
                needed.as_str()
            )));
        }
        Ok((project, level))
    }

    /// The model, within its project.
    pub(crate) async fn model(
        &self,
        app: &App,
        path: &ModelPath,
        needed: Level,
    ) -> Outcome<(Project, Level, Model)> {
        let (project, level) = self.project(app, &path.project_id, needed).await?;
        let model = app.store.model(&ModelId::new(&path.model_id)).await?;
        let model = model
            .filter(|model| model.project_id == project.id)
            .ok_or_else(|| Fault::missing("model", &path.model_id))?;
        Ok((project, level, model))
    }

    /// The build, within its model.
    pub(crate) async fn build(&self, app: &App, path: &BuildPath, needed: Level) -> Outcome<(Model, Build)> {
        let (_, _, model) = self.model(app, &path.model(), needed).await?;
        let build = app.store.build(&BuildId::new(&path.build_id)).await?;
        let build = build
            .filter(|build| build.model_id == model.id)
            .ok_or_else(|| Fault::missing("build", &path.build_id))?;
        Ok((model, build))
    }

    /// The deployment, within its build.
    pub(crate) async fn deployment(
        &self,
        app: &App,
        path: &DeploymentPath,
        needed: Level,
    ) -> Outcome<(Model, Deployment)> {
        let (model, build) = self.build(app, &path.build(), needed).await?;
        let deployment = app.store.deployment(&DeploymentId::new(&path.deployment_id)).await?;
        let deployment = deployment
            .filter(|deployment| deployment.build_id == build.id)
            .ok_or_else(|| Fault::missing("deployment", &path.deployment_id))?;
        Ok((model, deployment))
    }
}

/// Ids in a model's path.
#[derive(Debug, serde::Deserialize)]
#[allow(clippy::struct_field_names, reason = "the names are those of the path's parameters")]
pub(crate) struct ModelPath {
    pub(crate) project_id: String,
    pub(crate) model_id: String,
}

/// Ids in a build's path.
#[derive(Debug, serde::Deserialize)]
#[allow(clippy::struct_field_names, reason = "the names are those of the path's parameters")]
pub(crate) struct BuildPath {
    pub(crate) project_id: String,
    pub(crate) model_id: String,
    pub(crate) build_id: String,
}

/// Ids in a deployment's path.
#[derive(Debug, serde::Deserialize)]
#[allow(clippy::struct_field_names, reason = "the names are those of the path's parameters")]
pub(crate) struct DeploymentPath {
    pub(crate) project_id: String,
    pub(crate) model_id: String,
    pub(crate) build_id: String,
    pub(crate) deployment_id: String,
}

impl BuildPath {
    fn model(&self) -> ModelPath {
        ModelPath { project_id: self.project_id.clone(), model_id: self.model_id.clone() }
    }
}

impl DeploymentPath {
    fn build(&self) -> BuildPath {
        BuildPath {
            project_id: self.project_id.clone(),
            model_id: self.model_id.clone(),
            build_id: self.build_id.clone(),
        }
    }
}
