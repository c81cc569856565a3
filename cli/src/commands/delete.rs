//! `millgate delete`.

use super::lookup;
use crate::{args::Global, client::Client, failure::Failure};

/// Stops and deletes a model with its builds.
pub(crate) fn delete(global: &Global, name: &str) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, name)?;
    let answer = client.delete(&found.path)?;
    if global.json {
        println!("{answer}");
    } else {
        println!("Model `{name}` is deleted.");
    }
    Ok(())
}
