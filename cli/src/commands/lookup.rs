//! Models by name, and what belongs to one.

use serde_json::{Value, json};

use crate::{client::Client, failure::Failure};

/// A model, and the paths of its part of the API.
pub(crate) struct Found {
    /// The `Model` object.
    pub(crate) model: Value,
    /// `/api/v2/projects/{project}/models/{model}`.
    pub(crate) path: String,
}

impl Found {
    pub(super) fn new(model: Value) -> Self {
        let path = format!(
            "/api/v2/projects/{}/models/{}",
            text(&model["project"]["public_identifier"]),
            text(&model["id"])
        );
        Self { model, path }
    }

    pub(crate) fn name(&self) -> &str {
        text(&self.model["name"])
    }

    pub(crate) fn access_key(&self) -> Result<&str, Failure> {
        match text(&self.model["access_key"]) {
            "" => Err(Failure::new(format!("the access key of `{}` is not shown to this user", self.name()))
                .hint("ask a contributor of its project for it")),
            key => Ok(key),
        }
    }

    /// All builds, the newest last.
    pub(crate) fn builds(&self, client: &Client) -> Result<Vec<Value>, Failure> {
        client.list(&format!("{}/builds", self.path), "model_builds", None)
    }

    /// Every deployment of any build, the newest last.
    pub(crate) fn deployments(&self, client: &Client) -> Result<Vec<Value>, Failure> {
        client.list(&format!("{}/deployments", self.path), "model_deployments", None)
    }

    /// The deployment that was asked for or begun anew last, with its path.
    pub(crate) fn newest_deployment(&self, client: &Client) -> Result<Option<(Value, String)>, Failure> {
        let mut model = client.get(&format!("{}?include_latest=true", self.path))?;
        let deployment = model["latest_deployment"].take();
        if deployment.is_null() {
            return Ok(None);
        }
        let path = self.path_of(&deployment);
        Ok(Some((deployment, path)))
    }

    /// The deployment that serves; where none does, the newest, which may have failed or been stopped.
    pub(crate) fn serving(&self, client: &Client) -> Result<(Value, String), Failure> {
        let serving = self.deployments(client)?.into_iter().rfind(|d| text(&d["status"]) == "deployed");
        match serving {
            Some(deployment) => {
                let path = self.path_of(&deployment);
                Ok((deployment, path))
            }
            None => self.deployment(client),
        }
    }

    /// The path of a deployment of this model.
    pub(crate) fn path_of(&self, deployment: &Value) -> String {
        let (build, id) = (text(&deployment["build_id"]), text(&deployment["id"]));
        format!("{}/builds/{build}/deployments/{id}", self.path)
    }

    /// The newest deployment, or a failure that says there is none.
    pub(crate) fn deployment(&self, client: &Client) -> Result<(Value, String), Failure> {
        self.newest_deployment(client)?.ok_or_else(|| {
            Failure::new(format!("model `{}` has never been deployed", self.name()))
                .hint("deploy it with `millgate deploy FILE:FUNCTION`")
        })
    }
}

/// The model called `name`, or `project/name` where several projects have one.
pub(crate) fn model(client: &Client, name: &str) -> Result<Found, Failure> {
    let (project, wanted) = match name.rsplit_once('/') {
        Some((project, name)) => (Some(project), name),
        None => (None, name),
    };
    let all = client.list("/api/v2/models", "models", Some(&json!({"name": wanted})))?;
    let mut found: Vec<Value> = all
        .into_iter()
        .filter(|m| text(&m["name"]) == wanted)
        .filter(|m| project.is_none_or(|p| text(&m["project"]["name"]) == p))
        .collect();
    match found.len() {
        0 => {
            Err(Failure::new(format!("there is no model `{name}`"))
                .hint("`millgate list` shows those there are"))
        }
        1 => Ok(Found::new(found.remove(0))),
        n => {
            let names: Vec<String> =
                found.iter().map(|m| format!("`{}/{wanted}`", text(&m["project"]["name"]))).collect();
            Err(Failure::new(format!("{n} projects have a model `{wanted}`"))
                .hint(format!("name one of {}", names.join(", "))))
        }
    }
}

/// The model called `name` in a project, if there is one.
pub(crate) fn model_in(client: &Client, project: &str, name: &str) -> Result<Option<Found>, Failure> {
    let path = format!("/api/v2/projects/{project}/models");
    let all = client.list(&path, "models", Some(&json!({"name": name})))?;
    Ok(all.into_iter().find(|m| text(&m["name"]) == name).map(Found::new))
}

/// A text field, empty when it is not there.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
