//! API v2 and the old interface: what stands before each route, and what it does. A handler reads its fields, calls the
//! store, shows a view; who may call it is in the list of operations (`routes`), statuses and codes are made in `answer`.

pub(crate) mod address;
mod answer;
mod audit;
mod builds;
mod caller;
mod calls;
mod client_package;
mod collaborators;
mod deployments;
mod document;
mod environment;
mod fields;
mod file_move;
mod files;
mod follow;
mod guard;
mod keys;
mod latest;
mod login;
mod metrics;
mod models;
mod old;
pub(crate) mod operation;
mod policies;
mod profiles;
mod projects;
mod query;
mod routes;
mod runtimes;
mod source;
mod teams;
#[cfg(test)]
mod tests;
mod users;
mod views;

use std::{collections::BTreeMap, convert::Infallible};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use tower::ServiceExt;

use self::caller::Action;
#[cfg(test)]
pub(crate) use self::{document::conformance, fields::asked};
use crate::{app::App, fault::Fault};

/// Every operation.
pub(crate) fn router(app: App) -> Router {
    let mut router = Router::new();
    let mut actions: BTreeMap<String, Vec<Deed>> = BTreeMap::new();
    for route in routes::all() {
        let (path, action, alias) = (route.operation.router_path(), route.operation.action(), route.alias);
        let handler = guard::stand_before(&app, route);
        match action {
            None => {
                if let Some(alias) = alias {
                    router = router.route(alias, handler.clone());
                }
                router = router.route(&path, handler);
            }
            Some(action) => {
                let handler = handler.with_state(app.clone());
                actions.entry(path).or_default().push(Deed { action: Action(action), handler });
            }
        }
    }
    for (path, deeds) in actions {
        router = router.route(&path, post(async move |request: Request| choose(deeds, request).await));
    }
    router
        .fallback(async || Fault::NotFound("there is no such path".to_owned()))
        .method_not_allowed_fallback(async || answer::method_not_allowed())
        // Each reader of a body has a bound of its own.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// What is done at a path that ends in an action.
#[derive(Clone)]
struct Deed {
    action: Action,
    handler: MethodRouter<(), Infallible>,
}

/// `{id}:stop` is one segment for the router, so whose it is, is found here.
async fn choose(deeds: Vec<Deed>, mut request: Request) -> Response {
    let path = request.uri().path();
    let Some(Deed { action, handler }) = deeds.iter().find(|deed| path.ends_with(deed.action.0)).cloned()
    else {
        let names: Vec<&str> = deeds.iter().map(|deed| deed.action.0).collect();
        return Fault::NotFound(format!("what is posted here ends in {}", names.join(" or ")))
            .into_response();
    };
    request.extensions_mut().insert(action);
    handler.oneshot(request).await.unwrap_or_else(|never| match never {})
}
