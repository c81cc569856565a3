//! The control API: desired state, builds and launches behind API v2.
//!
//! | module | job |
//! | --- | --- |
//! | `http` | API v2: reads requests, checks access, shows objects |
//! | `store` | desired state in a database |
//! | `builder` | source → environment → trial import → sealed build |
//! | `backup` | the database as a file, and back |
//! | `egress` | the way out of a build's network, and what it refuses |
//! | `call_events` | events of calls, from where gateways keep them |
//! | `reconcile` | makes what is wished true, one repeatable step after another |
//! | `launch` | supervisors as processes of this host, behind a trait |
//! | `milestone` | names of the steps, at each of which a process under test can be killed |
//! | `publish` | route snapshots for gateways, and the metrics they ship |
//! | `metrics` | tracked metrics into the store, and the end of old ones |
//! | `origin` | where the files of a new project come from |
//! | `template` | the files a new project may begin with |
//! | `keys` | API keys, access keys, and the files their secrets are in |
//! | `data_dir` | the folder everything is in |
//! | `database` | which database holds the desired state |
//! | `outage` | why a database or disk does not work now |
#![forbid(unsafe_code)]

mod app;
mod backup;
mod builder;
mod call_events;
mod collection;
mod config;
mod control;
mod data_dir;
mod database;
mod egress;
mod fault;
mod host;
mod http;
mod keys;
mod launch;
mod lines;
mod metrics;
mod milestone;
mod moment;
mod names;
mod operations;
mod origin;
mod outage;
mod policy;
mod publish;
mod reconcile;
mod rights;
mod rows;
mod runtimes;
pub mod sdk;
mod store;
mod template;
#[cfg(test)]
mod testing;

pub use backup::{BackedUp, back_up, restore};
pub use builder::{
    include::{Include, IncludeError},
    snapshot::{Ignoring, Item, Kind, Listing, SnapshotError, Warning, list as list_source},
};
pub use call_events::{CallEvents, CallEventsError};
pub use config::{BuildNetwork, ControlConfig, HostPort, TokenReader};
pub use control::{AtShutdown, ControlApi, RunError};
pub use data_dir::OpenError;
pub use database::{DatabaseUrl, DatabaseUrlError};
pub use http::address::CallerAddress;
#[cfg(debug_assertions)]
pub use milestone::{NoSuchMilestone, die_at};
pub use store::BackupError;
