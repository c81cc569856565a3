//! Parameters, bodies and definitions in the terms of Swagger 2.0.

use serde_json::{Map, Value, json};

use super::definitions::{self, Definition, Field, Kind};
use crate::http::operation::{Answers, Operation, Takes};

/// Every written definition, and the error.
pub(super) fn definitions() -> Map<String, Value> {
    let mut all: Map<String, Value> =
        definitions::all().map(|definition| (definition.name.to_owned(), object(definition))).collect();
    all.insert(
        "Error".to_owned(),
        json!({
            "type": "object",
            "properties": {
                "error": { "type": "string", "description": "the message again" },
                "code": { "type": "integer", "format": "int32", "description": "the gRPC code" },
                "message": { "type": "string", "description": "for people: field, value and rule" },
                "details": { "type": "array", "items": { "type": "object" } },
            },
        }),
    );
    all
}

/// The definition of an answer that is made of its operation alone.
pub(super) fn answer_definition(operation: &Operation) -> Option<(String, Value)> {
    let name = format!("{}Response", operation.name);
    match operation.answers {
        Answers::Nothing => Some((name, json!({ "type": "object", "properties": {} }))),
        Answers::List { field, of, is_paged } => {
            let items = if of.is_empty() { json!({ "type": "string" }) } else { reference(of) };
            let mut properties = json!({ field: { "type": "array", "items": items } });
            if is_paged {
                properties["next_page_token"] =
                    json!({ "type": "string", "description": "of the next page; empty on the last" });
            }
            Some((name, json!({ "type": "object", "properties": properties })))
        }
        Answers::Json(_) | Answers::Any | Answers::Events | Answers::File(_) => None,
    }
}

/// What a success is.
pub(super) fn success(operation: &Operation) -> Value {
    let schema = match operation.answers {
        Answers::Json(name) => reference(name),
        Answers::Nothing | Answers::List { .. } => reference(&format!("{}Response", operation.name)),
        Answers::Any => json!({}),
        Answers::Events => json!({ "type": "string" }),
        Answers::File(_) => json!({ "type": "file" }),
    };
    json!({ "description": "done", "schema": schema })
}

/// The body first, then the path in order, then the query: generators make arguments of them in this order.
pub(super) fn parameters(operation: &Operation) -> Vec<Value> {
    let mut parameters = Vec::new();
    match operation.takes {
        Takes::Nothing => {}
        Takes::Json(name) => parameters
            .push(json!({ "name": "body", "in": "body", "required": true, "schema": reference(name) })),
        Takes::Object => parameters.push(
            json!({ "name": "body", "in": "body", "required": true, "schema": { "type": "object" } }),
        ),
        Takes::Files => parameters.push(json!({
            "name": "file", "in": "formData", "required": true, "type": "file",
            "description": "the key of each part is the path of its file",
        })),
        Takes::Archive => parameters.push(json!({
            "name": "body", "in": "body", "required": true, "schema": { "type": "string", "format": "binary" },
        })),
    }
    for name in operation.path_parameters() {
        parameters.push(json!({ "name": name, "in": "path", "required": true, "type": "string" }));
    }
    for parameter in &operation.query {
        parameters.push(json!({
            "name": parameter.name, "in": "query", "required": false, "type": parameter.kind,
            "description": parameter.about,
        }));
    }
    parameters
}

fn object(definition: &Definition) -> Value {
    let properties: Map<String, Value> =
        definition.fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    // Objects in JSON have no order; clients take values by position.
    let order: Vec<&str> = definition.fields.iter().map(|field| field.name).collect();
    json!({ "type": "object", "properties": properties, "x-order": order })
}

fn property(field: &Field) -> Value {
    let mut property = match field.kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::Integer => json!({ "type": "integer", "format": "int64" }),
        Kind::Wide => json!({ "type": "string", "format": "int64" }),
        Kind::Number => json!({ "type": "number", "format": "double" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Variables => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Any => json!({ "type": "object" }),
        Kind::Of(name) => reference(name),
        Kind::List(name) => json!({ "type": "array", "items": reference(name) }),
    };
    if field.is_optional || field.kind == Kind::Time {
        property["x-nullable"] = json!(true);
    }
    if !field.about.is_empty() && !matches!(field.kind, Kind::Of(_)) {
        property["description"] = json!(field.about);
    }
    property
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{name}") })
}
