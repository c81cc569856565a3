//! A server of a scenario's own, its models, and what may be done to it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::processes;

/// A running server with a data directory of its own; it and everything it started end with this value.
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    programs: PathBuf,
    listen: String,
}

const CONFIGURATION: &str = "millgate.toml";

/// How to call one model.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) api_key: String,
    pub(crate) access_key: String,
}

impl Model {
    /// The body of a call with this request.
    pub(crate) fn body(&self, request: &str) -> String {
        format!(r#"{{"accessKey":"{}","request":{request}}}"#, self.access_key)
    }
}

impl Server {
    /// Starts it on a free port.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts it on a free port with this configuration file.
    pub(crate) fn start_with(configuration: &str) -> Self {
        let folder =
            tempfile::Builder::new().prefix("mgload").tempdir_in("/tmp").expect("/tmp can be written to");
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("the folder is ours");
        fs::write(folder.path().join(CONFIGURATION), configuration).expect("the folder is ours");
        let programs = std::env::current_exe().expect("this program has a file");
        let programs = programs.parent().expect("a file is in a folder").to_owned();
        let (child, listen) = Self::spawn(&programs, &folder, "127.0.0.1:0");
        Self { child, folder, programs, listen }
    }

    fn spawn(programs: &std::path::Path, folder: &TempDir, listen: &str) -> (Child, String) {
        let mut child = Command::new(programs.join("millgate"))
            .arg("serve")
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .arg("--config")
            .arg(folder.path().join(CONFIGURATION))
            .args(["--listen", listen, "--admin-listen", "127.0.0.1:0"])
            .env("MILLGATE_LOG", std::env::var("MILLGATE_LOG").unwrap_or_else(|_| "warn".into()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("`millgate` is built: `cargo build --release --bins`");
        let mut line = String::new();
        let out = child.stdout.take().expect("standard output is piped");
        BufReader::new(out).read_line(&mut line).expect("the server says that it is ready");
        let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        (child, url.expect("the line names the address").to_owned())
    }

    /// kill -9, and start again on the same address.
    pub(crate) fn kill_and_start(&mut self) {
        self.child.kill().expect("the server is ours");
        self.child.wait().expect("the server is our child");
        (self.child, self.listen) = Self::spawn(&self.programs, &self.folder, &self.listen);
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Runs the command line against this server; what it printed.
    pub(crate) fn millgate(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(self.programs.join("millgate"))
            .args(args)
            .env("MILLGATE_SERVER", format!("http://{}", self.listen))
            .env("MILLGATE_DATA_DIR", self.folder.path().join("data"))
            .env_remove("MILLGATE_API_KEY")
            .env_remove("MILLGATE_KEY_FILE")
            .output()
            .expect("`millgate` is built")
    }

    /// Deploys a file with this text.
    pub(crate) fn deploy(&self, name: &str, python: &str, options: &[&str]) -> Model {
        self.deploy_files(name, &[("model.py", python)], options)
    }

    /// Deploys a project of these files, of which one is `model.py`.
    pub(crate) fn deploy_files(&self, name: &str, files: &[(&str, &str)], options: &[&str]) -> Model {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).expect("the folder is ours");
        for (file, text) in files {
            fs::write(folder.join(file), text).expect("the folder is ours");
        }
        let target = format!("{}:predict", folder.join("model.py").display());
        let mut args = vec!["deploy", &target, "--name", name];
        args.extend(options);
        self.millgate(&args);
        self.model(name)
    }

    /// Deploys a new version that cannot be deployed; what was said about it.
    pub(crate) fn deploy_in_vain(&self, name: &str, python: &str) -> Result<String, String> {
        let file = self.folder.path().join(name).join("model.py");
        fs::write(&file, python).expect("the model was deployed before");
        let target = format!("{}:predict", file.display());
        let output = self.run(&["deploy", &target, "--name", name]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(1) { Ok(text) } else { Err(format!("{}: {text}", output.status)) }
    }

    fn model(&self, name: &str) -> Model {
        let text = fs::read_to_string(self.folder.path().join("data/credentials.json"))
            .expect("the server wrote it");
        let credentials: Value = serde_json::from_str(&text).expect("the server wrote JSON");
        Model {
            name: name.to_owned(),
            host: self.listen.clone(),
            api_key: credentials["api_key"].as_str().expect("it holds a key").to_owned(),
            access_key: self.show(name)["access_key"].as_str().expect("an administrator sees it").to_owned(),
        }
    }

    /// `millgate show`.
    pub(crate) fn show(&self, name: &str) -> Value {
        serde_json::from_str(&self.millgate(&["--json", "show", name])).expect("`--json` prints JSON")
    }

    /// Process ids of the ready replicas of a model.
    pub(crate) fn replicas(&self, name: &str) -> Vec<i32> {
        let shown = self.show(name);
        let replicas = shown["replicas"].as_array().cloned().unwrap_or_default();
        replicas
            .iter()
            .filter(|r| r["state"] == "ready")
            .filter_map(|r| i32::try_from(r["pid"].as_i64()?).ok())
            .collect()
    }

    /// The server's folder, named in the command line of all its processes.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        processes::signal(self.pid(), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
