//! For tests: a control API on a directory of its own with a launcher in memory, spoken to through its router.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use http_body_util::BodyExt;
use millgate_contract::ids::Username;
use serde_json::{Value, json};
use sqlx::Connection;
use tower::ServiceExt;

use crate::{
    app::App,
    builder,
    config::ControlConfig,
    control::ControlApi,
    data_dir::DataDir,
    database::{Database, DatabaseUrl},
    http::{
        asked, conformance,
        operation::{Answers, Operation},
    },
    launch::fake::FakeLauncher,
    moment::now_s,
    operations,
    reconcile::Reconciler,
    rows::{BuildStatus, UserRole},
};

/// A control API under test.
pub(crate) struct Rig {
    pub(crate) api: ControlApi,
    pub(crate) app: App,
    pub(crate) launcher: Arc<FakeLauncher>,
    /// The administrator's.
    pub(crate) key: String,
    pub(crate) temp: tempfile::TempDir,
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    /// Fails when the operation did what the API document does not say.
    fn check(&self, operation: &Operation) {
        let is_success = self.status.is_success();
        let mut wrong = conformance::of_request(operation, &asked::take(), is_success);
        if is_success && !matches!(operation.answers, Answers::Events | Answers::File(_)) {
            wrong.extend(conformance::of_answer(operation, &self.json()));
        }
        assert!(wrong.is_empty(), "the API document and the code differ:\n{}", wrong.join("\n"));
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The body of a success.
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// Status, and message of the error body.
    pub(crate) fn error(&self) -> (u16, String) {
        assert!(!self.status.is_success(), "{}", self.text);
        let body = self.json();
        assert_eq!(body["error"], body["message"]);
        (self.status.as_u16(), body["message"].as_str().unwrap().to_owned())
    }
}

/// Names the PostgreSQL server that tests run on, in place of SQLite.
const POSTGRES: &str = "MILLGATE_TEST_POSTGRES";

/// The database of a test that has this folder: a schema of its own on a server, or nothing, which is a file.
pub(crate) async fn database_url(dir: &Path) -> Option<DatabaseUrl> {
    let server = std::env::var(POSTGRES).ok()?;
    let folder = dir.file_name().unwrap().as_encoded_bytes();
    let schema: String = folder.iter().fold("t".to_owned(), |schema, byte| format!("{schema}{byte:02x}"));
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(&server).await.unwrap();
    let sql = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    Some(format!("{server}&options[search_path]={schema}").parse().unwrap())
}

/// The same as a store opens it.
pub(crate) async fn database(dir: &Path) -> Database {
    let file = || Database::Sqlite(dir.join("a b%.db"));
    database_url(dir).await.map_or_else(file, Database::Postgres)
}

/// What tests change of the defaults.
pub(crate) async fn config(dir: &Path) -> ControlConfig {
    ControlConfig {
        database_url: database_url(dir).await,
        python: "python3".into(),
        gateway_wait_ms: 0,
        stop_grace_ms: 0,
        upload_bytes_max: 1_000,
        millgate_program: stand_in(dir),
        ..ControlConfig::new(dir.join("data"), "models.example.org:8080")
    }
}

/// A program that takes the place of `millgate supervise` and `millgate build-step`.
pub(crate) fn stand_in(dir: &Path) -> PathBuf {
    let path = dir.join("millgate-stand-in");
    std::fs::write(&path, include_str!("testing/stand_in.py")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self::on(temp).await
    }

    /// On a directory that may have been used before.
    pub(crate) async fn on(temp: tempfile::TempDir) -> Self {
        let config = config(temp.path()).await;
        let dir = DataDir::open(&config.data_dir).unwrap();
        let launcher = Arc::new(FakeLauncher::new(dir.run()));
        let api = ControlApi::assemble(config, dir, launcher.clone()).await.unwrap();
        let app = api.app().clone();
        let credentials = std::fs::read(app.dir.credentials()).unwrap();
        let credentials: Value = serde_json::from_slice(&credentials).unwrap();
        let key = credentials["api_key"].as_str().unwrap().to_owned();
        Self { api, app, launcher, key, temp }
    }

    /// Ends it and begins again on the same directory, configured otherwise.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut ControlConfig)) {
        self.app.store.close().await;
        self.app.dir.release();
        let mut config = config(self.temp.path()).await;
        change(&mut config);
        let dir = DataDir::open(&config.data_dir).unwrap();
        self.api = ControlApi::assemble(config, dir, self.launcher.clone()).await.unwrap();
        self.app = self.api.app().clone();
    }

    /// A user with a key.
    pub(crate) async fn user(&self, name: &str) -> String {
        let name = Username::new(name);
        self.app.store.ensure_user(&name, UserRole::User).await.unwrap();
        let audiences = vec!["API".to_owned()];
        operations::make_key(&self.app, &name, audiences, String::new(), now_s() + 3_600).await.unwrap().1
    }

    /// One request by the administrator.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Reply {
        self.call_as(&self.key, method, path, body).await
    }

    pub(crate) async fn call_as(&self, key: &str, method: &str, path: &str, body: Value) -> Reply {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.send(
            Request::builder()
                .method(method)
                .uri(path)
                .header("authorization", format!("Bearer {key}"))
                .body(Body::from(text))
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        asked::take();
        let response = self.api.router().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let reply = Reply {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        };
        if let Some(operation) = head.extensions.get::<Arc<Operation>>() {
            reply.check(operation);
        }
        reply
    }

    /// A project; answers its path.
    pub(crate) async fn project(&self, name: &str) -> String {
        let project = self.call("POST", "/api/v2/projects", json!({ "name": name })).await.ok();
        format!("/api/v2/projects/{}", project["id"].as_str().unwrap())
    }

    /// A model in a project; answers its path.
    pub(crate) async fn model(&self, project: &str, name: &str) -> String {
        let model = self.call("POST", &format!("{project}/models"), json!({ "name": name })).await.ok();
        format!("{project}/models/{}", model["id"].as_str().unwrap())
    }

    /// A build with a deployment that waits for it; answers the build's path.
    pub(crate) async fn build(&self, model: &str, replicas: u16) -> String {
        let body = json!({
            "file_path": "add.py", "function_name": "add", "auto_deploy_model": true,
            "auto_deployment_config": { "replicas": replicas },
        });
        let build = self.call("POST", &format!("{model}/builds"), body).await.ok();
        format!("{model}/builds/{}", build["id"].as_str().unwrap())
    }

    /// Makes a build built without building anything.
    pub(crate) async fn pretend_built(&self, build: &str) {
        let id = millgate_contract::ids::BuildId::new(build.rsplit('/').next().unwrap());
        let dir = self.app.dir.build(id.as_str());
        for part in ["root", "venv"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        let hash = builder::manifest::seal(&dir).unwrap();
        self.app.store.seal_build(&id, &hash, &hash).await.unwrap();
        assert!(self.app.store.move_build(&id, BuildStatus::Pending, BuildStatus::Built, "").await.unwrap());
    }

    /// Makes the next build while the reconciler looks after deployments that wait for it; whether there was one.
    pub(crate) async fn make_next_build(&self) -> bool {
        tokio::select! {
            made = builder::next(&self.app) => made.unwrap(),
            () = async { Reconciler::new(self.app.clone()).run(&self.app.wake).await } => unreachable!("it runs for ever"),
        }
    }

    /// The only deployment of a build.
    pub(crate) async fn deployment(&self, build: &str) -> Value {
        self.call("GET", &format!("{build}/deployments"), Value::Null).await.ok()["model_deployments"][0]
            .clone()
    }
}
