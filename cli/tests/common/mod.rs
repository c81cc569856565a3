//! A real server on free ports and a data directory of its own, and the program run against it as a user would.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part; a test that cannot go on fails"
)]

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How long a condition may take before the test says that it does not come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// `millgate` with nothing of the developer's own environment that could change what it does.
pub(crate) fn millgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millgate"));
    for name in [
        "MILLGATE_SERVER",
        "MILLGATE_API_KEY",
        "MILLGATE_KEY_FILE",
        "MILLGATE_DATA_DIR",
        "MILLGATE_CONFIG",
        "MILLGATE_DATABASE_URL",
    ] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    command
}

/// A role of a server, as it is started on this data directory and free ports.
pub(crate) fn role(name: &str, data: &Path) -> Command {
    let mut command = millgate();
    command.args([name, "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    if name != "control" {
        command.args(["--admin-listen", "127.0.0.1:0"]);
    }
    command
}

/// A program in the foreground that printed where it serves.
pub(crate) struct Running {
    child: Child,
    pub(crate) url: String,
}

impl Running {
    /// Starts it and waits for its one line.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stderr(Stdio::inherit());
        Self::start_with_stderr(command)
    }

    /// The same, standard error going where the command says.
    pub(crate) fn start_with_stderr(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line
            .split_whitespace()
            .find(|word| word.starts_with("http://") || word.starts_with("https://"))
            .unwrap_or_else(|| panic!("no address in `{line}`"))
            .to_owned();
        Self { child, url }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Ends it as Ctrl-C does, and waits.
    pub(crate) fn interrupt(mut self) -> std::process::ExitStatus {
        self.signal(nix::sys::signal::Signal::SIGINT);
        self.child.wait().unwrap()
    }

    /// Ends it without giving it a word.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(nix::sys::signal::Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// A server and the folders around it.
pub(crate) struct Server {
    running: Option<Running>,
    /// Of its environment, as it is started each time.
    variables: Vec<(&'static str, &'static str)>,
    /// Holds data directory and projects.
    pub(crate) folder: TempDir,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(Vec::new())
    }

    /// With these in its environment.
    pub(crate) fn start_with(variables: Vec<(&'static str, &'static str)>) -> Self {
        Self::start_in(variables, |_| {})
    }

    /// The same in a data directory that is made beforehand.
    pub(crate) fn start_in(variables: Vec<(&'static str, &'static str)>, make: impl FnOnce(&Path)) -> Self {
        // Short, so that the sockets' paths fit whatever TMPDIR is.
        let folder = tempfile::Builder::new().prefix("mg").tempdir_in("/tmp").unwrap();
        // Replicas run under uids of their own.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut server = Self { running: None, variables, folder };
        make(&server.data_dir());
        server.running = Some(Running::start(server.serve_command()));
        server
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What starts it, each time.
    pub(crate) fn serve_command(&self) -> Command {
        let mut command = millgate();
        command.envs(self.variables.iter().copied());
        command.arg("serve").arg("--data-dir").arg(self.data_dir());
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("the server runs")
    }

    pub(crate) fn url(&self) -> &str {
        &self.running().url
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.running.take().expect("the server runs").kill();
    }

    pub(crate) fn start_again(&mut self) {
        self.running = Some(Running::start(self.serve_command()));
    }

    pub(crate) fn interrupt(&mut self) -> std::process::ExitStatus {
        self.running.take().expect("the server runs").interrupt()
    }

    /// A folder with these files, for a project.
    pub(crate) fn project(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.folder.path().join(name);
        for (file, text) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = millgate();
        command.args(args).env("MILLGATE_SERVER", self.url()).env("MILLGATE_DATA_DIR", self.data_dir());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{args:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Runs a command that must fail with this code; what it said.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        text
    }

    /// Runs a command with `--json`.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        serde_json::from_str(&self.ok(&all)).unwrap()
    }

    pub(crate) fn api_key(&self) -> String {
        let text = fs::read_to_string(self.data_dir().join("credentials.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["api_key"].as_str().unwrap().to_owned()
    }

    pub(crate) fn access_key(&self, model: &str) -> String {
        self.json(&["show", model])["access_key"].as_str().unwrap().to_owned()
    }

    /// One call with the administrator's key.
    pub(crate) fn call(&self, access_key: &str, request: &str) -> Answer {
        let body = format!(r#"{{"accessKey":"{access_key}","request":{request}}}"#);
        post(self.url(), "/model", Some(&self.api_key()), &body)
    }

    /// Ready replicas of a model: pid by slot.
    pub(crate) fn replica_pids(&self, model: &str) -> Vec<i64> {
        let shown = self.json(&["show", model]);
        let replicas = shown["replicas"].as_array().unwrap();
        replicas.iter().filter(|r| r["state"] == "ready").filter_map(|r| r["pid"].as_i64()).collect()
    }
}

/// `POST` over a connection of its own; the head's names in lower case.
pub(crate) fn post(url: &str, path: &str, api_key: Option<&str>, body: &str) -> Answer {
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host).unwrap();
    let authorization = api_key.map_or(String::new(), |key| format!("Authorization: Bearer {key}\r\n"));
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: `{text}`"));
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: serde_json::from_str(body).unwrap_or_else(|_| Value::from(body)),
    }
}

/// A gateway's page of figures, which it serves at the other address that it listens on.
fn figures(gateway: &Running) -> String {
    let folder = format!("/proc/{}", gateway.pid());
    let sockets: HashSet<String> = fs::read_dir(format!("{folder}/fd"))
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    let listening = fs::read_to_string(format!("{folder}/net/tcp")).unwrap();
    let port = listening
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[3] == "0A" && sockets.contains(&format!("socket:[{}]", fields[9])))
        .map(|fields| u16::from_str_radix(fields[1].split_once(':').unwrap().1, 16).unwrap())
        .find(|port| !gateway.url.contains(&format!(":{port}")))
        .unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

/// A figure of the one model there is.
pub(crate) fn figure(gateway: &Running, name: &str) -> Option<String> {
    let of_model = format!("{name}{{");
    let page = figures(gateway);
    page.lines().find(|line| line.starts_with(&of_model))?.rsplit_once(' ').map(|(_, value)| value.to_owned())
}

/// Waits until `holds` gives something.
#[allow(clippy::disallowed_methods, reason = "other processes are waited for, whose clock is the wall's")]
pub(crate) fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = holds() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes whose command line names `path`.
pub(crate) fn processes_of(path: &Path) -> Vec<i32> {
    let wanted = path.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(wanted))
        })
        .collect()
}
