//! The id of one HTTP request: the caller's if it is well formed, else a new one that no other request of any gateway
//! has. It tells requests apart and promises no more, so that it costs no system call.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::{HeaderMap, header::HeaderName};
use millgate_contract::ids::{RequestId, is_request_id};

/// The header, in and out.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// New ids: the gateway's random half and a count.
pub(crate) struct RequestIds {
    half: u64,
    count: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        let (half, count) = uuid::Uuid::new_v4().as_u64_pair();
        Self { half, count: AtomicU64::new(count) }
    }

    /// The id of a request with these headers.
    pub(crate) fn of(&self, headers: &HeaderMap) -> RequestId {
        let given = headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_request_id(id));
        given.map_or_else(
            || {
                RequestId::new(format!(
                    "{:016x}{:016x}",
                    self.half,
                    self.count.fetch_add(1, Ordering::Relaxed)
                ))
            },
            RequestId::new,
        )
    }
}
