//! API v2 and the old interface: routes and what stands before each. A handler reads its fields, asks for access, calls the store, shows a
//! view; statuses and codes are made in `answer` alone.

mod answer;
mod builds;
mod caller;
mod deployments;
mod fields;
mod file_move;
mod files;
mod follow;
mod keys;
mod latest;
mod models;
mod old;
mod policies;
mod projects;
mod query;
mod source;
#[cfg(test)]
mod tests;

mod users;
mod views;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post, put},
};

use crate::{app::App, fault::Fault};

/// Everything under `/api/v2`.
pub(crate) fn router(app: App) -> Router {
    const PROJECT: &str = "/api/v2/projects/{project_id}";
    const MODEL: &str = "/api/v2/projects/{project_id}/models/{model_id}";
    const BUILD: &str = "/api/v2/projects/{project_id}/models/{model_id}/builds/{build_id}";
    const DEPLOYMENT: &str =
        "/api/v2/projects/{project_id}/models/{model_id}/builds/{build_id}/deployments/{deployment_id}";
    const KEYS: &str = "/api/v2/users/{username}/v2_keys";
    let at = |base: &str, rest: &str| format!("{base}{rest}");
    Router::new()
        .route("/api/v2/projects", get(projects::list).post(projects::create))
        .route("/api/v2/projectnames", get(projects::names))
        .route(PROJECT, get(projects::show).patch(projects::update).delete(projects::delete))
        .route(&at(PROJECT, "/collaborators"), get(projects::collaborators))
        .route(
            &at(PROJECT, "/collaborators/{username}"),
            put(projects::add_collaborator).delete(projects::remove_collaborator),
        )
        .route(&at(PROJECT, "/files"), get(files::list_root).post(files::upload))
        .route(&at(PROJECT, "/files/"), get(files::list_root))
        .route(
            &at(PROJECT, "/files/{*path}"),
            get(files::list).delete(files::delete).post(files::download).patch(file_move::rename),
        )
        .route(&at(PROJECT, "/source"), put(source::replace))
        .route(&at(PROJECT, "/models"), get(models::list).post(models::create))
        .route("/api/v2/models", get(models::list_all))
        .route(MODEL, get(models::show).patch(models::update).delete(models::delete).post(models::act))
        .route(&at(MODEL, "/deployments"), get(models::deployments))
        .route(&at(MODEL, "/builds"), get(builds::list).post(builds::create))
        .route(BUILD, get(builds::show).delete(builds::delete))
        .route(&at(BUILD, "/log"), get(builds::log))
        .route(&at(BUILD, "/deployments"), get(deployments::list).post(deployments::create))
        .route(DEPLOYMENT, get(deployments::show).post(deployments::act))
        .route(&at(DEPLOYMENT, "/log"), get(deployments::log))
        .route(&at(DEPLOYMENT, "/replicas"), get(deployments::replicas))
        .route(KEYS, get(keys::list).post(keys::create).delete(keys::delete_all))
        .route(&at(KEYS, "/{key_id}"), axum::routing::delete(keys::delete))
        .route("/api/v2/auth/validate_key", post(keys::validate))
        .route("/api/v2/users/{username}", get(users::show))
        .route("/api/v2/runtimes", get(users::runtimes))
        .merge(old::router())
        .fallback(async || Fault::NotFound("there is no such path".to_owned()))
        .method_not_allowed_fallback(async || answer::method_not_allowed())
        // Each reader of a body has a bound of its own.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}
