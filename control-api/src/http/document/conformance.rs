//! Compares what handlers read and show with what the document says of them. The rig of the tests does so after each call,
//! so that a field cannot be added to an answer or a request and not to the document.

use serde_json::Value;

use super::definitions::{self, Definition, Kind};
use crate::http::operation::{Answers, Operation, Takes};

const WHERE: &str = "write it down in `http/document/definitions`";

/// What is wrong with a successful answer.
pub(crate) fn of_answer(operation: &Operation, body: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    match operation.answers {
        Answers::Json(name) => object(name, body, name, &mut wrong),
        Answers::Nothing if *body != serde_json::json!({}) => wrong.push(format!("{body} is not empty")),
        Answers::List { field, of, is_paged } => {
            let fields = body.as_object().expect("lists are objects");
            let expected = 1 + usize::from(is_paged);
            if fields.len() != expected || body[field].as_array().is_none() {
                wrong.push(format!("fields are {:?}", fields.keys().collect::<Vec<_>>()));
            }
            if is_paged && !body["next_page_token"].is_string() {
                wrong.push("`next_page_token` is missing".to_owned());
            }
            for item in body[field].as_array().into_iter().flatten().filter(|_| !of.is_empty()) {
                object(of, item, of, &mut wrong);
            }
        }
        Answers::Nothing | Answers::Any | Answers::Events | Answers::File(_) => {}
    }
    wrong.iter().map(|wrong| format!("answer of {}: {wrong}", operation.name)).collect()
}

fn object(name: &str, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let definition = definitions::named(name).unwrap_or_else(|| panic!("`{name}` is not defined: {WHERE}"));
    let Some(fields) = value.as_object() else {
        wrong.push(format!("`{at}` is not an object: {value}"));
        return;
    };
    for field in definition.fields {
        match fields.get(field.name) {
            Some(value) => check(field.kind, value, &format!("{at}.{}", field.name), wrong),
            None if field.is_optional => {}
            None => wrong.push(format!("`{at}.{}` is not in the answer", field.name)),
        }
    }
    for name in fields.keys() {
        if !definition.fields.iter().any(|field| field.name == name) {
            wrong.push(format!("`{at}.{name}` is not in the document: {WHERE}"));
        }
    }
}

fn check(kind: Kind, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let is_fine = match kind {
        Kind::Text => value.is_string(),
        Kind::Time => value.is_null() || value.is_string(),
        Kind::Integer => value.is_i64() || value.is_u64(),
        Kind::Wide => value.as_str().is_some_and(|text| text.parse::<i64>().is_ok()),
        Kind::Number => value.is_number(),
        Kind::Flag => value.is_boolean(),
        Kind::Texts => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
        Kind::Variables => value.as_object().is_some_and(|fields| fields.values().all(Value::is_string)),
        Kind::Any => true,
        Kind::Of(name) => {
            if !value.is_null() {
                object(name, value, at, wrong);
            }
            true
        }
        Kind::List(name) => {
            for item in value.as_array().into_iter().flatten() {
                object(name, item, at, wrong);
            }
            value.is_array()
        }
    };
    if !is_fine {
        wrong.push(format!("`{at}` is not {kind:?}: {value}"));
    }
}

/// What is wrong with the names of fields that a handler asked the body for. Of a success all were asked for.
pub(crate) fn of_request(operation: &Operation, asked: &[String], is_success: bool) -> Vec<String> {
    let definition = match operation.takes {
        Takes::Json(name) => {
            definitions::named(name).unwrap_or_else(|| panic!("`{name}` is not defined: {WHERE}"))
        }
        Takes::Nothing => &Definition { name: "", fields: &[] },
        Takes::Object | Takes::Files | Takes::Archive => return Vec::new(),
    };
    let unwritten = asked
        .iter()
        .filter(|name| !operation.also_takes.contains(&name.as_str()) && !is_written(definition, name))
        .map(|name| {
            format!("request of {}: `{name}` is read and not in the document: {WHERE}", operation.name)
        });
    let unread = definition
        .fields
        .iter()
        .filter(|field| is_success && !field.is_optional && !asked.iter().any(|name| name == field.name))
        .map(|field| {
            format!("request of {}: `{}` is in the document and not read", operation.name, field.name)
        });
    unwritten.chain(unread).collect()
}

fn is_written(definition: &Definition, name: &str) -> bool {
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let Some(field) = definition.fields.iter().find(|field| field.name == first) else { return false };
    match (rest, field.kind) {
        (None, _) => true,
        (Some(rest), Kind::Of(inner)) => {
            definitions::named(inner).is_some_and(|definition| is_written(definition, rest))
        }
        (Some(_), _) => false,
    }
}
