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

    /// The one of these builds that has this number.
    pub(crate) fn numbered<'a>(&self, builds: &'a [Value], number: u64) -> Result<&'a Value, Failure> {
        builds.iter().find(|build| build["build_number"] == number).ok_or_else(|| {
            Failure::new(format!("model `{}` has no build {number}", self.name()))
                .hint(format!("`millgate builds {}` shows those there are", self.name()))
        })
    }

    /// Every deployment of any build, the newest last.
    pub(crate) fn deployments(&self, client: &Client) -> Result<Vec<Value>, Failure> {
        client.list(&format!("{}/deployments", self.path), "model_deployments", None)
    }

    /// The deployment that was asked for or begun anew last, and the one its calls go to; `null` where there is none.
    pub(crate) fn latest_and_serving(&self, client: &Client) -> Result<(Value, Value), Failure> {
        let mut model = client.get(&format!("{}?include_latest=true", self.path))?;
        Ok((model["latest_deployment"].take(), model["serving_deployment"].take()))
    }

    /// The deployment that serves; where none does, the newest, which may have failed or been stopped. With its path.
    pub(crate) fn serving(&self, client: &Client) -> Result<(Value, String), Failure> {
        let (latest, serving) = self.latest_and_serving(client)?;
        self.with_path(if serving.is_null() { latest } else { serving })
    }

    /// The path of a deployment of this model.
    pub(crate) fn path_of(&self, deployment: &Value) -> String {
        let (build, id) = (text(&deployment["build_id"]), text(&deployment["id"]));
        format!("{}/builds/{build}/deployments/{id}", self.path)
    }

    /// The newest deployment, or a failure that says there is none.
    pub(crate) fn deployment(&self, client: &Client) -> Result<(Value, String), Failure> {
        let (latest, _) = self.latest_and_serving(client)?;
        self.with_path(latest)
    }

    fn with_path(&self, deployment: Value) -> Result<(Value, String), Failure> {
        if deployment.is_null() {
            return Err(Failure::new(format!("model `{}` has never been deployed", self.name()))
                .hint("deploy it with `millgate deploy FILE:FUNCTION`"));
        }
        let path = self.path_of(&deployment);
        Ok((deployment, path))
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
