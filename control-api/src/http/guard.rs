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
    audit::Doing,
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
    let mut response = match attend(app, &operation, request, next).await {
        Ok(response) => response,
        Err(fault) => fault.into_response(),
    };
    // Tests compare each answer with what the operation says of it.
    response.extensions_mut().insert(operation);
    response
}

/// Lets a request in or not, and records what comes of it. Who has no good key is nobody to be recorded.
async fn attend(app: &App, operation: &Operation, mut request: Request, next: Next) -> Outcome<Response> {
    let caller = caller(app, operation, request.headers()).await?;
    let (mut parts, body) = request.into_parts();
    let named = path_names(&mut parts).await?;
    request = Request::from_parts(parts, body);
    let admitted = match &caller {
        Some(caller) => admit(app, operation, caller, &named).await,
        None => Ok(()),
    };
    let (mut doing, mut request) = Doing::begin(operation, request).await?;
    if let Some(doing) = &mut doing {
        doing.by(caller.as_ref().map(|caller| caller.user.username.as_str()), value_of(&named, "project_id"));
    }
    let response = match admitted {
        Ok(()) => {
            if let Some(doing) = &mut doing {
                doing.admit(app).await?;
            }
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(fault) => fault.into_response(),
    };
    match doing {
        Some(doing) => doing.end(app, response).await,
        None => Ok(response),
    }
}

/// Who calls, where the operation needs somebody.
async fn caller(app: &App, operation: &Operation, headers: &HeaderMap) -> Outcome<Option<Caller>> {
    if operation.needs == Needs::Nothing {
        return Ok(None);
    }
    let no_key = || Fault::Unauthenticated("no API key: send `Authorization: Bearer <key>`".to_owned());
    let key = sent_key(headers, operation).ok_or_else(no_key)?;
    let wrong = |_| Fault::Unauthenticated("the API key is wrong, expired or deleted".to_owned());
    Ok(Some(Caller { user: authenticate(app, &key, "API").await?.map_err(wrong)? }))
}

/// Refuses who may not do it.
async fn admit(app: &App, operation: &Operation, caller: &Caller, named: &Names) -> Outcome<()> {
    let name = |parameter: &str| {
        let missing = || Fault::internal(format!("the path of {} has no {{{parameter}}}", operation.name));
        value_of(named, parameter).ok_or_else(missing)
    };
    match operation.needs {
        Needs::Nothing | Needs::Key | Needs::RightByBody(_) => Ok(()),
        Needs::Right(right) => caller.project(app, name("project_id")?, right.least()).await.map(|_| ()),
        Needs::InTeam(right) => caller.team(app, name("team_name")?, right).await,
        Needs::Oneself => {
            let username = name("username")?;
            let may = caller.user.username.as_str() == username || caller.is_administrator();
            if may { Ok(()) } else { Err(Fault::missing("user", username)) }
        }
        Needs::Administrator if caller.is_administrator() => Ok(()),
        Needs::Administrator => {
            Err(Fault::Denied(format!("`{}` is not an administrator of this server", caller.user.username)))
        }
    }
}

/// Names in the path of a request, and what they are.
type Names = Vec<(String, String)>;

fn value_of<'a>(named: &'a Names, name: &str) -> Option<&'a str> {
    named.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

async fn path_names(parts: &mut Parts) -> Outcome<Names> {
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
