//! A deployed function tries to get out: when it is imported, and when it is called. It is told the paths of everything
//! worth having, which it could not know by itself.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::ECHO;
use crate::{
    figures::Figures,
    http::{Connection, request},
    server::Server,
};

/// Files that must be among those that are tried, or the scenario shows nothing.
const MUST_BE_TRIED: [&str; 5] = ["millgate.db", "/keys/", "credentials.json", "spec.json", "model.py"];
const SOCKETS_MIN: usize = 3;
const ELSEWHERE_READ: [&str; 7] = [
    "/root/.profile",
    "/proc/1/environ",
    "/proc/1/mem",
    "/proc/1/maps",
    "/proc/1/root/etc/passwd",
    "/etc/shadow",
    "/proc/kcore",
];
const ELSEWHERE_LISTED: [&str; 4] = ["/proc/1/fd", "/proc/1/root", "/var/lib", "/sys/fs/cgroup"];
const WRITTEN: [&str; 12] = [
    "/x",
    "/etc/x",
    "/usr/x",
    "/var/x",
    "/home/cdsw/x",
    "/home/cdsw/model.py",
    "model.py",
    "/dev/x",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/core_pattern",
    "/proc/1/oom_score_adj",
    "/sys/kernel/uevent_helper",
];

pub(crate) async fn run(_: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    server.deploy("other", ECHO, &["--replicas", "2"]);
    let paths = worth_having(&server.data_dir());
    let files = [("model.py", include_str!("prowl.py")), ("paths.json", &paths.to_string())];
    let model = server.deploy_files("prowls", &files, &[]);
    let bytes = request(&model.host, "/model", &model.api_key, &model.body("{}"));
    let mut connection = Connection::open(&model.host).await.expect("the server listens");
    let answer = connection.exchange(&bytes).await.expect("an answer");
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();

    let shown = server.show("prowls");
    figures.show("isolation", &shown["isolation"]);
    for when in ["import", "call"] {
        let found = body["response"][when].as_object().cloned().unwrap_or_default();
        let mut denied = 0;
        for (attempt, outcome) in &found {
            let outcome = outcome.as_str().unwrap_or_default();
            if outcome.starts_with("denied") {
                denied += 1;
            } else {
                figures.row(attempt, "must be denied", &[outcome.to_owned()]);
            }
        }
        let all = found.len();
        figures.must_be(format!("denied at {when}"), format!("{denied} of {all}"), format!("{all} of {all}"));
        figures.must_be(format!("attempts at {when} are all there"), all > MUST_BE_TRIED.len() + 40, true);
    }
    let other = server.replica_pids(&server.model("other")).len();
    figures.must_be("replicas of the other model", other, 2);
    figures
}

/// What the function is told to try.
fn worth_having(data_dir: &Path) -> Value {
    let mut all = Vec::new();
    below(data_dir, &mut all);
    let (sockets, files): (Vec<PathBuf>, Vec<PathBuf>) =
        all.into_iter().partition(|path| path.extension().is_some_and(|extension| extension == "sock"));
    for name in MUST_BE_TRIED {
        assert!(files.iter().any(|path| path.to_string_lossy().contains(name)), "{name} is not there");
    }
    assert!(sockets.len() >= SOCKETS_MIN, "too few sockets: {sockets:?}");
    let builds =
        fs::read_dir(data_dir.join("builds")).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders: Vec<PathBuf> =
        ["keys", "projects", "run"].iter().map(|name| data_dir.join(name)).chain(builds).collect();
    json!({
        "read": files.iter().map(|path| path.to_string_lossy().into_owned())
            .chain(ELSEWHERE_READ.map(str::to_owned)).collect::<Vec<_>>(),
        "list": folders.iter().map(|path| path.to_string_lossy().into_owned())
            .chain(ELSEWHERE_LISTED.map(str::to_owned)).collect::<Vec<_>>(),
        "write": WRITTEN,
        "connect": sockets,
    })
}

/// Files below a folder; those of environments and of the packages' cache are nobody's secret.
fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_package = path.file_name().is_some_and(|name| name == "venv" || name == "cache");
        if path.is_dir() && !path.is_symlink() {
            if !is_package {
                below(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}
