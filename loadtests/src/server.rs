//! A server of a scenario's own, its models, and what may be done to it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    ending,
    http::ask,
    processes,
    role::{Programs, Role},
};

const CONFIGURATION: &str = "millgate.toml";
/// How long a successor may take to be alone.
const HAND_OVER_TIME_MAX: Duration = Duration::from_secs(60);

/// A running server with a data directory of its own; it and everything it started end with this value.
pub(crate) struct Server {
    folder: TempDir,
    programs: Programs,
    /// Takes calls: `serve` or `gateway`.
    front: Role,
    /// The control API where it is a process of its own.
    control: Option<Role>,
}

/// A command that runs; it ends with this value at the latest.
pub(crate) struct Begun(pub(crate) Child);

impl Drop for Begun {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How to call one model.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) api_key: String,
    pub(crate) access_key: String,
    /// Where the control API tells of its replicas.
    replicas_path: String,
}

impl Model {
    /// The body of a call with this request.
    pub(crate) fn body(&self, request: &str) -> String {
        format!(r#"{{"accessKey":"{}","request":{request}}}"#, self.access_key)
    }

    /// The same, called with another key.
    pub(crate) fn with_key(&self, api_key: String) -> Self {
        Self { api_key, ..self.clone() }
    }

    /// Where the files of its project are.
    pub(crate) fn files_path(&self) -> String {
        let project = self.replicas_path.split('/').take(5).collect::<Vec<_>>();
        format!("{}/files", project.join("/"))
    }
}

/// One slot of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) is_ready: bool,
    pub(crate) pid: i32,
    /// How often the slot was filled.
    pub(crate) starts: u64,
    /// From the last end or request to ready.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts it on a free port.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts it on a free port with this configuration file.
    pub(crate) fn start_with(configuration: &str) -> Self {
        Self::start_limited(configuration, None)
    }

    /// Starts it on what a backup holds, with the credentials of the server it is of.
    pub(crate) fn start_restored(configuration: &str, backup: &Path, credentials: &Path) -> Self {
        let folder = folder(configuration);
        let (configuration, data_dir) = (folder.path().join(CONFIGURATION), data_of(&folder));
        let programs = Programs::beside_this_one(&configuration, &data_dir);
        let mut restore = Command::new(programs.path("millgate"));
        restore.arg("restore").arg(backup).arg("--config").arg(&configuration);
        let restored = restore.arg("--data-dir").arg(&data_dir).output().expect("`millgate` is built");
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        fs::copy(credentials, data_dir.join("credentials.json")).expect("the folder is ours");
        let front = Role::start(&programs, "serve", "127.0.0.1:0", None);
        Self { folder, programs, front, control: None }
    }

    /// Starts it with this many descriptors and no more.
    pub(crate) fn start_limited(configuration: &str, descriptors_max: Option<u32>) -> Self {
        let folder = folder(configuration);
        let programs = Programs::beside_this_one(&folder.path().join(CONFIGURATION), &data_of(&folder));
        let front = Role::start(&programs, "serve", "127.0.0.1:0", descriptors_max);
        Self { folder, programs, front, control: None }
    }

    /// Starts gateway and control API as two processes.
    pub(crate) fn start_split() -> Self {
        let folder = folder("");
        let programs = Programs::beside_this_one(&folder.path().join(CONFIGURATION), &data_of(&folder));
        let control = Role::start(&programs, "control", "127.0.0.1:0", None);
        let front = Role::start(&programs, "gateway", "127.0.0.1:0", None);
        Self { folder, programs, front, control: Some(control) }
    }

    /// kill -9 of what takes calls, and start it again on the same address.
    pub(crate) fn kill_and_start(&mut self) {
        self.front.kill();
        self.front = Role::start(&self.programs, self.front.name, &self.front.address, None);
    }

    /// The same, and have it kill itself at this step of what is asked of it next.
    pub(crate) fn kill_and_start_to_die(&mut self, step: String) {
        self.programs.die_at = Some(step);
        self.kill_and_start();
        self.programs.die_at = None;
    }

    /// True once what takes calls has ended by itself.
    pub(crate) fn has_died(&mut self) -> bool {
        self.front.has_ended()
    }

    /// kill -9 of the control API that is a process of its own.
    pub(crate) fn kill_control(&mut self) {
        self.control.as_mut().expect("the roles are two processes").kill();
    }

    /// Starts a killed control API again on the same address.
    pub(crate) fn start_control(&mut self) {
        let control = self.control.as_mut().expect("the roles are two processes");
        *control = Role::start(&self.programs, control.name, &control.address, None);
    }

    /// Has another program take over (SIGUSR2), and waits until it is alone; whether that has happened.
    pub(crate) fn hand_over(&mut self) -> bool {
        let old = self.pid();
        if !processes::signal(old, Signal::SIGUSR2) {
            return false;
        }
        let mut successor = None;
        let is_alone = processes::wait_until(HAND_OVER_TIME_MAX, || {
            successor = match self.serving()[..] {
                [new] if new != old => Some(new),
                _ => None,
            };
            successor.is_some()
        });
        if let Some(new) = successor {
            self.front.succeed(new);
        }
        is_alone
    }

    /// Processes that take calls on this data directory.
    fn serving(&self) -> Vec<i32> {
        let serves = |pid: &i32| processes::command_line(*pid).split(' ').nth(1) == Some(self.front.name);
        processes::naming(&self.data_dir()).into_iter().filter(serves).collect()
    }

    /// The process that takes calls.
    pub(crate) fn pid(&self) -> i32 {
        self.front.pid()
    }

    /// Where the control API answers.
    pub(crate) fn api_host(&self) -> &str {
        &self.control.as_ref().unwrap_or(&self.front).address
    }

    /// Runs the command line against this server; what it printed.
    pub(crate) fn millgate(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// The same; nothing when it failed.
    pub(crate) fn try_millgate(&self, args: &[&str]) -> Option<String> {
        let output = self.run(args);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("`millgate` is built")
    }

    /// Starts the command line against this server, and does not wait for its end.
    pub(crate) fn begin(&self, args: &[&str]) -> Begun {
        let mut command = self.command(args);
        Begun(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("`millgate` is built"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.path("millgate"));
        command
            .args(args)
            .env("MILLGATE_SERVER", format!("http://{}", self.api_host()))
            .env("MILLGATE_DATA_DIR", self.data_dir())
            .env_remove("MILLGATE_API_KEY")
            .env_remove("MILLGATE_KEY_FILE");
        command
    }

    /// A file of a project that was deployed by its text.
    pub(crate) fn project_file(&self, name: &str, file: &str) -> PathBuf {
        self.folder.path().join(name).join(file)
    }

    /// Asks the control API; nothing when it does not answer with 200 and JSON.
    pub(crate) fn ask(&self, method: &str, path: &str, api_key: &str) -> Option<Value> {
        let answer = ask(method, self.api_host(), path, api_key).ok()?;
        serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == 200)
    }

    /// Deploys a file with this text.
    pub(crate) fn deploy(&self, name: &str, python: &str, options: &[&str]) -> Model {
        self.deploy_files(name, &[("model.py", python)], options)
    }

    /// Deploys a project of these files, of which one is `model.py`.
    pub(crate) fn deploy_files(&self, name: &str, files: &[(&str, &str)], options: &[&str]) -> Model {
        let target = self.write(name, files);
        let mut args = vec!["deploy", &target, "--name", name];
        args.extend(options);
        self.millgate(&args);
        self.model(name)
    }

    /// Writes the files of a project, of which one is `model.py`; the target to deploy.
    pub(crate) fn write(&self, name: &str, files: &[(&str, &str)]) -> String {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).expect("the folder is ours");
        for (file, text) in files {
            fs::write(folder.join(file), text).expect("the folder is ours");
        }
        format!("{}:predict", folder.join("model.py").display())
    }

    /// Deploys a new version that cannot be deployed; what was said about it.
    pub(crate) fn deploy_in_vain(&self, name: &str, python: &str) -> Result<String, String> {
        let target = self.write(name, &[("model.py", python)]);
        let output = self.run(&["deploy", &target, "--name", name]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(1) { Ok(text) } else { Err(format!("{}: {text}", output.status)) }
    }

    /// A model as it is deployed now.
    pub(crate) fn model(&self, name: &str) -> Model {
        let text = fs::read_to_string(self.data_dir().join("credentials.json")).expect("the server wrote it");
        let credentials: Value = serde_json::from_str(&text).expect("the server wrote JSON");
        let shown = self.show(name);
        let text = |value: &Value| value.as_str().expect("an administrator sees it").to_owned();
        let serving = Some(&shown["serving_deployment"]).filter(|serving| !serving.is_null());
        let deployment = serving.unwrap_or(&shown["latest_deployment"]);
        let replicas_path = format!(
            "/api/v2/projects/{}/models/{}/builds/{}/deployments/{}/replicas",
            text(&shown["project"]["public_identifier"]),
            text(&shown["id"]),
            text(&deployment["build_id"]),
            text(&deployment["id"])
        );
        Model {
            name: name.to_owned(),
            host: self.front.address.clone(),
            api_key: text(&credentials["api_key"]),
            access_key: text(&shown["access_key"]),
            replicas_path,
        }
    }

    /// `millgate show`.
    pub(crate) fn show(&self, name: &str) -> Value {
        serde_json::from_str(&self.millgate(&["--json", "show", name])).expect("`--json` prints JSON")
    }

    /// The slots of a model, by one request and without starting a process.
    pub(crate) fn replicas(&self, model: &Model) -> Vec<Replica> {
        let told = self.ask("GET", &model.replicas_path, &model.api_key).unwrap_or_default();
        let replicas = told["replicas"].as_array().cloned().unwrap_or_default();
        let read = |r: &Value| {
            Some(Replica {
                is_ready: r["state"] == "ready",
                pid: i32::try_from(r["pid"].as_i64()?).ok()?,
                starts: r["starts"].as_u64()?,
                ready_after: Duration::from_millis(r["ready_after_ms"].as_u64()?),
            })
        };
        replicas.iter().filter_map(read).collect()
    }

    /// Process ids of the ready replicas of a model.
    pub(crate) fn replica_pids(&self, model: &Model) -> Vec<i32> {
        self.replicas(model).iter().filter(|r| r.is_ready).map(|r| r.pid).collect()
    }

    /// The server's folder, named in the command line of all its processes.
    pub(crate) fn data_dir(&self) -> PathBuf {
        data_of(&self.folder)
    }

    /// Supervisors that run now.
    pub(crate) fn supervisors(&self) -> Vec<i32> {
        processes::naming(&self.data_dir().join("run"))
    }

    /// How many processes run below the supervisors, these included.
    pub(crate) fn processes_of_models(&self) -> usize {
        self.supervisors().iter().map(|pid| processes::tree(*pid).len()).sum()
    }
}

fn folder(configuration: &str) -> TempDir {
    let folder =
        tempfile::Builder::new().prefix("mgload").tempdir_in("/tmp").expect("/tmp can be written to");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("the folder is ours");
    ending::look_after(folder.path());
    fs::write(folder.path().join(CONFIGURATION), configuration).expect("the folder is ours");
    folder
}

fn data_of(folder: &TempDir) -> PathBuf {
    Path::new(folder.path()).join("data")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.front.stop();
        if let Some(control) = &mut self.control {
            control.stop();
            // Two roles leave the replicas serving; one of both takes them along.
            Role::start(&self.programs, "serve", "127.0.0.1:0", None).stop();
        }
        // Of a server that did not end by itself.
        for supervisor in self.supervisors() {
            processes::signal(supervisor, Signal::SIGKILL);
        }
    }
}
