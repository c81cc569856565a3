//! Logs of the server, to standard error: for people on a terminal, JSON lines elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::env_vars;

/// Starts logging. Called once, before anything can log.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env(env_vars::LOG).unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.with_ansi(std::env::var_os(env_vars::NO_COLOR).is_none()).with_target(false).init();
    } else {
        logs.json().flatten_event(true).init();
    }
}
