//! The control API as what a gateway gives every request that is not a model call.

use std::convert::Infallible;

use axum::{Router, body::Body};
use http_body_util::BodyExt;
use hyper::{Request, body::Incoming};
use millgate_gateway::Fallback;
use tower::{ServiceExt, util::BoxCloneSyncService};

/// The router as a gateway's fallback.
pub(crate) fn of(router: Router) -> Fallback {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let response = router.oneshot(request.map(Body::new)).await?;
            Ok::<_, Infallible>(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        }
    }))
}
