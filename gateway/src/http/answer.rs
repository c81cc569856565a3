//! The one place where what the gateway decides becomes HTTP.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use millgate_contract::{
    envelope,
    ids::{ReplicaId, RequestId},
    refusal::Refusal,
};

use super::Body;
use crate::request_id::X_REQUEST_ID;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A `200` with this envelope.
pub(super) fn success(envelope: Vec<u8>) -> Response<Body> {
    json(StatusCode::OK, envelope)
}

/// A refusal in its envelope.
pub(super) fn refusal(refusal: &Refusal, replica: Option<&ReplicaId>) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.status()).expect("the table of refusals holds statuses");
    let mut response = json(status, envelope::failure(refusal, replica));
    let headers = response.headers_mut();
    if let Some(seconds) = refusal.retry_after_s() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    match refusal {
        Refusal::MethodNotAllowed => {
            headers.insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
        }
        // The rest of the body is not read, so nothing can follow it.
        Refusal::TooLarge | Refusal::Slow => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

/// An answer of plain text.
pub(super) fn text(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Tells an HTTP/1 caller that this connection ends with this answer.
pub(super) fn set_last<B>(response: &mut Response<B>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Names the request in its answer.
pub(super) fn set_request_id<B>(response: &mut Response<B>, id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}
