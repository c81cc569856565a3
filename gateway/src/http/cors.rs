//! Pages on other origins that call models. Credentials are never allowed for: a page sends its keys by itself.

use hyper::{
    HeaderMap, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderValue, ORIGIN, VARY,
    },
};

use super::{Body, answer};
use crate::config::CorsOrigins;

/// The answer to `OPTIONS`: what a page may send, if its origin is allowed at all.
pub(super) fn preflight(origins: &CorsOrigins, request: &HeaderMap) -> Response<Body> {
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    if allow(origins, request, response.headers_mut()) {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        let allowed = "authorization, content-type, traceparent, x-request-id";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

/// Lets the page read an answer, if its origin is allowed.
pub(super) fn expose(origins: &CorsOrigins, request: &HeaderMap, response: &mut Response<Body>) {
    if allow(origins, request, response.headers_mut()) {
        let exposed = HeaderValue::from_static("ratelimit, ratelimit-policy, retry-after, x-request-id");
        response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

fn allow(origins: &CorsOrigins, request: &HeaderMap, response: &mut HeaderMap) -> bool {
    let Some(origin) = request.get(ORIGIN) else { return false };
    let allowed = match origins {
        CorsOrigins::Nowhere => return false,
        CorsOrigins::Anywhere => HeaderValue::from_static("*"),
        CorsOrigins::Listed(listed) => {
            response.insert(VARY, HeaderValue::from_static("origin"));
            if !listed.iter().any(|o| o.as_bytes() == origin.as_bytes()) {
                return false;
            }
            origin.clone()
        }
    };
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    true
}
