//! `millgate key`.

use serde_json::json;

use super::lookup::text;
use crate::{
    args::{Global, Key},
    client::Client,
    failure::Failure,
};

/// `millgate key create`.
pub(crate) fn key(global: &Global, command: &Key) -> Result<(), Failure> {
    let Key::Create { user, expires, comment } = command;
    let client = Client::open(global)?;
    let user = match user {
        Some(user) => user.clone(),
        None => client.key_owner()?,
    };
    let mut body = json!({"username": user, "comments": comment, "audiences": ["API"]});
    if let Some(date) = expires {
        // A bare date is its last second, as people mean it.
        body["expiry_date"] = if date.len() == 10 { json!(format!("{date}T23:59:59Z")) } else { json!(date) };
    }
    let path = format!("/api/v2/users/{}/v2_keys", crate::client::percent_encode(&user));
    let key = client.post(&path, &body)?;
    if global.json {
        println!("{key}");
    } else {
        println!("{}", text(&key["api_key"]));
        eprintln!(
            "Key {} of `{user}` ends {}. It is not shown again.",
            text(&key["key_id"]),
            text(&key["expiry_date"])
        );
    }
    Ok(())
}
