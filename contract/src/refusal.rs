//! The error table of a call: one variant per code, and nowhere else a status or a code.

use std::borrow::Cow;

/// Why a call was not answered with success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The body is not what the contract says; the text says what is wrong and where.
    Malformed(Cow<'static, str>),
    /// No access key, or no model has it.
    AccessKeyInvalid,
    /// Authentication is enabled and no API key came with the call.
    ApiKeyRequired,
    /// The API key is wrong, expired or deleted: one body for all.
    ApiKeyInvalid,
    /// A good key whose user may not call this model.
    ApiKeyForbidden,
    /// Head or body did not arrive in time.
    Slow,
    /// The body is over [`crate::limits::BODY_BYTES_MAX`].
    TooLarge,
    /// The request target is over [`crate::limits::TARGET_BYTES_MAX`].
    TargetTooLong,
    /// The head is over [`crate::limits::HEAD_BYTES_MAX`] or [`crate::limits::HEADERS_MAX`].
    HeadTooLarge,
    /// A call without a word on how long its body is.
    LengthRequired,
    /// A transfer coding other than `chunked`.
    CodingUnsupported,
    /// A version of HTTP that is not spoken here.
    VersionUnsupported,
    /// No replica came free in time, or the line is full.
    Busy,
    /// Over the key's or the model's rate; seconds until it may be tried again.
    RateLimited {
        /// Seconds to wait, at least 1.
        retry_after_s: u64,
    },
    /// The function raised; exception type and text, bounded, never a traceback.
    FunctionException(String),
    /// The return value is not JSON, or too large; what was wrong with it.
    FunctionBadOutput(String),
    /// The replica died while it ran this call.
    ReplicaCrashed,
    /// No active deployment, stopped, or its replicas cannot start; which of them.
    Unavailable(Cow<'static, str>),
    /// The function ran longer than the model's request timeout, in milliseconds.
    Timeout {
        /// The limit that was passed.
        limit_ms: u64,
    },
    /// Nothing is served under this path.
    NotFound,
    /// The path is a model's, the method is not `POST`.
    MethodNotAllowed,
    /// The gateway itself failed; the cause is in its log under the request id.
    Internal,
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::AccessKeyInvalid | Self::ApiKeyRequired | Self::ApiKeyInvalid => 401,
            Self::ApiKeyForbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Slow => 408,
            Self::LengthRequired => 411,
            Self::TooLarge => 413,
            Self::TargetTooLong => 414,
            Self::Busy | Self::RateLimited { .. } => 429,
            Self::HeadTooLarge => 431,
            Self::FunctionException(_) | Self::FunctionBadOutput(_) | Self::Internal => 500,
            Self::CodingUnsupported => 501,
            Self::ReplicaCrashed => 502,
            Self::Unavailable(_) => 503,
            Self::Timeout { .. } => 504,
            Self::VersionUnsupported => 505,
        }
    }

    /// The code programs match on; it never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "request.malformed",
            Self::AccessKeyInvalid => "access_key.invalid",
            Self::ApiKeyRequired => "api_key.required",
            Self::ApiKeyInvalid => "api_key.invalid",
            Self::ApiKeyForbidden => "api_key.forbidden",
            Self::Slow => "request.slow",
            Self::TooLarge => "request.too_large",
            Self::TargetTooLong => "request.target_too_long",
            Self::HeadTooLarge => "request.head_too_large",
            Self::LengthRequired => "request.length_required",
            Self::CodingUnsupported => "request.coding_unsupported",
            Self::VersionUnsupported => "request.version_unsupported",
            Self::Busy => "model.busy",
            Self::RateLimited { .. } => "rate.limited",
            Self::FunctionException(_) => "function.exception",
            Self::FunctionBadOutput(_) => "function.bad_output",
            Self::ReplicaCrashed => "replica.crashed",
            Self::Unavailable(_) => "model.unavailable",
            Self::Timeout { .. } => "model.timeout",
            Self::NotFound => "request.not_found",
            Self::MethodNotAllowed => "request.method",
            Self::Internal => "gateway.internal",
        }
    }

    /// What a person reads, with a hint where something can be done.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::AccessKeyInvalid => {
                "no model has this access key; send the model's key as `accessKey` in the body or in the query".into()
            }
            Self::ApiKeyRequired => {
                "this model requires an API key; send it as `Authorization: Bearer <API key>`".into()
            }
            Self::ApiKeyInvalid => "the API key is not valid; create a new one and try again".into(),
            // The words of the original, which existing clients search for.
            Self::ApiKeyForbidden => "User APikey not authorized to access model: Check APIKEY permissions or model \
                                      authentication permissions"
                .into(),
            Self::Slow => "the request did not arrive in time".into(),
            Self::TooLarge => {
                format!("the body is larger than {} bytes", crate::limits::BODY_BYTES_MAX).into()
            }
            Self::TargetTooLong => {
                format!("the request target is longer than {} bytes", crate::limits::TARGET_BYTES_MAX).into()
            }
            Self::HeadTooLarge => format!(
                "the head is larger than {} bytes or has more than {} headers",
                crate::limits::HEAD_BYTES_MAX,
                crate::limits::HEADERS_MAX
            )
            .into(),
            Self::LengthRequired => "the length of the body is missing; send `Content-Length`".into(),
            Self::CodingUnsupported => "the only transfer coding spoken here is `chunked`".into(),
            Self::VersionUnsupported => "HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here".into(),
            Self::Busy => "no replica came free in time; try again later or add replicas".into(),
            Self::RateLimited { retry_after_s } => {
                format!("too many calls; try again in {retry_after_s} s").into()
            }
            Self::FunctionException(what) => format!("unexpected model shutdown: {what}").into(),
            Self::FunctionBadOutput(what) => what.clone().into(),
            Self::ReplicaCrashed => "unexpected model shutdown".into(),
            Self::Malformed(what) | Self::Unavailable(what) => what.clone(),
            Self::Timeout { limit_ms } => {
                format!("the function ran longer than the request timeout of {limit_ms} ms").into()
            }
            Self::NotFound => "nothing is served under this path; models are called at `/model`".into(),
            Self::MethodNotAllowed => "a model is called by `POST`".into(),
            Self::Internal => "the gateway failed; its log names the cause under this request id".into(),
        }
    }

    /// Seconds for `Retry-After`, where the answer carries it.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Busy => Some(1),
            Self::Unavailable(_) => Some(5),
            Self::RateLimited { retry_after_s } => Some((*retry_after_s).max(1)),
            _ => None,
        }
    }

    /// One of each, for tables and tests.
    pub fn all() -> Vec<Self> {
        vec![
            Self::Malformed("the body is not JSON".into()),
            Self::AccessKeyInvalid,
            Self::ApiKeyRequired,
            Self::ApiKeyInvalid,
            Self::ApiKeyForbidden,
            Self::Slow,
            Self::TooLarge,
            Self::TargetTooLong,
            Self::HeadTooLarge,
            Self::LengthRequired,
            Self::CodingUnsupported,
            Self::VersionUnsupported,
            Self::Busy,
            Self::RateLimited { retry_after_s: 3 },
            Self::FunctionException("ValueError: no".into()),
            Self::FunctionBadOutput("the function returned `NaN`, which JSON cannot hold".into()),
            Self::ReplicaCrashed,
            Self::Unavailable("the model is stopped".into()),
            Self::Timeout { limit_ms: 30_000 },
            Self::NotFound,
            Self::MethodNotAllowed,
            Self::Internal,
        ]
    }
}
