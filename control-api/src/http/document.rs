//! The API document: Swagger 2.0, since the public client is generated from one and its generator makes names of operation
//! ids and definitions that version 3 would move. Made of the list of operations and the definitions, the same each time;
//! `control-api/openapi.json` is a copy for readers and for the Python client, and a test keeps it one.

#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod definitions;
mod schema;

use std::sync::LazyLock;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use serde_json::{Map, Value, json};

use super::{
    operation::{Answers, Operation, Takes},
    routes,
};

/// The page to read it and to try it: no part of it comes from elsewhere.
const PAGE: &str = include_str!("document/page.html");
/// The page runs its own script, speaks to this server, and nothing else.
const PAGE_POLICY: &str =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'";

/// The document as text.
pub(crate) static TEXT: LazyLock<String> = LazyLock::new(|| {
    let operations: Vec<Operation> = routes::all().into_iter().map(|route| route.operation).collect();
    format!("{:#}\n", make(&operations))
});

pub(crate) async fn show() -> Response {
    file("application/json", TEXT.as_str())
}

pub(crate) async fn page() -> Response {
    let mut response = file("text/html; charset=utf-8", PAGE);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn file(media_type: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn make(operations: &[Operation]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut schemas: Map<String, Value> = schema::definitions();
    for operation in operations {
        let at = paths.entry(operation.path).or_insert_with(|| json!({}));
        at[operation.method.as_str().to_lowercase()] = shown(operation);
        if let Some((name, schema)) = schema::answer_definition(operation) {
            schemas.insert(name, schema);
        }
    }
    json!({
        "swagger": "2.0",
        "info": {
            "title": "Millgate API v2",
            "description": "Python functions as REST endpoints.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "securityDefinitions": {
            "ApiKey": { "type": "apiKey", "in": "header", "name": "Authorization",
                        "description": "`Bearer` and an API key" },
        },
        "security": [{ "ApiKey": [] }],
        "paths": paths,
        "definitions": schemas,
    })
}

fn shown(operation: &Operation) -> Value {
    let mut shown = json!({
        "operationId": operation.name,
        "tags": [if operation.is_old() { "OldInterface" } else { "CMLService" }],
        "summary": operation.about,
        "parameters": schema::parameters(operation),
        "responses": {
            "200": schema::success(operation),
            "default": { "description": "what was wrong", "schema": { "$ref": "#/definitions/Error" } },
        },
    });
    match operation.takes {
        Takes::Files => shown["consumes"] = json!(["multipart/form-data"]),
        Takes::Archive => shown["consumes"] = json!(["application/x-tar"]),
        Takes::Nothing | Takes::Json(_) | Takes::Object => {}
    }
    match operation.answers {
        Answers::Events => shown["produces"] = json!(["text/event-stream"]),
        Answers::File(media_type) => shown["produces"] = json!([media_type]),
        Answers::Nothing | Answers::Json(_) | Answers::List { .. } | Answers::Any => {}
    }
    if operation.needs == super::operation::Needs::Nothing {
        shown["security"] = json!([]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, path::Path};

    use super::*;

    /// `MILLGATE_UPDATE=1 cargo nextest run -p millgate-control-api openapi` writes it anew.
    #[test]
    fn the_committed_openapi_document_is_the_one_that_is_served() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        if std::env::var_os("MILLGATE_UPDATE").is_some() {
            fs::write(&path, TEXT.as_str()).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == *TEXT,
            "control-api/openapi.json is not what the operations say; write it anew with \
             `MILLGATE_UPDATE=1 cargo nextest run -p millgate-control-api openapi` and look at the difference"
        );
    }

    #[test]
    fn every_name_is_defined_and_used_once() {
        let document: Value = serde_json::from_str(&TEXT).unwrap();
        let mut names = HashSet::new();
        for operation in routes::all().into_iter().map(|route| route.operation) {
            assert!(names.insert(operation.name), "two operations are {}", operation.name);
            assert!(!operation.about.is_empty(), "{} says nothing of itself", operation.name);
        }
        let mut definitions = HashSet::new();
        for definition in definitions::all() {
            assert!(definitions.insert(definition.name), "two definitions are {}", definition.name);
        }
        for reference in TEXT.split("\"#/definitions/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["definitions"][name].is_object(), "`{name}` is not defined");
        }
        for name in definitions {
            assert!(TEXT.contains(&format!("\"#/definitions/{name}\"")), "`{name}` is not used");
        }
    }
}
