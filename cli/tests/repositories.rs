//! Projects made from a git repository, served by git's own HTTP backend on this host's loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use common::{Answer, Server, post};
use serde_json::{Value, json};

/// Hands each request to `git http-backend`; below `/closed/` it asks for a password.
const SERVE: &str = r#"
import http.server, os, subprocess, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def log_message(self, *args): pass
    def answer(self):
        path, _, query = self.path.partition("?")
        if path.startswith("/closed/"):
            if self.headers.get("Authorization") != "Basic bWU6cEBzcw==":
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic realm=x")
                self.end_headers()
                return
            path = path[len("/closed"):]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        environment = dict(os.environ, GIT_PROJECT_ROOT=os.getcwd(), GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path,
            QUERY_STRING=query, REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("Content-Type", ""),
            CONTENT_LENGTH=str(len(body)), HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""),
            GIT_PROTOCOL=self.headers.get("Git-Protocol", ""), REMOTE_ADDR="127.0.0.1")
        out = subprocess.run(["git", "http-backend"], input=body, env=environment, stdout=subprocess.PIPE).stdout
        head, _, rest = out.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200 OK").split()[0]))
        for name, value in fields.items(): self.send_header(name, value)
        self.end_headers()
        self.wfile.write(rest)
    do_GET = do_POST = answer

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

struct Forge {
    child: Child,
    address: String,
}

impl Forge {
    fn serve(folder: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", SERVE])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: format!("127.0.0.1:{}", line.trim()) }
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn git(folder: &Path, args: &[&str]) {
    let done = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"])
        .args(["-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false"])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(done.status.success(), "{args:?}: {done:?}");
}

fn repository(folder: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(&path).unwrap();
    git(&path, &["init", "-q"]);
    for (file, text) in files {
        fs::write(path.join(file), text).unwrap();
    }
    git(&path, &["add", "-A"]);
    git(&path, &["commit", "-qm", "first"]);
    path
}

fn create(server: &Server, fields: Value) -> Answer {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let name = format!("from git {}", MADE.fetch_add(1, Ordering::Relaxed));
    let mut body = json!({"name": name, "template": "git"});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    post(server.url(), "/api/v2/projects", Some(&server.api_key()), &body.to_string())
}

fn refused(server: &Server, fields: Value) -> String {
    let answer = create(server, fields);
    assert_eq!(answer.status, 400, "{answer:?}");
    answer.body["message"].as_str().unwrap().to_owned()
}

/// The files of a project, as they lie there.
fn files(server: &Server, made: &Answer) -> Vec<String> {
    assert_eq!(made.status, 200, "{made:?}");
    let root = server.data_dir().join("projects").join(made.body["id"].as_str().unwrap());
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    let mut names: Vec<String> =
        found.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_project_is_made_of_what_a_repository_holds_and_of_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    repository(temp.path(), "part", &[("part.py", "")]);
    let code = repository(temp.path(), "code", &[("f.py", "one"), (".gitignore", "*.pkl\n")]);
    git(&code, &["submodule", "-q", "add", "../part", "part"]);
    git(&code, &["commit", "-qm", "with a part"]);
    git(&code, &["tag", "v1"]);
    git(&code, &["checkout", "-qb", "work"]);
    fs::write(code.join("new.py"), "").unwrap();
    fs::write(code.join("m.pkl"), "").unwrap();
    git(&code, &["add", "-f", "new.py", "m.pkl"]);
    git(&code, &["commit", "-qm", "second"]);
    std::os::unix::fs::symlink("/etc/passwd", code.join("leaves")).unwrap();
    git(&code, &["checkout", "-qb", "evil"]);
    git(&code, &["add", "-A"]);
    git(&code, &["commit", "-qm", "third"]);
    git(&code, &["checkout", "-q", "main"]);

    let forge = Forge::serve(temp.path());
    let config = temp.path().join("millgate.toml");
    fs::write(&config, format!("[builds]\nallowed_hosts = ['{}']\n", forge.address)).unwrap();
    let config = Box::leak(config.display().to_string().into_boxed_str());
    let server = Server::start_with(vec![("MILLGATE_CONFIG", config)]);
    let url = format!("http://{}/code", forge.address);

    let made = create(&server, json!({"git_url": url}));
    assert_eq!(files(&server, &made), [".gitignore", ".gitmodules", "f.py", "part/part.py"]);
    assert_eq!(made.body["creation_status"], "success");
    let made = create(&server, json!({"git_url": url, "git_ref": "work"}));
    assert_eq!(files(&server, &made).len(), 6, "what is ignored and committed is part of it");
    let made = create(&server, json!({"git_url": url, "git_ref": "v1"}));
    assert_eq!(files(&server, &made).len(), 4);
    let child = create(&server, json!({"parent_project": made.body["id"]}));
    assert_eq!(files(&server, &child), files(&server, &made));

    let closed = format!("http://me:p%40ss@{}/closed/code", forge.address);
    assert_eq!(files(&server, &create(&server, json!({"git_url": closed}))).len(), 4);

    let said = refused(&server, json!({"git_url": url, "git_ref": "none"}));
    assert!(said.contains("couldn't find remote ref none"), "{said}");
    let wrong = format!("http://me:wrong-secret@{}/closed/code", forge.address);
    let said = refused(&server, json!({"git_url": wrong}));
    assert!(!said.contains("wrong-secret") && !said.contains("bWU6d3Jvbmctc2VjcmV0"), "{said}");
    let said = refused(&server, json!({"git_url": url, "git_ref": "evil"}));
    assert!(said.contains("`leaves` to `/etc/passwd`"), "{said}");
    // This server itself, and a path of this host.
    let own = format!("{}/code", server.url().trim_end_matches('/'));
    let said = refused(&server, json!({"git_url": own}));
    assert!(said.contains("403"), "{said}");
    let said = refused(&server, json!({"git_url": code.join(".git").display().to_string()}));
    assert!(said.contains("https://"), "{said}");
    let said = refused(&server, json!({"parent_project": "none"}));
    assert!(said.contains("there is no such project"), "{said}");
    // What was refused is no project, and leaves nothing behind.
    assert!(fs::read_dir(server.data_dir().join("uploads")).unwrap().next().is_none());
    let projects = server.data_dir().join("projects");
    assert_eq!(fs::read_dir(projects).unwrap().count(), 5);
}
