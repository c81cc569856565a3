//! What stands before every handler: whose key it is, and whether they may. What an operation needs is written in the list
//! of operations, so a handler that is reached is one whose caller may reach it.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    caller::{Caller, authenticate},
    operation::{Needs, Operation, Route},
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
};

/// The handler of a route behind its guard.
pub(super) fn stand_before(app: &App, route: Route) -> MethodRouter<App> {
    let (app, operation) = (app.clone(), Arc::new(route.operation));
    route.handler.layer(middleware::from_fn(move |request: Request, next: Next| {
        let (app, operation) = (app.clone(), operation.clone());
        async move { pass(&app, operation, request, next).await }
    }))
}

async fn pass(app: &App, operation: Arc<Operation>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut response = match admit(app, &operation, &mut parts).await {
        Ok(caller) => {
            if let Some(caller) = caller {
                parts.extensions.insert(caller);
            }
            next.run(Request::from_parts(parts, body)).await
        }
        Err(fault) => fault.into_response(),
    };
    // Tests compare each answer with what the operation says of it.
    response.extensions_mut().insert(operation);
    response
}

/// The caller, where the operation needs one.
async fn admit(app: &App, operation: &Operation, parts: &mut Parts) -> Outcome<Option<Caller>> {
    if operation.needs == Needs::Nothing {
        return Ok(None);
    }
    let no_key = || Fault::Unauthenticated("no API key: send `Authorization: Bearer <key>`".to_owned());
    let key = sent_key(&parts.headers, operation).ok_or_else(no_key)?;
    let wrong = |_| Fault::Unauthenticated("the API key is wrong, expired or deleted".to_owned());
    let caller = Caller { user: authenticate(app, &key, "API").await?.map_err(wrong)? };
    let named = path_names(parts).await?;
    let name = |parameter: &str| {
        let found = named.iter().find(|(name, _)| name == parameter);
        found
            .map(|(_, value)| value.as_str())
            .ok_or_else(|| Fault::internal(format!("the path of {} has no {{{parameter}}}", operation.name)))
    };
    match operation.needs {
        Needs::Nothing | Needs::Key | Needs::RightByBody(_) => {}
        Needs::Right(right) => {
            caller.project(app, name("project_id")?, right.least()).await?;
        }
        Needs::Oneself => {
            let username = name("username")?;
            if caller.user.username.as_str() != username && !caller.is_administrator() {
                return Err(Fault::missing("user", username));
            }
        }
        Needs::Administrator => {
            if !caller.is_administrator() {
                return Err(Fault::Denied(format!(
                    "`{}` is not an administrator of this server",
                    caller.user.username
                )));
            }
        }
    }
    Ok(Some(caller))
}

async fn path_names(parts: &mut Parts) -> Outcome<Vec<(String, String)>> {
    let names = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| Fault::NotFound("there is no such path".to_owned()))?;
    Ok(names.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// The API key of a request. In the old interface it may be the user of `Basic`, too.
fn sent_key(headers: &HeaderMap, operation: &Operation) -> Option<String> {
    let sent = headers.get(header::AUTHORIZATION)?;
    bearer(sent).or_else(|| if operation.is_old() { user_of_basic(sent) } else { None })
}

/// The key of `Authorization: Bearer`.
pub(super) fn bearer(sent: &HeaderValue) -> Option<String> {
    let (scheme, key) = sent.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_owned())
}

fn user_of_basic(sent: &HeaderValue) -> Option<String> {
    let (scheme, encoded) = sent.to_str().ok()?.split_once(' ')?;
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
        let user = |text| user_of_basic(&HeaderValue::from_static(text));
        assert_eq!(user("Basic a2V5Og==").as_deref(), Some("key"));
        assert_eq!(user("basic a2V5OnB3").as_deref(), Some("key"));
        assert_eq!(user("Basic !"), None);
        assert_eq!(user("Bearer a2V5Og=="), None);
    }
}
