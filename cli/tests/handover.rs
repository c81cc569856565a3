//! One server takes over from another: no connection is lost, no replica restarted, and a successor that cannot start
//! changes nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use common::{Running, Server, millgate, processes_of, role, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const ECHO: &str = "def echo(args):\n    return args\n";

/// Servers of one data directory, also those that this test did not start. Dropping ends them.
struct Servers(PathBuf);

/// Processes of a role on a data directory.
fn pids_of(role: &str, data: &Path) -> Vec<i32> {
    let is_role = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).nth(1) == Some(role.as_bytes())
    };
    processes_of(data).into_iter().filter(is_role).collect()
}

impl Servers {
    fn pids(&self) -> Vec<i32> {
        pids_of("serve", &self.0)
    }

    /// Has the one server hand over, and waits until it is gone.
    fn hand_over(&self) -> i32 {
        let old = self.pids()[0];
        kill(Pid::from_raw(old), Signal::SIGUSR2).unwrap();
        until("the hand-over", || match self.pids()[..] {
            [new] if new != old => Some(new),
            _ => None,
        })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for pid in self.pids() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if !std::thread::panicking() {
            until("the end of every process", || processes_of(&self.0).is_empty().then_some(()));
        }
    }
}

/// Calls until `stop`, on one connection for as long as it is kept, or on a new one each time. The number of calls.
fn call_on(host: &str, api_key: &str, access_key: &str, stop: &AtomicBool, is_kept: bool) -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let mut connection: Option<TcpStream> = None;
    let mut calls = 0;
    while !stop.load(Ordering::Relaxed) {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let mut stream = connection.take().unwrap_or_else(|| TcpStream::connect(host).unwrap());
        let body = format!(r#"{{"accessKey":"{access_key}","request":{number}}}"#);
        let keep = if is_kept { "keep-alive" } else { "close" };
        write!(
            stream,
            "POST /model HTTP/1.1\r\nHost: {host}\r\nConnection: {keep}\r\nAuthorization: Bearer {api_key}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(&format!(r#""response":{number},"#)), "{answer}");
        if is_kept && !answer.to_lowercase().contains("connection: close") {
            connection = Some(stream);
        }
        calls += 1;
    }
    calls
}

fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return String::from_utf8(answer).unwrap();
            }
        }
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the connection was closed without an answer: `{text}`");
        answer.extend_from_slice(&buffer[..read]);
    }
}

#[test]
fn no_connection_is_lost_over_several_hand_overs_and_no_replica_restarts() {
    let server = Server::start();
    let servers = Servers(server.data_dir());
    let file = server.project("echo", &[("echo.py", ECHO)]).join("echo.py");
    server.ok(&["deploy", &format!("{}:echo", file.display()), "--replicas", "2"]);
    let (api_key, access_key) = (server.api_key(), server.access_key("echo"));
    let replicas = server.replica_pids("echo");
    let host = server.url().trim_start_matches("http://").to_owned();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let call = |is_kept| {
            let (host, api_key, access_key, stop) = (&host, &api_key, &access_key, &stop);
            scope.spawn(move || call_on(host, api_key, access_key, stop, is_kept))
        };
        let callers = [call(true), call(true), call(false), call(false)];
        for _ in 0..3 {
            servers.hand_over();
            // The data directory was handed over as well.
            server.ok(&["show", "echo"]);
        }
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            assert!(caller.join().unwrap() > 0);
        }
    });
    assert_eq!(server.replica_pids("echo"), replicas);
    assert_eq!(server.call(&access_key, "7").body["response"], 7);
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("mg").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn serve(data: &Path) -> Command {
    let mut command = millgate();
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(data);
    command
}

#[test]
fn a_successor_that_cannot_start_changes_nothing() {
    let folder = folder();
    let (data, config, log) =
        (folder.path().join("data"), folder.path().join("millgate.toml"), folder.path().join("log"));
    fs::write(&config, "").unwrap();
    let mut command = serve(&data);
    command.arg("--config").arg(&config).stderr(File::create(&log).unwrap());
    let running = Running::start_with_stderr(command);
    let servers = Servers(data);
    let old = servers.pids();

    fs::write(&config, "no such setting = 1\n").unwrap();
    running.signal(Signal::SIGUSR2);
    until("the refusal", || fs::read_to_string(&log).unwrap().contains("not handed over").then_some(()));
    assert_eq!(servers.pids(), old);
    assert_eq!(common::post(&running.url, "/model", None, "{}").status, 400);

    fs::write(&config, "").unwrap();
    assert_ne!(vec![servers.hand_over()], old);
    assert_eq!(common::post(&running.url, "/model", None, "{}").status, 400);
}

#[test]
fn a_gateway_hands_over_as_well() {
    let folder = folder();
    let data = folder.path().join("data");
    let _control = Running::start(role("control", &data));
    let gateway = Running::start(role("gateway", &data));
    let pids = || pids_of("gateway", &data);
    let answers = || common::post(&gateway.url, "/model", None, r#"{"accessKey":"m","request":1}"#).status;
    until("routes", || (answers() == 401).then_some(()));
    gateway.signal(Signal::SIGUSR2);
    let new = until("the hand-over", || match pids()[..] {
        [new] if new != gateway.pid() => Some(new),
        _ => None,
    });
    assert_eq!(answers(), 401);
    kill(Pid::from_raw(new), Signal::SIGTERM).unwrap();
    until("the end of the successor", || pids().is_empty().then_some(()));
}

#[test]
fn a_service_manager_s_sockets_are_served() {
    let folder = folder();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // As a service manager does it: descriptor 3, and the process's own id.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    let program = serve(&folder.path().join("data"));
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(program.get_program()).args(program.get_args());
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    let running = Running::start(command);
    assert_eq!(running.url, format!("http://{address}"));
    assert_eq!(common::post(&running.url, "/model", None, "{}").status, 400);
    assert!(running.interrupt().success());
}

#[test]
fn the_control_api_hands_over_as_well_and_keeps_its_callers_waiting_for_no_longer_than_it_takes() {
    let folder = folder();
    let data = folder.path().join("data");
    let mut command = millgate();
    command.args(["control", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    let control = Running::start(command);
    let text = fs::read_to_string(data.join("credentials.json")).unwrap();
    let credentials: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ask = || {
        let key = credentials["api_key"].as_str();
        common::post(&control.url, "/api/v2/auth/validate_key", key, r#"{"audience":"API"}"#)
    };
    assert_eq!(ask().status, 200);
    control.signal(Signal::SIGUSR2);
    let new = until("the hand-over", || {
        // Who still reaches the old one may be told to come again, and nothing worse.
        let answer = ask();
        assert!(answer.status == 200 || answer.head.contains("retry-after: 1"), "{answer:?}");
        match pids_of("control", &data)[..] {
            [new] if new != control.pid() => Some(new),
            _ => None,
        }
    });
    assert_eq!(ask().status, 200);
    kill(Pid::from_raw(new), Signal::SIGTERM).unwrap();
    until("the end of the successor", || pids_of("control", &data).is_empty().then_some(()));
}

/// What a service manager is told.
struct Told {
    socket: UnixDatagram,
}

impl Told {
    /// Waits for a message that has this line; the message.
    fn until(&self, line: impl Fn(&str) -> bool) -> String {
        let mut buffer = [0; 4096];
        loop {
            let bytes = self.socket.recv(&mut buffer).expect("a message comes");
            let message = String::from_utf8(buffer[..bytes].to_vec()).unwrap();
            if message.lines().any(&line) {
                return message;
            }
        }
    }
}

#[test]
fn a_service_manager_is_told_what_is_the_case_and_which_process_is_the_main_one() {
    let folder = folder();
    let (data, config) = (folder.path().join("data"), folder.path().join("millgate.toml"));
    fs::write(&config, "").unwrap();
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let told = Told { socket };
    let mut command = serve(&data);
    command.arg("--config").arg(&config).env("NOTIFY_SOCKET", folder.path().join("notify"));
    let running = Running::start(command);
    let servers = Servers(data);
    let ready = told.until(|line| line == "READY=1");
    assert!(ready.contains("STATUS=millgate serves http://"), "{ready}");

    // A successor that does not start leaves the old one ready.
    fs::write(&config, "no such setting = 1\n").unwrap();
    running.signal(Signal::SIGUSR2);
    let reloading = told.until(|line| line == "RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    let ready = told.until(|line| line == "READY=1");
    assert!(ready.contains("STATUS=not handed over"), "{ready}");

    fs::write(&config, "").unwrap();
    running.signal(Signal::SIGUSR2);
    told.until(|line| line == "RELOADING=1");
    let handed_over = told.until(|line| line.starts_with("MAINPID="));
    assert!(handed_over.contains("\nREADY=1\n"), "{handed_over}");
    let new = until("the end of the old one", || match servers.pids()[..] {
        [new] if new != running.pid() => Some(new),
        _ => None,
    });
    assert!(handed_over.starts_with(&format!("MAINPID={new}\n")), "{handed_over}");
    kill(Pid::from_raw(new), Signal::SIGTERM).unwrap();
    told.until(|line| line == "STOPPING=1");
}
