//! Which requests are model calls, which are somebody else's. Every answer names its request.

use std::{convert::Infallible, sync::Arc};

use http_body_util::Either;
use hyper::{
    Request, Response,
    body::Incoming,
    header::{HOST, HeaderValue},
};
use millgate_contract::{ids::RequestId, refusal::Refusal};
use tower::ServiceExt;

use super::{Body, Fallback, answer, model};
use crate::{gateway::Inner, request_id::X_REQUEST_ID};

/// The paths of models, on any host.
const MODEL_PATHS: [&str; 2] = ["/model", "/api/altus-ds-1/models/call-model"];
/// Hosts that serve nothing but models.
const MODEL_HOST_PREFIX: &str = "modelservice.";

/// Answers one request.
pub(super) async fn answer(
    inner: Arc<Inner>,
    other: Fallback,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let id = inner.request_ids.of(request.headers());
    let mut response = if MODEL_PATHS.contains(&request.uri().path()) {
        model::answer(&inner, request, &id).await
    } else if is_model_host(&request) {
        answer::refusal(&Refusal::NotFound, None)
    } else {
        pass_on_id(&mut request, &id);
        other.oneshot(request).await?.map(Either::Right)
    };
    answer::set_request_id(&mut response, &id);
    Ok(response)
}

fn is_model_host(request: &Request<Incoming>) -> bool {
    let host = request.uri().host().or_else(|| request.headers().get(HOST)?.to_str().ok()).unwrap_or("");
    host.get(..MODEL_HOST_PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(MODEL_HOST_PREFIX))
}

fn pass_on_id(request: &mut Request<Incoming>, id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        request.headers_mut().insert(X_REQUEST_ID, value);
    }
}
