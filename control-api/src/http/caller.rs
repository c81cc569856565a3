//! Who calls, and what they may do. A project that a caller may not see looks like one that does not exist.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use millgate_contract::ids::{BuildId, DeploymentId, ModelId, ProjectId, Username};
use serde_json::{Map, Value, json};

use crate::{
    app::App,
    fault::{Fault, Outcome},
    keys::api_key,
    rights::Right,
    rows::{Build, Deployment, Level, Model, Project, User, UserRole},
};

/// What a path names, as one text, a tuple or a struct; one that cannot be read names nothing.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

/// The action that ended the path, such as `:stop`. The router takes it for a part of the last name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Action(pub(super) &'static str);

impl<T: serde::de::DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Outcome<Self> {
        let missing = || Fault::NotFound("there is no such path".to_owned());
        let names = RawPathParams::from_request_parts(parts, app).await.map_err(|_| missing())?;
        let mut names: Vec<(&str, &str)> = names.iter().collect();
        if let (Some(Action(action)), Some((_, last))) = (parts.extensions.get(), names.last_mut()) {
            *last = last.strip_suffix(action).unwrap_or(last);
        }
        read_names(&names).map(Self).ok_or_else(missing)
    }
}

fn read_names<T: serde::de::DeserializeOwned>(names: &[(&str, &str)]) -> Option<T> {
    if let [(_, only)] = names
        && let Ok(text) = serde_json::from_value(json!(only))
    {
        return Some(text);
    }
    let by_name: Map<String, Value> =
        names.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let in_order: Vec<&str> = names.iter().map(|(_, value)| *value).collect();
    serde_json::from_value(Value::Object(by_name)).or_else(|_| serde_json::from_value(json!(in_order))).ok()
}

/// An authenticated user. The guard put them there.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user: User,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Outcome<Self> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Fault::internal("a handler asks for a caller, its operation needs none"))
    }
}

/// The user of a key that is good for `audience`; else why not, for the key's holder.
pub(crate) async fn authenticate(
    app: &App,
    key: &str,
    audience: &str,
) -> Outcome<Result<User, &'static str>> {
    let username = match token_user(app, key) {
        Some(username) => username,
        None => match key_user(app, key, audience).await? {
            Ok(username) => username,
            Err(why) => return Ok(Err(why)),
        },
    };
    Ok(match app.store.user(username.as_str()).await? {
        None => Err("the key's user is gone"),
        Some(user) if user.is_disabled => Err("the key's user is disabled"),
        Some(user) => Ok(user),
    })
}

/// The user of an issuer's token; they must be known here like everybody.
fn token_user(app: &App, token: &str) -> Option<Username> {
    if token.starts_with(api_key::PREFIX) {
        return None;
    }
    app.config.token_reader.as_ref()?.user(token)
}

async fn key_user(app: &App, key: &str, audience: &str) -> Outcome<Result<Username, &'static str>> {
    let Some(claims) = api_key::verify(&app.custody, key) else {
        return Ok(Err("the key is wrong or expired"));
    };
    let Some(kept) = app.store.key(claims.jti.as_str()).await?.filter(|kept| kept.deleted_us == 0) else {
        return Ok(Err("the key was deleted"));
    };
    if kept.username != claims.sub || !claims.aud.iter().any(|a| a == audience) {
        return Ok(Err("the key is for another audience"));
    }
    Ok(Ok(claims.sub))
}

impl Caller {
    pub(crate) fn is_administrator(&self) -> bool {
        self.user.role == UserRole::Administrator
    }

    /// Refuses unless the caller has a right in a team. A team that they are not in looks like one that is not there.
    pub(crate) async fn team(&self, app: &App, name: &str, right: Right) -> Outcome<()> {
        let missing = || Fault::missing("team", name);
        if self.is_administrator() {
            return Ok(());
        }
        let level = app.store.team_level(name, self.user.username.as_str()).await?.ok_or_else(missing)?;
        if level.may(right) {
            return Ok(());
        }
        Err(Fault::Denied(format!(
            "`{}` is {} of team `{name}`; this needs {}",
            self.user.username,
            level.as_str(),
            right.least().as_str()
        )))
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
