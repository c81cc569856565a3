//! Every environment variable the program reads, in one place. Flags win over variables, variables over the
//! configuration file, the file over defaults.

/// Where the server is: `http://127.0.0.1:8080`.
pub(crate) const SERVER: &str = "MILLGATE_SERVER";
/// An API key, for the commands that talk to a server.
pub(crate) const API_KEY: &str = "MILLGATE_API_KEY";
/// A file with an API key: the form of `credentials.json`, or the key alone.
pub(crate) const KEY_FILE: &str = "MILLGATE_KEY_FILE";
/// A file with the authorities that an `https` server's certificate must lead to, in PEM; the system's unless set.
pub(crate) const CA_FILE: &str = "MILLGATE_CA_FILE";
/// The data directory of the server, where its commands also find `credentials.json`.
pub(crate) const DATA_DIR: &str = "MILLGATE_DATA_DIR";
/// The PostgreSQL database of `serve` and `control`: `postgres://user:password@host/database`.
pub(crate) const DATABASE_URL: &str = "MILLGATE_DATABASE_URL";
/// The configuration file of `serve`, `gateway` and `control`.
pub(crate) const CONFIG: &str = "MILLGATE_CONFIG";
/// What is logged, in the syntax of `tracing_subscriber::EnvFilter`; `info` unless set.
pub(crate) const LOG: &str = "MILLGATE_LOG";
/// The program that embeds Python; `millgate-replica` beside this one unless set.
pub(crate) const RUNTIME: &str = "MILLGATE_RUNTIME";
/// The interpreter that environments are made from; the one the runtime was built for unless set.
pub(crate) const PYTHON: &str = "MILLGATE_PYTHON";
/// Seconds a function may run where its model says nothing else; the name existing installations use.
pub(crate) const REQUEST_TIMEOUT_SECONDS: &str = "MODEL_REQUEST_TIMEOUT_SECONDS";
/// Set by a server for the program that takes over from it: standard input is the socket they talk over.
pub(crate) const HANDOVER: &str = "MILLGATE_HANDOVER";
/// Set by a service manager that wants to know when a server is ready (`sd_notify(3)`).
pub(crate) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Has a server kill itself at a step of its own, for tests: `routed:1`, `any:7`. Builds with debug assertions alone know it.
#[cfg(debug_assertions)]
pub(crate) const DIE_AT: &str = "MILLGATE_DIE_AT";
/// Set to anything: no colours (<https://no-color.org>).
pub(crate) const NO_COLOR: &str = "NO_COLOR";
