//! The only place where statuses, codes and error bodies are made. An internal cause goes to the log and not out.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::fault::Fault;

/// A success, with notes on what was ignored.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Value,
    unknown: Vec<String>,
}

/// What handlers return.
pub(crate) type Answered = Result<Answer, Fault>;

impl Answer {
    /// A body.
    pub(crate) fn of(body: Value) -> Self {
        Self { body, unknown: Vec::new() }
    }

    /// `{}`: of deletions.
    pub(crate) fn empty() -> Self {
        Self::of(json!({}))
    }

    /// Names fields that were ignored.
    pub(crate) fn ignoring(mut self, unknown: Vec<String>) -> Self {
        self.unknown = unknown;
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = json_response(StatusCode::OK, &self.body);
        if !self.unknown.is_empty() {
            // Names come from the caller: whatever does not belong in a header is replaced, and the text is bounded.
            let names: String = self
                .unknown
                .join(", ")
                .chars()
                .map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '?' })
                .take(1_000)
                .collect();
            let text = format!("299 millgate \"unknown fields are ignored: {names}\"");
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(header::WARNING, value);
            }
        }
        response
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        if let Fault::Internal(source) | Fault::Unavailable(_, source) = &self {
            tracing::error!(error = &**source as &dyn std::error::Error, "a request failed");
        }
        let (status, code) = code(&self);
        failure(status, code, &self.to_string())
    }
}

/// HTTP status and gRPC code.
fn code(fault: &Fault) -> (StatusCode, u8) {
    match fault {
        Fault::Invalid(_) => (StatusCode::BAD_REQUEST, 3),
        Fault::NotFound(_) => (StatusCode::NOT_FOUND, 5),
        Fault::AlreadyExists(_) => (StatusCode::CONFLICT, 6),
        Fault::Denied(_) => (StatusCode::FORBIDDEN, 7),
        Fault::Exhausted(_) => (StatusCode::TOO_MANY_REQUESTS, 8),
        Fault::Precondition(_) => (StatusCode::BAD_REQUEST, 9),
        Fault::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, 3),
        Fault::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, 13),
        Fault::Unavailable(..) => (StatusCode::SERVICE_UNAVAILABLE, 14),
        Fault::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, 16),
    }
}

/// A path that is there, with another method.
pub(crate) fn method_not_allowed() -> Response {
    failure(StatusCode::METHOD_NOT_ALLOWED, 12, "this path does not take this method")
}

fn failure(status: StatusCode, code: u8, message: &str) -> Response {
    json_response(status, &json!({ "error": message, "code": code, "message": message, "details": [] }))
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::outage::Outage;

    #[tokio::test]
    async fn every_fault_has_its_status_code_and_body() {
        let text = || "model \"x\"".to_owned();
        let cause = || Box::new(std::io::Error::other("secret path"));
        let faults = [
            Fault::Invalid(text()),
            Fault::NotFound(text()),
            Fault::AlreadyExists(text()),
            Fault::Denied(text()),
            Fault::Exhausted(text()),
            Fault::Precondition(text()),
            Fault::TooLarge(text()),
            Fault::Internal(cause()),
            Fault::Unavailable(Outage::DiskFull, cause()),
            Fault::Unauthenticated(text()),
        ];
        let mut lines = Vec::new();
        for fault in faults {
            let response = fault.into_response();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            lines.push(format!("{} {}", status.as_u16(), String::from_utf8_lossy(&body)));
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn ignored_fields_are_named_in_a_header_that_cannot_be_broken_out_of() {
        let unknown = vec!["colour".to_owned(), "a\r\nSet-Cookie: x\"".to_owned()];
        let response = Answer::empty().ignoring(unknown).into_response();
        assert_eq!(
            response.headers()[header::WARNING],
            "299 millgate \"unknown fields are ignored: colour, a??Set-Cookie: x?\""
        );
    }
}
