//! HTTP in front of calls.
//!
//! | module | job |
//! | --- | --- |
//! | `accept` | the accept loop, connections, their drain |
//! | `addresses` | how many connections an address has |
//! | `opening` | from an accepted socket to a connection: PROXY header, TLS, first bytes |
//! | `socket` | the clock of a caller that does not read |
//! | `want` | what is logged while nothing can be accepted |
//! | `wire` | plain or TLS; what was read to tell HTTP/1 from HTTP/2; closing in two steps |
//! | `service` | which requests are model calls, which are others' |
//! | `model` | one model call, from head to answer |
//! | `body` | the body, bounded in bytes and time |
//! | `answer` | the one place where refusals become HTTP |
//! | `cors` | pages on other origins |
//! | `access` | the access event and the figures of a call |
//! | `admin` | `/live`, `/ready`, `/metrics` |

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{Either, Full, combinators::UnsyncBoxBody};
use hyper::{Request, Response};
use millgate_contract::refusal::Refusal;
use tower::util::BoxCloneSyncService;

pub use crate::gate::CallerBody;

pub(crate) mod accept;
mod access;
mod addresses;
pub(crate) mod admin;
mod answer;
mod body;
mod cors;
mod model;
mod opening;
mod service;
mod socket;
mod want;
mod wire;

/// Whatever a body of somebody else's may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer that is not the gateway's own.
pub type FallbackBody = UnsyncBoxBody<Bytes, BoxError>;
/// Answers every request that is not a model call: the control API and the dashboard.
pub type Fallback = BoxCloneSyncService<Request<CallerBody>, Response<FallbackBody>, Infallible>;

/// The paths of models, on any host.
pub(crate) const MODEL_PATHS: [&str; 2] = ["/model", "/api/altus-ds-1/models/call-model"];

/// Any answer's body.
pub(crate) type Body = Either<Full<Bytes>, FallbackBody>;

/// For a gateway alone: everything that is not a model call is `404`.
pub fn no_fallback() -> Fallback {
    Fallback::new(tower::service_fn(|_: Request<CallerBody>| async {
        let (parts, body) = answer::refusal(&Refusal::NotFound, None).into_parts();
        Ok(Response::from_parts(
            parts,
            UnsyncBoxBody::new(http_body_util::BodyExt::map_err(body, Into::into)),
        ))
    }))
}
