//! The JSON body of a request, read field by field: numbers are taken as text too, `null` is absent, what nobody asked
//! for is named at the end. Errors say field, value and rule.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
};
use http_body_util::{BodyExt, Limited};
use serde_json::{Map, Value};

use crate::{
    fault::{Fault, Outcome},
    names,
};

/// Bytes of a JSON body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of a user's name.
const USERNAME_BYTES_MAX: usize = 128;
/// Characters of a name.
const NAME_CHARS_MAX: usize = 255;

/// See the module. Any method may carry a body; none is `{}`.
#[derive(Debug)]
pub(crate) struct Fields {
    /// Of a nested object: its own name and a dot.
    prefix: String,
    map: Map<String, Value>,
    /// Fields of nested objects that nobody asked for.
    noted: Vec<String>,
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &S) -> Outcome<Self> {
        let body = read_body(request.into_body()).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::nested(String::new(), Map::new()));
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Object(map)) => Ok(Self::nested(String::new(), map)),
            Ok(other) => Err(Fault::Invalid(format!("the body must be a JSON object, not {}", kind(&other)))),
            Err(e) => Err(Fault::Invalid(format!("the body is not JSON: {e}"))),
        }
    }
}

/// The whole of a JSON body.
pub(super) async fn read_body(body: Body) -> Outcome<Bytes> {
    let collected = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let collected = collected.map_err(|e| match e.downcast::<http_body_util::LengthLimitError>() {
        Ok(_) => Fault::TooLarge(format!("the body is over {BODY_BYTES_MAX} bytes")),
        Err(e) => Fault::Invalid(format!("the body could not be read: {e}")),
    })?;
    Ok(collected.to_bytes())
}

impl Fields {
    /// From a value, for tests and nested objects.
    fn nested(prefix: String, map: Map<String, Value>) -> Self {
        Self { prefix, map, noted: Vec::new() }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        #[cfg(test)]
        asked::note(&self.prefix, name);
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A field has a value that it cannot have.
    pub(super) fn wrong(&self, name: &str, value: &Value, rule: &str) -> Fault {
        let mut shown: String = value.to_string().chars().take(100).collect();
        if shown.len() < value.to_string().len() {
            shown.push('…');
        }
        Fault::Invalid(format!("field `{}{name}` is {shown}: {rule}", self.prefix))
    }

    /// A text.
    pub(crate) fn text(&mut self, name: &str) -> Outcome<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            // PostgreSQL cannot keep it.
            Some(Value::String(text)) if text.contains('\0') => {
                Err(self.wrong(name, &Value::String(text), "it must not hold the character NUL"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, &other, "it must be a text")),
        }
    }

    /// A text that must be there and may be a name.
    pub(crate) fn name(&mut self, name: &str) -> Outcome<String> {
        self.name_or(name)?.ok_or_else(|| {
            Fault::Invalid(format!(
                "field `{}{name}` is missing: it must be a text that is not empty",
                self.prefix
            ))
        })
    }

    /// The name of a user or team that is to be: a part of paths and of keys, so of few characters, none of which
    /// looks like another.
    pub(crate) fn username(&mut self, name: &str) -> Outcome<String> {
        let text = self.name(name)?;
        let is_fine = text.len() <= USERNAME_BYTES_MAX
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._@+-".contains(c));
        if is_fine {
            return Ok(text);
        }
        let rule = format!(
            "it must have 1 to {USERNAME_BYTES_MAX} of the characters `a-z`, `A-Z`, `0-9`, `.`, `_`, `@`, `+`, `-`, \
             the first a letter or digit"
        );
        Err(self.wrong(name, &Value::String(text), &rule))
    }

    /// A text that may be a name, where it is there.
    pub(crate) fn name_or(&mut self, name: &str) -> Outcome<Option<String>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let is_fine = !text.trim().is_empty()
            && text.chars().count() <= NAME_CHARS_MAX
            && !names::hides_something(&text);
        if is_fine {
            Ok(Some(text))
        } else {
            let rule = format!(
                "it must have 1 to {NAME_CHARS_MAX} characters, none of them a control character or one that is not shown"
            );
            Err(self.wrong(name, &Value::String(text), &rule))
        }
    }

    /// A relative path below some root, or ''.
    pub(crate) fn path(&mut self, name: &str) -> Outcome<String> {
        let text = self.text(name)?.unwrap_or_default();
        if text.is_empty() {
            return Ok(text);
        }
        match super::files::checked_path(&text) {
            Some(path) => Ok(path.display().to_string()),
            None => Err(self.wrong(
                name,
                &Value::String(text),
                "it must be a path below the project, without `..` and not beginning with `/`",
            )),
        }
    }

    /// A whole number within bounds; as text too.
    pub(crate) fn integer(&mut self, name: &str, min: i64, max: i64) -> Outcome<Option<i64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = match &value {
            Value::Number(n) => {
                n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64))
            }
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(name, &value, &format!("it must be a whole number from {min} to {max}"))),
        }
    }

    /// A number of thousandths, given as a decimal number above 0 up to `max`; as text too. 0 and '' are absent.
    pub(crate) fn decimal(&mut self, name: &str, max: f64) -> Outcome<Option<f64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = match &value {
            Value::Number(n) => n.as_f64(),
            Value::String(text) if text.trim().is_empty() => Some(0.0),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(0.0) => Ok(None),
            Some(number) if number > 0.0 && number <= max => Ok(Some(number)),
            _ => Err(self.wrong(name, &value, &format!("it must be a number above 0, at most {max}"))),
        }
    }

    /// True or false; as text too.
    pub(crate) fn flag(&mut self, name: &str) -> Outcome<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(other) => Err(self.wrong(name, &other, "it must be true or false")),
        }
    }

    /// One of some words; '' is absent.
    pub(crate) fn word<T>(
        &mut self,
        name: &str,
        words: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Outcome<Option<T>> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        match parse(&text) {
            Some(word) => Ok(Some(word)),
            None => Err(self.wrong(name, &Value::String(text), &format!("it must be one of {words}"))),
        }
    }

    /// Texts.
    pub(crate) fn texts(&mut self, name: &str) -> Outcome<Vec<String>> {
        let Some(value) = self.take(name) else { return Ok(Vec::new()) };
        let texts = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        texts.ok_or_else(|| self.wrong(name, &value, "it must be a list of texts"))
    }

    /// Variables: an object, or one as JSON text. Answers the JSON text that is kept.
    pub(crate) fn environment(&mut self, name: &str) -> Outcome<Option<String>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let object = match &value {
            Value::Object(object) => Some(object.clone()),
            Value::String(text) if text.trim().is_empty() => Some(Map::new()),
            Value::String(text) => serde_json::from_str(text).ok(),
            _ => None,
        };
        let Some(object) = object else {
            return Err(self.wrong(name, &value, "it must be an object of variables, or one as JSON text"));
        };
        let mut kept = Map::new();
        for (key, value) in object {
            let text = match value {
                Value::String(text) => text,
                Value::Null => String::new(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => {
                    return Err(self.wrong(name, &value, "the value of a variable must be a text"));
                }
            };
            if key.is_empty() || key.contains(['=', '\0']) || text.contains('\0') {
                return Err(self.wrong(
                    name,
                    &Value::String(key),
                    "the name of a variable must not be empty nor contain `=` or NUL",
                ));
            }
            kept.insert(key, Value::String(text));
        }
        Ok(Some(Value::Object(kept).to_string()))
    }

    /// A JSON value: as it is, or as JSON text. Answers the JSON text that is kept, '' when absent.
    pub(crate) fn json(&mut self, name: &str) -> String {
        match self.take(name) {
            None => String::new(),
            Some(Value::String(text)) if text.is_empty() => text,
            Some(Value::String(text)) if serde_json::from_str::<Value>(&text).is_ok() => text,
            Some(other) => other.to_string(),
        }
    }

    /// Whether the field says something.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// A nested object.
    pub(crate) fn object(&mut self, name: &str) -> Outcome<Option<Fields>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self::nested(format!("{}{name}.", self.prefix), map))),
            Some(other) => Err(self.wrong(name, &other, "it must be an object")),
        }
    }

    /// Fields that are known and mean nothing here.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            #[cfg(test)]
            asked::note(&self.prefix, name);
            self.map.remove(*name);
        }
    }

    /// Takes note of what nobody asked for in a nested object.
    pub(crate) fn note(&mut self, unknown: Vec<String>) {
        self.noted.extend(unknown);
    }

    /// Names of what nobody asked for.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let own = self.map.keys().map(|name| format!("{}{name}", self.prefix));
        own.chain(self.noted.iter().cloned()).collect()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// For tests: which fields were asked for, to be compared with the document.
#[cfg(test)]
pub(crate) mod asked {
    use std::cell::RefCell;

    thread_local! {
        // A test's runtime has one thread.
        static NAMES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn note(prefix: &str, name: &str) {
        NAMES.with_borrow_mut(|names| names.push(format!("{prefix}{name}")));
    }

    /// What was asked for since the last time.
    pub(crate) fn take() -> Vec<String> {
        NAMES.take()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn fields(value: Value) -> Fields {
        let Value::Object(map) = value else { panic!("an object") };
        Fields::nested(String::new(), map)
    }

    #[test]
    fn numbers_are_taken_as_text_too() {
        let mut body = fields(json!({"cpu": "2", "memory": 0.5, "replicas": "3", "gpus": 1.0, "off": ""}));
        assert_eq!(body.decimal("cpu", 64.0).unwrap(), Some(2.0));
        assert_eq!(body.decimal("memory", 64.0).unwrap(), Some(0.5));
        assert_eq!(body.integer("replicas", 1, 9).unwrap(), Some(3));
        assert_eq!(body.integer("gpus", 0, 9).unwrap(), Some(1));
        assert_eq!(body.decimal("off", 1.0).unwrap(), None);
        assert!(body.unknown().is_empty());
    }

    #[test]
    fn a_wrong_value_is_named_with_its_field_and_the_rule() {
        let mut body = fields(json!({"replicas": 12, "cpu": "many", "name": "a\nb", "file_path": "../x"}));
        let message = |fault: Fault| fault.to_string();
        assert_eq!(
            message(body.integer("replicas", 1, 9).unwrap_err()),
            "field `replicas` is 12: it must be a whole number from 1 to 9"
        );
        assert!(message(body.decimal("cpu", 4.0).unwrap_err()).contains("field `cpu` is \"many\""));
        assert!(message(body.name("name").unwrap_err()).contains("control character"));
        assert!(message(body.path("file_path").unwrap_err()).contains("without `..`"));
        assert!(message(body.name("name").unwrap_err()).contains("is missing"));
    }

    #[test]
    fn environments_are_objects_or_text_of_one() {
        let mut body =
            fields(json!({"a": {"X": "1", "N": 2}, "b": "{\"Y\":\"z\"}", "c": "[1]", "d": {"A=B": "x"}}));
        assert_eq!(body.environment("a").unwrap().unwrap(), r#"{"N":"2","X":"1"}"#);
        assert_eq!(body.environment("b").unwrap().unwrap(), r#"{"Y":"z"}"#);
        assert!(body.environment("c").is_err());
        assert!(body.environment("d").is_err());
    }

    #[test]
    fn nested_unknown_fields_carry_their_path() {
        let mut body = fields(json!({"config": {"colour": 1}}));
        assert_eq!(body.object("config").unwrap().unwrap().unknown(), ["config.colour"]);
    }
}
