//! A deployed function tries to get out: to the server's secrets, to another project, to the supervisor, to the
//! control API with what it finds in its environment.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::Server;
use serde_json::{Value, json};

const PROWLER: &str = r#"
import json, os, socket, urllib.error, urllib.request

def outcome(act, *arguments):
    try:
        return act(*arguments) or "done"
    except Exception as error:
        return "denied: " + type(error).__name__

def read(path):
    with open(path, "rb") as file:
        return "read: " + repr(file.read(100))

def listing(path):
    return "listed: " + repr(os.listdir(path))

def write(path):
    with open(path, "ab") as file:
        file.write(b"x")

def connect(path):
    socket.socket(socket.AF_UNIX).connect(path)

def ask(path, key):
    url = os.environ["CDSW_API_URL"].replace("/api/v1", "") + path
    headers = {"Authorization": "Bearer " + key} if key else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return "asked: " + repr(answer.read(100))

def prowl(args):
    acts = {"read": read, "list": listing, "write": write, "connect": connect}
    found = {f"{act} {path}": outcome(acts[act], path) for act, paths in args.items() for path in paths}
    for path in ("/api/v2/projects", "/api/v2/models", "/api/v2/users/admin/v2_keys"):
        for name in [None, *os.environ]:
            key = os.environ[name] if name else None
            if key is None or (key.isprintable() and key.isascii()):
                found[f"{path} with {name}"] = outcome(ask, path, key)
    return found
"#;

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            below(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn a_deployed_function_reaches_neither_secrets_nor_others_nor_the_control_api() {
    let server = Server::start();
    let other = server.project("other", &[("other.py", "SECRET = 'of another'\ndef f(args): return 1\n")]);
    server.ok(&["deploy", &format!("{}:f", other.join("other.py").display()), "--name", "other"]);
    let folder = server.project("prowl", &[("prowl.py", PROWLER)]);
    server.ok(&["deploy", &format!("{}:prowl", folder.join("prowl.py").display()), "--name", "prowl"]);

    let mut all = Vec::new();
    below(&server.data_dir(), &mut all);
    let own: Vec<PathBuf> = all.iter().filter(|p| p.ends_with("root/prowl.py")).cloned().collect();
    let own_build = own[0].ancestors().nth(2).unwrap();
    let (sockets, files): (Vec<&PathBuf>, Vec<&PathBuf>) = all
        .iter()
        .filter(|path| {
            !path.starts_with(own_build) && !path.components().any(|part| part.as_os_str() == "venv")
        })
        .partition(|path| path.extension().is_some_and(|extension| extension == "sock"));
    let has = |name: &str| files.iter().any(|path| path.to_str().unwrap().contains(name));
    for name in ["millgate.db", "/keys/", "credentials.json", "spec.json", "other.py"] {
        assert!(has(name), "{name} is not there to be tried: {files:?}");
    }
    assert!(sockets.len() >= 3, "{sockets:?}");
    let folders = ["keys", "projects", "run"].map(|name| server.data_dir().join(name));
    let folders = [folders.as_slice(), &["/proc/1/fd".into(), "/proc/1/root".into()]].concat();
    let request = json!({
        "read": files.iter().map(|path| path.to_str().unwrap())
            .chain(["/proc/1/environ", "/proc/1/mem", "/proc/1/root/etc/passwd", "/etc/shadow"]).collect::<Vec<_>>(),
        "list": folders,
        "write": ["/x", "/etc/x", "/usr/x", "/var/x", "/home/cdsw/x", "/home/cdsw/prowl.py",
                  own[0].to_str().unwrap(), "/dev/x", "/proc/sys/kernel/hostname"],
        "connect": sockets,
    });
    let answer = server.call(&server.access_key("prowl"), &request.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    let found = answer.body["response"].as_object().unwrap();
    assert!(found.len() > 40, "{}", found.len());
    let reached: Vec<(&String, &Value)> =
        found.iter().filter(|(_, outcome)| !outcome.as_str().unwrap().starts_with("denied")).collect();
    assert_eq!(reached, [], "of {} attempts", found.len());
}
