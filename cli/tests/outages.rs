//! A database that is away and a disk that is full are the control API's trouble, not the calls'.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs::File,
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use common::{Answer, Server, millgate, post, until};
use tempfile::TempDir;

const ADD: &str = "def add(args):\n    return args['a'] + args['b']\n";

/// A PostgreSQL server of a test's own; it ends with this value.
struct Postgres {
    folder: TempDir,
    server: Child,
}

impl Postgres {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("mgpg").tempdir_in("/tmp").unwrap();
        assert!(script("new", folder.path()).status().unwrap().success(), "hint: deploy/setup.sh test");
        let server = script("serve", folder.path()).spawn().unwrap();
        let mut postgres = Self { folder, server };
        postgres.wait();
        postgres
    }

    fn url(&self) -> String {
        format!("postgres://millgate:hunter2@localhost/postgres?host={}", self.folder.path().display())
    }

    fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.server = script("serve", self.folder.path()).spawn().unwrap();
        self.wait();
    }

    /// Until it listens. It refuses to start while processes of its predecessor are there.
    fn wait(&mut self) {
        until("a PostgreSQL that listens", || {
            if self.server.try_wait().unwrap().is_some() {
                self.server = script("serve", self.folder.path()).spawn().unwrap();
            }
            UnixStream::connect(self.folder.path().join(".s.PGSQL.5432")).ok()
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // "Fast": connections are ended.
        let pid = nix::unistd::Pid::from_raw(self.server.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let _ = self.server.wait();
    }
}

fn script(what: &str, folder: &Path) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/postgres.sh"));
    command.arg(what).arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn deploy(server: &Server) -> String {
    let folder = server.project("add", &[("add.py", ADD)]);
    server.ok(&["deploy", &format!("{}:add", folder.join("add.py").display())]);
    server.access_key("add")
}

fn make_project(server: &Server, name: &str) -> Answer {
    let body = format!(r#"{{"name":"{name}"}}"#);
    post(server.url(), "/api/v2/projects", Some(&server.api_key()), &body)
}

/// A change is refused with these words, and a call is answered.
fn only_calls_go_on(server: &Server, access_key: &str, words: &str) {
    let refused = make_project(server, "in-vain");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.body["code"], 14);
    assert!(refused.body["message"].as_str().unwrap().contains(words), "{refused:?}");
    let answer = server.call(access_key, r#"{"a": 3, "b": 5}"#);
    assert_eq!((answer.status, &answer.body["response"]), (200, &8.into()), "{answer:?}");
}

fn all_goes_on(server: &Server) {
    until("a control API that works again", || (make_project(server, "again").status == 200).then_some(()));
    assert_eq!(server.json(&["show", "add"])["latest_deployment"]["status"], "deployed");
}

#[test]
fn a_postgresql_that_is_killed_stops_no_call_and_is_found_again() {
    let mut postgres = Postgres::start();
    let url: &'static str = postgres.url().leak();
    let mut server = Server::start_with(vec![("MILLGATE_DATABASE_URL", url)]);
    let access_key = deploy(&server);
    assert!(!server.data_dir().join("millgate.db").exists());

    postgres.kill();
    only_calls_go_on(&server, &access_key, "the database cannot be reached");
    postgres.start_again();
    all_goes_on(&server);

    // A server that starts while its database is away serves calls by what it knew last.
    postgres.kill();
    server.kill();
    server.start_again();
    let answer = server.call(&access_key, r#"{"a": 1, "b": 1}"#);
    assert_eq!((answer.status, &answer.body["response"]), (200, &2.into()), "{answer:?}");
    postgres.start_again();
    until("a control API that is open", || server.run(&["show", "add"]).status.success().then_some(()));

    // One control API writes; and no password is shown.
    let other = server.folder.path().join("other");
    let mut second = millgate();
    second.env("MILLGATE_DATABASE_URL", url).arg("control").arg("--data-dir").arg(&other);
    let second = second.args(["--listen", "127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("is used by another control API"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    server.interrupt();
}

/// A small disk, mounted at a folder, until this value ends.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Nothing where this user may not mount.
    fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir(folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=192m", "tmpfs"]).arg(folder).stderr(Stdio::null());
        mount.status().unwrap().success().then(|| Self(folder.to_owned()))
    }

    /// Writes until nothing more can be written.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("uploads").join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[7; 1 << 13]).is_ok() {}
        while file.write_all(&[7]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_no_call_and_is_over_when_there_is_room() {
    let disk = std::cell::Cell::new(None);
    let mut server = Server::start_in(Vec::new(), |data_dir| disk.set(SmallDisk::mount(data_dir)));
    let Some(disk) = disk.take() else {
        eprintln!("not tried: this user may not mount");
        return;
    };
    let access_key = deploy(&server);
    let filler = disk.fill();
    only_calls_go_on(&server, &access_key, "no space is left on the disk");
    std::fs::remove_file(filler).unwrap();
    all_goes_on(&server);
    server.interrupt();
}
