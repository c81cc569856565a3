//! The command line, as `clap` parses it.

mod accounts;
mod administration;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::env_vars;

pub(crate) use accounts::{Key, KeyCreate, KeyDelete, Team, User, UserCreate, UserRole};
pub(crate) use administration::{Environment, ProfileAmounts, Profiles, Runtimes};

/// A Python function as a REST endpoint that production can lean on.
#[derive(Debug, Parser)]
#[command(name = "millgate", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// One JSON value on standard output, with the API's field names
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The server's address
    #[arg(long, global = true, value_name = "URL", env = env_vars::SERVER, default_value = "http://127.0.0.1:8080")]
    pub(crate) server: String,
    /// A file with an API key: the form of `credentials.json`, or the key alone
    #[arg(long, global = true, value_name = "FILE", env = env_vars::KEY_FILE)]
    pub(crate) key_file: Option<PathBuf>,
    /// A file with the authorities that an `https` server's certificate must lead to, in place of the system's
    #[arg(long, global = true, value_name = "FILE", env = env_vars::CA_FILE)]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve everything in one process: gateway, control API, local replicas, embedded database
    Serve(Serve),
    /// Serve calls only, by the last good route snapshot
    Gateway(Role),
    /// Serve the control API only; replicas go on when it ends
    Control(Role),
    /// Serve one function here and now, reloading on change, with no server and no key
    Run(Run),
    /// Make a function of a Python file an endpoint, or bring its new version live
    Deploy(Box<Deploy>),
    /// Call a model once and print its answer
    Call(Call),
    /// Call a model with its example
    Test(Model),
    /// List models
    List,
    /// Show one model: its keys, build, deployment and replicas
    Show(Model),
    /// Print what a model's replicas print, or its calls
    Logs(Logs),
    /// List a model's builds, keep one whatever its age, or make one again
    Builds(Builds),
    /// Replace every replica of a model by a new one; a stopped model serves again
    Restart(Model),
    /// Let an earlier build serve again
    Rollback(Rollback),
    /// Serve a model by another number of replicas
    Scale(Scale),
    /// Stop a model; its calls are answered with 503 until it is deployed again
    Stop(Model),
    /// Stop a model and delete it with its builds
    Delete(Model),
    /// List the Pythons that models can be built for, add or remove one
    Runtimes {
        #[command(subcommand)]
        command: Option<Runtimes>,
    },
    /// List the amounts that a deployment may ask for by name, add, edit or delete one
    Profiles {
        #[command(subcommand)]
        command: Option<Profiles>,
    },
    /// Show the variables of all models, or of a project's, and change them for what is built or launched from then on
    Environment(Environment),
    /// Manage API keys
    #[command(subcommand)]
    Key(Key),
    /// Manage users and service accounts
    #[command(subcommand)]
    User(User),
    /// Manage teams, which own projects in the place of their members
    #[command(subcommand)]
    Team(Team),
    /// Manage the keys that models are called by
    #[command(subcommand)]
    AccessKey(AccessKey),
    /// Write the database of a server on this host into a file; the server may run
    Backup(Backup),
    /// Fill a new data directory, or a new database, from a backup
    Restore(Restore),
    /// Run one deployment's processes (started by the launcher)
    #[command(hide = true)]
    Supervise { run_dir: PathBuf },
    /// Run one build step, described on standard input (started by the builder)
    #[command(hide = true)]
    BuildStep,
}

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) role: Role,
}

/// What `serve`, `gateway` and `control` share.
#[derive(Debug, Args)]
pub(crate) struct Role {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Where calls, the API and the dashboard are served
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where `/live`, `/ready` and `/metrics` are served
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin_listen: Option<SocketAddr>,
}

/// Where a server keeps things.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// A TOML file with these settings
    #[arg(long, value_name = "FILE", env = env_vars::CONFIG)]
    pub(crate) config: Option<PathBuf>,
    /// Where the server keeps everything
    #[arg(long, value_name = "DIR", env = env_vars::DATA_DIR)]
    pub(crate) data_dir: Option<PathBuf>,
    /// A PostgreSQL database in place of the file in the data directory; better in the file or the variable, since it
    /// may hold a password
    #[arg(long, value_name = "URL", env = env_vars::DATABASE_URL, hide_env_values = true)]
    pub(crate) database_url: Option<Secret>,
}

/// `backup`.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write
    pub(crate) file: PathBuf,
    /// With the keys that sign API keys and open access keys: whoever has the file has the server
    #[arg(long)]
    pub(crate) with_keys: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// `restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The file to read
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// A text that may hold a password: in no log and no `Debug`.
#[derive(Clone, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// `FILE:FUNCTION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) file: PathBuf,
    pub(crate) function: String,
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':') {
            Some((file, function)) if !file.is_empty() && !function.is_empty() => {
                Ok(Self { file: file.into(), function: function.to_owned() })
            }
            _ => Err("expected FILE:FUNCTION, as in `predict.py:predict`".to_owned()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The Python file and the function in it, as in `predict.py:predict`
    #[arg(value_name = "FILE:FUNCTION")]
    pub(crate) target: Target,
    /// Where it is served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub(crate) listen: SocketAddr,
    /// How many replicas
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=199))]
    pub(crate) replicas: u16,
    /// The folder the function's imports and files are relative to; the file's own unless given
    #[arg(long, value_name = "DIR")]
    pub(crate) project: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The Python file and the function in it, as in `predict.py:predict`
    #[arg(value_name = "FILE:FUNCTION")]
    pub(crate) target: Target,
    /// The model's name; the file's unless given
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The folder that is deployed; the file's own unless given
    #[arg(long, value_name = "DIR")]
    pub(crate) project: Option<PathBuf>,
    /// Bring what git ignores: a pattern as in `.gitignore`, relative to the project; repeat for more
    #[arg(long, value_name = "PATTERN")]
    pub(crate) include: Vec<String>,
    /// How many replicas
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=199))]
    pub(crate) replicas: u16,
    /// Cores of each replica; the profile's, or 1
    #[arg(long)]
    pub(crate) cpu: Option<f64>,
    /// Memory of each replica, in GB; the profile's, or 2
    #[arg(long)]
    pub(crate) memory: Option<f64>,
    /// Amounts by name, as `millgate profiles` shows them
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// An environment variable of the deployment; repeat for more
    #[arg(long, value_name = "K=V", value_parser = parse_variable)]
    pub(crate) env: Vec<(String, String)>,
    /// An example request as JSON: called before the build counts as built, and by `millgate test`
    #[arg(long, value_name = "JSON")]
    pub(crate) example: Option<String>,
    /// The Python it is built for: a version or a name, as `millgate runtimes` shows them; the server's own unless given
    #[arg(long, visible_alias = "runtime", value_name = "VERSION")]
    pub(crate) python: Option<String>,
    #[command(flatten)]
    pub(crate) policy: Policy,
}

/// How a deployment is served, where it is not as the model or the server says.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it is served")]
pub(crate) struct Policy {
    /// Fork replicas from one process that imported the file, or start each afresh; `auto` forks where that is safe
    #[arg(long, value_name = "MODE", value_parser = ["auto", "fork", "spawn"])]
    pub(crate) start: Option<String>,
    /// What an exception does to its replica; `auto` replaces forked ones and keeps spawned ones
    #[arg(long, value_name = "WHAT", value_parser = ["auto", "keep", "replace"])]
    pub(crate) on_exception: Option<String>,
    /// Use a process for one call after another, or a fresh one for each call
    #[arg(long, value_name = "PER", value_parser = ["replica", "call"])]
    pub(crate) isolation: Option<String>,
    /// Calls after which a replica is replaced; 0 is never
    #[arg(long, value_name = "N")]
    pub(crate) calls_max: Option<u64>,
    /// Seconds after which a replica is replaced; 0 is never
    #[arg(long, value_name = "SECONDS")]
    pub(crate) age_max: Option<u64>,
    /// MB of memory of its own after which a replica is replaced between calls; 0 is never
    #[arg(long, value_name = "MB")]
    pub(crate) memory_max: Option<u64>,
    /// Forked replicas kept ready to take over from one that is lost
    #[arg(long, value_name = "N")]
    pub(crate) spares: Option<u16>,
    /// Seconds that a call may run before it is answered with 504; 0 is the server's
    #[arg(long, value_name = "SECONDS")]
    pub(crate) request_timeout: Option<f64>,
    /// What happens to a running call whose caller hangs up
    #[arg(long, value_name = "WHAT", value_parser = ["finish", "cancel"])]
    pub(crate) on_hang_up: Option<String>,
    /// Give the function no network: a loopback of its own, and nothing else
    #[arg(long)]
    pub(crate) no_network: bool,
    /// Fail rather than serve where the host does not allow every part of isolation
    #[arg(long)]
    pub(crate) require_isolation: bool,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Call {
    /// The model's name
    pub(crate) model: String,
    /// The request, as JSON
    pub(crate) request: String,
}

#[derive(Debug, Args)]
pub(crate) struct Model {
    /// The model's name
    pub(crate) model: String,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The model's name
    pub(crate) model: String,
    /// Go on printing as lines come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// What was printed for this request only: the `X-Request-Id` of an answer
    #[arg(long, value_name = "ID", conflicts_with = "calls")]
    pub(crate) request: Option<String>,
    /// The model's calls instead: who called, when, how it ended, and how long it took
    #[arg(long, conflicts_with = "follow")]
    pub(crate) calls: bool,
    /// Calls that ended so only: `ok`, or the code of an error
    #[arg(long, requires = "calls")]
    pub(crate) code: Option<String>,
    /// Calls since then only: a time as in `2027-01-31T12:00:00Z`, or how long ago as in `15m`
    #[arg(long, requires = "calls", value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// How many calls, the newest; 100 unless given
    #[arg(long, requires = "calls", value_name = "N")]
    pub(crate) limit: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Builds {
    /// The model's name
    pub(crate) model: String,
    /// Keep a build whatever its age, by its number
    #[arg(long, value_name = "N", group = "what")]
    pub(crate) pin: Option<u64>,
    /// Let a pinned build be collected when it is old
    #[arg(long, value_name = "N", group = "what")]
    pub(crate) unpin: Option<u64>,
    /// Make a new build from the source of an earlier one, with the packages that it had
    #[arg(long, value_name = "N", group = "what")]
    pub(crate) rebuild: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The model's name
    pub(crate) model: String,
    /// The build's number, as `millgate builds` shows it; the one deployed before unless given
    #[arg(long, visible_alias = "to", value_name = "N")]
    pub(crate) build: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// The model's name
    pub(crate) model: String,
    /// How many replicas
    #[arg(value_parser = clap::value_parser!(u16).range(1..=199))]
    pub(crate) replicas: u16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccessKey {
    /// Give a model a new access key and refuse the old one
    Regenerate {
        /// The model's name
        model: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_start_what_the_program_understands() {
        let units = [
            include_str!("../../deploy/systemd/millgate.service"),
            include_str!("../../deploy/systemd/millgate-gateway.service"),
            include_str!("../../deploy/systemd/millgate-control.service"),
        ];
        for unit in units {
            let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
            let parsed = Cli::try_parse_from(start.split(' ')).unwrap();
            assert!(matches!(parsed.command, Command::Serve(_) | Command::Gateway(_) | Command::Control(_)));
            assert!(unit.contains("Type=notify\n") && unit.contains("ExecReload=/bin/kill -USR2 $MAINPID\n"));
        }
    }
}
