//! `millgate access-key`.

use serde_json::json;

use super::lookup::{self, text};
use crate::{
    args::{AccessKey, Global},
    client::Client,
    failure::Failure,
};

/// `millgate access-key regenerate`: prints the new key; calls with the old one are refused from now on.
pub(crate) fn access_key(global: &Global, command: &AccessKey) -> Result<(), Failure> {
    let AccessKey::Regenerate { model } = command;
    let client = Client::open(global)?;
    let found = lookup::model(&client, model)?;
    let model = client.post(&format!("{}:regenerate_access_key", found.path), &json!({}))?;
    if global.json {
        println!("{model}");
    } else {
        println!("{}", text(&model["access_key"]));
        eprintln!("Model `{}` is called by this key; the old one is refused.", found.name());
    }
    Ok(())
}
