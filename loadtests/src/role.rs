//! One process of a server: `serve`, `gateway` or `control`.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{ending, processes};

/// How long a successor, which is nobody's child, may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(60);

/// Where the programs are, and what all roles of one server are started with.
pub(crate) struct Programs {
    folder: PathBuf,
    configuration: PathBuf,
    data_dir: PathBuf,
    /// The step at which the next server kills itself (builds with debug assertions alone know how).
    pub(crate) die_at: Option<String>,
}

impl Programs {
    /// The programs that were built with this one.
    pub(crate) fn beside_this_one(configuration: &Path, data_dir: &Path) -> Self {
        let this = std::env::current_exe().expect("this program has a file");
        let folder = this.parent().expect("a file is in a folder").to_owned();
        Self { folder, configuration: configuration.to_owned(), data_dir: data_dir.to_owned(), die_at: None }
    }

    /// The file of one.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// A running process that says where it listens.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) address: String,
    child: Child,
    /// The process that has taken over, which is nobody's child.
    successor: Option<i32>,
    /// Kept open, for successors print to it too.
    _out: BufReader<ChildStdout>,
}

impl Role {
    /// Starts one, with so many descriptors where that is to be bounded, and waits until it is ready.
    pub(crate) fn start(
        programs: &Programs,
        name: &'static str,
        listen: &str,
        descriptors_max: Option<u32>,
    ) -> Self {
        let program = programs.path("millgate");
        let mut command = match descriptors_max {
            None => Command::new(program),
            Some(most) => {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("ulimit -n {most}; exec \"$@\""), "sh"]).arg(program);
                command
            }
        };
        command.args([name, "--listen", listen, "--data-dir"]).arg(&programs.data_dir);
        command.arg("--config").arg(&programs.configuration);
        if name != "control" {
            command.args(["--admin-listen", "127.0.0.1:0"]);
        }
        command
            .env("MILLGATE_LOG", std::env::var("MILLGATE_LOG").unwrap_or_else(|_| "warn".into()))
            .stdout(Stdio::piped());
        if let Some(step) = &programs.die_at {
            // It says where it dies, a line that is of no use to whoever asked for it.
            command.env("MILLGATE_DIE_AT", step).stderr(Stdio::null());
        }
        let mut child = ending::unless_ending(|| command.spawn())
            .expect("`millgate` is built: `cargo build --release --bins`");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("standard output is piped"));
        out.read_line(&mut line).expect("the server says that it is ready");
        let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        let address = url.expect("the line names the address").to_owned();
        Self { name, address, child, successor: None, _out: out }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.successor.unwrap_or_else(|| self.child.id().cast_signed())
    }

    /// Another process has taken over.
    pub(crate) fn succeed(&mut self, pid: i32) {
        self.successor = Some(pid);
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        processes::signal(self.pid(), Signal::SIGKILL);
        self.wait();
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn stop(&mut self) {
        processes::signal(self.pid(), Signal::SIGTERM);
        self.wait();
    }

    /// True once it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.successor.is_none() && matches!(self.child.try_wait(), Ok(Some(_)))
    }

    fn wait(&mut self) {
        let _ = self.child.wait();
        processes::wait_until(END_TIME_MAX, || !self.successor.is_some_and(processes::is_alive));
    }
}
