//! `millgate key`.

use serde_json::json;

use super::lookup::text;
use crate::{
    args::{Global, Key, KeyCreate, KeyDelete},
    client::{Client, percent_encode},
    failure::Failure,
    terminal,
};

/// `millgate key …`.
pub(crate) fn key(global: &Global, command: &Key) -> Result<(), Failure> {
    let client = Client::open(global)?;
    match command {
        Key::Create(args) => create(global, &client, args),
        Key::List { user } => list(global, &client, user.as_deref()),
        Key::Delete(args) => delete(global, &client, args),
    }
}

/// Whose keys, and where they are.
fn keys_of(client: &Client, user: Option<&str>) -> Result<(String, String), Failure> {
    let user = match user {
        Some(user) => user.to_owned(),
        None => client.key_owner()?,
    };
    let path = format!("/api/v2/users/{}/v2_keys", percent_encode(&user));
    Ok((user, path))
}

fn create(global: &Global, client: &Client, args: &KeyCreate) -> Result<(), Failure> {
    let (user, path) = keys_of(client, args.user.as_deref())?;
    let mut body = json!({"username": user, "comments": args.comment, "audiences": ["API"]});
    if let Some(date) = &args.expires {
        // A bare date is its last second, as people mean it.
        body["expiry_date"] = if date.len() == 10 { json!(format!("{date}T23:59:59Z")) } else { json!(date) };
    }
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

fn list(global: &Global, client: &Client, user: Option<&str>) -> Result<(), Failure> {
    let (user, path) = keys_of(client, user)?;
    let answer = client.get(&path)?;
    if global.json {
        println!("{answer}");
        return Ok(());
    }
    let keys = answer["keys"].as_array().cloned().unwrap_or_default();
    if keys.is_empty() {
        println!("`{user}` has no keys. `millgate key create` makes one.");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            let audiences: Vec<&str> = key["audiences"].as_array().into_iter().flatten().map(text).collect();
            vec![
                text(&key["key_id"]).to_owned(),
                audiences.join(","),
                text(&key["created_at"]).to_owned(),
                text(&key["expiry_date"]).to_owned(),
                text(&key["comments"]).to_owned(),
            ]
        })
        .collect();
    println!("{}", terminal::table(&["KEY", "AUDIENCES", "CREATED", "ENDS", "COMMENT"], &rows));
    Ok(())
}

fn delete(global: &Global, client: &Client, args: &KeyDelete) -> Result<(), Failure> {
    let (user, path) = keys_of(client, args.user.as_deref())?;
    let (path, what) = match &args.key_id {
        Some(id) => (format!("{path}/{}", percent_encode(id)), format!("Key {id} of `{user}` is deleted.")),
        None => (path, format!("All keys of `{user}` are deleted.")),
    };
    let answer = client.delete(&path)?;
    if global.json {
        println!("{answer}");
    } else {
        println!("{what}");
    }
    Ok(())
}
