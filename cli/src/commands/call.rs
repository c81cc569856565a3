//! `millgate call` and `millgate test`: one call of a model, with a given request or with its example.

use serde_json::Value;

use super::lookup::{self, text};
use crate::{
    args::Global,
    client::Client,
    failure::{Context, Failure},
};

/// `millgate call MODEL JSON`.
pub(crate) fn call(global: &Global, name: &str, request: &str) -> Result<(), Failure> {
    let request: Value = serde_json::from_str(request).map_err(|cause| {
        Failure::usage(format!("the request is not JSON: {cause}"))
            .hint(r#"quote it, as in millgate call add '{"a": 3, "b": 5}'"#)
    })?;
    let client = Client::open(global)?;
    let found = lookup::model(&client, name)?;
    let envelope = answer(&client, found.access_key()?, &request)?;
    if global.json {
        println!("{envelope}");
    } else {
        println!("{}", envelope["response"]);
    }
    Ok(())
}

/// `millgate test MODEL`.
pub(crate) fn test(global: &Global, name: &str) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, name)?;
    let built = found.builds(&client)?.into_iter().rev().find(|b| text(&b["status"]) == "built");
    let build = built.ok_or_else(|| Failure::new(format!("model `{name}` has no build that is `built`")))?;
    let request = example(&build, "example_request")?.ok_or_else(|| {
        Failure::new(format!("the newest build of `{name}` has no example"))
            .hint("deploy it with `--example JSON`")
    })?;
    let envelope = answer(&client, found.access_key()?, &request)?;
    if global.json {
        println!("{envelope}");
    } else {
        println!("{request} → {}", envelope["response"]);
    }
    match example(&build, "example_response")? {
        Some(expected) if expected != envelope["response"] => {
            Err(Failure::new(format!("the answer differs from the one at the build, {expected}")))
        }
        _ => Ok(()),
    }
}

/// A field that holds JSON as text, empty when there is none.
fn example(build: &Value, field: &str) -> Result<Option<Value>, Failure> {
    match text(&build[field]) {
        "" => Ok(None),
        json => {
            serde_json::from_str(json).map(Some).context(format_args!("the build's `{field}` is not JSON"))
        }
    }
}

/// The envelope of a successful call; the error of any other as a failure.
fn answer(client: &Client, access_key: &str, request: &Value) -> Result<Value, Failure> {
    let answer = client.call(access_key, request)?;
    let envelope: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
    if envelope["success"] == Value::Bool(true) {
        return Ok(envelope);
    }
    let said = envelope["error"]["message"].as_str().unwrap_or(&answer.body);
    Err(Failure::new(format!("{} {}: {said}", answer.status, text(&envelope["error"]["code"]))))
}
