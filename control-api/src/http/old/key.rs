//! Who calls the old interface: `Bearer` as everywhere, or `Basic` with the key as user and nothing as password.

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, header, request::Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{app::App, fault::Outcome, http::caller::Caller};

/// An authenticated user of the old interface.
#[derive(Debug)]
pub(crate) struct OldCaller(pub(crate) Caller);

impl FromRequestParts<App> for OldCaller {
    type Rejection = crate::fault::Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Outcome<Self> {
        let sent = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(key) = sent.and_then(user_of_basic)
            && let Ok(bearer) = HeaderValue::from_str(&format!("Bearer {key}"))
        {
            parts.headers.insert(header::AUTHORIZATION, bearer);
        }
        Ok(Self(Caller::from_request_parts(parts, app).await?))
    }
}

fn user_of_basic(value: &str) -> Option<String> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    Some(pair.split(':').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_basic_is_the_key() {
        assert_eq!(user_of_basic("Basic a2V5Og==").as_deref(), Some("key"));
        assert_eq!(user_of_basic("basic a2V5OnB3").as_deref(), Some("key"));
        assert_eq!(user_of_basic("Basic !"), None);
        assert_eq!(user_of_basic("Bearer a2V5Og=="), None);
    }
}
