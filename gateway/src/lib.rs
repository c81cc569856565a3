//! The data plane: it authenticates a call and gives it to a free replica.
//!
//! Everything a call needs is in memory: no database, no lock across an await, no word from the control API. A request's
//! way is `http` → [`split`] → `routes` → `keys` → `dispatch` (`line`) → `call` (`slots`) → `prediction` → `http`.
#![forbid(unsafe_code)]

mod authentication;
#[doc(hidden)]
pub mod bench;
mod call;
mod call_log;
mod caller_address;
mod config;
mod dispatch;
mod follow;
mod gate;
mod gateway;
mod hex;
mod http;
mod keys;
mod lane;
mod line;
#[cfg(test)]
#[path = "line/tests.rs"]
mod line_tests;
mod lines;
mod metrics;
mod openid;
#[cfg(any(test, feature = "oracles"))]
pub mod oracles;
mod prediction;
mod presence;
mod rates;
mod request_id;
mod routes;
mod slots;
mod snapshot_file;
mod spans;
pub mod split;
mod spool;
mod sync;
mod tasks;
mod tls;
mod trace_context;
mod tracking;

pub use call_log::{CallFilter, CallFilterError, CallLogConfig, read_calls};
pub use caller_address::{CallerAddress, ForwardedHeader, Network, NetworkError, Proxies};
pub use config::{CorsOrigins, GatewayConfig};
pub use gateway::{Applied, Gateway};
pub use http::{BoxError, CallerBody, Fallback, FallbackBody, no_fallback};
pub use keys::VerifyingKeyError;
pub use openid::{KeySetError, KeySetSource, KeySetUrl, OpenIdConfig, TokenReader};
pub use routes::ApplyError;
pub use spans::SpansConfig;
pub use spool::{Spool, SpoolConfig, SpoolSync};
pub use tls::{Tls, TlsError, TlsFiles, authorities};
