//! Which requests are model calls, which are somebody else's. Every answer names its request.

use std::{convert::Infallible, sync::Arc};

use http_body_util::Either;
use hyper::{
    Request, Response, Version,
    header::{HOST, HeaderValue},
};
use millgate_contract::{ids::RequestId, refusal::Refusal};
use tower::ServiceExt;

use super::{Body, CallerBody, Fallback, MODEL_PATHS, answer, model};
use crate::{gate::Fault, gateway::Inner, request_id::X_REQUEST_ID};

/// Hosts that serve nothing but models.
const MODEL_HOST_PREFIX: &str = "modelservice.";

/// Answers one request.
pub(super) async fn answer(
    inner: Arc<Inner>,
    other: Fallback,
    mut request: Request<CallerBody>,
) -> Result<Response<Body>, Infallible> {
    let id = inner.request_ids.of(request.headers());
    let is_http1 = request.version() < Version::HTTP_2;
    let refused = request.extensions_mut().remove::<Fault>();
    let mut response = if let Some(fault) = refused {
        refuse(&inner, fault)
    } else if inner.config.serves_calls && MODEL_PATHS.contains(&request.uri().path()) {
        model::answer(&inner, request, &id).await
    } else if inner.config.serves_calls && is_model_host(&request) {
        answer::refusal(&Refusal::NotFound, None)
    } else {
        pass_on_id(&mut request, &id);
        let caller = request.body().caller();
        request.extensions_mut().insert(caller);
        other.oneshot(request).await?.map(Either::Right)
    };
    answer::set_request_id(&mut response, &id);
    if is_http1 && inner.is_draining() {
        // The caller's next request belongs to whoever serves then.
        answer::set_last(&mut response);
    }
    Ok(response)
}

/// What the gate refuses is counted; it is nobody's call yet.
fn refuse(inner: &Inner, fault: Fault) -> Response<Body> {
    let refusal = Refusal::from(fault);
    inner.metrics.count_unrouted(refusal.code());
    tracing::debug!(code = refusal.code(), %fault, "request refused unread");
    answer::refusal(&refusal, None)
}

fn is_model_host(request: &Request<CallerBody>) -> bool {
    let host = request.uri().host().or_else(|| request.headers().get(HOST)?.to_str().ok()).unwrap_or("");
    host.get(..MODEL_HOST_PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(MODEL_HOST_PREFIX))
}

fn pass_on_id(request: &mut Request<CallerBody>, id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        request.headers_mut().insert(X_REQUEST_ID, value);
    }
}
