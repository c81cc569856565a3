//! A PostgreSQL server of a scenario's own, which may be killed. `deploy/postgres.sh` knows where its programs are.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{ending, processes};

/// How long it may take to answer.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// A running server; it ends with this value.
pub(crate) struct Postgres {
    folder: TempDir,
    server: Child,
}

impl Postgres {
    /// Makes a cluster and starts its server.
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("mgpg").tempdir_in("/tmp");
        let folder = folder.expect("/tmp can be written to");
        ending::look_after(folder.path());
        let made = ending::unless_ending(|| script("new", folder.path()).status());
        assert!(made.is_ok_and(|made| made.success()), "PostgreSQL is installed: `deploy/setup.sh test`");
        let server = serve(folder.path());
        let mut postgres = Self { folder, server };
        postgres.wait();
        postgres
    }

    /// In the form of the configuration file.
    pub(crate) fn configuration(&self) -> String {
        format!(
            "database_url = \"postgres://millgate@localhost/postgres?host={}\"\n",
            self.folder.path().display()
        )
    }

    /// kill -9 of the server; the processes of its connections end when they notice.
    pub(crate) fn kill(&mut self) {
        processes::signal(self.server.id().cast_signed(), Signal::SIGKILL);
        let _ = self.server.wait();
    }

    /// Starts a killed server again.
    pub(crate) fn start_again(&mut self) {
        self.server = serve(self.folder.path());
        self.wait();
    }

    /// Until it answers. It refuses to start while processes of its predecessor are there.
    fn wait(&mut self) {
        let answers = processes::wait_until(START_TIME_MAX, || {
            if self.server.try_wait().is_ok_and(|ended| ended.is_some()) {
                self.server = serve(self.folder.path());
            }
            UnixStream::connect(socket(self.folder.path())).is_ok()
        });
        assert!(answers, "PostgreSQL does not answer");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // "Fast": connections are ended.
        processes::signal(self.server.id().cast_signed(), Signal::SIGINT);
        let _ = self.server.wait();
    }
}

fn serve(folder: &Path) -> Child {
    let mut command = script("serve", folder);
    // What it says of being killed is no news.
    command.stderr(Stdio::null());
    ending::unless_ending(|| command.spawn()).expect("the script is there")
}

fn script(what: &str, folder: &Path) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/postgres.sh"));
    command.arg(what).arg(folder).stdout(Stdio::null());
    command
}

fn socket(folder: &Path) -> PathBuf {
    folder.join(".s.PGSQL.5432")
}
